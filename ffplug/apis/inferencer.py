"""Optical flow of pictures, folders, globs and videos with any flow model of any plugin."""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ffplug.apis.run_folder import resolve_run
from ffplug.apis.sources import Frame, FramePair, FrameSequence, OnError, find_sequences
from ffplug.apis.video import VideoFrames
from ffplug.datasets.formats import write_flow, write_image
from ffplug.errors import CheckpointError, ConfigError, DataError, FFPlugError, did_you_mean
from ffplug.models.cost import available_memory
from ffplug.models.estimator import RecurrentFlowEstimator
from ffplug.models.parts import VideoMemory, map_tensors
from ffplug.models.tiling import TiledFlowInference
from ffplug.ops import forward_warp_flow
from ffplug.visualization import flow_norm, flow_to_image

logger = logging.getLogger(__name__)

DTYPES = {
    "float32": torch.float32,
    "fp32": torch.float32,
    "float16": torch.float16,
    "half": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
}
DEFAULT_MODEL = "raft_large"
DEFAULT_TILE = (432, 960)


@dataclass(frozen=True)
class FlowResult:
    """The flow of one frame pair.

    Attributes:
        flow: H×W×2 float32, pixels, x right and y down, from frame 1 to frame 2.
        image1: first frame, H×W×3, RGB in 0..255.
        image2: second frame.
        name: of the pair within the inputs, with ``/`` between folders; fit for a file name without suffix.
        sequence: name of its sequence, empty for a single one.
        index: position in that sequence.
        paths: files of the two frames, None for frames from memory or a video.
        further: other flows that the model gives, such as ``head_flow``, by name, as ``flow``.
    """

    flow: np.ndarray
    image1: np.ndarray
    image2: np.ndarray
    name: str
    sequence: str
    index: int
    paths: tuple[str | None, str | None]
    further: Mapping[str, np.ndarray] = field(default_factory=dict)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the flow; the suffix names the format (.flo, .png of KITTI, .pfm, .flo5, .npy, .npz of VIPER).

        Further flows are written beside it, their name behind that of the file: ``a.flo``, ``a_head_flow.flo``.
        """
        write_flow(path, self.flow)
        for name, flow in self.further.items():
            write_flow(_beside(path, name), flow)

    def picture(self, max_flow: float | None = None) -> np.ndarray:
        """Return the flow in the colours of the Middlebury wheel, H×W×3 uint8.

        Args:
            max_flow: length in pixels that gets full colour, or None for the longest.
        """
        return flow_to_image(self.flow, self._scale(max_flow))

    def further_pictures(self, max_flow: float | None = None) -> dict[str, np.ndarray]:
        """Return the further flows by name, coloured as :meth:`picture` is, with its scale."""
        return {name: flow_to_image(flow, self._scale(max_flow)) for name, flow in self.further.items()}

    def _scale(self, max_flow: float | None) -> float:
        return flow_norm(self.flow) if max_flow is None else max_flow

    def side_by_side(self, max_flow: float | None = None) -> np.ndarray:
        """Return frame 1, frame 2, the coloured flow and further ones beside each other, uint8 RGB."""
        flows = [self.picture(max_flow), *self.further_pictures(max_flow).values()]
        return np.concatenate([_to_uint8(self.image1), _to_uint8(self.image2), *flows], axis=1)

    def show(self, path: str | os.PathLike[str], max_flow: float | None = None) -> None:
        """Write :meth:`picture` to a file, and :meth:`further_pictures` beside it, named as :meth:`write` does."""
        write_image(path, self.picture(max_flow))
        for name, picture in self.further_pictures(max_flow).items():
            write_image(_beside(path, name), picture)


class FlowInferencer:
    """Runs a flow model over pictures and videos, with constant memory.

    Args:
        model: a model's or recipe's name, a config file, a loaded config, a training's work folder, or a built module
            with ``predict_flow``. None takes the config in or beside the checkpoint, or else ``raft_large``.
        checkpoint: weights: of FFPlug (.safetensors, a training's .pth, or its work folder), or of a public
            implementation, which are converted while loading.
        source: name of the converter for a public checkpoint; None finds it.
        device: such as ``'cuda:0'``; None takes the GPU if there is one.
        dtype: ``'float32'``, ``'float16'`` or ``'bfloat16'``: the precision of the network under autocast.
        iterations: of a recurrent model; None for its own number.
        tile: (height, width) of tiles for large frames; ``'auto'`` for tiles only where whole frames would not fit;
            ``'none'`` for whole frames always; None for what the model's config says.
        warm_start: start each pair of a sequence from the flow of the pair before, carried along itself (RAFT, ECCV
            2020, section 4.5). Needs ``batch_size=1``.
        batch_size: pairs that go through the network together.
        random_weights: allow a model without weights, whose results mean nothing.
        compile: run the network through ``torch.compile``, once for each size of frames: a minute or two at first, less
            time for each pair; on a GPU with CUDA graphs. A string names another backend than torch's default.

    Attributes:
        seconds: where the time went so far: ``frames`` (reading) and ``network``; and the parts of reading that a
            video's reader tells.

    Raises:
        CheckpointError: no weights, or weights that do not fit.
        ConfigError: an argument is wrong.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Mapping[str, Any] | nn.Module | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        *,
        source: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        iterations: int | None = None,
        tile: Sequence[int] | str | None = None,
        warm_start: bool = False,
        batch_size: int = 1,
        random_weights: bool = False,
        compile: bool | str = False,
    ) -> None:
        if iterations is not None and iterations < 1:
            raise ConfigError(f"iterations={iterations}: expected 1 or more")
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: expected 1 or more")
        if warm_start and batch_size > 1:
            raise ConfigError("warm_start needs each pair's result before the next: use batch_size=1")
        self.device = parse_device(device)
        self.dtype = parse_dtype(dtype)
        self.iterations = iterations
        self.warm_start = warm_start
        self.batch_size = batch_size
        self.seconds: Counter[str] = Counter(frames=0.0, network=0.0)
        self.model = self._build(model, checkpoint, source, random_weights).to(self.device).eval()
        self._set_tile(tile)
        self._compiled = bool(compile)
        if compile:
            self._compile("inductor" if compile is True else compile)

    def _compile(self, backend: str) -> None:
        if not isinstance(self.model, RecurrentFlowEstimator):
            raise ConfigError(f"compile: {type(self.model).__name__} is no recurrent flow estimator")
        graphs = backend == "inductor" and self.device.type == "cuda"
        options = {"mode": "reduce-overhead"} if graphs else {}
        self.model.run = torch.compile(self.model.run, backend=backend, dynamic=False, **options)

    @staticmethod
    def _build(
        model: str | os.PathLike[str] | Mapping[str, Any] | nn.Module | None,
        checkpoint: str | os.PathLike[str] | None,
        source: str | None,
        random_weights: bool,
    ) -> nn.Module:
        from ffplug.apis.models import build_model, load_weights

        if isinstance(model, nn.Module):
            if checkpoint is not None:
                load_weights(model, resolve_run(None, checkpoint)[1], source)
            built = model
        else:
            name, weights = find_model(model, checkpoint, random_weights)
            built = build_model(name)
            if weights is not None:
                load_weights(built, weights, source)
            else:
                logger.warning("random weights: the flow means nothing")
        if not hasattr(built, "predict_flow"):
            raise ConfigError(f"{type(built).__name__} has no predict_flow: it is no optical-flow model")
        return built

    def _set_tile(self, tile: Sequence[int] | str | None) -> None:
        """Decide who makes tiles: the model as configured (None), or this inferencer."""
        self._tiles: TiledFlowInference | None = None
        self._auto = tile == "auto"
        self._fitting: dict[torch.Size, bool] = {}
        if tile is None:
            return
        own = getattr(self.model, "tile", None)
        if own is not None:
            self.model.tile = None
        if self._auto:
            self._tiles = own or TiledFlowInference(DEFAULT_TILE)
        elif not isinstance(tile, str):
            self._tiles = TiledFlowInference(tuple(tile))
        elif tile != "none":
            raise ConfigError(f"tile={tile!r}: expected (height, width), 'auto', 'none' or None")
        if self.warm_start and self._tiles is not None:
            self._check_grid(self._tiles.size)

    def _check_grid(self, size: tuple[int, int]) -> None:
        """A tile that the model would pad has another working grid than the part of the frame that it covers."""
        multiple = getattr(self.model, "size_multiple", 8)
        minimum = getattr(getattr(self.model, "data_preprocessor", None), "minimum", 0)
        if any(side % multiple or side < minimum for side in size):
            raise ConfigError(
                f"tile={size}: a warm start needs sides that are multiples of {multiple} and at least {minimum} pixels"
            )

    def __call__(self, inputs: Any) -> Iterator[FlowResult]:
        """Yield the flow of each pair of successive frames, as it is ready.

        Args:
            inputs: a folder of pictures (one sequence) or of folders of pictures (one sequence each); a glob; a
                video; a list or iterator of frames (paths, H×W×3 arrays or 3×H×W tensors, RGB in 0..255); or a list of
                any of these. So ``[a, b]`` is one pair and ``[(a, b), (c, d)]`` are two.

        Raises:
            DataError: an input is missing, damaged or of another size than its neighbour; what came before it has been
                yielded by then.
        """
        yield from self.run(find_sequences(inputs))

    def run(self, sequences: Iterable[FrameSequence], on_error: OnError | None = None) -> Iterator[FlowResult]:
        """Yield the flow of each pair of the sequences.

        Args:
            sequences: as :func:`~ffplug.apis.sources.find_sequences` gives them.
            on_error: is told each pair whose frames cannot be read or do not fit into memory, and the others follow;
                None raises the error instead.

        Raises:
            DataError: as told, without ``on_error``; what came before has been yielded by then.
        """
        batch: list[FramePair] = []
        for sequence in map(self.opened, sequences):
            pairs = sequence.pairs(on_error)
            low: Tensor | dict[str, Tensor] | None = None
            video: VideoMemory | None = None
            following = -1
            while True:
                begun = time.perf_counter()
                try:
                    pair = next(pairs, None)
                except FFPlugError:
                    yield from self._run(batch)[0]
                    raise
                self.seconds["frames"] += time.perf_counter() - begun
                if pair is None:
                    self.seconds.update(getattr(sequence.frames, "seconds", {}))
                    break
                if pair.index != following:
                    low = None
                    # Successive pairs share a frame; tiles and batches are cut otherwise.
                    video = VideoMemory() if self._shares_frames() else None
                following = pair.index + 1
                if batch and batch[0].image1.shape != pair.image1.shape:
                    yield from self._try(batch, on_error)[0]
                    batch = []
                batch.append(pair)
                if len(batch) == self.batch_size:
                    start = map_tensors(low, forward_warp_flow) if self.warm_start else None
                    results, low = self._try(batch, on_error, start, video)
                    following = following if results else -1
                    batch = []
                    yield from results
        yield from self._try(batch, on_error)[0]

    def _try(
        self, pairs: list[FramePair], on_error: OnError | None, *memory: Any
    ) -> tuple[list[FlowResult], Tensor | dict[str, Tensor] | None]:
        """As :meth:`_run`, with the pairs handed to ``on_error`` where they fail."""
        try:
            return self._run(pairs, *memory)
        except DataError as error:
            if on_error is None:
                raise
            for pair in pairs:
                on_error(pair.name, error)
            return [], None

    def opened(self, sequence: FrameSequence) -> FrameSequence:
        """The sequence, its video (if it is one) opened as the model wants it: with motion vectors, say."""
        if type(sequence.frames) is not VideoFrames or not hasattr(self.model, "open_video"):
            return sequence
        reader = self.model.open_video(os.fspath(sequence.frames.path))
        return sequence if reader is None else replace(sequence, frames=reader)

    def predict(self, image1: Frame, image2: Frame) -> FlowResult:
        """Return the flow of one pair of frames (paths, arrays or tensors)."""
        return next(iter(self([image1, image2])))

    def _shares_frames(self) -> bool:
        return (
            self.batch_size == 1
            and not self._compiled
            and self._tiles is None
            and getattr(self.model, "tile", None) is None
            and "video" in inspect.signature(self.model.predict_flow).parameters
        )

    def _run(
        self,
        pairs: list[FramePair],
        start: Tensor | dict[str, Tensor] | None = None,
        video: VideoMemory | None = None,
    ) -> tuple[list[FlowResult], Tensor | dict[str, Tensor] | None]:
        """Results of a batch of pairs of one size, and the low-resolution flows of all decoders for a warm start."""
        if not pairs:
            return [], None
        begun = time.perf_counter()
        frames = (self._stack([getattr(pair, key) for pair in pairs]) for key in ("image1", "image2"))
        names = set.intersection(*(set(pair.inputs) for pair in pairs))
        inputs = {name: self._to_device([pair.inputs[name] for pair in pairs]) for name in sorted(names)}
        outputs = self._predict(*frames, start, video, inputs)
        low = outputs.get("flow_low")
        others = [name for name in outputs if name.endswith("_flow_low")]
        if others:
            low = {"": low, **{name.removesuffix("_flow_low"): outputs[name] for name in others}}
        if self._compiled:
            low = map_tensors(low, torch.clone)  # the next replay of a CUDA graph writes over its results
        if self.warm_start and low is None:
            raise ConfigError(f"{type(self.model).__name__} gives no low-resolution flow, so it has no warm start")
        every = {
            name: flow.float().movedim(1, -1).cpu().numpy() for name, flow in outputs.items() if name.endswith("flow")
        }
        self.seconds["network"] += time.perf_counter() - begun
        flows = every.pop("flow")
        for pair, flow in zip(pairs, flows, strict=True):
            if not np.isfinite(flow).all():
                logger.warning("%s: the flow holds NaN or infinity; try dtype='float32'", pair.name)
        results = [
            FlowResult(
                flow,
                pair.image1,
                pair.image2,
                pair.name,
                pair.sequence,
                pair.index,
                pair.paths,
                {name: further[index] for name, further in every.items()},
            )
            for index, (pair, flow) in enumerate(zip(pairs, flows, strict=True))
        ]
        return results, low

    def _to_device(self, arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(arrays)).to(self.device)

    def _stack(self, images: list[np.ndarray]) -> Tensor:
        return self._to_device(images).movedim(-1, 1).float().contiguous()

    @torch.inference_mode()
    def _predict(
        self,
        image1: Tensor,
        image2: Tensor,
        start: Tensor | dict[str, Tensor] | None,
        video: VideoMemory | None,
        inputs: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        options: dict[str, Any] = {"iterations": self.iterations, "flow_init": start}
        if inputs:
            options["inputs"] = inputs
        if video is not None:
            options["video"] = video
        half = self.dtype != torch.float32
        autocast = torch.autocast(self.device.type, self.dtype) if half else contextlib.nullcontext()
        try:
            with autocast:
                if self._tiles is not None and not (self._auto and self._fits(image1)):
                    return self._tiles(self.model.predict_flow, image1, image2, **options)
                return self.model.predict_flow(image1, image2, **options)
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            size = f"{image1.shape[-2]}×{image1.shape[-1]}"
            raise DataError(
                f"not enough memory on {self.device} for {len(image1)} pair(s) of {size}: use tiles "
                "(tile=(432, 960), --tile 432x960), a smaller batch or half precision"
            ) from error

    def _fits(self, image: Tensor) -> bool:
        """Whether whole frames can be expected to fit into half of the free memory; decided once for each size."""
        if image.shape not in self._fitting:
            self._fitting[image.shape] = self._estimate(image)
        return self._fitting[image.shape]

    def _estimate(self, image: Tensor) -> bool:
        count, _, height, width = image.shape
        encoders = (getattr(self.model, name, None) for name in ("encoder", "context_encoder"))
        limit = min((part.max_size for part in encoders if getattr(part, "max_size", None)), default=None)
        free = available_memory(self.device)
        # All pairs of cells of a grid of 1/8, float32, with the pyramid and as much again in passing.
        needed = 11 * count * (height * width / 64) ** 2 if getattr(self.model, "quadratic", True) else 0
        fits = (limit is None or max(height, width) <= limit) and (free is None or needed < free / 2)
        if not fits:
            logger.info("frames of %d×%d run in tiles of %s", height, width, self._tiles.size)
        return fits


def find_model(
    model: str | os.PathLike[str] | Mapping[str, Any] | None,
    checkpoint: str | os.PathLike[str] | None,
    random_weights: bool,
) -> tuple[str | os.PathLike[str] | Mapping[str, Any], Path | None]:
    """Return what :func:`ffplug.build_model` takes, and the file of the weights.

    Args:
        model: as for :class:`FlowInferencer`, but no built module.
        checkpoint: as there.
        random_weights: allow a model without weights, whose file is None.

    Raises:
        CheckpointError: no weights.
        ConfigError: a work folder without a config.
    """
    name, weights = resolve_run(model, checkpoint)
    name = DEFAULT_MODEL if name is None else name
    if weights is None and not random_weights:
        raise CheckpointError(missing_weights(name))
    return name, weights


def missing_weights(model: Any) -> str:
    """Say that a model needs weights, where they are and how to give them."""
    from ffplug.apis.weights import known_weights

    name = model if isinstance(model, str | os.PathLike) else "this model"
    wanted = str(name).replace("-", "_")
    public = next((weights for weights in known_weights().values() if wanted in weights.models), None)
    where = f" `ffplug weights pull {public.name}` gets public ones, as {public.path}." if public else ""
    return (
        f"{name}: no checkpoint, and random weights give noise. Pass checkpoint=FILE (--checkpoint FILE): one of your "
        f"trainings, a .safetensors, or public weights, which are converted while loading.{where} "
        "To run all the same: random_weights=True (--random-weights)"
    )


def parse_device(device: str | torch.device | None) -> torch.device:
    """A device that can be used here, from its name; None takes the GPU if there is one."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device={str(device)!r} cannot be used here ({reason}); 'cpu' always can") from error
    return found


def parse_dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    """A floating-point type from its name; None is float32."""
    if dtype is None:
        return torch.float32
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    if dtype in DTYPES.values():
        return dtype
    raise ConfigError(f"dtype={str(dtype)!r}: expected one of {', '.join(DTYPES)}{did_you_mean(str(dtype), DTYPES)}")


def _beside(path: str | os.PathLike[str], name: str) -> Path:
    path = Path(path)
    return path.with_name(f"{path.stem}_{name}{path.suffix}")


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return image if image.dtype == np.uint8 else np.clip(np.rint(image), 0, 255).astype(np.uint8)

"""Space-time supersampling of a running renderer, frame by frame."""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from ffplug.datasets.base import choose
from ffplug.errors import ConfigError, DataError
from ffplug.models.layers import fixed_weights
from ffplug_stss.channels import HISTORY, MASKS, OUTSIDES, SCALE
from ffplug_stss.cuts import CUT, agreement
from ffplug_stss.models.stss import STSS
from ffplug_stss.ops import splat_motion, warp_pack
from ffplug_stss.ops.packing import LINKS
from ffplug_stss.warping import COMPOSITIONS, better_turn, compose

_CHANNELS = {"normal": 3, "depth": 1, "roughness": 1, "metallic": 1, "base_color": 3, "motion": 2, "label": 1}
_RANGES = {"normal": 1.05, "depth": 1.0, "roughness": 1.0, "metallic": 1.0, "base_color": 1.0}
_MOST = 1e5
_BRIGHTEST = 8.0
"""Far above white: whole levels of 0..255, or linear light."""
_MOVES = 0.5
_TRIALS = 4
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class GBuffer:
    """What a renderer knows of a frame before it shades it, at the low resolution; C×H×W float32 each.

    Attributes:
        motion: 2×H×W, from this frame to the one before it (shaded or not), in pixels, x right, y down: what shows at
            ``p`` was at ``p + motion(p)``. :func:`ffplug_stss.warping.from_engine` turns an engine's round.
        normal: world normal 3×H×W, -1..1.
        depth: along the view as a share of the far distance, 1×H×W, 0..1.
        roughness: 1×H×W, 0..1.
        metallic: 1×H×W, 0..1.
        base_color: RGB 3×H×W, 0..1.
        label: number of the object, 1×H×W of any type, or None: then a surface is told by its depth.
    """

    motion: Tensor
    normal: Tensor
    depth: Tensor
    roughness: Tensor
    metallic: Tensor
    base_color: Tensor
    label: Tensor | None = None

    @property
    def feature(self) -> Tensor:
        """The buffers as the network takes them, 1×9×H×W."""
        return torch.cat([self.normal, self.depth, self.roughness, self.metallic, self.base_color])[None].float()

    def check(self, size: tuple[int, int] | None = None) -> tuple[int, int]:
        """Return height and width.

        Args:
            size: what they must be, or None.

        Raises:
            DataError: a buffer has another shape, holds NaN or infinity, or is out of its range.
        """
        if size is None:
            check_image("depth", self.depth, None)
            size = tuple(self.depth.shape[-2:])
        for name, channels in _CHANNELS.items():
            values = getattr(self, name)
            if values is None and name == "label":
                continue
            check_image(name, values, (channels, *size))
            high = _RANGES.get(name)
            if high is not None and bool(((values > high) | (values < (-high if name == "normal" else 0))).any()):
                low = -1 if name == "normal" else 0
                raise DataError(
                    f"{name}: values lie in {float(values.min()):g}..{float(values.max()):g}, expected {low}..1"
                )
        if bool((self.motion.abs() > _MOST).any()):
            raise DataError(f"motion: up to {float(self.motion.abs().max()):g} pixels; expected motion of one frame")
        return size


def check_image(name: str, values: Tensor | None, shape: tuple[int, ...] | None) -> None:
    """Check that a buffer is there, its shape unless that is None, and that all of it is finite.

    Raises:
        DataError: it is not so, or it is no tensor at all; the message names the buffer.
    """
    if not isinstance(values, Tensor):
        found = "missing" if values is None else f"a {type(values).__name__}"
        raise DataError(f"{name}: {found}; expected a tensor C×H×W")
    if shape is not None and tuple(values.shape) != shape:
        raise DataError(f"{name}: {'×'.join(map(str, values.shape))}, expected {'×'.join(map(str, shape))}")
    if values.is_floating_point() and not bool(values.isfinite().all()):
        bad = int((~values.isfinite()).sum())
        raise DataError(f"{name}: {bad} values are NaN or infinite; a network would spread them over the frame")


@dataclass
class _Shaded:
    """A shaded frame of the history, 1×C×H×W each, and how many calls ago it was."""

    color: Tensor
    depth: Tensor
    label: Tensor | None
    age: int = 0


class SpaceTimeSupersampler:
    """Doubles the size of shaded frames, and produces frames that were not shaded, from a history that it keeps.

    Call :meth:`push` with each frame that was shaded and :meth:`extrapolate` with the buffers of each that was not, in
    the order of time; motion in the buffers is to the frame of the call before. The history is the last three shaded
    frames. After a cut, and at the start, what is missing of it is the first frame itself, marked invalid.

    A cut is told by the caller (``push(..., cut=True)``), or found: the buffers of a frame disagree with those of the
    call before it (:func:`ffplug_stss.cuts.agreement`). Where the first frame after a cut is one to extrapolate, there
    is nothing to show of it yet: the frames of before are warped as ever, marked invalid, and left out from the next
    shaded one on.

    Args:
        model: the network with its weights, as :func:`ffplug.get_model` gives it.
        compose: how motions are joined, see :func:`ffplug_stss.warping.compose`.
        tolerance: share of its depth by which a surface may differ, where there are no labels.
        outside: what the network gets where nothing was in the frame: ``black``, as the released weights know it, or
            ``repeat``, the frame's border, for networks that were trained so.
        dtype: ``float32``, or ``float16`` or ``bfloat16`` for the network alone; warping stays in float32.
        graph: record the network as a CUDA graph at the first frame of each size, and replay it; needs a GPU.
        check: refuse bad buffers, and vectors that fit the first frames that move better with a sign or the axes
            changed. Each check waits for a GPU; without, buffers are trusted.
        cuts: agreement of buffers, 0..1, below which a frame begins after a cut; None leaves cuts to the caller, and
            spares a GPU another wait.

    Raises:
        ConfigError: an argument is none of the above, or there is no GPU for a graph.
        DataError: from the calls: a buffer that is missing, misshapen, out of its range, NaN or infinite; a frame
            that is to be extrapolated from nothing. The history is then as before the call.
    """

    def __init__(
        self,
        model: STSS,
        compose: str = "exact",
        tolerance: float = 0.05,
        outside: str = "black",
        dtype: str = "float32",
        graph: bool = False,
        check: bool = True,
        cuts: float | None = CUT,
    ) -> None:
        choose("compose", compose, COMPOSITIONS)
        choose("outside", outside, OUTSIDES)
        if cuts is not None and not 0 <= cuts <= 1:
            raise ConfigError(f"cuts={cuts}: expected 0..1, or None")
        self.model = model.eval()
        self.compose = compose
        self.tolerance = tolerance
        self.outside = outside
        self.check = check
        self.cuts = cuts
        self._trials = _TRIALS
        self._network = _Network(self.model, _DTYPES[choose("dtype", dtype, tuple(_DTYPES))], graph)
        self.reset()

    def reset(self) -> None:
        """Forget the history: the next frame is the first."""
        self._history: deque[_Shaded] = deque(maxlen=HISTORY)
        self._motions: list[Tensor] = []
        self._before: GBuffer | None = None
        self._lost = False
        self._found = False

    @property
    def found_cut(self) -> bool:
        """Whether the frame of the last call was found to come after a cut."""
        return self._found

    @torch.inference_mode()
    def push(self, color: Tensor, buffers: GBuffer, cut: bool = False) -> Tensor:
        """Super-sample a shaded frame, and keep it.

        Args:
            color: RGB 3×H×W, display-encoded, not negative; 1 = white.
            buffers: of the same frame; its motion is not read after a cut.
            cut: the camera has jumped: what was before has nothing to do with this frame.

        Returns:
            3×2H×2W, not clamped.
        """
        if self.check:
            size = self._check(buffers, first=cut)
            check_image("color", color, (3, *size))
            low, high = float(color.min()), float(color.max())
            if low < 0 or high > _BRIGHTEST:
                raise DataError(f"color: values lie in {low:g}..{high:g}, expected display-encoded ones, 0..1")
        found = not cut and self._jumped(buffers)
        if cut or found or self._lost:
            self.reset()
        self._step(buffers, found)
        label = None if buffers.label is None else _whole(buffers.label[None])
        depth = buffers.depth[None].float().contiguous()
        self._history.appendleft(_Shaded(color[None].float().contiguous(), depth, label))
        return self._run(buffers)

    @torch.inference_mode()
    def extrapolate(self, buffers: GBuffer) -> Tensor:
        """Produce a frame of which there are buffers alone; arguments and result as of :meth:`push`."""
        if not self._history:
            raise DataError("there is no shaded frame to extrapolate from: call push first, also after a cut")
        if self.check:
            self._check(buffers)
        found = self._jumped(buffers)
        self._lost |= found
        self._step(buffers, found)
        return self._run(buffers)

    def _check(self, buffers: GBuffer, first: bool = False) -> tuple[int, int]:
        known = self._before if not first else None
        size = buffers.check(tuple(known.depth.shape[-2:]) if known is not None else None)
        if known is not None and (known.label is None) != (buffers.label is None):
            raise DataError("label: given with some frames only; give it with all of them or with none")
        if known is not None and self._trials and float(buffers.motion.norm(dim=0).mean()) > _MOVES:
            now = {"image": buffers.base_color[None].float(), "motion": buffers.motion[None].float()}
            turn = better_turn(now, {"image": known.base_color[None].float()})
            if turn is not None:
                raise DataError(f"motion: with {turn}; expected pixels, x right and y down, to the frame before")
            self._trials -= 1
        return size

    def _jumped(self, buffers: GBuffer) -> bool:
        """Whether the buffers have nothing to do with those of the call before."""
        if self.cuts is None or self._before is None:
            return False
        return agreement(buffers, self._before, buffers.motion) < self.cuts

    def _step(self, buffers: GBuffer, found: bool) -> None:
        """Let the history be one frame older."""
        for shaded in self._history:
            shaded.age += 1
        oldest = self._history[-1].age if self._history else 0
        self._motions = [buffers.motion[None].float().contiguous(), *self._motions][:oldest]
        self._before, self._found = buffers, found

    def _run(self, buffers: GBuffer) -> Tensor:
        history = list(self._history)
        motions, steps = self._motions, [shaded.age for shaded in history]
        chained = self.compose == "exact" and steps[-1] <= LINKS
        if not chained:
            motions = [compose(motions[:age], self.compose) for age in steps if age]
            steps = [place + (steps[0] > 0) for place in range(len(steps))]
        label = None if buffers.label is None else _whole(buffers.label[None])
        fetch = None
        if history[0].age == 1:
            fetch = splat_motion(buffers.motion[None].float(), buffers.depth[None].float())
        packed = warp_pack(
            [shaded.color for shaded in history],
            [shaded.depth for shaded in history] if label is None else [],
            [shaded.label for shaded in history] if label is not None else [],
            motions,
            buffers.feature,
            label,
            fetch,
            steps,
            chained,
            self.outside == "repeat",
            self.tolerance,
        )
        if self._lost:
            packed[:, MASKS] = 0
        height, width = (SCALE * side for side in buffers.depth.shape[-2:])
        return self._network(packed)[0, :, :height, :width].float()


def _whole(label: Tensor) -> Tensor:
    """Labels of any type as whole numbers that are equal where they are."""
    if label.is_floating_point():
        return (label.double() + 0.0).contiguous().view(torch.int64)
    return label.to(torch.int64).contiguous()


class _Network:
    """The model in a type of numbers, replayed as a CUDA graph where that is wanted."""

    def __init__(self, model: STSS, dtype: torch.dtype, graph: bool) -> None:
        if graph and not torch.cuda.is_available():
            raise ConfigError("graph=True: there is no GPU; leave it out")
        if dtype != torch.float32:
            model = copy.deepcopy(model).to(dtype)
        self.model, self.dtype, self.graph = model, dtype, graph
        self._recorded: dict[torch.Size, tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def __call__(self, packed: Tensor) -> Tensor:
        packed = packed.to(self.dtype)
        if not self.graph:
            with fixed_weights():
                return self.model(packed, mode="tensor")
        if packed.shape not in self._recorded:
            self._recorded[packed.shape] = self._record(packed)
        graph, inputs, frame = self._recorded[packed.shape]
        inputs.copy_(packed)
        graph.replay()
        return frame.clone()

    def _record(self, packed: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        inputs, graph = packed.clone(), torch.cuda.CUDAGraph()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):  # what is allocated or tuned at first must not be recorded
                self.model(inputs, mode="tensor")
        torch.cuda.current_stream().wait_stream(aside)
        with torch.cuda.graph(graph):
            frame = self.model(inputs, mode="tensor")
        return graph, inputs, frame

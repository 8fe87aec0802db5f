"""The recurrent flow estimator: one loop, whose parts decide which method it is."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ffplug.errors import ConfigError, DataError, did_you_mean
from ffplug.models.export import Channel, ExportCase
from ffplug.models.layers import fixed_weights
from ffplug.models.padding import pad, padding_for, unpad
from ffplug.models.parts import (
    Cost,
    DecoderState,
    Encoded,
    FrameEncoder,
    Lookup,
    Policy,
    Prior,
    Start,
    Update,
    Upsampler,
    VideoMemory,
)
from ffplug.models.tiling import TiledFlowInference
from ffplug.registry import MODELS
from ffplug.structures import FlowDataSample


class RecurrentDecoder(nn.Module):
    """The loop: look-up, update, flow += residual; upsampling where a flow is asked for.

    Args:
        update: the update block.
        upsampler: low-resolution flow to flow in pixels.
        prior: where the first flow comes from, or None for zero.
        policy: which samples run which iteration, or None for all.
        checkpointing: keep no activation of an iteration for the gradient, but run it again there.
    """

    def __init__(
        self,
        update: Update,
        upsampler: Upsampler,
        prior: Prior | None,
        policy: Policy | None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.update = update
        self.upsampler = upsampler
        self.prior = prior
        self.policy = policy

    def start(self, encoded: Encoded, lookup: Lookup, flow_init: Tensor | None) -> Start:
        """What to begin with: what the prior gives, else ``flow_init`` (N×2×h×w, grid cells) or zero flow."""
        if self.prior is not None:
            return self.prior(encoded, lookup, flow_init)
        count, _, height, width = encoded.context.shape
        zero = encoded.image1.new_zeros(count, 2, height, width)
        return Start(zero if flow_init is None else flow_init.to(zero), encoded.context)

    def forward(
        self,
        encoded: Encoded,
        cost_part: Cost,
        cost: Any,
        start: Start,
        prepared: tuple[Tensor, Any],
        iterations: int,
        every: bool,
    ) -> dict[str, Any]:
        """Run the loop.

        Args:
            encoded: what the encoders gave.
            cost_part: the cost part.
            cost: what it prepared for these pairs.
            start: what :meth:`start` gave.
            prepared: hidden state and constant part, as the update block prepared them from its context.
            iterations: number of iterations, at least 1.
            every: upsample after every iteration (training), not after the last alone.

        Returns:
            ``flows``, N×2×H×W in pixels, of every iteration or of the last; ``states`` after the same iterations; with
            ``every``, ``<branch>_flows`` of the policy's branches; without it, ``report``, what the policy reports.
        """
        hidden, constant = prepared
        state = DecoderState(hidden, start.flow, constant, cost, dict(start.memory))
        if self.policy is not None:
            state = self.policy.begin(encoded, state, iterations)

        def step(before: DecoderState) -> DecoderState:
            start = before.flow.detach()
            features = cost_part.lookup(before.cost, start)
            hidden, residual = self.update(before.hidden, features, start, before.constant)
            return dataclasses.replace(before, hidden=hidden, flow=start + residual)

        if self.checkpointing and torch.is_grad_enabled():
            run, step = step, lambda before: checkpoint(run, before, use_reentrant=False)
        flows: list[Tensor] = []
        states: list[DecoderState] = []
        branches: dict[str, list[Tensor]] = {}
        for index in range(iterations):
            state = step(state) if self.policy is None else self.policy.run(step, state, index, iterations)
            if every:
                flows.append(self.upsampler(state.hidden, state.flow))
                states.append(state)
                for name, branch in self.policy.branches(state).items() if self.policy is not None else ():
                    branches.setdefault(f"{name}_flows", []).append(self.upsampler(*branch))
            elif self.policy is not None and self.policy.finished(state):
                break
        if every:
            return {"flows": flows, "states": states, **branches}
        report = self.policy.report(state) if self.policy is not None else {}
        return {"flows": [self.upsampler(state.hidden, state.flow)], "states": [state], "report": report}


@MODELS.register_module()
class RecurrentFlowEstimator(BaseModel):
    """Dense optical flow by recurrent refinement; RAFT, GMA, FlowFormer and their kin are configs of it.

    Args:
        encoder: config or module of the matching features' :class:`~ffplug.models.parts.FrameEncoder`.
        context_encoder: the same for the context of frame 1.
        cost: config or module of the :class:`~ffplug.models.parts.Cost`.
        update: config or module of the :class:`~ffplug.models.parts.Update` block.
        upsampler: config or module of the :class:`~ffplug.models.parts.Upsampler`.
        prior: config or module of the :class:`~ffplug.models.parts.Prior`, or None.
        policy: config or module of the iteration :class:`~ffplug.models.parts.Policy`, or None.
        decoders: further decoders by name, each a dict with ``update``, ``upsampler`` and optionally ``prior`` and
            ``policy``; they share encoders and cost, and run from their own state.
        differences: further flows by name that are the difference of two decoders' flows, given by those decoders'
            names (``""`` is the main one): ``dict(expression=("", "head"))``.
        losses: configs or modules of the :class:`~ffplug.models.parts.FlowLoss` terms.
        iterations: number of iterations in training.
        test_iterations: number in inference, or None for the same.
        freeze_batch_norm: keep batch norm's statistics in training (RAFT, every stage after Chairs).
        frozen: submodules by their dotted names (``"encoder"``, ``"decoder.update"``) that do not train: no gradients,
            and evaluation mode always.
        checkpoint_iterations: in training keep no activation of an iteration, but run it again for the gradient: memory
            of one iteration in place of all, for a third more time.
        tile: arguments of :class:`~ffplug.models.tiling.TiledFlowInference` for prediction in tiles, or None.
        data_preprocessor: config of the preprocessor.
        init_cfg: see MMEngine's ``BaseModule``.

    Raises:
        ConfigError: two parts do not fit together; the message says which and why.

    Example:
        dict(
            type="ffplug.RecurrentFlowEstimator",
            encoder=dict(type="ffplug.ResidualEncoder", norm="instance"),
            context_encoder=dict(type="ffplug.ResidualEncoder", norm="batch"),
            cost=dict(type="ffplug.AllPairsCorrelation"),
            update=dict(type="ffplug.RAFTUpdate"),
            upsampler=dict(type="ffplug.ConvexUpsampler"),
            losses=[dict(type="ffplug.SequenceLoss")],
        )
    """

    def __init__(
        self,
        encoder: dict | FrameEncoder,
        context_encoder: dict | FrameEncoder,
        cost: dict | Cost,
        update: dict | Update,
        upsampler: dict | Upsampler,
        prior: dict | Prior | None = None,
        policy: dict | Policy | None = None,
        decoders: Mapping[str, dict] | None = None,
        differences: Mapping[str, Sequence[str]] | None = None,
        losses: Sequence[dict | nn.Module] = (),
        iterations: int = 12,
        test_iterations: int | None = None,
        freeze_batch_norm: bool = False,
        frozen: Sequence[str] = (),
        checkpoint_iterations: bool = False,
        tile: dict | None = None,
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor or {"type": "ffplug.FlowDataPreprocessor"}, init_cfg)
        self.encoder = _build(encoder)
        self.context_encoder = _build(context_encoder)
        self.cost = _build(cost)
        self.decoder = _build_decoder(checkpoint_iterations, update, upsampler, prior, policy)
        self.decoders = nn.ModuleDict(
            {name: _build_decoder(checkpoint_iterations, **parts) for name, parts in (decoders or {}).items()}
        )
        self.differences = {name: tuple(pair) for name, pair in (differences or {}).items()}
        self.losses = nn.ModuleList(_build(loss) for loss in losses)
        self.iterations = iterations
        self.test_iterations = test_iterations or iterations
        self.freeze_batch_norm = freeze_batch_norm
        self.frozen = tuple(frozen)
        self.tile = TiledFlowInference(**{"stride": self.encoder.stride, **tile}) if tile else None
        self.size_multiple = math.lcm(self.encoder.size_multiple, self.context_encoder.size_multiple)
        self._check_parts()
        for prior in self._priors():
            prior.connect(self.encoder, self.context_encoder, self.cost)
        for module in self._frozen_modules():
            module.requires_grad_(False)
        preprocessor = self.data_preprocessor
        if hasattr(preprocessor, "multiple"):
            preprocessor.multiple = math.lcm(preprocessor.multiple, self.size_multiple)

    def _check_parts(self) -> None:
        encoder, context, cost = self.encoder, self.context_encoder, self.cost
        _agree("encoder.stride", encoder.stride, "context_encoder.stride", context.stride)
        _agree("encoder.out_channels", encoder.out_channels, "cost.feature_channels", cost.feature_channels)
        _agree("context_encoder.out_channels", context.out_channels, "cost.context_channels", cost.context_channels)
        for name, decoder in (("", self.decoder), *self.decoders.items()):
            where = f"decoders.{name}." if name else ""
            update, upsampler = decoder.update, decoder.upsampler
            _agree(f"{where}update.cost_channels", update.cost_channels, "cost.out_channels", cost.out_channels)
            _agree(
                f"{where}update.context_channels",
                update.context_channels,
                "context_encoder.out_channels",
                context.out_channels,
            )
            _agree(
                f"{where}upsampler.hidden_channels",
                upsampler.hidden_channels,
                f"{where}update.hidden_channels",
                update.hidden_channels,
            )
            _agree(f"{where}upsampler.factor", upsampler.factor, "encoder.stride", encoder.stride)
            if decoder.policy is not None:
                _agree(
                    f"{where}policy.hidden_channels",
                    decoder.policy.hidden_channels,
                    f"{where}update.hidden_channels",
                    update.hidden_channels,
                )
        for name, pair in self.differences.items():
            unknown = [part for part in pair if part and part not in self.decoders]
            if len(pair) != 2 or unknown or name in self.decoders:
                known = ", ".join(map(repr, ("", *self.decoders)))
                raise ConfigError(f"model: differences.{name}={pair}: expected a new name and two of {known}")

    def _priors(self) -> list[Prior]:
        return [d.prior for d in (self.decoder, *self.decoders.values()) if d.prior is not None]

    def open_video(self, path: str) -> Any | None:
        """The reader of a video that gives what a prior needs beside the frames, or None if frames are enough."""
        readers = (prior.open_video(path) for prior in self._priors())
        return next((reader for reader in readers if reader is not None), None)

    def _frozen_modules(self) -> list[nn.Module]:
        modules = dict(self.named_modules())
        for name in self.frozen:
            if name not in modules:
                raise ConfigError(f"model: frozen names {name!r}, which is no submodule{did_you_mean(name, modules)}")
        return [modules[name] for name in self.frozen]

    def train(self, mode: bool = True) -> RecurrentFlowEstimator:
        """Switch to training; frozen modules stay in evaluation, and batch norm keeps its statistics if frozen."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        if mode and self.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def checkpoint_exclude_prefixes(self) -> tuple[str, ...]:
        """Prefixes of the state dict that checkpoints leave out: frozen parts that come from their own file."""
        return tuple(
            f"{name}.{prefix}"
            for name, module in self.named_modules()
            if module is not self and hasattr(module, "checkpoint_exclude_prefixes")
            for prefix in module.checkpoint_exclude_prefixes()
        )

    def example_batch(self, batch_size: int = 2) -> dict[str, list]:
        """Small random frame pairs with all true flows, as a data loader gives them, the same each time: for checks."""
        generator = torch.Generator().manual_seed(0)
        height, width = 90, 124  # no multiples of 8, so that padding counts
        samples = [FlowDataSample() for _ in range(batch_size)]
        for sample in samples:
            for name in ("", *self.decoders):
                sample.set_field(torch.randn(2, height, width, generator=generator), f"gt_{_key(name, 'flow')}")
                sample.set_field(torch.ones(height, width), f"gt_{_key(name, 'valid')}")
            for name, pair in self.differences.items():
                first, second = (sample.get(f"gt_{_key(part, 'flow')}") for part in pair)
                sample.set_field(first - second, f"gt_{name}_flow")
                sample.set_field(torch.ones(height, width), f"gt_{name}_valid")
        for prior in self._priors():
            for sample in samples:
                for name, value in prior.example_inputs(height, width, generator).items():
                    sample.set_field(value, f"input_{name}")
        for sample in samples:
            sample.gt_foreground = (torch.arange(width) >= width // 2).repeat(height, 1)
        inputs = [torch.randint(0, 256, (2, 3, height, width), generator=generator, dtype=torch.uint8) for _ in samples]
        return {"inputs": inputs, "data_samples": samples}

    @property
    def quadratic(self) -> bool:
        """Whether memory grows with the square of a frame's pixels."""
        return self.cost.quadratic or any(d.update.quadratic for d in (self.decoder, *self.decoders.values()))

    def encode(
        self,
        image1: Tensor,
        image2: Tensor,
        inputs: dict[str, Any] | None = None,
        video: VideoMemory | None = None,
    ) -> Encoded:
        """Run the encoders on frames N×3×H×W, RGB in 0..255; frame 1's features may come from the video's last pair."""
        if image1.device.type == "cpu":
            # What follows keeps the layout, and oneDNN's convolutions are fastest in it (docs/benchmarks.md).
            image1, image2 = (image.contiguous(memory_format=torch.channels_last) for image in (image1, image2))
        if video is not None and video.feature is not None:
            feature1, feature2 = video.feature, self.encoder(image2)
        elif image1.shape[0] == 1 and not self.training:
            # One by one spares copying the frames; in training batch norm would see less.
            feature1, feature2 = self.encoder(image1), self.encoder(image2)
        else:
            feature1, feature2 = self.encoder(torch.cat((image1, image2))).chunk(2)
        if video is not None:
            video.feature = feature2
        return Encoded(image1, image2, feature1, feature2, self.context_encoder(image1), inputs or {})

    def run(
        self,
        image1: Tensor,
        image2: Tensor,
        iterations: int,
        flow_init: Tensor | Mapping[str, Tensor] | None = None,
        every: bool = False,
        inputs: dict[str, Any] | None = None,
        video: VideoMemory | None = None,
    ) -> dict[str, Any]:
        """Run the network on frames of a size that it takes.

        Args:
            image1: frame 1, N×3×H×W, RGB in 0..255.
            image2: frame 2.
            iterations: number of iterations.
            flow_init: first low-resolution flow N×2×h×w of all decoders, or each decoder's by its name (``""`` is the
                main one's), or None.
            every: give the flow of every iteration.
            inputs: further inputs by name, see :class:`~ffplug.models.parts.Encoded`.
            video: what is kept from the video's last pair, or None.

        Returns:
            ``flows`` (list of N×2×H×W, pixels), ``states``, ``encoded``, the other outputs of
            :class:`RecurrentDecoder`, the same of each further decoder as ``NAME_flows`` and so on, and ``NAME_flows``
            of each difference.
        """
        with fixed_weights():
            encoded = self.encode(image1, image2, inputs, video)
            cost = self.cost(encoded)
            outputs: dict[str, Any] = {"encoded": encoded}
            lookup = functools.partial(self.cost.lookup, cost)
            main: Any = None
            for name, decoder in (("", self.decoder), *self.decoders.items()):
                init = flow_init.get(name) if isinstance(flow_init, Mapping) else flow_init
                start = decoder.start(encoded, lookup, init)
                if not name:
                    prepared = decoder.update.prepare(start.context)
                    main = prepared[1]
                else:
                    prepared = decoder.update.prepare_beside(start.context, main)
                found = decoder(encoded, self.cost, cost, start, prepared, iterations, every)
                outputs.update({_key(name, what): value for what, value in found.items()})
            for name, (first, second) in self.differences.items():
                pairs = zip(outputs[_key(first, "flows")], outputs[_key(second, "flows")], strict=True)
                outputs[_key(name, "flows")] = [a - b for a, b in pairs]
        return outputs

    def forward(
        self, inputs: Tensor, data_samples: list[FlowDataSample] | None = None, mode: str = "tensor"
    ) -> dict[str, Any] | list[FlowDataSample]:
        """MMEngine's entry.

        Args:
            inputs: frame pairs N×2×3×H×W, RGB in 0..255, of a size that the network takes.
            data_samples: one per pair.
            mode: ``tensor`` gives the dict of :meth:`run` with the flow of every iteration, ``loss`` the loss terms,
                ``predict`` the samples with ``pred_flow`` and ``pred_flow_low``.
        """
        image1, image2 = inputs.unbind(1)
        if mode == "tensor":
            return self.run(image1, image2, self.iterations, every=True)
        if mode == "loss":
            padding = data_samples[0].get("padding", (0, 0, 0, 0))
            inputs = _pad_inputs(_stack_inputs(data_samples), unpad(image1, padding), padding)
            outputs = self.run(image1, image2, self.iterations, every=True, inputs=inputs)
            for name in [name for name in outputs if name.endswith("flows")]:
                outputs[name] = [unpad(flow, padding) for flow in outputs[name]]
            outputs |= {"image1": unpad(image1, padding), "image2": unpad(image2, padding), "padding": padding}
            targets = _stack_targets(data_samples)
            terms: dict[str, Tensor] = {}
            for loss in self.losses:
                terms.update(loss(outputs, targets))
            return terms
        if mode == "predict":
            return self._predict(image1, image2, data_samples)
        raise ValueError(f"mode={mode!r}: expected 'tensor', 'loss' or 'predict'")

    def _predict(self, image1: Tensor, image2: Tensor, samples: list[FlowDataSample]) -> list[FlowDataSample]:
        padding = samples[0].get("padding", (0, 0, 0, 0))
        if self.tile is not None:
            # Tiles bring their own padding, so they start from the frames as they were.
            result = self.predict_flow(unpad(image1, padding), unpad(image2, padding), inputs=_stack_inputs(samples))
        else:
            inputs = _pad_inputs(_stack_inputs(samples), unpad(image1, padding), padding)
            result = self._result(self.run(image1, image2, self.test_iterations, inputs=inputs))
            result = _unpad_flows(result, padding)
        for index, sample in enumerate(samples):
            for name, flow in result.items():
                sample.set_field(flow[index], f"pred_{name}")
        return samples

    @staticmethod
    def _result(outputs: dict[str, Any]) -> dict[str, Tensor]:
        result = {}
        for key, flows in outputs.items():
            if key.endswith("flows"):
                name = key.removesuffix("flows")
                result[f"{name}flow"] = flows[-1]
                if f"{name}states" in outputs:
                    result[f"{name}flow_low"] = outputs[f"{name}states"][-1].flow
                    result |= {f"{name}{key}": value for key, value in outputs[f"{name}report"].items()}
        return result

    @torch.no_grad()
    def predict_flow(
        self,
        image1: Tensor,
        image2: Tensor,
        iterations: int | None = None,
        flow_init: Tensor | Mapping[str, Tensor] | None = None,
        inputs: dict[str, Any] | None = None,
        video: VideoMemory | None = None,
    ) -> dict[str, Tensor]:
        """Flow between frames of any size, without gradients.

        Args:
            image1: frame 1, N×3×H×W, RGB in 0..255, on the model's device.
            image2: frame 2, as ``image1``.
            iterations: number of iterations, or None for the model's ``test_iterations``.
            flow_init: first low-resolution flow N×2×h×w in grid cells of the padded frame (as ``flow_low`` of the
                previous pair, see :func:`ffplug.ops.forward_warp_flow`), for all decoders or by their names (``""`` is
                the main one's), or None.
            inputs: further inputs by name, for methods that take them; on the frames' grid N×...×H×W.
            video: the same object for successive pairs of a video, whose frame 1 is the last pair's frame 2: its
                features are computed once. Weights must stay as they are meanwhile. Tiles do without it.

        Returns:
            ``flow`` N×2×H×W in pixels, ``flow_low`` N×2×h×w in cells of the padded grid (with tiles, the frame's),
            and what else the method gives.

        Raises:
            ValueError: the frames are not N×3×H×W of one size.
            DataError: the frames are too large for an encoder; the message tells of tiles.
        """
        if image1.shape != image2.shape or image1.ndim != 4 or image1.shape[1] != 3:
            raise ValueError(
                f"image1 {tuple(image1.shape)} and image2 {tuple(image2.shape)}: expected N×3×H×W of one size"
            )
        iterations = iterations or self.test_iterations
        was_training = self.training
        self.eval()
        try:
            if self.tile is not None:
                return self.tile(self._predict_whole, image1.float(), image2.float(), iterations, flow_init, inputs)
            return self._predict_whole(image1.float(), image2.float(), iterations, flow_init, inputs, video)
        finally:
            self.train(was_training)

    def export_case(self, height: int, width: int) -> ExportCase:
        """What ``ffplug export`` writes: two frames of one size, and the flow after ``test_iterations``.

        Raises:
            ConfigError: the model takes more than frames, or stops when it likes: no fixed graph is the same; or a side
                is no multiple of what its parts need.
        """
        multiple = math.lcm(self.size_multiple, getattr(self.data_preprocessor, "multiple", 1))
        if height % multiple or width % multiple:
            raise ConfigError(f"frames of {height}×{width} pixels: expected sides in multiples of {multiple}; pad them")
        if self._priors() or any(d.policy is not None for d in (self.decoder, *self.decoders.values())):
            raise ConfigError("this model has a prior or a policy, which take more than two frames: export it without")
        draw = torch.Generator().manual_seed(0)
        names = ("image1", "image2")
        frames = torch.rand(2, 1, 3, height, width, generator=draw) * 255
        colours = tuple(Channel(c, 0.0, 255.0, f"{c} of the frame, as stored") for c in ("red", "green", "blue"))
        flow = tuple(
            Channel(axis, None, None, f"motion from image1 to image2 in pixels, {way}")
            for axis, way in (("x", "to the right"), ("y", "down"))
        )
        return ExportCase(
            module=_PlainFlow(self),
            inputs=dict(zip(names, frames, strict=True)),
            outputs=("flow",),
            channels={**dict.fromkeys(names, colours), "flow": flow},
            conventions={"grid": "row 0 is at the top", "iterations": str(self.test_iterations)},
            multiple=multiple,
        )

    def _predict_whole(
        self,
        image1: Tensor,
        image2: Tensor,
        iterations: int,
        flow_init: Tensor | Mapping[str, Tensor] | None = None,
        inputs: dict[str, Any] | None = None,
        video: VideoMemory | None = None,
    ) -> dict[str, Tensor]:
        preprocessor = self.data_preprocessor
        height, width = image1.shape[-2:]
        limit = min((part.max_size for part in (self.encoder, self.context_encoder) if part.max_size), default=None)
        if limit is not None and max(height, width) > limit:
            raise DataError(
                f"frames of {height}×{width} pixels are beyond the encoder's {limit}: predict in tiles, "
                "with model tile=dict(size=(432, 960)) or `ffplug infer --tile 432x960`"
            )
        mode, minimum = getattr(preprocessor, "pad_mode", "sintel"), getattr(preprocessor, "minimum", 0)
        padding = padding_for(height, width, self.size_multiple, mode, minimum)
        inputs = _pad_inputs(inputs or {}, image1, padding)
        outputs = self.run(
            pad(image1, padding), pad(image2, padding), iterations, flow_init, inputs=inputs, video=video
        )
        return _unpad_flows(self._result(outputs), padding)


class _PlainFlow(nn.Module):
    """A model as two frames in, flow out."""

    def __init__(self, model: RecurrentFlowEstimator) -> None:
        super().__init__()
        self.model = model

    def forward(self, image1: Tensor, image2: Tensor) -> Tensor:
        return self.model.predict_flow(image1, image2)["flow"]


def _build(config: dict | nn.Module | None) -> Any:
    return MODELS.build(config) if isinstance(config, Mapping) else config


def _build_decoder(
    checkpointing: bool,
    update: dict | Update,
    upsampler: dict | Upsampler,
    prior: dict | Prior | None = None,
    policy: dict | Policy | None = None,
) -> RecurrentDecoder:
    return RecurrentDecoder(_build(update), _build(upsampler), _build(prior), _build(policy), checkpointing)


def _unpad_flows(result: dict[str, Tensor], padding: tuple[int, int, int, int]) -> dict[str, Tensor]:
    """Take the padding off the flows in pixels; flows in cells and a policy's report are kept as they are."""
    return {name: unpad(value, padding) if name.endswith("flow") else value for name, value in result.items()}


def _key(name: str, what: str) -> str:
    return f"{name}_{what}" if name else what


def _agree(name: str, value: int | None, other_name: str, other: int | None) -> None:
    if None not in (value, other) and value != other:
        raise ConfigError(f"model: {name}={value} and {other_name}={other} do not fit together: they must be equal")


def _stack_targets(samples: Sequence[FlowDataSample]) -> dict[str, Tensor]:
    """Ground truth of a batch: every ``gt_NAME`` tensor that all samples have, stacked as ``NAME``."""
    shared = set.intersection(*(set(sample.keys()) for sample in samples))
    return {
        key.removeprefix("gt_"): torch.stack([sample.get(key) for sample in samples])
        for key in sorted(shared)
        if key.startswith("gt_")
    }


def _stack_inputs(samples: Sequence[FlowDataSample]) -> dict[str, Tensor]:
    """Further inputs of a batch: every ``input_NAME`` tensor that all samples have, stacked as ``NAME``."""
    shared = set.intersection(*(set(sample.keys()) for sample in samples))
    return {
        key.removeprefix("input_"): torch.stack([sample.get(key) for sample in samples])
        for key in sorted(shared)
        if key.startswith("input_")
    }


def _pad_inputs(inputs: Mapping[str, Any], frame: Tensor, padding: tuple[int, int, int, int]) -> dict[str, Any]:
    """Pad with zeros what lies on the grid of the frame, which has no padding yet."""
    return {
        name: F.pad(value, padding) if isinstance(value, Tensor) and value.shape[-2:] == frame.shape[-2:] else value
        for name, value in inputs.items()
    }

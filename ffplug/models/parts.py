"""The parts of a recurrent flow estimator and their protocols: what each takes and gives, shapes and units.

Notation: N batch, C channels, (H, W) the padded frame, (h, w) = (H, W) / ``stride`` the working grid (stride 8).
*Low-resolution flow* is measured in cells of the working grid, *flow* in pixels of the frame; both have
channel 0 = x (to the right) and 1 = y (down). Every tensor that a part keeps between iterations has the batch
as its first dimension, so that a policy can take samples out of a batch (see :meth:`DecoderState.select`).
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor


def map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply ``function`` to every tensor in a nest of tuples, lists, dicts and dataclasses; the rest is kept."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: map_tensors(item, function) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(map_tensors(item, function) for item in value)
    if dataclasses.is_dataclass(value):
        changes = {f.name: map_tensors(getattr(value, f.name), function) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **changes)
    return value


@dataclasses.dataclass
class Encoded:
    """What the encoders give for a batch of frame pairs; computed once per pair.

    Attributes:
        image1: first frame, N×3×H×W, RGB in 0..255.
        image2: second frame, as ``image1``.
        feature1: matching features of frame 1, N×C×h×w.
        feature2: matching features of frame 2.
        context: features of frame 1 for cost, update and heads, N×C'×h×w, before any activation.
        inputs: further inputs of the sample by name (motion vectors, masks ...), for priors and plugins. Those on the
            frames' grid are padded as the frames are, with zeros.
    """

    image1: Tensor
    image2: Tensor
    feature1: Tensor
    feature2: Tensor
    context: Tensor
    inputs: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class DecoderState:
    """What the loop carries from one iteration to the next.

    Attributes:
        hidden: hidden state of the update block, N×C×h×w.
        flow: current low-resolution flow, N×2×h×w, in grid cells.
        constant: what the update block prepared once per pair (gates' share of the context, attention ...).
        cost: what the cost part prepared once per pair (pyramid, memory ...).
        memory: whatever policy, prior or update keep for themselves, by name.
    """

    hidden: Tensor
    flow: Tensor
    constant: Any
    cost: Any
    memory: dict[str, Any] = dataclasses.field(default_factory=dict)

    def select(self, index: Tensor | slice) -> DecoderState:
        """Return the state of some samples alone: copies for an index (1-D, int64), views for a slice."""
        if isinstance(index, slice):
            return map_tensors(self, lambda tensor: tensor[index])
        return map_tensors(self, lambda tensor: tensor.index_select(0, index))


Step = Callable[[DecoderState], DecoderState]
"""One full iteration: look-up, update, flow += delta. It returns a new state and leaves its argument as it was."""


@dataclasses.dataclass
class VideoMemory:
    """What successive pairs of one video share: the frame that is second in one pair and first in the next.

    Attributes:
        feature: matching features of the last pair's second frame, or None before the first pair.
    """

    feature: Tensor | None = None


class FrameEncoder(BaseModule):
    """Frames to features on the working grid.

    Attributes:
        out_channels: C of the output.
        stride: ratio of frame to output resolution.
        size_multiple: H and W must be multiples of this.
        max_size: largest H or W that it takes, or None.
    """

    out_channels: int
    stride: int = 8
    size_multiple: int = 8
    max_size: int | None = None

    def forward(self, image: Tensor) -> Tensor:
        """N×3×H×W, RGB in 0..255 (each encoder normalises for itself) -> N×out_channels×h×w."""
        raise NotImplementedError


class Cost(BaseModule):
    """Matching cost between the frames.

    Attributes:
        out_channels: C of what :meth:`lookup` gives.
        feature_channels: C that the matching features must have, or None for any.
        context_channels: C that the context must have, or None where it is not used.
        quadratic: whether memory grows with the square of the number of cells.
    """

    out_channels: int
    feature_channels: int | None = None
    context_channels: int | None = None
    quadratic: bool = True

    def forward(self, encoded: Encoded) -> Any:
        """Prepare once per pair what the look-ups read (batch first in every tensor)."""
        raise NotImplementedError

    def lookup(self, cost: Any, flow: Tensor) -> Tensor:
        """Cost features round each cell's target, N×out_channels×h×w, for low-resolution ``flow`` N×2×h×w."""
        raise NotImplementedError


class Update(BaseModule):
    """The recurrent update block.

    Attributes:
        hidden_channels: C of the hidden state.
        context_channels: C that the context must have.
        cost_channels: C that the cost's look-up must have.
        quadratic: whether memory grows with the square of the number of cells.
    """

    hidden_channels: int
    context_channels: int
    cost_channels: int
    quadratic: bool = False

    def prepare(self, context: Tensor) -> tuple[Tensor, Any]:
        """Context N×context_channels×h×w -> first hidden state and what stays constant over the iterations."""
        raise NotImplementedError

    def prepare_beside(self, context: Tensor, main: Any) -> tuple[Tensor, Any]:
        """As :meth:`prepare`, in a further decoder: ``main`` is the constant part of the main decoder's block.

        So what both would derive from the context can be derived once. By default nothing is shared.
        """
        return self.prepare(context)

    def forward(self, hidden: Tensor, cost: Tensor, flow: Tensor, constant: Any) -> tuple[Tensor, Tensor]:
        """One update: hidden state, cost features, low-resolution flow -> new hidden state, residual flow."""
        raise NotImplementedError


class Upsampler(BaseModule):
    """Low-resolution flow to flow in pixels of the frame.

    Attributes:
        hidden_channels: C that the hidden state must have, or None where it is not read.
        factor: ratio of the resolutions, which must be the encoders' stride.
    """

    hidden_channels: int | None = None
    factor: int = 8

    def forward(self, hidden: Tensor, flow: Tensor) -> Tensor:
        """Hidden state and low-resolution flow N×2×h×w -> flow N×2×H×W in pixels."""
        raise NotImplementedError


Lookup = Callable[[Tensor], Tensor]
"""The cost part's look-up in this pair's cost: low-resolution flow N×2×h×w -> N×out_channels×h×w."""


@dataclasses.dataclass
class Start:
    """What a pair begins with.

    Attributes:
        flow: first low-resolution flow, N×2×h×w, in grid cells.
        context: what the update block prepares from, N×C'×h×w: ``Encoded.context``, or that and what a prior adds.
        memory: first content of :attr:`DecoderState.memory`. A prior that can tell how far it is to be trusted leaves
            ``credibility`` there, N×1×h×w in 0..1, and 0 where it knows nothing; a policy may read it.
    """

    flow: Tensor
    context: Tensor
    memory: dict[str, Any] = dataclasses.field(default_factory=dict)


class Prior(BaseModule):
    """Where the first low-resolution flow comes from."""

    def connect(self, encoder: FrameEncoder, context_encoder: FrameEncoder, cost: Cost) -> None:
        """Called once, when the estimator is built: make the layers whose channels follow from the other parts."""

    def forward(self, encoded: Encoded, lookup: Lookup, flow_init: Tensor | None) -> Start:
        """What to begin with; ``flow_init`` is the low-resolution flow that the caller gave (a warm start), or None."""
        raise NotImplementedError

    def open_video(self, path: str) -> Any | None:
        """The reader of a video that gives this prior's inputs too, or None if pictures are all that it needs.

        It yields :class:`~ffplug.apis.video.VideoFrame`.
        """
        return None

    def example_inputs(self, height: int, width: int, generator: torch.Generator) -> dict[str, Tensor]:
        """What of :attr:`Encoded.inputs` it reads, by name, for one random sample of H×W pixels: for checks."""
        return {}


class Policy(BaseModule):
    """Decides which samples run which iteration.

    Attributes:
        hidden_channels: C that the hidden state must have, or None for any.
    """

    hidden_channels: int | None = None

    def begin(self, encoded: Encoded, state: DecoderState, iterations: int) -> DecoderState:
        """Called once before the first iteration; put what the policy remembers into ``state.memory``."""
        return state

    def run(self, step: Step, state: DecoderState, index: int, iterations: int) -> DecoderState:
        """Run iteration ``index`` of ``iterations`` by calling ``step`` on all samples, some or none."""
        return step(state)

    def finished(self, state: DecoderState) -> bool:
        """Whether no sample needs another iteration, so that the loop may end early."""
        return False

    def branches(self, state: DecoderState) -> dict[str, tuple[Tensor, Tensor]]:
        """Further hidden states and low-resolution flows by name, to be upsampled where every iteration's flow is.

        The estimator's outputs give them as ``<name>_flows``, for losses that compare.
        """
        return {}

    def report(self, state: DecoderState) -> dict[str, Tensor]:
        """What was decided, by name, the samples first (``steps``, N); predictions have it beside the flow."""
        return {}


class FlowLoss(torch.nn.Module, ABC):
    """One term of the training loss."""

    @abstractmethod
    def forward(self, outputs: dict[str, Any], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Loss terms by name; MMEngine sums every key that holds the word ``loss``.

        Args:
            outputs: what the estimator gives in training: ``flows``, the list of N×2×H×W predictions of the
                iterations, ``image1`` and ``image2``, the frames N×3×H×W in 0..255, all without padding; ``padding``,
                what was taken off them (left, right, top, bottom; pixels); ``states``, the :class:`DecoderState` after
                each iteration, ``encoded``, and, for each further decoder, ``<name>_flows`` and ``<name>_states``.
            targets: ``flow`` N×2×H×W in pixels, ``valid`` N×H×W in {0, 1} and any further ground truth of the samples.
        """

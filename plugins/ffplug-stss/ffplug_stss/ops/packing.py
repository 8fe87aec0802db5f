"""The network's input from the history in one pass, and where a hole's colours are fetched from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ffplug.ops import Op, backward_warp, register_op
from ffplug.ops.cuda import CudaSource
from ffplug.ops.native import NativeSource
from ffplug_stss.channels import CHANNELS, HISTORY, Inputs
from ffplug_stss.warping import OUTSIDE, compose, inside, places, same_depth, same_surface, warp

_CSRC = Path(__file__).parent / "csrc"
_native = NativeSource(_CSRC / "packing.cpp")
_cuda = CudaSource(_CSRC / "packing.cu")

LINKS = 8
"""Motions that :data:`warp_pack` joins at most."""

_FAR = 10.0
_NONE = torch.iinfo(torch.int64).max


@register_op
class WarpPack(Op):
    """Warp earlier frames to the present one, find their holes, fill those of the newest, and pack all channels.

    It is what :mod:`ffplug_stss.warping` does step by step: motions joined as :func:`~ffplug_stss.warping.compose` does
    by its rule ``exact``, :func:`~ffplug_stss.warping.warp`, and a pixel valid where its earlier place lies in the
    frame and on the same surface. No gradient: it stands before the network, in use.

    Args (of the call):
        images: the earlier shaded frames, newest first, one to three of N×3×H×W, not negative.
        depths: theirs, N×1×H×W each; empty where there are labels.
        labels: their objects' labels, N×1×H×W int64 each; empty without.
        motions: of the present frame to the one before, of that to the one before it, and so on, N×2×H×W pixels each;
            eight at most.
        feature: buffers of the present frame, N×9×H×W.
        label: labels of the present frame, or None.
        fetch: motion that fetches the colours of the newest frame's holes, N×2×H×W, see :data:`splat_motion`; None
            leaves what the warp gave.
        steps: for each image, how many of the motions lead to it; rising, and 0 for the present frame itself.
        chained: join the motions; else the last of an image's steps leads to it alone.
        repeat: outside of the frame its border is repeated; else it is black.
        tolerance: share of its depth by which a surface may differ, without labels.
        multiple: the last row and column are repeated until the sides are multiples of it.

    Returns:
        N×28×H'×W', channels last, in the order of :data:`ffplug_stss.channels.NAMES`.
    """

    name = "warp_pack"
    schema = (
        "(Tensor[] images, Tensor[] depths, Tensor[] labels, Tensor[] motions, Tensor feature, Tensor? label, "
        "Tensor? fetch, int[] steps, bool chained, bool repeat, float tolerance, int multiple) -> Tensor"
    )

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:
        """Small arguments, for the checks."""
        images = [make(1, 3, 5, 7).abs() for _ in range(2)]
        labels = [make.integers(1, 1, 5, 7, high=2) for _ in range(2)]
        motions = [make(1, 2, 5, 7, scale=0.8) for _ in range(3)]
        feature, label, fetch = make(1, 9, 5, 7), make.integers(1, 1, 5, 7, high=2), make(1, 2, 5, 7, scale=2)
        return images, [], labels, motions, feature, label, fetch, [1, 3]

    def prepare(
        self,
        images: Sequence[Tensor],
        depths: Sequence[Tensor],
        labels: Sequence[Tensor],
        motions: Sequence[Tensor],
        feature: Tensor,
        label: Tensor | None = None,
        fetch: Tensor | None = None,
        steps: Sequence[int] = (),
        chained: bool = True,
        repeat: bool = False,
        tolerance: float = 0.05,
        multiple: int = 8,
    ) -> tuple[Any, ...]:
        """Check the arguments of a call."""
        images, depths, labels, motions, steps = map(list, (images, depths, labels, motions, steps))
        if not 1 <= len(images) <= HISTORY or len(motions) > LINKS:
            raise ValueError(f"warp_pack: {len(images)} images, {len(motions)} motions: expected 1 to 3, and at most 8")
        if len(steps) != len(images) or steps != sorted(set(steps)) or steps[0] < 0 or steps[-1] > len(motions):
            raise ValueError(f"warp_pack: steps {steps}: expected one for each of {len(images)} images, rising")
        surfaces = depths if label is None else labels
        if len(surfaces) != len(images) or (label is None and labels) or (label is not None and depths):
            raise ValueError(
                f"warp_pack: {len(depths)} depths, {len(labels)} labels: expected labels of the present and of all "
                f"{len(images)} images, or no labels and all depths"
            )
        if feature.dim() != 4 or feature.shape[1] != 9:
            raise ValueError(f"warp_pack: feature {tuple(feature.shape)}: expected N×9×H×W")
        wanted = [(3, images), (1, surfaces), (2, motions), (1, [label]), (2, [fetch])]
        for channels, tensors in wanted:
            shape = (feature.shape[0], channels, *feature.shape[2:])
            for tensor in tensors:
                if tensor is not None and tensor.shape != shape:
                    raise ValueError(f"warp_pack: {tuple(tensor.shape)}: expected {shape} beside the feature's")
        if multiple < 1:
            raise ValueError(f"warp_pack: multiple {multiple}: expected at least 1")
        flags = bool(chained), bool(repeat), float(tolerance), int(multiple)
        return images, depths, labels, motions, feature, label, fetch, steps, *flags

    def reference(
        self,
        images: list[Tensor],
        depths: list[Tensor],
        labels: list[Tensor],
        motions: list[Tensor],
        feature: Tensor,
        label: Tensor | None,
        fetch: Tensor | None,
        steps: list[int],
        chained: bool,
        repeat: bool,
        tolerance: float,
        multiple: int,
    ) -> Tensor:
        """The definition, in PyTorch."""

        def sample(image: Tensor, motion: Tensor) -> Tensor:
            return backward_warp(image, motion, "border") if repeat else warp(image, motion)

        warped = []
        for place, (image, count) in enumerate(zip(images, steps, strict=True)):
            if count == 0:
                warped.append((image, torch.ones_like(image[:, :1])))
                continue
            motion = compose(motions[:count]) if chained else motions[count - 1]
            if label is not None:
                same = same_surface(label, labels[place], motion)
            else:
                same = same_depth(feature[:, 3:4], depths[place], motion, tolerance)
            valid = inside(motion) & same & (warp(image, motion) != OUTSIDE).all(dim=1, keepdim=True)
            warped.append((sample(image, motion), valid.to(image.dtype)))
        plain, mask = warped[0]
        color = plain if fetch is None else torch.where(mask == 0, sample(images[0], fetch), plain)
        warped += [(warped[-1][0], torch.zeros_like(mask))] * (HISTORY - len(warped))
        history = torch.stack([torch.cat(pair, dim=1) for pair in reversed(warped)], dim=1).clamp(min=0)
        x = torch.cat([color, plain], dim=1).clamp(min=0)
        packed = Inputs(x, feature, mask, history).pack()
        bottom, right = (-side % multiple for side in packed.shape[2:])
        return F.pad(packed, (0, right, 0, bottom), "replicate").contiguous(memory_format=torch.channels_last)

    def fake(self, *args: Any) -> Tensor:
        """An empty result of the right shape, type and layout."""
        feature, multiple = args[4], args[-1]
        rows, columns = (-(-side // multiple) * multiple for side in feature.shape[2:])
        shape = (feature.shape[0], CHANNELS, rows, columns)
        return torch.empty(shape, dtype=feature.dtype, device=feature.device, memory_format=torch.channels_last)

    def cpp(self, *args: Any) -> Tensor:
        """A row after the other; each pixel is followed through all motions, and its channels written together."""
        out = self.fake(*args)
        _native.call("warp_pack", *_flat(out, *args))
        return out

    def cuda(self, *args: Any) -> Tensor:
        """One thread a pixel."""
        out = self.fake(*args)
        _cuda.launch_threads("warp_pack", out.shape[0] * out.shape[2] * out.shape[3], *_flat(out, *args))
        return out


def _flat(
    out: Tensor,
    images: list[Tensor],
    depths: list[Tensor],
    labels: list[Tensor],
    motions: list[Tensor],
    feature: Tensor,
    label: Tensor | None,
    fetch: Tensor | None,
    steps: list[int],
    chained: bool,
    repeat: bool,
    tolerance: float,
    multiple: int,
) -> tuple[Any, ...]:
    """What the kernels take: as many tensors of each kind as there may be, None for those that are not there."""
    dtype = feature.dtype

    def slots(tensors: Sequence[Tensor | None], count: int) -> list[Tensor | None]:
        ready = [t if t is None or t.dtype == torch.int64 else t.to(dtype) for t in tensors]
        return [t if t is None else t.contiguous() for t in ready] + [None] * (count - len(ready))

    kinds = ((images, HISTORY), (depths, HISTORY), (labels, HISTORY), (motions, LINKS), ([label, fetch], 2))
    tensors = [tensor for group, count in kinds for tensor in slots(group, count)]
    numbers = [*steps, *[0] * (HISTORY - len(steps)), len(images)]
    sizes = (feature.shape[0], *feature.shape[2:], *out.shape[2:])
    return feature.contiguous(), *tensors, out, *numbers, *sizes, chained, repeat, tolerance


@register_op
class SplatMotion(Op):
    """For each pixel the motion of what covered its earlier place: where a hole's colours are fetched from.

    Each pixel's motion is put on the four pixels around its earlier place, where the nearest in depth stays (of equal
    ones the first in rows); each pixel then reads what lies at its own earlier place, rounded down. So background is
    drawn in from beside what hid it (the occlusion motion of ExtraNet, Guo et al., SIGGRAPH Asia 2021). Equal calls
    give equal bits. No gradient.

    Args (of the call):
        motion: N×2×H×W, to the frame before, in pixels, finite.
        depth: N×1×H×W, smaller is nearer; from 10 on nothing counts. Compared in float32.

    Returns:
        N×2×H×W; zero where nothing was put.
    """

    name = "splat_motion"
    schema = "(Tensor motion, Tensor depth) -> Tensor"
    tolerance = 0.0
    half_tolerance = None

    def example(self, make: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
        """Small arguments, for the checks."""
        return make(2, 2, 5, 7, scale=2), make.integers(2, 1, 5, 7, high=3) / 2

    def prepare(self, motion: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        """Check the arguments of a call."""
        if motion.dim() != 4 or motion.shape[1] != 2 or depth.shape != (motion.shape[0], 1, *motion.shape[2:]):
            raise ValueError(
                f"splat_motion: motion {tuple(motion.shape)}, depth {tuple(depth.shape)}: expected N×2×H×W and N×1×H×W"
            )
        return motion, depth.float() + 0.0  # no negative zero, which has other bits than the positive one

    def reference(self, motion: Tensor, depth: Tensor) -> Tensor:
        """The definition, in PyTorch."""
        count, _, height, width = motion.shape
        x, y = (place.floor().long() for place in places(motion))
        rows, columns = torch.stack([y, y, y + 1, y + 1], 1), torch.stack([x, x + 1, x, x + 1], 1)
        here = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width) & (depth < _FAR)
        cells = height * width
        target = torch.where(here, rows * width + columns, cells).flatten(1)
        source = torch.arange(cells, device=motion.device).repeat(4).expand(count, -1)
        depths = depth.flatten(1).repeat(1, 4)
        nearest = depths.new_full((count, cells + 1), _FAR).scatter_reduce(1, target, depths, "amin")
        wins = depths == nearest.gather(1, target)
        first = torch.full((count, cells + 1), cells, device=motion.device)
        first = first.scatter_reduce(1, torch.where(wins, target, cells), source, "amin")[:, :cells]
        vectors = torch.cat([motion.flatten(2), motion.new_zeros(count, 2, 1)], dim=2)
        put = vectors.gather(2, first[:, None].expand(-1, 2, -1))
        read = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
        return put.gather(2, read.flatten(1)[:, None].expand(-1, 2, -1)).view(motion.shape)

    def fake(self, motion: Tensor, depth: Tensor) -> Tensor:
        """An empty result of the right shape and type."""
        return motion.new_empty(motion.shape)

    def cpp(self, motion: Tensor, depth: Tensor) -> Tensor:
        """Bands of rows, each filled by one thread."""
        out = self.fake(motion, depth)
        sizes = motion.shape[0], *motion.shape[2:]
        _native.call("splat_motion", motion.contiguous(), depth.contiguous(), out, *sizes, _FAR)
        return out

    def cuda(self, motion: Tensor, depth: Tensor) -> Tensor:
        """One thread a pixel; depth and place of a pixel are one number, of which the least stays."""
        out, motion = self.fake(motion, depth), motion.contiguous()
        sizes = motion.shape[0], *motion.shape[2:]
        pixels = motion.shape[0] * motion.shape[2] * motion.shape[3]
        bits = _ordered(depth)
        keys = torch.full((pixels,), _NONE, dtype=torch.int64, device=motion.device)
        far = int(_ordered(torch.tensor([_FAR])))
        _cuda.launch_threads("splat_keys", pixels, motion, bits, keys, *sizes, far)
        _cuda.launch_threads("splat_read", pixels, motion, keys, out, *sizes, _NONE)
        return out


def _ordered(depth: Tensor) -> Tensor:
    """Float32 as int32 in the same order."""
    bits = depth.contiguous().view(torch.int32)
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


warp_pack = WarpPack()
splat_motion = SplatMotion()

"""Warping by flow: pictures backward, and a flow along itself to start the next pair of a video."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ffplug.ops.build import CSRC
from ffplug.ops.contract import Op, register_op
from ffplug.ops.cuda import CudaSource
from ffplug.ops.native import NativeSource

_native = NativeSource(CSRC / "warping.cpp")
_cuda = CudaSource(CSRC / "warping.cu")
_PADDINGS = ("zeros", "border")


@register_op
class BackwardWarp(Op):
    """Sample ``image`` where the flow points: ``out(p) = image(p + flow(p))``, bilinear.

    Targets that are not finite read 0 with ``zeros`` padding. The gradient of flow is 0 outside the image, and with
    ``border`` padding on its border too, along the axis that is cut off.

    Args (of the call):
        image: N×C×H×W, channels first or last.
        flow: N×2×H×W in pixels.
        padding: ``zeros`` or ``border`` for targets outside the image.

    Returns:
        N×C×H×W, in the image's layout.
    """

    name = "backward_warp"
    schema = "(Tensor image, Tensor flow, str padding) -> Tensor"
    differentiable = ("image", "flow")
    nondeterministic = frozenset({"cuda_backward"})

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:  # noqa: D102 (see the base class)
        return make(2, 2, 3, 5), make(2, 2, 3, 5, scale=2), "zeros"

    def prepare(self, image: Tensor, flow: Tensor, padding: str = "zeros") -> tuple:  # noqa: D102
        check_image_and_flow(self.name, image, flow)
        if padding not in _PADDINGS:
            raise ValueError(f"backward_warp: padding {padding!r}: expected 'zeros' or 'border'")
        return image, flow.to(image.dtype), padding

    def reference(self, image: Tensor, flow: Tensor, padding: str) -> Tensor:  # noqa: D102
        pixels = image.flatten(2)
        warped = sum(
            pixels.gather(2, place[:, None].expand(pixels.shape)) * weight[:, None]
            for place, weight in corners(flow, padding == "border")
        )
        return warped.view(image.shape).contiguous(memory_format=memory_format(image))

    def fake(self, image: Tensor, flow: Tensor, padding: str) -> Tensor:  # noqa: D102
        return torch.empty_like(image, memory_format=memory_format(image))

    def cpp(self, image: Tensor, flow: Tensor, padding: str) -> Tensor:
        """One pass over the rows; layouts are read as they are."""
        return gather(native_call, image, flow, padding == "border")

    def cpp_backward(
        self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], *args: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """The image's gradient by bands of rows, without atomics; the flow's in one pass."""
        image, flow, padding = args
        border = padding == "border"
        return (
            scatter(native_call, grads[0], flow, border) if needs[0] else None,
            slope(native_call, image, flow, grads[0], border) if needs[1] else None,
        )

    def cuda(self, image: Tensor, flow: Tensor, padding: str) -> Tensor:
        """One thread for four channels of a pixel."""
        return gather(launch, image, flow, padding == "border")

    def cuda_backward(
        self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], *args: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """The image's gradient with atomic additions, the flow's by a thread or a warp a pixel."""
        image, flow, padding = args
        border = padding == "border"
        return (
            scatter(launch, grads[0], flow, border) if needs[0] else None,
            slope(launch, image, flow, grads[0], border) if needs[1] else None,
        )


@register_op
class ForwardWarpFlow(Op):
    """Carry a flow along itself: every cell takes the flow of the nearest moved cell (RAFT's warm start).

    Cells that leave the frame are dropped; a sample of which every cell leaves gets zero flow. Of moved cells at the
    same distance the first in row-major order wins. Positions are float32 whatever the flow's type. No gradient.

    Args (of the call):
        flow: N×2×h×w, in cells.

    Returns:
        N×2×h×w.
    """

    name = "forward_warp_flow"
    schema = "(Tensor flow) -> Tensor"
    tolerance = 0.0

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:  # noqa: D102 (see the base class)
        return (make(2, 2, 5, 7, scale=1.5),)

    def prepare(self, flow: Tensor) -> tuple:  # noqa: D102
        if flow.dim() != 4 or flow.shape[1] != 2:
            raise ValueError(f"forward_warp_flow: flow {tuple(flow.shape)}: expected N×2×h×w")
        return (flow.detach(),)

    def reference(self, flow: Tensor) -> Tensor:  # noqa: D102
        height, width = flow.shape[-2:]
        y, x = torch.meshgrid(
            torch.arange(height, device=flow.device, dtype=torch.float32),
            torch.arange(width, device=flow.device, dtype=torch.float32),
            indexing="ij",
        )
        grid = torch.stack((x, y)).flatten(1)
        result = flow.new_zeros(flow.shape)
        for source, target in zip(flow.flatten(2), result, strict=True):
            moved = grid + source.float()
            kept = ((moved > 0) & (moved < grid.new_tensor((width, height))[:, None])).all(dim=0)
            if not kept.any():
                continue
            moved, values = moved[:, kept], source[:, kept]
            # Squares of float32 differences are exact in float64, so that equal distances compare equal everywhere.
            nearest = [
                (part[:, :, None] - moved[:, None]).double().square().sum(dim=0).argmin(dim=1)
                for part in grid.split(max(1, 2**21 // moved.shape[1]), dim=1)
            ]
            target.copy_(values[:, torch.cat(nearest)].view(2, height, width))
        return result

    def fake(self, flow: Tensor) -> Tensor:  # noqa: D102
        return flow.new_empty(flow.shape)

    def cpp(self, flow: Tensor) -> Tensor:
        """Moved cells in buckets; each cell looks outwards from its own until nothing nearer can come."""
        warped = self.fake(flow)
        _native.call("forward_warp_flow", flow.contiguous(), warped, flow.shape[0], *flow.shape[2:])
        return warped

    def cuda(self, flow: Tensor) -> Tensor:
        """As in C++; the buckets are sorted by torch."""
        flow, warped = flow.contiguous(), self.fake(flow)
        count, _, height, width = flow.shape
        rows, columns = height + 1, width + 1
        y, x = (torch.arange(size, device=flow.device, dtype=torch.float32) for size in (height, width))
        moved_x, moved_y = flow[:, 0].float() + x, flow[:, 1].float() + y[:, None]
        kept = (moved_x > 0) & (moved_x < width) & (moved_y > 0) & (moved_y < height)
        sample = torch.arange(count, device=flow.device)[:, None, None]
        bucket = (sample * rows + (moved_y + 0.5).long()) * columns + (moved_x + 0.5).long()
        last = count * rows * columns
        bucket, cell = torch.where(kept, bucket, last).flatten().sort(stable=True)
        start = torch.searchsorted(bucket, torch.arange(last + 1, device=flow.device))
        place = torch.arange(columns, device=flow.device)
        held = (start[1:] > start[:-1]).view(count, rows, columns)
        left = torch.where(held, place, -1).cummax(dim=2).values
        right = torch.where(held, place, columns).flip(2).cummin(dim=2).values.flip(2)
        tensors = (flow, warped, cell, start, left.contiguous(), right.contiguous())
        _cuda.launch_threads("forward_warp_flow", count * height * width, *tensors, count, height, width)
        return warped


def check_image_and_flow(op: str, image: Tensor, flow: Tensor) -> None:
    """Raise a ValueError unless image is N×C×H×W and flow N×2×H×W of the same N, H and W."""
    expected = (image.shape[0], 2, *image.shape[2:])
    if image.dim() != 4 or tuple(flow.shape) != expected:
        raise ValueError(
            f"{op}: image {tuple(image.shape)} and flow {tuple(flow.shape)}: expected N×C×H×W and N×2×H×W of one size"
        )


def corners(flow: Tensor, border: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """The four pixels around every target ``p + flow(p)``: index in the flattened image and weight, each N×(H·W).

    Pixels outside the image have weight 0, and all four where the target is not finite.
    """
    axes = []
    for channel, size in ((0, flow.shape[3]), (1, flow.shape[2])):
        line = torch.arange(size, device=flow.device, dtype=flow.dtype)
        at = flow[:, channel] + (line if channel == 0 else line[:, None])
        if border:
            at = torch.where((at > 0) & (at < size - 1), at, at.detach().nan_to_num(0.0).clamp(0, size - 1))
        else:
            at = torch.where((at > -2) & (at < size + 1), at, -2.0)
        below = at.detach().floor()
        axes.append(
            [
                ((below + k).long().clamp(0, size - 1), torch.where((below + k >= 0) & (below + k < size), weight, 0.0))
                for k, weight in enumerate((1 - (at - below), at - below))
            ]
        )
    for row, vertical in axes[1]:
        for column, horizontal in axes[0]:
            yield (row * flow.shape[3] + column).flatten(1), (vertical * horizontal).flatten(1)


def gather(run, image: Tensor, flow: Tensor, border: bool) -> Tensor:
    """``out(p) = image(p + flow(p))``; ``run`` calls the C++ function or launches the CUDA kernel."""
    out = torch.empty_like(image, memory_format=memory_format(image))
    strides = (*image.stride(), *out.stride())
    run("bilinear_gather", image, flow.contiguous(), out, *strides, *image.shape, border, _together(image))
    return out


def scatter(run, image: Tensor, flow: Tensor, border: bool) -> Tensor:
    """``out(p + flow(p)) += image(p)`` with bilinear weights: the adjoint of :func:`gather`."""
    out = torch.empty_like(image, memory_format=memory_format(image))
    if run is launch:
        out.zero_()
    strides = (*image.stride(), *out.stride())
    run("bilinear_scatter", image, flow.contiguous(), out, *strides, *image.shape, border, _together(image))
    return out


def slope(run, image: Tensor, flow: Tensor, weight: Tensor, border: bool) -> Tensor:
    """The gradient of ``(weight * gather(image, flow)).sum()`` with respect to flow."""
    together = _together(image)
    if together and not _together(weight):
        weight = weight.contiguous(memory_format=torch.channels_last)
    out = flow.new_empty(flow.shape)
    strides = (*image.stride(), *weight.stride())
    run("bilinear_slope", image, flow.contiguous(), weight, out, *strides, *image.shape, border, together)
    return out


def launch(name: str, *args) -> None:
    """Launch a bilinear kernel with the threads it needs; the arguments end with sizes, border and last."""
    count, channels, height, width, _, last = args[-6:]
    per_pixel = (32 if last else 1) if name == "bilinear_slope" else -(-channels // 4)
    _cuda.launch_threads(name, count * height * width * per_pixel, *args)


def native_call(name: str, *args) -> None:
    """Call a bilinear function in C++."""
    _native.call(name, *args)


def memory_format(image: Tensor) -> torch.memory_format:
    """The layout of results for an image: channels last where it has them so."""
    last = image.shape[1] > 1 and image.stride(1) == 1 and image.stride(3) != 1
    return torch.channels_last if last else torch.contiguous_format


def _together(image: Tensor) -> bool:
    """Whether a pixel's channels lie together and are enough to run over in vectors."""
    return image.shape[1] >= 8 and memory_format(image) == torch.channels_last


backward_warp = BackwardWarp()
forward_warp_flow = ForwardWarpFlow()

"""UGSP on a CPU: computed at the pixels of its masks against computed whole, in one process, interleaved.

    python benchmarks/ugsp.py [--sizes 256x448 736x1280] [--rounds 5] [--threads 1] [--rates 0.7 0.45 0.245]

Masks are smooth random ones, nested, with the given shares of active pixels at 1/8, 1/4 and 1/2 of the size; the
default ones give what the paper counts on Vimeo90K. The rivals compute every pixel with the same weights: ``plain`` as
PyTorch users write it, channels first and channels last, of which the faster counts, and ``whole`` by this plugin's own
layers (Winograd's algorithm, as the sparse one uses it). ``masked`` is ``whole`` with its results multiplied by the
masks: the sparse frame must equal its frame. Times are the least processor time of several rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import contextmanager
from unittest import mock

import torch
import torch.nn.functional as F
from ffplug_ugsp.models import UGSPNet
from ffplug_ugsp.models import layers as own
from ffplug_ugsp.models import ugsp as module
from torch import Tensor, nn

import ffplug
from ffplug.models.layers import fixed_weights

PUBLISHED = 0.95
"""Time of the published code's sparse path at about these rates, as a share of its dense one in the better layout."""


def smooth_masks(height: int, width: int, rates: list[float]) -> list[Tensor]:
    """Nested masks at 1/8, 1/4 and 1/2 of the size: where a blurred noise is high."""
    draw = torch.Generator().manual_seed(0)
    field = torch.randn(1, 1, height // 8, width // 8, generator=draw)
    sigma = width / 8 / 37
    reach = max(1, round(3 * sigma))
    line = torch.exp(-(torch.arange(-reach, reach + 1.0) ** 2) / (2 * sigma**2))
    field = F.conv2d(F.pad(field, (reach,) * 4, mode="replicate"), (line[:, None] * line)[None, None])
    masks = []
    for stride, rate in zip((8, 4, 2), rates, strict=True):
        size = (height // stride, width // stride)
        fine = F.interpolate(field, size=size, mode="bilinear")
        if masks:
            inside = F.interpolate(masks[-1].float(), scale_factor=2).bool()
            fine = fine.masked_fill(~inside, -torch.inf)
        count = round(rate * fine.numel())
        chosen = torch.zeros(fine.numel(), dtype=torch.bool)
        chosen[fine.flatten().topk(count).indices] = True
        masks.append(chosen.view(fine.shape))
    return masks


def plain_warp(image: Tensor, flow: Tensor) -> Tensor:
    """By PyTorch's sampling."""
    height, width = image.shape[2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    across = (x + flow[:, 0]) * 2 / (width - 1) - 1
    down = (y + flow[:, 1]) * 2 / (height - 1) - 1
    return F.grid_sample(image, torch.stack((across, down), dim=3), padding_mode="border", align_corners=True)


@contextmanager
def plain_layers():
    """Convolutions and warps as PyTorch has them."""

    def forward(layer: own.ConvPReLU, x: Tensor) -> Tensor:
        return F.prelu(nn.Conv2d.forward(layer, x), layer.slope)

    with mock.patch.object(own.ConvPReLU, "forward", forward), mock.patch.object(module, "warp", plain_warp):
        yield


def least(runs: dict[str, Callable[[], Tensor]], rounds: int) -> dict[str, float]:
    """The least processor time of each in several rounds, in seconds."""
    best = dict.fromkeys(runs, float("inf"))
    for number in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if number:
                best[name] = min(best[name], time.process_time() - start)
    return best


def compare(
    network: UGSPNet, dense: UGSPNet, last: UGSPNet, frames: Tensor, rounds: int
) -> tuple[dict[str, float], float]:
    """Seconds of each way, and the greatest difference of sparse and masked frames.

    Args:
        network: the one that prunes.
        dense: the same weights without masks.
        last: the same with its weights channels last.
        frames: 2×1×3×H×W.
        rounds: see :func:`least`.
    """
    half = torch.tensor([0.5])
    rows = [frame.contiguous(memory_format=torch.channels_last) for frame in frames]

    def plain(net: UGSPNet, pair: list[Tensor]) -> Tensor:
        with plain_layers():
            return net.outputs(*pair, half)["frame"]

    runs = {
        "sparse": lambda: network.sparse(*rows)["frame"],
        "whole": lambda: dense.outputs(*rows, half)["frame"],
        "plain, channels first": lambda: plain(dense, list(frames)),
        "plain, channels last": lambda: plain(last, rows),
    }
    with torch.inference_mode(), fixed_weights():
        error = float((runs["sparse"]() - network.outputs(*rows, half)["frame"]).abs().max())
        return least(runs, rounds), error


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=("256x448", "736x1280"), help="sides in multiples of 32")
    parser.add_argument("--rates", nargs=3, type=float, default=(0.7, 0.45, 0.245))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    network: UGSPNet = ffplug.build_model("ugsp").network
    dense = UGSPNet(prune=False).eval()
    dense.load_state_dict(network.state_dict(), strict=False)
    last = UGSPNet(prune=False).eval()
    last.load_state_dict(dense.state_dict())
    last.to(memory_format=torch.channels_last)
    for size in options.sizes:
        height, width = map(int, size.split("x"))
        masks = smooth_masks(height, width, options.rates)
        frames = torch.rand(2, 1, 3, height, width, generator=torch.Generator().manual_seed(1))
        with mock.patch.object(network, "_hard_mask", lambda logits, coarser, place, *rest, masks=masks: masks[place]):
            found, error = compare(network, dense, last, frames, options.rounds)
        best = min(seconds for name, seconds in found.items() if name.startswith("plain"))
        text = ", ".join(f"{name} {seconds * 1e3:.0f} ms" for name, seconds in found.items())
        print(f"{size}, rates {options.rates}, {options.threads} thread(s): {text}")
        print(
            f"    faster than plain {best / found['sparse']:.2f} times, than whole "
            f"{found['whole'] / found['sparse']:.2f} times, than the published sparse path (which takes {PUBLISHED} of "
            f"plain) {PUBLISHED * best / found['sparse']:.2f} times; sparse and masked frames differ by {error:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()

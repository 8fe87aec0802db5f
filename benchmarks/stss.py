"""STSS on a CPU: our network against the published structure run plainly, in one process, interleaved.

    python benchmarks/stss.py [--sizes 270x480 540x960] [--rounds 5] [--threads 1]
    python benchmarks/stss.py --memory ours|plain
    python benchmarks/stss.py --cuts

The rival is the published structure as PyTorch users write it: features and gate by two convolutions each, attention by
unfolding all windows, channels first, eager. Both get the same weights; the greatest difference of their frames is
printed. What comes before the network, for an extrapolated frame with three frames of history, is timed against the
same steps one after the other in PyTorch. Times are the least of several rounds, on a machine with other work better
by ``--clock processor``. Memory is that of a process of its own. ``--cuts`` counts what the detection of cuts mistakes
and misses on drawn scenes.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from ffplug_stss.channels import Inputs
from ffplug_stss.cuts import CUT, agreement
from ffplug_stss.models import STSSNet
from ffplug_stss.models.layers import Convolution, GatedConvolution
from ffplug_stss.ops import splat_motion, warp_pack
from ffplug_stss.rendering import Renderer
from ffplug_stss.scenes import STYLES, SceneOptions, draw_scene
from torch import Tensor, nn

from ffplug.models.layers import fixed_weights

SIZES = ("270x480", "540x960")


def plain_convolution(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """One convolution, and its ReLU as an operation of its own."""
    y = F.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding)
    return torch.relu(y) if getattr(layer, "activation", "none") == "relu" else y


def plain_gate(layer: GatedConvolution, x: Tensor) -> Tensor:
    """Features and gate by a convolution each."""
    options = dict(stride=layer.stride, padding=layer.padding)
    features = F.conv2d(x, layer.weight[:-1], layer.bias[:-1], **options)
    gate = F.conv2d(x, layer.weight[-1:], layer.bias[-1:], **options)
    y = features * torch.sigmoid(gate)
    return torch.relu(y) if layer.relu else y


def plain_stack(layers: nn.Module, x: Tensor) -> Tensor:
    """Layers one after the other."""
    for layer in layers.modules():
        if isinstance(layer, GatedConvolution):
            x = plain_gate(layer, x)
        elif isinstance(layer, Convolution):
            x = plain_convolution(layer, x)
    return x


def plain_attention(key: Tensor, masked: Tensor, value: Tensor) -> Tensor:
    """Attention to windows of 5×5 that are unfolded."""
    count, channels, height, width = value.shape
    keys = F.unfold(masked, 5, padding=2).view(count, key.shape[1], 25, height, width)
    values = F.unfold(value, 5, padding=2).view(count, channels, 25, height, width)
    weight = torch.relu((keys * key[:, :, None]).sum(dim=1, keepdim=True))
    return (weight * values).sum(dim=2) / weight.sum(dim=2).clamp(min=1e-6)


def plain(network: STSSNet, inputs: Inputs) -> Tensor:
    """The published structure with our weights."""
    x, feature, mask, history = inputs
    maps = [plain_stack(network.stem, torch.cat([x, x * mask, feature], dim=1))]
    for down in network.down:
        maps.append(plain_stack(down, maps[-1]))
    deepest = maps.pop()
    small_mask, small_feature = (F.interpolate(t, scale_factor=0.125, mode="bilinear") for t in (mask, feature))
    erm = network.reshading
    value = small_mask * plain_stack(erm.latent, torch.cat([deepest, small_feature], dim=1))
    key = F.normalize(plain_stack(erm.key, small_feature), dim=1)
    reshaded = plain_attention(key, small_mask * key, value)
    frames = plain_stack(network.history.frame, history.flatten(0, 1))
    motion = plain_gate(network.history.fuse, frames.unflatten(0, history.shape[:2]).flatten(1, 2))
    y = torch.cat([reshaded, motion], dim=1)
    for up in network.up:
        y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True)
        y = plain_stack(up.convolutions, torch.cat([maps.pop(), y], dim=1))
    residual = F.pixel_shuffle(F.conv2d(y, network.head.weight, network.head.bias), 2)
    return residual + F.interpolate(x[:, :3], scale_factor=2, mode="bilinear", align_corners=False)


def draw_inputs(height: int, width: int) -> Inputs:
    """Random inputs with holes; sides are filled up to multiples of 8."""
    height, width = (-(-side // 8) * 8 for side in (height, width))
    draw = torch.Generator().manual_seed(0)
    noise = torch.rand(1, 28, height, width, generator=draw)
    mask = (torch.rand(1, 1, height, width, generator=draw) > 0.1).float()
    return Inputs(noise[:, :6], noise[:, 6:15], mask, noise[:, 16:].unflatten(1, (3, 4)))


def draw_history(height: int, width: int) -> dict[str, Any]:
    """What :data:`warp_pack` takes for an extrapolated frame: smooth motion of some four pixels, six objects."""
    draw = torch.Generator().manual_seed(0)

    def noise(channels: int) -> Tensor:
        return torch.rand(1, channels, height, width, generator=draw)

    def coarse(values: Tensor, mode: str) -> Tensor:
        return F.interpolate(values, (height, width), mode=mode)

    def label() -> Tensor:
        return coarse(torch.randint(0, 6, (1, 1, 9, 16), generator=draw).float(), "nearest").long()

    return dict(
        images=[noise(3) for _ in range(3)],
        depths=[],
        labels=[label() for _ in range(3)],
        motions=[coarse(4 * torch.randn(1, 2, 9, 16, generator=draw), "bilinear") for _ in range(5)],
        feature=noise(9),
        label=label(),
        steps=[1, 3, 5],
    )


def fused(history: dict[str, Any]) -> Tensor:
    """The network's input by the two ops."""
    return warp_pack(**history, fetch=splat_motion(history["motions"][0], history["feature"][:, 3:4]))


def stepwise(history: dict[str, Any]) -> Tensor:
    """The same by their definitions: each step on its own, with the core's op for warping."""
    fetch = splat_motion.reference(*splat_motion.prepare(history["motions"][0], history["feature"][:, 3:4]))
    return warp_pack.reference(*warp_pack.prepare(**history, fetch=fetch))


def race(
    runs: dict[str, Callable[[], Tensor]], rounds: int, clock: Callable[[], float]
) -> tuple[dict[str, float], float]:
    """Least time of each in milliseconds, in turns, and the greatest difference of the first two's results."""
    first, second, *_ = [run() for run in runs.values()]
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            start = clock()
            run()
            best[name] = min(best[name], 1e3 * (clock() - start))
    return best, float((first - second).abs().max())


def count_cuts(size: tuple[int, int] = (68, 120)) -> None:
    """Print how often ordinary frames count as cuts, and cuts as none, by speed."""

    def seen(renderer: Renderer, frame: int) -> tuple[Any, Any]:
        buffers = renderer.buffers(frame)
        return buffers, SimpleNamespace(
            normal=buffers.normal[0], depth=buffers.depth[0], base_color=buffers.base_color[0]
        )

    elsewhere = None
    for speed in (1, 4, 8, 16):
        ordinary, jumps, changes, moved = [], [], [], []
        for style in STYLES:
            for number in range(8):
                scene = draw_scene(1000 + speed, number, SceneOptions(style=style, speed=speed))
                renderer = Renderer(scene, size)
                frames = {frame: seen(renderer, frame) for frame in (5, 6, 90, 91)}
                for now, then in ((6, 5), (91, 90)):
                    motion = renderer.motion(frames[now][0], now, then)[0]
                    ordinary.append(agreement(frames[now][1], frames[then][1], motion))
                    moved.append(float(motion.norm(dim=0).median()))
                # An engine's vectors lead on as ever where the camera has jumped.
                jumps.append(agreement(frames[91][1], frames[5][1], motion))
                if elsewhere is not None:
                    changes.append(agreement(frames[91][1], elsewhere, motion))
                elsewhere = frames[5][1]
        false = sum(value < CUT for value in ordinary)
        missed, unseen = (sum(value >= CUT for value in values) for values in (changes, jumps))
        print(
            f"speed {speed:2d} (median motion {sum(moved) / len(moved):.1f} px of {size[1]}): {false} of "
            f"{len(ordinary)} ordinary frames taken for cuts (least agreement {min(ordinary):.2f}); {missed} of "
            f"{len(changes)} changes of the scene missed, {unseen} of {len(jumps)} jumps within a scene"
        )


def main() -> None:
    """Time, measure memory or count cuts, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("wall", "processor"), default="wall")
    parser.add_argument("--memory", choices=("ours", "plain"))
    parser.add_argument("--cuts", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.cuts:
        count_cuts()
        return
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    network = STSSNet(dict(type="ffplug_stss.EfficientReshading")).eval()
    with torch.inference_mode(), fixed_weights():
        for size in options.sizes:
            height, width = map(int, size.split("x"))
            inputs = draw_inputs(height, width)
            runs = {"ours": lambda x=inputs: network.produce(x), "plain": lambda x=inputs: plain(network, x)}
            if options.memory:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                runs[options.memory]()
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
                print(f"{size} {options.memory}: {peak / 1024:.0f} MiB above the inputs and weights")
                continue
            what = f"{size} -> {2 * height}x{2 * width}, {options.threads} thread(s), {options.clock} time"
            best, error = race(runs, options.rounds, clock)
            print(
                f"{what}: ours {best['ours']:.0f} ms, plain {best['plain']:.0f} ms, ratio "
                f"{best['plain'] / best['ours']:.2f}; frames differ by {error:.1e}"
            )
            history = draw_history(height, width)
            packing = {"ours": lambda h=history: fused(h), "stepwise": lambda h=history: stepwise(h)}
            before, error = race(packing, options.rounds, clock)
            print(
                f"{what}: before the network ours {before['ours']:.0f} ms, step by step {before['stepwise']:.0f} ms, "
                f"ratio {before['stepwise'] / before['ours']:.2f}; inputs differ by {error:.1e}; with the network "
                f"{(best['plain'] + before['stepwise']) / (best['ours'] + before['ours']):.2f}"
            )


if __name__ == "__main__":
    main()

"""STSS on a CPU: our network against the published structure run plainly, in one process, interleaved.

    python benchmarks/stss.py [--sizes 270x480 540x960] [--rounds 5] [--threads 1]

The rival is the published structure as PyTorch users write it: features and gate by two convolutions each, attention by
unfolding all windows, channels first, eager. Both get the same weights; the greatest difference of their frames is
printed. Times are the least of several rounds. Memory is that of a process of its own: ``--memory ours|plain``.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch
import torch.nn.functional as F
from ffplug_stss.channels import Inputs
from ffplug_stss.models import STSSNet
from ffplug_stss.models.layers import Convolution, GatedConvolution
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


def main() -> None:
    """Time, or measure memory, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", choices=("ours", "plain"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    network = STSSNet(dict(type="ffplug_stss.EfficientReshading")).eval()
    runs = {"ours": lambda inputs: network.produce(inputs), "plain": lambda inputs: plain(network, inputs)}
    with torch.inference_mode(), fixed_weights():
        for size in options.sizes:
            height, width = map(int, size.split("x"))
            inputs = draw_inputs(height, width)
            if options.memory:
                before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                runs[options.memory](inputs)
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
                print(f"{size} {options.memory}: {peak / 1024:.0f} MiB above the inputs and weights")
                continue
            frames = {name: run(inputs) for name, run in runs.items()}
            error = float((frames["ours"] - frames["plain"]).abs().max())
            best = dict.fromkeys(runs, float("inf"))
            for _ in range(options.rounds):
                for name, run in runs.items():
                    start = time.perf_counter()
                    run(inputs)
                    best[name] = min(best[name], time.perf_counter() - start)
            ratio = best["plain"] / best["ours"]
            print(
                f"{size} -> {2 * height}x{2 * width}, {options.threads} thread(s): ours {best['ours'] * 1e3:.0f} ms, "
                f"plain {best['plain'] * 1e3:.0f} ms, ratio {ratio:.2f}; frames differ by {error:.1e}"
            )


if __name__ == "__main__":
    main()

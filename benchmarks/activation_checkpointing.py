"""Memory and time of one training step, with activations kept and with activations computed twice.

Each setting runs in a process of its own: python benchmarks/activation_checkpointing.py [--model raft_large]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import torch
from mmengine.registry import MODELS

from ffplug.compat import turn_on_activation_checkpointing
from ffplug.config import load_config

SETTINGS = {
    "kept": ([], False),
    "computed twice: encoders and update block": (["encoder", "context_encoder", "decoder.update"], False),
    "computed twice: encoders and iterations": (["encoder", "context_encoder"], True),
}


def peak() -> float:
    """Return the most memory that this process had, in MiB: of the GPU where there is one, else of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure(name: str, setting: str, size: tuple[int, int]) -> tuple[float, float]:
    """Return MiB that a training step adds to the model and its frames, and its seconds."""
    parts, iterations = SETTINGS[setting]
    config = load_config(name)
    config.model.update(checkpoint_iterations=iterations)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    model = MODELS.build(config.model).to(device).train()
    turn_on_activation_checkpointing(model, parts)
    frames = torch.rand(1, 2, 3, *size, device=device) * 255
    before = peak()
    start = time.perf_counter()
    sum(flow.abs().mean() for flow in model(frames, mode="tensor")["flows"]).backward()
    if device == "cuda":
        torch.cuda.synchronize()
    return peak() - before, time.perf_counter() - start


def main() -> None:
    """Print a table, one row a setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="raft_large")
    parser.add_argument("--size", type=int, nargs=2, default=(368, 496), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--setting", choices=SETTINGS, help="measure this one alone, in this process")
    arguments = parser.parse_args()
    if arguments.setting:
        memory, seconds = measure(arguments.model, arguments.setting, tuple(arguments.size))
        print(f"| {arguments.setting} | {memory:.0f} | {seconds:.1f} |")
        return
    height, width = arguments.size
    print(f"{arguments.model}, one pair of {height}x{width}, {torch.get_num_threads()} threads\n")
    print("| activations | MiB | s |\n| --- | ---: | ---: |", flush=True)
    for setting in SETTINGS:
        subprocess.run([sys.executable, *sys.argv, "--setting", setting], check=True)


if __name__ == "__main__":
    main()

"""Whole networks on a CPU against other libraries', with the same weights: time in one run, memory a process each.

    pip install -r requirements/bench.txt
    python benchmarks/networks.py                          # all networks
    python benchmarks/networks.py raft_large --memory      # peak memory, each implementation in its own process

Every round times each implementation once, one after another, so that a busy machine slows all alike; the table gives
the median of the rounds and the median of the rounds' ratios. Memory is the largest resident size above what the
process holds when its networks are built.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))
import ffplug  # noqa: F401 (its setting of huge pages holds for all implementations here)

NETWORKS = ("raft_large", "gma", "skflow", "flowformer")


def frames(height: int, width: int) -> tuple[Tensor, Tensor]:
    """A smooth random picture, and the same moved by 3 pixels down and 5 to the right."""
    torch.manual_seed(1)
    first = torch.rand(1, 3, height // 4, width // 4) * 255
    first = torch.nn.functional.interpolate(first, (height, width), mode="bicubic").clamp(0, 255)
    return first, first.roll((3, 5), dims=(2, 3))


def compare_time(network: str, size: tuple[int, int], iterations: int, rounds: int) -> None:
    """Print the table of times of one network."""
    functions = importlib.import_module(f"peers.{network}").implementations(iterations)
    first, second = frames(*size)
    times: dict[str, list[float]] = {name: [] for name in functions}
    with torch.inference_mode():
        flows = {name: function(first, second) for name, function in functions.items()}
        for _ in range(rounds):
            for name, function in functions.items():
                start = time.perf_counter()
                function(first, second)
                times[name].append(time.perf_counter() - start)
    print(f"\n{network}, {iterations} iterations, {size[0]}x{size[1]}, {torch.get_num_threads()} thread(s)\n")
    print("| implementation | median s | time / ffplug's | largest difference of flow, px |")
    print("|---|---|---|---|")
    for name, values in times.items():
        ratio = statistics.median(other / own for other, own in zip(values, times["ffplug"], strict=True))
        difference = float((flows[name] - flows["ffplug"]).abs().max())
        print(f"| {name} | {statistics.median(values):.2f} | {ratio:.2f} | {difference:.1e} |")
    print(f"\nLargest flow: {float(flows['ffplug'].abs().max()):.1f} px", flush=True)


def peak_memory(network: str, name: str, size: tuple[int, int], iterations: int) -> float:
    """GiB that one call of one implementation takes above what the built networks take."""
    function = importlib.import_module(f"peers.{network}").implementations(iterations)[name]
    with torch.inference_mode():
        function(*frames(128, 128))  # libraries and kernels load
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        flow = function(*frames(*size))
    if not torch.isfinite(flow).all():
        raise SystemExit(f"{name}: the flow is not finite")
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20


def compare_memory(network: str, size: tuple[int, int], iterations: int, only: list[str]) -> None:
    """Print the table of peak memory of one network, a process for each implementation."""
    names = only or list(importlib.import_module(f"peers.{network}").implementations(iterations))
    found: dict[str, float | None] = {}
    for name in names:
        command = [sys.executable, __file__, network, "--peak", name, "--size", f"{size[0]}x{size[1]}"]
        command += ["--iterations", str(iterations), "--threads", str(torch.get_num_threads())]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found[name] = float(done.stdout.split()[-1]) if done.returncode == 0 else None
    print(f"\n{network}, {iterations} iterations, {size[0]}x{size[1]}: memory above the built network\n")
    print("| implementation | GiB | ffplug's / this |")
    print("|---|---|---|")
    for name, value in found.items():
        text = "| did not finish | |" if value is None else f"| {value:.2f} | {found['ffplug'] / value:.2f} |"
        print(f"| {name} {text}", flush=True)


def main() -> None:
    """Run the comparisons and print tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--size", default="436x1024", help="height x width of the frames")
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", action="store_true", help="compare peak memory in place of time")
    parser.add_argument("--only", nargs="*", default=[], help="implementations whose memory is taken")
    parser.add_argument("--peak", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    torch.set_num_threads(arguments.threads)
    height, width = map(int, arguments.size.split("x"))
    for network in arguments.networks or NETWORKS:
        if network not in NETWORKS:
            raise SystemExit(f"{network}: expected one of {', '.join(NETWORKS)}")
        if arguments.peak:
            print(peak_memory(network, arguments.peak, (height, width), arguments.iterations))
        elif arguments.memory:
            compare_memory(network, (height, width), arguments.iterations, arguments.only)
        else:
            compare_time(network, (height, width), arguments.iterations, arguments.rounds)


if __name__ == "__main__":
    main()

"""Pairs per second of bulk inference with workers, against a plain loop over the same pairs in the same run.

    OMP_NUM_THREADS=1 python benchmarks/bulk.py [--pairs 96] [--size 192x320] [--workers 1 2] [--rounds 3]

Every way uses one thread for each process and writes the same files. The time that a worker takes to start and to load
the model is told apart: it is paid once for a job of any length.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

import ffplug
from ffplug.apis.bulk_inference import InferWork, ListSource, Output
from ffplug.apis.checkpoints import save_weights
from ffplug.bulk import Failure, run_job


class Clock:
    """Notes when pairs are done."""

    def start(self, total: int, done: int) -> None:
        """Begin."""
        self.begun, self.times, self.counts, self.cpu = time.perf_counter(), [], [], []

    def advance(self, count: int) -> None:
        """Note a unit."""
        self.times.append(time.perf_counter())
        self.cpu.append(time.process_time())
        self.counts.append(count)

    def fail(self, failure: Failure) -> None:
        """Stop at a failure, which has no place here."""
        raise RuntimeError(str(failure))

    def note(self, text: str) -> None:
        """Nothing is noted."""

    def rate(self) -> float:
        """Pairs per second after the first unit, which comes after loading the model."""
        return sum(self.counts[1:]) / (self.times[-1] - self.times[0])

    def processor(self) -> float:
        """Seconds of this process's processor for each pair, after the first unit."""
        return (self.cpu[-1] - self.cpu[0]) / sum(self.counts[1:])

    def first(self) -> float:
        """Seconds until the first unit is done."""
        return self.times[0] - self.begun


def make_list(folder: Path, pairs: int, height: int, width: int) -> Path:
    """Write frames and a list of their pairs."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    frame = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    for index in range(pairs + 1):
        cv2.imwrite(str(folder / f"{index}.png"), np.roll(frame, index, axis=1))
    path = folder / "pairs.csv"
    path.write_text("".join(f"{index}.png,{index + 1}.png,{index}\n" for index in range(pairs)))
    return path


def loop(folder: Path, pairs: int, weights: Path, out: Path) -> tuple[float, float]:
    """Pairs per second and processor seconds for each, of a plain loop on one thread, the model loaded."""
    inferencer = ffplug.FlowInferencer("raft_small", weights, device="cpu")
    out.mkdir()
    inferencer.predict(folder / "0.png", folder / "1.png")
    start, cpu = time.perf_counter(), time.process_time()
    for index in range(pairs):
        result = inferencer.predict(folder / f"{index}.png", folder / f"{index + 1}.png")
        result.write(out / f"{index}.flo")
    return pairs / (time.perf_counter() - start), (time.process_time() - cpu) / pairs


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=96)
    parser.add_argument("--size", default="192x320")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--chunk", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    height, width = map(int, arguments.size.split("x"))
    torch.set_num_threads(1)
    ways = [0, *arguments.workers]
    rates: dict[object, list[float]] = {way: [] for way in ("loop", *ways)}
    overheads: list[float] = []
    firsts: dict[int, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pairs = make_list(folder, arguments.pairs, height, width)
        weights = save_weights(folder / "weights.safetensors", ffplug.build_model("raft_small").state_dict())
        for place in range(arguments.rounds):
            rate, cpu = loop(folder, arguments.pairs, weights, folder / f"loop{place}")
            rates["loop"].append(rate)
            for way in ways:
                out, clock = folder / f"bulk{way}_{place}", Clock()
                source = ListSource(str(pairs), arguments.chunk)
                work = InferWork(source, [Output(out, ".flo", False)], "raft_small", str(weights), device="cpu")
                run_job(work, clock, workers=way)
                rates[way].append(clock.rate())
                firsts[way].append(clock.first())
                if way == 0:
                    overheads.append(clock.processor() / cpu)
    plain = rates["loop"]
    print(f"raft_small, {height}x{width}, {arguments.pairs} pairs, {arguments.rounds} rounds, medians")
    print(f"plain loop: {statistics.median(plain):.2f} pairs/s")
    print(f"processor time of a pair in bulk, this process: {statistics.median(overheads):.3f} of the loop's")
    for way in ways:
        ratio = statistics.median(rate / base for rate, base in zip(rates[way], plain, strict=True))
        name = f"bulk, {way} worker{'s' * (way > 1)}" if way else "bulk, this process"
        first = statistics.median(firsts[way])
        rate = statistics.median(rates[way])
        print(f"{name}: {rate:.2f} pairs/s, {ratio:.3f} of the loop; first {arguments.chunk} pairs after {first:.1f} s")


if __name__ == "__main__":
    main()

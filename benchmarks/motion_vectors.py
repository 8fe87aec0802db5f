"""Frames a second of motion vectors out of a video against plain decoding of the same file, at 436×1024.

    OMP_NUM_THREADS=1 python benchmarks/motion_vectors.py [--frames 96] [--size 436x1024] [--rounds 5] [--threads 1]

In brackets: the rate as a share of the floor, which is a decoder that is asked for vectors, and what it gives looked
at. Times are of the processor, in one thread, so that other work on the machine counts little; with more threads they
are of the clock. Each is the best of the rounds; the ways alternate, so that a machine that slows down does so for all.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from av.codec.context import Flags2
from ffplug_mvflow.encoding import Encoding, encode_clip
from ffplug_mvflow.fields import flow_to_previous
from ffplug_mvflow.video import MotionVectorVideo

from ffplug.apis.video import VideoFrames

CLIPS = {
    "P frames, one reference": Encoding(gop=12),
    "2 B frames, one reference a list": Encoding(gop=12, b_frames=2),
    "P frames, four references": Encoding(gop=12, references=4),
}


def moving(count: int, height: int, width: int) -> list[np.ndarray]:
    """A textured background, and a textured disc over it, that move each their own way."""
    random = np.random.RandomState(0)
    coarse = [random.randint(20, 235, (rows, columns, 3), np.uint8) for rows, columns in ((90, 180), (60, 60))]
    ground = cv2.resize(coarse[0], (width + 300, height + 200), interpolation=cv2.INTER_CUBIC)
    disc = cv2.resize(coarse[1], (200, 200), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:200, :200] - 100
    inside = x**2 + y**2 < 100**2
    frames = []
    for index in range(count):
        frame = ground[2 * index :][:height, 3 * index :][:, :width].copy()
        left, top = 100 + 5 * index, 120 - index
        frame[top : top + 200, left : left + 200][inside] = disc[inside]
        frames.append(frame)
    return frames


def decode(path: Path, threads: int, export: bool = False, read: bool = False) -> Iterable[object]:
    """The decoder alone, asked for vectors or not."""
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        context.thread_type, context.thread_count = ("FRAME", threads) if threads > 1 else ("SLICE", 1)
        if export:
            context.flags2 |= Flags2.export_mvs
        for frame in container.decode(video=0):
            vectors = frame.side_data.get("MOTION_VECTORS") if read else None
            yield vectors if vectors is None else np.frombuffer(vectors, np.int32)


FLOOR = "vectors asked for and read"


def ways(path: Path, threads: int) -> dict[str, Callable[[], Iterable[object]]]:
    """What is timed, from the decoder alone to what a network gets."""

    def video() -> MotionVectorVideo:
        return MotionVectorVideo(path, threads=threads)

    return {
        "decoding": lambda: decode(path, threads),
        "vectors asked for": lambda: decode(path, threads, export=True),
        FLOOR: lambda: decode(path, threads, export=True, read=True),
        "decoding to RGB": lambda: VideoFrames(path),
        "vectors on cells": lambda: video().coded_frames(),
        "flow to the frame before": lambda: (
            flow_to_previous(coded.field) if coded.field else None for coded in video().coded_frames()
        ),
        "RGB and dense flow from the frame before": lambda: video(),
    }


def main() -> None:
    """Encode the clips, time each way, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=96)
    parser.add_argument("--size", default="436x1024", metavar="HxW")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of the decoder")
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    names = list(ways(Path(), 1))
    print(f"| {options.frames} frames of {height}×{width}, CRF 23, frames a second | {' | '.join(names)} |")
    print("| --- |" + " --- |" * len(names))
    with tempfile.TemporaryDirectory() as folder:
        for name, encoding in CLIPS.items():
            path = Path(folder) / f"{encoding.name}.mp4"
            encode_clip(moving(options.frames, height, width), encoding, path)
            best: dict[str, float] = {}
            for _ in range(options.rounds):
                for way, frames in ways(path, options.threads).items():
                    begun = clock()
                    count = sum(1 for _ in frames())
                    best[way] = max(best.get(way, 0.0), count / (clock() - begun))
            cells = [f"{rate:.0f} ({rate / best[FLOOR]:.2f})" for rate in best.values()]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

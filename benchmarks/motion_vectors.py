"""Frames a second of motion vectors out of a video against plain decoding of the same file, at 436×1024.

    OMP_NUM_THREADS=1 python benchmarks/motion_vectors.py [--frames 48] [--size 436x1024] [--rounds 3]

Times are of the processor, in one thread, so that other work on the machine counts little; each is the best of the
rounds. The ways alternate, so that a machine that slows down does so for all.
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


def decode(path: Path) -> Iterable[object]:
    """The decoder alone."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "SLICE"
        yield from container.decode(video=0)


def ways(path: Path) -> dict[str, Callable[[], Iterable[object]]]:
    """What is timed, from the decoder alone to what a network gets."""
    return {
        "decoding": lambda: decode(path),
        "decoding to RGB": lambda: VideoFrames(path),
        "vectors on cells": lambda: MotionVectorVideo(path).coded_frames(),
        "vectors as flow to the frame before": lambda: (
            flow_to_previous(coded.field) if coded.field else None for coded in MotionVectorVideo(path).coded_frames()
        ),
        "RGB and dense vectors for a network": lambda: MotionVectorVideo(path),
    }


def main() -> None:
    """Encode the clips, time each way, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--size", default="436x1024", metavar="HxW")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print(
        f"| {options.frames} frames of {height}×{width}, CRF 23, frames a second | " + " | ".join(ways(Path())) + " |"
    )
    print("| --- |" + " --- |" * len(ways(Path())))
    with tempfile.TemporaryDirectory() as folder:
        for name, encoding in CLIPS.items():
            path = Path(folder) / f"{encoding.name}.mp4"
            encode_clip(moving(options.frames, height, width), encoding, path)
            best: dict[str, float] = {}
            for _ in range(options.rounds):
                for way, frames in ways(path).items():
                    begun = time.process_time()
                    count = sum(1 for _ in frames())
                    best[way] = max(best.get(way, 0.0), count / (time.process_time() - begun))
            print(f"| {name} | " + " | ".join(f"{rate:.0f}" for rate in best.values()) + " |", flush=True)


if __name__ == "__main__":
    main()

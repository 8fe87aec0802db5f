"""Frames per second of drawn faces, with flow, by size and by number of shards; the same ones whatever the split.

    OMP_NUM_THREADS=1 python benchmarks/faces.py [--sizes 128 256 512] [--shards 1 2 4] [--sequences 8] [--frames 5]
    python benchmarks/faces.py --motion 24 --sizes 512    # instead: how far faces move, over so many sequences

A frame is its picture, facial and head flow to the next one, and visibility. Each shard is a process with one thread
that draws its share of one set. Where more run than there are cores, or the machine is busy, the rate by the clock says
little: the rate per core counts the seconds that processors spent.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import time

import numpy as np
import torch
from ffplug_face.models import OpenHead
from ffplug_face.sequences import FaceScene, face_scene


def draw(scene: FaceScene) -> str:
    """Draw all of a sequence; a digest of its pictures and flows."""
    digest = hashlib.sha256()
    for frame in range(len(scene)):
        digest.update(scene.image(frame).numpy().tobytes())
        if frame + 1 < len(scene):
            flow = scene.flow(frame)
            for part in (flow.facial, flow.head, flow.mask, flow.visible):
                digest.update(part.numpy().tobytes())
    return digest.hexdigest()


def shard(first: int, step: int, sequences: int, frames: int, size: int) -> tuple[dict[int, str], float, float, float]:
    """Digests of every ``step``-th sequence, when it began and ended, processor seconds; starting is not counted."""
    torch.set_num_threads(1)
    head = OpenHead()
    draw(face_scene(head, 1, 0, size=(size, size), frames=(2,)))
    begun, cpu = time.time(), time.process_time()
    digests = {
        index: draw(face_scene(head, 0, index, size=(size, size), frames=(frames,)))
        for index in range(first, sequences, step)
    }
    return digests, begun, time.time(), time.process_time() - cpu


def motion(head: OpenHead, size: int, count: int) -> None:
    """Print how far heads and expressions move from a frame to the next, by the length of the sequence."""
    print(f"{size}×{size}, {count} sequences a row, pixels over the head; means of pairs' means unless told else")
    print(
        "| frames | head flow | its 95 % | expression flow | its 99 % in a pair | below 0.5 px | above 2 px | visible |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for frames in (2, 5, 10, 20):
        rows = []
        for index in range(count):
            scene = face_scene(head, 11, index, size=(size, size), frames=(frames,))
            for frame in np.unique(np.linspace(0, frames - 2, 4).astype(int)).tolist():
                flow = scene.flow(frame)
                moved, changed = (getattr(flow, name)[:, flow.mask].norm(dim=0) for name in ("head", "expression"))
                shares = (
                    (changed < 0.5).float().mean(),
                    (changed > 2).float().mean(),
                    flow.visible[flow.mask].float().mean(),
                )
                rows.append([float(value) for value in (moved.mean(), changed.mean(), changed.quantile(0.99), *shares)])
        mean, largest = np.mean(rows, 0), np.quantile([row[0] for row in rows], 0.95)
        print(
            f"| {frames} | {mean[0]:.2f} | {largest:.1f} | {mean[1]:.2f} | {mean[2]:.2f} | {mean[3]:.0%} "
            f"| {mean[4]:.0%} | {mean[5]:.1%} |",
            flush=True,
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="*", default=[128, 256, 512])
    parser.add_argument("--shards", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--frames", type=int, default=5)
    parser.add_argument("--motion", type=int)
    arguments = parser.parse_args()
    if arguments.motion:
        for size in arguments.sizes:
            motion(OpenHead(), size, arguments.motion)
        return
    context = multiprocessing.get_context("spawn")
    load = os.getloadavg()[0]
    print(f"{arguments.sequences} sequences of {arguments.frames} frames, {os.cpu_count()} cores, load {load:.1f}")
    print("| size | shards | frames/s by the clock | frames/s per core | same as one shard |")
    print("| --- | --- | --- | --- | --- |")
    total = arguments.sequences * arguments.frames
    for size in arguments.sizes:
        whole = None
        for count in arguments.shards:
            with context.Pool(count) as pool:
                work = [(place, count, arguments.sequences, arguments.frames, size) for place in range(count)]
                results = pool.starmap(shard, work, chunksize=1)
            digests = {index: digest for part, *_ in results for index, digest in part.items()}
            whole = digests if whole is None else whole
            clock = max(end for _, _, end, _ in results) - min(begun for _, begun, _, _ in results)
            per_core = total / sum(cpu for *_, cpu in results)
            same = "yes" if digests == whole else "NO"
            print(f"| {size}×{size} | {count} | {total / clock:.1f} | {per_core:.1f} | {same} |", flush=True)


if __name__ == "__main__":
    main()

"""Time and memory of ``ffplug interpolate``, on a clip and on one ten times as long, with sound.

    OMP_NUM_THREADS=1 python benchmarks/interpolate.py [--frames 60] [--size 180x320] [--model dis] [--x 2]
    OMP_NUM_THREADS=1 python benchmarks/interpolate.py --overlap [--rounds 3] ...

Each length runs in a process of its own, so the peak of memory is that of the whole command. Then the result is read
packet by packet: the sound must be the same bytes at the same times, and both streams must end together.

With ``--overlap`` the clock is looked at instead: decoding, the model and encoding in threads of their own against all
in one, in turns, the least time of each; on as many cores as there are threads, or it shows nothing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

RATE = Fraction(24000, 1001)


def write_clip(path: Path, frames: int, height: int, width: int) -> None:
    """A textured picture that moves, as H.264 of 23.976 frames a second, and a tone as AAC."""
    coarse = np.random.RandomState(0).randint(0, 255, (height // 4 + 60, width // 4 + 60, 3), np.uint8)
    ground = cv2.resize(coarse, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    tone = (np.sin(np.arange(1024 * 64) / 20) / 3).astype(np.float32)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast"})
        video.width, video.height = width, height
        sound = container.add_stream("aac", rate=48000)
        sound.layout = "mono"
        samples = 0
        for number in range(frames):
            step = abs(number % 200 - 100)
            picture = np.ascontiguousarray(ground[step : step + height, 2 * step : 2 * step + width])
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            while samples < (number + 1) / RATE * 48000:
                start = samples % (1024 * 63)
                block = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="fltp", layout="mono")
                block.sample_rate, block.pts = 48000, samples
                container.mux(sound.encode(block))
                samples += 1024
        container.mux(video.encode(None))
        container.mux(sound.encode(None))


def run(arguments: list[str]) -> tuple[float, float]:
    """Seconds of the processor and the peak of memory in MiB of an ``ffplug`` command."""
    process = subprocess.Popen([sys.executable, "-m", "ffplug.cli", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"ffplug {' '.join(arguments)} failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def sound_packets(path: Path) -> list[tuple[Fraction, bytes]]:
    """When each packet of sound is heard, and its bytes."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.audio[0]) if packet.size]
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in packets]


def length(path: Path) -> tuple[int, Fraction]:
    """Frames of a video, and when the last one ends."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
        return len(packets), max((packet.pts + packet.duration) * packet.time_base for packet in packets)


def overlap(clip: Path, model: str, factor: int, rounds: int) -> None:
    """Print the seconds of the clock for one thread and for three, and what three could gain on idle cores."""
    from ffplug_ugsp.video import Encoding, Interpolator, build_interpolator, interpolate_video

    class Timed(Interpolator):
        """Notes the processor time of the model."""

        def __init__(self) -> None:
            self.inner = build_interpolator(model, random_weights=True)
            self.seconds = 0.0

        def __call__(self, *arguments):
            start = time.thread_time()
            produced = self.inner(*arguments)
            self.seconds += time.thread_time() - start
            return produced

    best = dict.fromkeys((0, 2), float("inf"))
    share = 1.0
    for number in range(rounds + 1):
        for ahead in best:
            timed = Timed()
            clock, processor = time.perf_counter(), time.process_time()
            interpolate_video(clip, clip.with_name(f"{ahead}.mp4"), factor, model=timed, ahead=ahead, device="cpu",
                              encoding=Encoding(options={"threads": "1"}))  # fmt: skip
            if number:
                best[ahead] = min(best[ahead], time.perf_counter() - clock)
            if not ahead:
                share = timed.seconds / (time.process_time() - processor)
    frames = length(clip)[0] * factor
    one, three = (best[ahead] / frames * 1e3 for ahead in (0, 2))
    print(
        f"{model}: a frame takes {one:.1f} ms in one thread, {three:.1f} in three: {one / three:.2f} times; the "
        f"model has {share:.0%} of the processor time, so on idle cores at most {1 / share:.2f} times"
    )


def draw(path: Path) -> None:
    """Two frames of a procedural scene, the true one between, and what is made of the two without weights."""
    import torch
    from ffplug_ugsp.datasets import exact_triplet
    from ffplug_ugsp.video import build_interpolator

    from ffplug.datasets import write_image
    from ffplug.datasets.procedural import SceneOptions, TextureSource, random_scene

    options = SceneOptions.preset("demo", speed=(9.0, 9.0))
    made = exact_triplet(random_scene(4, (144, 192), options, TextureSource("analytic")), 0.5)
    ends = [torch.from_numpy(made[name]).permute(2, 0, 1)[None] / 255 for name in ("frame0", "frame1")]
    pictures = {"first frame": made["frame0"], "true frame between": made["target"], "second frame": made["frame1"]}
    for model in ("blend", "dis"):
        frame = build_interpolator(model)(*ends, [Fraction(1, 2)])[0][0].permute(1, 2, 0)
        error = float((frame * 255 - torch.from_numpy(made["target"])).square().mean())
        title = f"{model}: {10 * np.log10(255**2 / error):.1f} dB"
        pictures[title] = (frame * 255).round().clamp(0, 255).byte().numpy()
    columns = []
    for title, picture in pictures.items():
        head = np.full((24, picture.shape[1], 3), 255, np.uint8)
        cv2.putText(head, title, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        columns.append(np.pad(np.concatenate([head, picture]), ((0, 0), (0, 6), (0, 0)), constant_values=255))
    write_image(path, np.concatenate(columns, axis=1))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=60, help="of the shorter clip")
    parser.add_argument("--size", default="180x320", help="HEIGHTxWIDTH")
    parser.add_argument("--model", default="dis")
    parser.add_argument("--checkpoint")
    parser.add_argument("--x", type=int, default=2)
    parser.add_argument("--overlap", action="store_true", help="time one thread against three")
    parser.add_argument("--rounds", type=int, default=3, help="of --overlap")
    parser.add_argument("--picture", type=Path, help="draw what the models without weights give, and do nothing else")
    options = parser.parse_args()
    if options.picture:
        draw(options.picture)
        return
    height, width = map(int, options.size.split("x"))
    print(f"{options.model}, x{options.x}, {height}×{width}")
    if options.overlap:
        with tempfile.TemporaryDirectory() as folder:
            write_clip(Path(folder, "clip.mp4"), options.frames, height, width)
            overlap(Path(folder, "clip.mp4"), options.model, options.x, options.rounds)
        return
    columns = ("frames of the clip", "processor, s", "for a frame of the result, s", "peak of memory, MiB")
    print(f"| {' | '.join(columns)} |\n|{' --: |' * len(columns)}")
    with tempfile.TemporaryDirectory() as folder:
        for frames in (options.frames, 10 * options.frames):
            clip, out = Path(folder, f"{frames}.mp4"), Path(folder, f"{frames}_out.mp4")
            write_clip(clip, frames, height, width)
            given = ["--checkpoint", options.checkpoint] if options.checkpoint else []
            arguments = ["interpolate", str(clip), str(out), "--x", str(options.x), "--model", options.model, *given]
            seconds, memory = run(arguments)
            if sound_packets(clip) != sound_packets(out):
                raise SystemExit("the sound differs")
            if length(out) != (frames * options.x, length(clip)[1]):
                raise SystemExit(
                    f"expected {frames * options.x} frames that end at {length(clip)[1]}, found {length(out)}"
                )
            print(f"| {frames} | {seconds:.1f} | {seconds / options.x / frames:.3f} | {memory:.0f} |", flush=True)


if __name__ == "__main__":
    main()

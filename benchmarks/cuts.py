"""How well ``ffplug interpolate`` finds cuts: precision and recall by threshold, on drawn clips whose cuts are known.

    python benchmarks/cuts.py [--scenes 12] [--frames 24] [--seed 0]

Every clip is encoded as H.264 and scanned as the command does. Pictures are drawn textures with ellipses moving over
them, seen by a camera that stands, pans slowly or fast, zooms, turns or shakes; some clips are fades, dissolves and
flashes, which hold no cut; others are cut between two pictures: of another place, of the same place and colours seen
elsewhere, both dark, in a fast pan, after a still, right after one another.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from ffplug_ugsp.video import SourceVideo

SIZE = (180, 320)
THRESHOLDS = (0.02, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1, 0.15, 0.2, 0.3)
Pictures = list[np.ndarray]


class Place:
    """A drawn place with things that move in it.

    Args:
        draw: random numbers.
        light: mean level of its colours, 0 to 1.
        contrast: how far they go from it.
    """

    def __init__(self, draw: np.random.RandomState, light: float | None = None, contrast: float | None = None) -> None:
        height, width = (3 * side for side in SIZE)
        tone = draw.uniform(0.2, 0.8) if light is None else light
        reach = draw.uniform(0.5, 1.5) if contrast is None else contrast
        ground = np.zeros((height, width, 3), np.float32)
        for scale in (4, 12, 36, 108):
            noise = draw.uniform(-1, 1, (height // scale + 2, width // scale + 2, 3)).astype(np.float32)
            ground += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * scale**0.5 / 30
        self.ground = np.clip(tone + draw.uniform(-0.15, 0.15, 3) + reach * ground, 0, 1).astype(np.float32)
        ranges = ((0.2, 0.8, 2), (-0.006, 0.006, 2), (0.04, 0.14, 2), (0, 1, 3))
        self.things = [[draw.uniform(*one) for one in ranges] for _ in range(4)]

    def view(self, time: float, place: tuple[float, float] = (0, 0), zoom: float = 1, turn: float = 0) -> np.ndarray:
        """What a camera sees at a time: moved from the middle by parts of a frame, turned by degrees."""
        height, width = SIZE
        middle = (1.5 * width + place[0] * width, 1.5 * height + place[1] * height)
        ground = self.ground.copy()
        for where, speed, axes, colour in self.things:
            x, y = (1 + where + time * speed) * (width, height)
            radii = (int(axes[0] * width), int(axes[1] * width))
            cv2.ellipse(ground, (round(x), round(y)), radii, 0, 0, 360, colour.tolist(), -1, cv2.LINE_AA)
        matrix = cv2.getRotationMatrix2D(middle, turn, zoom)
        matrix[:, 2] += (width / 2 - middle[0], height / 2 - middle[1])
        return cv2.warpAffine(ground, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _pan(place: Place, frames: int, speed: float, start: float = 0) -> Pictures:
    return [place.view(n, (start + speed * (n - frames / 2), 0.02 * n / frames)) for n in range(frames)]


def moving(draw: np.random.RandomState, frames: int) -> Iterator[tuple[str, Pictures, list[int]]]:
    """Clips without cuts: their name, pictures, and no first frame of a scene."""
    place = Place(draw)
    yield "standing camera", [place.view(n) for n in range(frames)], []
    for name, speed in (("slow pan", 0.01), ("fast pan", 0.04), ("whip pan", 0.08)):
        yield name, _pan(place, frames, speed * draw.choice((-1, 1)) * 24 / frames), []
    # Begins in the middle of the clip, at once.
    steps = np.cumsum([0.06 * (n > frames // 2) for n in range(frames)])
    yield "pan that begins", [place.view(n, (step - 0.3, 0)) for n, step in enumerate(steps)], []
    yield "zoom", [place.view(n, zoom=1.6 ** (n / 12)) for n in range(frames)], []
    yield "turning", [place.view(n, turn=4 * n) for n in range(frames)], []
    shakes = draw.uniform(-0.04, 0.04, (frames, 2))
    yield "shaking", [place.view(n, tuple(shake)) for n, shake in enumerate(shakes)], []
    close = [picture.copy() for picture in _pan(place, frames, 0.01)]
    colour = draw.uniform(0, 1, 3).tolist()
    for n, picture in enumerate(close):  # right before the camera
        x = round((n / frames * 3 - 1) * SIZE[1])
        cv2.rectangle(picture, (x, 0), (x + SIZE[1] // 2, SIZE[0]), colour, -1)
    yield "large thing passing", close, []


def lighting(draw: np.random.RandomState, frames: int) -> Iterator[tuple[str, Pictures, list[int]]]:
    """Clips whose light changes: fades, dissolves, flashes, flicker; no cuts."""
    place, other = Place(draw), Place(draw)
    still, next_one = _pan(place, frames, 0.004), _pan(other, frames, 0.004)
    for name, length in (("fade out and in", 12), ("fast fade", 5)):
        share = np.clip(np.abs(np.arange(frames) - frames / 2) / length, 0, 1)
        yield name, [way * picture for way, picture in zip(share, still, strict=True)], []
    for name, length in (("dissolve", 12), ("fast dissolve", 5)):
        share = np.clip((np.arange(frames) - frames / 2) / length + 0.5, 0, 1)
        yield name, [(1 - s) * a + s * b for s, a, b in zip(share, still, next_one, strict=True)], []
    for name, gain, length in (("flash", 0.8, 1), ("long flash", 0.8, 3), ("flicker", 0.12, 1)):
        at = draw.randint(6, frames - 6)
        lit = [n % 3 == 0 if name == "flicker" else at <= n < at + length for n in range(frames)]
        yield name, [np.clip(p + gain * on, 0, 1) for p, on in zip(still, lit, strict=True)], []


def cutting(draw: np.random.RandomState, frames: int) -> Iterator[tuple[str, Pictures, list[int]]]:
    """Clips with cuts."""
    half = frames // 2
    one, other = Place(draw), Place(draw)
    yield "cut", _pan(one, half, 0.005) + _pan(other, half, 0.005), [half]
    yield "cut in fast pans", _pan(one, half, 0.05) + _pan(other, half, 0.05), [half]
    yield "cut after a still", [one.view(0)] * half + _pan(other, half, 0.01), [half]
    yield "cut to the same place elsewhere", _pan(one, half, 0.005, -0.6) + _pan(one, half, 0.005, 0.6), [half]
    light = draw.uniform(0.3, 0.7)
    alike = [Place(draw, light, 0.8) for _ in range(2)]
    yield "cut between places of like light", _pan(alike[0], half, 0.005) + _pan(alike[1], half, 0.005), [half]
    dark = [Place(draw, 0.1, 0.5) for _ in range(2)]
    yield "cut between dark places", _pan(dark[0], half, 0.005) + _pan(dark[1], half, 0.005), [half]
    short = _pan(one, half - 4, 0.005) + _pan(Place(draw), 4, 0.005)
    yield "two cuts within four frames", short + _pan(other, half, 0.005), [half - 4, half]


def scan(folder: str, pictures: Pictures) -> np.ndarray:
    """The changes that the command sees in a clip of these pictures."""
    path = Path(folder, "clip.mp4")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "23"})
        stream.height, stream.width = SIZE
        for picture in pictures:
            levels = (255 * np.clip(picture, 0, 1)).round().astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(levels), format="rgb24")))
        container.mux(stream.encode(None))
    return SourceVideo(path).scan().change


def main() -> None:
    """Draw, scan and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=12, help="of each kind")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = np.random.RandomState(options.seed)
    found: dict[str, list[tuple[np.ndarray, list[int]]]] = defaultdict(list)
    kinds: tuple[Callable, ...] = (moving, lighting, cutting)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.scenes):
            for kind in kinds:
                for name, pictures, cuts in kind(draw, options.frames):
                    found[name].append((scan(folder, pictures), cuts))
    print("| threshold | recall | precision | precision without flashes |\n| --: | --: | --: | --: |")
    every = [clip for several in found.values() for clip in several]
    calm = [clip for name, several in found.items() if "flash" not in name for clip in several]
    for threshold in THRESHOLDS:
        right = sum(int((change[cuts] > threshold).sum()) for change, cuts in every)
        there = sum(len(cuts) for _, cuts in every)
        told = [max(1, sum(int((change > threshold).sum()) for change, _ in clips)) for clips in (every, calm)]
        print(f"| {threshold:g} | {right / there:.3f} | {right / told[0]:.3f} | {right / told[1]:.3f} |")
    print("\n| clips | largest change that is no cut (median, greatest) | change at a cut (least, median) |")
    print("| :-- | --: | --: |")
    for name, several in found.items():
        others = [float(np.delete(change, cuts).max()) for change, cuts in several]
        at = [float(change[cut]) for change, cuts in several for cut in cuts]
        tells = f"{min(at):.3f}, {np.median(at):.3f}" if at else ""
        print(f"| {name} | {np.median(others):.3f}, {max(others):.3f} | {tells} |")


if __name__ == "__main__":
    main()

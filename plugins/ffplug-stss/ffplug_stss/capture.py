"""Frames that an engine wrote as EXR files, made into records of the released data's form.

A capture is a folder of ``SCENEBUFFER.0007.exr``, as Unreal's buffer visualisation dumps them, with the buffers of
:data:`BUFFERS`; another holds the true frames, ``SCENEPreTonemapHDRColor.0007.exr`` at twice the size. Frames of even
numbers become shaded ones, those between extrapolated ones.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from ffplug.datasets.base import choose
from ffplug.errors import ConfigError, DataError
from ffplug.files import atomic_path
from ffplug.ops import backward_warp
from ffplug_stss.channels import HISTORY, SCALE
from ffplug_stss.rendering import encode_srgb
from ffplug_stss.sequences import encode, save_array, to_array
from ffplug_stss.warping import (
    COMPOSITIONS,
    OUTSIDE,
    better_turn,
    compose,
    distance,
    fill_holes,
    from_engine,
    inside,
    occlusion_motion,
    warp,
)

COLOUR = "PreTonemapHDRColor"
BUFFERS = {
    COLOUR: "RGB",
    "BaseColor": "RGB",
    "WorldNormal": "RGB",
    "WorldPosition": "RGB",
    "SceneDepth": "R",
    "MotionVector": "RG",
    "MyStencil": "RGB",
    "NoV": "R",
    "Metallic": "R",
    "Roughness": "R",
}
"""Buffers of a frame and the channels that are read of each."""

SKY = -1.0
"""A normal of which all three are this marks the sky."""

LEAST_FRAME = 2 * HISTORY - 1
"""Frames that must come before one that is produced."""


def read_exr(path: str | os.PathLike, channels: str) -> np.ndarray:
    """Read channels of an EXR file, in the part that has them, H×W×C float32.

    Raises:
        ConfigError: the package OpenEXR is missing.
        DataError: the file is missing, damaged, has no part with these channels, or holds NaN or infinity.
    """
    exr, path = _openexr(), Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; every frame needs all of its buffers")
    try:
        parts = exr.File(str(path), separate_channels=True).parts
        found = [{name.rpartition(".")[2]: channel.pixels for name, channel in part.channels.items()} for part in parts]
    except Exception as error:  # OpenEXR raises RuntimeError, ValueError or its own, by version and damage
        raise DataError(f"{path}: not a whole EXR file ({error}); write it again") from None
    for part in found:
        if all(name in part for name in channels):
            values = np.stack([np.asarray(part[name], np.float32) for name in channels], axis=-1)
            if not np.isfinite(values).all():
                bad = int((~np.isfinite(values)).sum())
                raise DataError(f"{path}: {bad} values are NaN or infinite; render the frame again")
            return values
    if not found:
        raise DataError(f"{path}: not a whole EXR file (it has no parts); write it again")
    listed = "; ".join(f"part {place}: {', '.join(sorted(part))}" for place, part in enumerate(found))
    raise DataError(f"{path}: no part has the channels {', '.join(channels)} ({listed})")


def peek_exr(path: str | os.PathLike) -> tuple[int, int]:
    """Height and width of an EXR file, from its header.

    Raises:
        ConfigError: the package OpenEXR is missing.
        DataError: the file is missing or damaged.
    """
    exr = _openexr()
    try:
        low, high = exr.File(str(path), header_only=True).header()["dataWindow"]
    except Exception as error:  # as in read_exr
        raise DataError(f"{path}: not a whole EXR file ({error}); write it again") from None
    return int(high[1] - low[1] + 1), int(high[0] - low[0] + 1)


def write_exr(path: str | os.PathLike, channels: Mapping[str, np.ndarray]) -> None:
    """Write channels H×W, float16 or float32, as an EXR file; its folder is made, and the file appears when whole.

    Raises:
        ConfigError: the package OpenEXR is missing.
        DataError: there is no room for it.
        RuntimeError: OpenEXR can't write it for another reason.
    """
    exr = _openexr()
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    whole = {name: np.ascontiguousarray(values) for name, values in channels.items()}
    with atomic_path(path, sync=False) as temporary, exr.File(header, whole) as file:
        file.write(str(temporary))


def _openexr() -> ModuleType:
    try:
        import OpenEXR
    except ImportError:
        raise ConfigError("reading EXR needs the package OpenEXR: pip install 'ffplug-stss[exr]'") from None
    return OpenEXR


class Capture:
    """A captured sequence, frame by frame.

    Args:
        low: folder of the buffers at the low resolution.
        high: folder of the true frames.
        far: distance that becomes depth 1, in the unit of ``SceneDepth``.
        exposure: factor of the linear colours, which are then cut to 0..1 and encoded as sRGB.
        rule: how vectors of several frames are joined, see :func:`ffplug_stss.warping.compose`.

    Raises:
        ConfigError: an argument is out of its range.
        DataError: a folder holds no frames, or the calls find a file or value that is wrong.
    """

    def __init__(
        self,
        low: str | os.PathLike,
        high: str | os.PathLike,
        far: float,
        exposure: float = 1.0,
        rule: str = "exact",
    ) -> None:
        if not (far > 0 and exposure > 0):
            raise ConfigError(f"far={far:g}, exposure={exposure:g}: expected both above 0")
        self.low, self.high, self.far, self.exposure = Path(low), Path(high), far, exposure
        self.rule = choose("compose", rule, COMPOSITIONS)
        self.scene, self.numbers = self._scan(self.low)
        # A frame and those before it share most of what they read.
        self.buffers: Callable[[int], dict[str, Tensor]] = functools.lru_cache(maxsize=8)(self._buffers)

    @staticmethod
    def _scan(folder: Path) -> tuple[str, list[int]]:
        pattern = re.compile(rf"(.*){COLOUR}\.(\d+)\.exr")
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder")
        matches = [match for match in map(pattern.fullmatch, sorted(os.listdir(folder))) if match]
        scenes = sorted({match[1] for match in matches})
        if len(scenes) != 1:
            raise DataError(f"{folder}: expected SCENE{COLOUR}.0007.exr of one scene, found {scenes or 'none'}")
        return scenes[0], sorted(int(match[2]) for match in matches)

    def usable(self) -> list[int]:
        """Numbers of the frames that have a whole history before them.

        Raises:
            DataError: there are none.
        """
        there = set(self.numbers)
        found = [n for n in self.numbers if all(m in there for m in range(n - LEAST_FRAME, n))]
        if not found:
            raise DataError(f"{self.low}: no frame has {LEAST_FRAME} successive frames before it")
        return found

    def _path(self, folder: Path, buffer: str, number: int) -> Path:
        return folder / f"{self.scene}{buffer}.{number:04d}.exr"

    def _buffers(self, number: int) -> dict[str, Tensor]:
        """The buffers of a frame, 1×C×H×W float32 each, checked."""
        found: dict[str, Tensor] = {}
        for name, channels in BUFFERS.items():
            path = self._path(self.low, name, number)
            values = torch.from_numpy(read_exr(path, channels)).permute(2, 0, 1)[None].contiguous()
            size = next(iter(found.values()), values).shape[2:]
            if values.shape[2:] != size or min(size) < 8:
                raise DataError(
                    f"{path}: {values.shape[2]}×{values.shape[3]} pixels, expected {size[0]}×{size[1]} as the other "
                    "buffers, and at least 8×8"
                )
            found[name] = values
        vectors = found["MotionVector"]
        if float(vectors.abs().max()) > 2 * max(vectors.shape[2:]):
            raise DataError(
                f"{self._path(self.low, 'MotionVector', number)}: vectors of up to {float(vectors.abs().max()):g} "
                "pixels; expected those of one frame, in pixels, x right and y up"
            )
        for name, least, most in (("BaseColor", 0, 1), ("Metallic", 0, 1), ("Roughness", 0, 1), ("WorldNormal", -1, 1)):
            low, high = float(found[name].min()), float(found[name].max())
            if low < least - 0.05 or high > most + 0.05:
                path = self._path(self.low, name, number)
                raise DataError(f"{path}: values lie in {low:g}..{high:g}, expected {least}..{most}")
        found["motion"] = from_engine(vectors)
        found["image"] = encode_srgb((self.exposure * found[COLOUR]).clamp(0, 1))
        found["depth"] = (found["SceneDepth"] / self.far).clamp(0, 1)
        sky = (found["WorldNormal"] == SKY).all(dim=1, keepdim=True)
        found["normal"] = torch.where(sky, 0.0, found["WorldNormal"])
        for key, name in (("base_color", "BaseColor"), ("metallic", "Metallic"), ("roughness", "Roughness")):
            found[key] = found[name]
        return found

    def check_vectors(self, number: int) -> None:
        """Compare what the vectors of a frame fetch from the one before with what turned vectors would.

        Raises:
            DataError: with x and y swapped, or a sign changed, the frames agree far better.
        """
        turn = better_turn(self.buffers(number), self.buffers(number - 1))
        if turn is not None:
            raise DataError(
                f"{self._path(self.low, 'MotionVector', number)}: with {turn}; expected pixels, x right and y up, from "
                "the frame before"
            )

    def hole(self, number: int, earlier: int, motion: Tensor) -> Tensor:
        """Where an earlier frame has nothing to give, 1×1×H×W bool, by the rules of the published pipeline.

        Outside of the frame; another stencil; for what rests, a world position farther off than its slant and depth
        allow; for what moves, another normal.
        """
        now, then = self.buffers(number), self.buffers(earlier)
        stencil = backward_warp(then["MyStencil"], motion, "border")
        other = (stencil - now["MyStencil"]).abs().sum(dim=1, keepdim=True) > 1
        facing = now["NoV"].abs().clamp(0, 1)
        allowed = 7.5 * facing + 45 * (1 - facing) + 50 * now["depth"]
        moved = distance(now["WorldPosition"], then["WorldPosition"], motion) > allowed
        normal, before = now["WorldNormal"], backward_warp(then["WorldNormal"], motion, "border")
        turned = torch.nn.functional.cosine_similarity(normal, before, dim=1)[:, None] < 0.98
        solid = (normal.abs().sum(dim=1, keepdim=True) > 0) | (before.abs().sum(dim=1, keepdim=True) > 0)
        still = (stencil == 0).all(dim=1, keepdim=True)
        sky = (normal == SKY).all(dim=1, keepdim=True)
        return ~inside(motion) | other | (still & moved & ~sky) | (~still & solid & turned)

    def record(self, number: int) -> np.ndarray:
        """The inputs of a frame, H×W×33 float16; see :mod:`ffplug_stss.datasets.records`."""
        return make_record(number, self.buffers, self.hole, self.rule)

    def target(self, number: int) -> np.ndarray:
        """The true frame, 2H×2W×3 float16, BGR."""
        path = self._path(self.high, COLOUR, number)
        linear = torch.from_numpy(read_exr(path, BUFFERS[COLOUR])).permute(2, 0, 1)[None]
        size = tuple(SCALE * side for side in self.buffers(number)["image"].shape[2:])
        if tuple(linear.shape[2:]) != size:
            raise DataError(
                f"{path}: {linear.shape[2]}×{linear.shape[3]} pixels, expected {size[0]}×{size[1]}, twice the buffers'"
            )
        return to_array(encode_srgb((self.exposure * linear).clamp(0, 1)).flip(1))


def make_record(
    number: int,
    buffers: Callable[[int], Mapping[str, Tensor]],
    hole: Callable[[int, int, Tensor], Tensor],
    rule: str,
) -> np.ndarray:
    """The inputs of a frame from the buffers of it and those before, H×W×33 float16.

    Args:
        number: of the frame; even ones are shaded.
        buffers: of a frame: ``image``, ``motion``, ``depth``, ``normal``, ``base_color``, ``metallic``, ``roughness``,
            1×C×H×W each.
        hole: of a frame, an earlier one and the motion to it: where that has nothing to give, 1×1×H×W bool.
        rule: how motions are joined, see :func:`ffplug_stss.warping.compose`.
    """
    now = buffers(number)
    newest = number - number % 2
    warped, plain = [], []
    for earlier in range(newest, newest - 2 * HISTORY, -2):
        image = buffers(earlier)["image"]
        if earlier == number:
            warped.append(image)
            plain.append(image)
            continue
        motion = compose([buffers(n)["motion"] for n in range(number, earlier, -1)], rule)
        plain.append(warp(image, motion))
        warped.append(torch.where(hole(number, earlier, motion), OUTSIDE, plain[-1]))
    color = plain[0]
    if newest != number:
        missing = (warped[0] == OUTSIDE).all(dim=1, keepdim=True)
        fetch = occlusion_motion(now["motion"], now["depth"])
        color = fill_holes(color, buffers(newest)["image"], missing, fetch)
    parts = {key: now[key] for key in ("base_color", "metallic", "roughness", "depth", "normal")}
    return encode(warped, color, plain, now["motion"], **parts)


def import_capture(
    capture: Capture, out: str | os.PathLike, sequence: str, progress: Callable[[int, int], None] | None = None
) -> int:
    """Write a capture as ``OUT/SCENE/SEQUENCE`` in the released layout; it appears when it is whole.

    Args:
        capture: what to write.
        out: folder of a data set, new or not.
        sequence: name of the sequence; one that begins with ``train`` is for training.
        progress: called with frames written and frames in all.

    Returns:
        Frames written.

    Raises:
        DataError: the sequence is there already, a file of the capture is wrong, or the disk is full.
    """
    target = Path(out) / (capture.scene or "Scene") / sequence
    if target.exists():
        raise DataError(f"{target}: is there already; remove it or choose another name")
    numbers = capture.usable()
    for number in sorted({numbers[0], numbers[len(numbers) // 2], numbers[-1]}):
        capture.check_vectors(number)
    staged = target.with_name(f".{sequence}.{os.getpid()}")
    try:
        for done, number in enumerate(numbers, 1):
            kind = "Warp" if number % 2 else "NoWarp"
            save_array(staged / "NPY" / f"compressed.{number:04d}.{kind}.npy", capture.record(number))
            save_array(staged / "HR" / f"compressedHR.{number:04d}.npy", capture.target(number))
            if progress is not None:
                progress(done, len(numbers))
        os.replace(staged, target)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror or error}); nothing is left of it") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return len(numbers)

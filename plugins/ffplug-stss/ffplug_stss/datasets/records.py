"""The released data's form of a frame, and the steps from it to a sample.

A record is an array H×W×33 float16; three channels of a vector lie as blue, green, red (or z, y, x):

=========  ==========================================================================
channels   what
=========  ==========================================================================
0:9        newest, middle and oldest earlier frame warped; a hole is -1 in all three
9:12       the newest, its holes filled by the occlusion motion
12:21      the same three frames warped without regard to holes; -1 outside of the frame
21:24      base colour
24, 25     metallic, roughness
26         depth
27:30      world normal
30:33      unused, then the vector's y (up) and x, in pixels, from the frame before to this one
=========  ==========================================================================

Records of 35 channels have the vector at 31:34. Between the steps, ``record`` and ``target`` (2H×2W×3) are arrays that
may still lie on the disk: only what is cropped is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ffplug.datasets.base import choose
from ffplug.errors import ConfigError, DataError
from ffplug_stss.channels import OUTSIDES, SCALE, Inputs
from ffplug_stss.registry import TRANSFORMS
from ffplug_stss.structures import SupersampleSample
from ffplug_stss.warping import OUTSIDE, from_engine, repeat_edge

CHANNELS = (33, 35)
DEPTHS = ("clip", "scale")
META_KEYS = (
    "record_path",
    "target_path",
    "dataset",
    "sequence",
    "frame",
    "sample_id",
    "kind",
    "procedural",
    "draw",
)
_DEPTH, _NORMAL = 26, 27
_COLOURS = range(0, 24, 3)
_COLOR = 9, 12


def _motion(channels: int) -> int:
    """Where the vector's three channels begin."""
    return 30 if channels == CHANNELS[0] else 31


def decode(
    record: np.ndarray,
    depth_range: tuple[float, float] | None = None,
    name: str = "record",
    outside: str = "black",
) -> tuple[Inputs, Tensor]:
    """Turn a record into the network's inputs.

    Args:
        record: H×W×33 (or 35).
        depth_range: least and greatest depth of the whole frame, which become 0 and 1; None cuts depth to 0..1.
        name: of the file, for messages.
        outside: what colours are where they came from outside of the frame: ``black``, as published, or ``repeat``,
            those of the nearest pixel.

    Returns:
        The inputs, N = 1 without the batch's axis (6×H×W and so on), and the motion to the frame before, 2×H×W pixels.

    Raises:
        DataError: it is no record, or holds NaN or infinity.
    """
    if record.ndim != 3 or record.shape[2] not in CHANNELS:
        raise DataError(f"{name}: expected an array H×W×33 (or 35), found {'×'.join(map(str, record.shape))}")
    values = torch.from_numpy(np.ascontiguousarray(record.transpose(2, 0, 1), dtype=np.float32))
    if not bool(values.isfinite().all()):
        bad = int((~values.isfinite()).sum())
        raise DataError(f"{name}: {bad} values are NaN or infinite; render or convert the frame again")

    def vector(first: int) -> Tensor:
        return values[first : first + 3].flip(0)

    def valid(first: int) -> Tensor:
        return (values[first + 2 : first + 3] != OUTSIDE).float()

    def colour(first: int) -> Tensor:
        found = vector(first)
        return (repeat_edge(found, valid(first)[0] == 0) if outside == "repeat" else found).clamp(min=0)

    depth = values[_DEPTH : _DEPTH + 1]
    if depth_range is None:
        depth = depth.clamp(0, 1)
    else:
        depth = (depth - depth_range[0]) / (depth_range[1] - depth_range[0] + 1e-6)
    history = [torch.cat([colour(plain), valid(warped)]) for plain, warped in ((18, 6), (15, 3), (12, 0))]
    inputs = Inputs(
        x=torch.cat([colour(9), colour(12)]),
        feature=torch.cat([vector(_NORMAL), depth, values[25:26], values[24:25], vector(21)]),
        mask=valid(0),
        history=torch.stack(history),
    )
    place = _motion(len(values))
    return inputs, from_engine(values[[place + 2, place + 1]][None])[0]


@TRANSFORMS.register_module()
class LoadRecord:
    """Open a frame's record and target; nothing but their sizes is read yet.

    Raises:
        DataError: a file is missing, truncated or no array of the right size.

    Example:
        dict(type="ffplug_stss.LoadRecord")
    """

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``record``, ``target`` and, where depth is stretched frame by frame, ``depth_range``."""
        record = results["record"] = open_array(results["record_path"])
        if record.ndim != 3 or record.shape[2] not in CHANNELS:
            found = "×".join(map(str, record.shape))
            raise DataError(f"{results['record_path']}: expected an array H×W×33 (or 35), found {found}")
        if results.get("target_path"):
            target = results["target"] = open_array(results["target_path"])
            expected = (SCALE * record.shape[0], SCALE * record.shape[1], 3)
            if target.shape != expected:
                raise DataError(
                    f"{results['target_path']}: expected {'×'.join(map(str, expected))} as twice "
                    f"{results['record_path']}, found {'×'.join(map(str, target.shape))}"
                )
        if choose("depth", results.get("depth", "clip"), DEPTHS) == "scale":
            depth = np.asarray(record[..., _DEPTH], np.float32)
            results["depth_range"] = float(depth.min()), float(depth.max())
        return results


def open_array(path: str) -> np.ndarray:
    """Map an array file into memory.

    Raises:
        DataError: it is missing, truncated or no array of numbers.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a whole .npy file ({error}); download or write it again") from None
    if not np.issubdtype(array.dtype, np.floating):
        raise DataError(f"{path}: expected floating-point numbers, found {array.dtype}")
    return array


@TRANSFORMS.register_module()
class RandomReshadingMask:
    """Call one rectangle of a frame missing in training (random reshading masking of STSS, AAAI 2024).

    Height is drawn from 1 to H/4, width so that the area is at most H·W/16 and the width at most W/4, then the place.
    The network still sees the pixels in the warped frame and the history, but neither their reshading nor their masked
    colours, and the loss counts them as a hole.

    Args:
        probability: of a mask.

    Example:
        dict(type="ffplug_stss.RandomReshadingMask")
    """

    def __init__(self, probability: float = 1.0) -> None:
        if not 0 <= probability <= 1:
            raise ConfigError(f"probability={probability}: expected 0..1")
        self.probability = probability

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``reshading``, H×W bool."""
        height, width = results["record"].shape[:2]
        mask = np.zeros((height, width), bool)
        if height >= 4 and width >= 4 and np.random.random() < self.probability:
            rows = np.random.randint(1, height // 4 + 1)
            columns = np.random.randint(1, max(1, min(height * width // 16 // rows, width // 4)) + 1)
            top, left = np.random.randint(height - rows + 1), np.random.randint(width - columns + 1)
            mask[top : top + rows, left : left + columns] = True
        return {**results, "reshading": mask}


@TRANSFORMS.register_module()
class RandomCropPair:
    """Cut the same random part out of a frame's inputs and, at twice the size, of its target.

    Args:
        size: height and width at the low resolution; a side that is longer than the frame's is cut to it.
        tries: crops to draw, of which the one stays whose warped colours are farthest from the target. Most of a frame
            is right without a network; with more than one try, less of a short training goes there.

    Example:
        dict(type="ffplug_stss.RandomCropPair", size=(256, 256))
    """

    def __init__(self, size: tuple[int, int], tries: int = 1) -> None:
        if len(size) != 2 or min(size) < 8:
            raise ConfigError(f"size={tuple(size)}: expected height and width of at least 8 pixels")
        if tries < 1:
            raise ConfigError(f"tries={tries}: expected at least 1")
        self.size, self.tries = tuple(size), tries

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Cut ``record``, ``target`` and ``reshading``."""
        whole = results["record"].shape[:2]
        sides = [min(side, full) for side, full in zip(self.size, whole, strict=True)]
        drawn = [
            [np.random.randint(full - side + 1) for side, full in zip(sides, whole, strict=True)]
            for _ in range(self.tries if "target" in results else 1)
        ]
        starts = drawn[0] if len(drawn) == 1 else max(drawn, key=lambda starts: _error(results, starts, sides))
        for key, scale in (("record", 1), ("reshading", 1), ("target", SCALE)):
            if key in results:
                results[key] = results[key][_window(starts, sides, scale)]
        return results


def _window(starts: Sequence[int], sides: Sequence[int], scale: int) -> tuple[slice, slice]:
    rows, columns = (slice(scale * start, scale * (start + side)) for start, side in zip(starts, sides, strict=True))
    return rows, columns


def _error(results: dict[str, Any], starts: Sequence[int], sides: Sequence[int]) -> float:
    """Mean squared difference of the warped colours from the target's, in a part of the frame."""
    color = results["record"][(*_window(starts, sides, 1), slice(*_COLOR))]
    target = np.asarray(results["target"][_window(starts, sides, SCALE)], np.float32)
    return float(np.square(color - (target[::2, ::2] + target[1::2, 1::2]) / 2).mean())


@TRANSFORMS.register_module()
class RandomMirror:
    """Show a frame in a mirror, and its colours in another order, at random; each gives as true a frame.

    Columns are reversed with the sign of whatever points to the right (normals and vectors); red, green and blue change
    places in colours, base colour and target alike. Not in the published training, whose flips would leave the signs.

    Args:
        mirror: probability of the mirror.
        colours: probability of a random order of the colours, the present one among them.

    Example:
        dict(type="ffplug_stss.RandomMirror")
    """

    def __init__(self, mirror: float = 0.5, colours: float = 1.0) -> None:
        if not (0 <= mirror <= 1 and 0 <= colours <= 1):
            raise ConfigError(f"mirror={mirror}, colours={colours}: expected 0..1")
        self.mirror, self.colours = mirror, colours

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Change ``record``, ``target`` and ``reshading``."""
        results = dict(results)
        if np.random.random() < self.mirror:
            for key in ("record", "target", "reshading"):
                if key in results:
                    results[key] = results[key][:, ::-1]
            record = results["record"] = np.array(results["record"])
            record[..., [_NORMAL + 2, _motion(record.shape[2]) + 2]] *= -1
        if np.random.random() < self.colours:
            order = np.random.permutation(3)
            results["record"] = np.array(results["record"])
            for first in _COLOURS:
                results["record"][..., first : first + 3] = results["record"][..., first + order]
            if "target" in results:
                results["target"] = results["target"][..., order]
        return results


@TRANSFORMS.register_module()
class PackSupersample:
    """The last step: ``dict(inputs=float Tensor 28×H×W, data_samples=SupersampleSample)``.

    Args:
        outside: ``black``, as published, or ``repeat``, see :func:`decode`.

    Example:
        dict(type="ffplug_stss.PackSupersample")
    """

    def __init__(self, outside: str = "black") -> None:
        self.outside = choose("outside", outside, OUTSIDES)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Decode the record and pack the sample."""
        name = results.get("record_path") or results.get("sample_id") or "record"
        inputs, _ = decode(results["record"], results.get("depth_range"), str(name), self.outside)
        if "reshading" in results:
            kept = ~torch.from_numpy(np.ascontiguousarray(results["reshading"]))
            inputs = inputs._replace(mask=inputs.mask * kept)
        sample = SupersampleSample(metainfo={key: results.get(key) for key in META_KEYS})
        if "target" in results:
            target = np.ascontiguousarray(results["target"][..., ::-1].transpose(2, 0, 1), dtype=np.float32)
            if not np.isfinite(target).all():
                raise DataError(f"{results.get('target_path') or name}: the true frame holds NaN or infinity")
            sample.gt_frame = torch.from_numpy(target)
        packed = Inputs(*(part[None] for part in inputs)).pack()[0]
        return dict(inputs=packed, data_samples=sample)

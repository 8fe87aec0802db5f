"""From an entry of a data set to a sample."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch

from ffplug.datasets.formats import read_image
from ffplug.errors import ConfigError, DataError
from ffplug_fpnmaa.labels import TASKS
from ffplug_fpnmaa.registry import TRANSFORMS
from ffplug_fpnmaa.structures import AffectSample

META_KEYS = ("image_path", "dataset", "sequence", "frame", "sample_id", "procedural", "draw")


@TRANSFORMS.register_module()
class LoadFace:
    """Read a picture as RGB (grey is repeated), and cut out the face's box, if there is one.

    Args:
        margin: share of the box's sides that is added all round.
        square: widen the shorter side of the box, so that faces keep their form when resized.

    Raises:
        DataError: the picture is missing, truncated or no picture, or the box lies outside of it.

    Example:
        dict(type="ffplug_fpnmaa.LoadFace")
    """

    def __init__(self, margin: float = 0.0, square: bool = True) -> None:
        self.margin, self.square = margin, square

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``image``, H×W×3 uint8."""
        image = read_image(results["image_path"])
        box = results.get("box")
        if box is not None:
            image = crop_face(image, box, self.margin, self.square, str(results["image_path"]))
        return {**results, "image": image}


def crop_face(
    image: np.ndarray, box: Any, margin: float = 0.0, square: bool = True, name: str = "the picture"
) -> np.ndarray:
    """Cut a face out of a picture; what lies outside of it repeats its edge.

    Args:
        image: H×W×3.
        box: left, top, width, height in pixels.
        margin: see :class:`LoadFace`.
        square: see :class:`LoadFace`.
        name: of the picture, for the error.

    Raises:
        DataError: the box and the picture do not overlap.
    """
    left, top, width, height = (float(value) for value in box)
    rows, columns = image.shape[:2]
    if width <= 0 or height <= 0 or left >= columns or top >= rows or left + width <= 0 or top + height <= 0:
        found = f"{left:g}, {top:g}, {width:g}×{height:g}"
        raise DataError(f"{name}: the face's box ({found}) lies outside of the picture of {columns}×{rows}")
    middle = left + width / 2, top + height / 2
    sides = (max(width, height),) * 2 if square else (width, height)
    half = [max(1.0, side * (1 + 2 * margin)) / 2 for side in sides]
    first = [round(at - reach) for at, reach in zip(middle, half, strict=True)]
    last = [max(start + 1, round(at + reach)) for start, at, reach in zip(first, middle, half, strict=True)]
    inside = image[max(0, first[1]) : min(rows, last[1]), max(0, first[0]) : min(columns, last[0])]
    around = ((max(0, -first[1]), max(0, last[1] - rows)), (max(0, -first[0]), max(0, last[0] - columns)), (0, 0))
    return np.pad(inside, around, mode="edge")


@TRANSFORMS.register_module()
class ResizeFace:
    """Bring the picture to one size, whatever its shape.

    Args:
        size: height and width, or the side of a square, in pixels.

    Example:
        dict(type="ffplug_fpnmaa.ResizeFace", size=128)
    """

    def __init__(self, size: int | tuple[int, int] = 128) -> None:
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        if len(self.size) != 2 or min(self.size) < 16:
            raise ConfigError(f"size={size}: expected 16 pixels or more")

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize ``image``."""
        return {**results, "image": resize(results["image"], self.size)}


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize H×W×3 uint8 to (height, width): area means where it shrinks, else linearly."""
    shrinks = image.shape[0] > size[0] and image.shape[1] > size[1]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


@TRANSFORMS.register_module()
class FlipFace:
    """Mirror the picture now and then; what is told of a face stays.

    Args:
        probability: of a mirrored picture.

    Example:
        dict(type="ffplug_fpnmaa.FlipFace")
    """

    def __init__(self, probability: float = 0.5) -> None:
        if not 0 <= probability <= 1:
            raise ConfigError(f"probability={probability}: expected 0..1")
        self.probability = probability

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Mirror ``image``, or not."""
        if np.random.random() < self.probability:
            results = {**results, "image": results["image"][:, ::-1]}
        return results


@TRANSFORMS.register_module()
class PackAffect:
    """The last step: ``dict(inputs=uint8 Tensor 3×H×W, data_samples=AffectSample)``; what is not known is absent.

    Example:
        dict(type="ffplug_fpnmaa.PackAffect")
    """

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack the sample."""
        sample = AffectSample(metainfo={key: results.get(key) for key in META_KEYS})
        for task in TASKS:
            if results.get(task) is not None:
                dtype = torch.int64 if task == "expr" else torch.float32
                sample.set_field(torch.as_tensor(np.asarray(results[task])).to(dtype), f"gt_{task}")
        for said in (f"teacher_{name}" for name in (*TASKS, "va_bins")):
            if results.get(said) is not None:
                sample.set_field(torch.as_tensor(results[said]).float(), said)
        image = np.ascontiguousarray(results["image"].transpose(2, 0, 1))
        return dict(inputs=torch.from_numpy(image), data_samples=sample)

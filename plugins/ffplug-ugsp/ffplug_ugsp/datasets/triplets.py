"""What all sets of frames to interpolate share: entries, loading, augmentation, packing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import cv2
import numpy as np
import torch

from ffplug.datasets.base import Problem, ScannedDataset
from ffplug.datasets.formats import read_flow, read_image, read_mask
from ffplug.datasets.layouts import join
from ffplug.errors import ConfigError, DataError
from ffplug_ugsp.datasets.packing import read_packed
from ffplug_ugsp.registry import TRANSFORMS
from ffplug_ugsp.structures import InterpolationSample

FRAMES = ("frame0", "target", "frame1")
"""The frames of a sample between transforms, H×W×3 uint8 RGB, in order of time."""
FLOWS = ("flow_t0", "flow_t1")
"""Flow from the target to the frame before and to the one after, H×W×2 float32 in pixels."""
LABELS = ("label8", "label4", "label2")
"""Labels for the masks at 1/8, 1/4 and 1/2 of the resolution, H×W bool."""
ARRAYS = (*FRAMES, *FLOWS, *LABELS, "occluded")
"""All that lies on one grid; ``occluded``, H×W bool, is where the target shows what one of the ends does not."""
Steps = Sequence[dict | Callable]
"""A pipeline: configs of transforms, or transforms."""
META_KEYS = (
    "frame0_path",
    "target_path",
    "frame1_path",
    "dataset",
    "sequence",
    "frame",
    "sample_id",
    "timestep",
    "kind",
    "ori_shape",
    "procedural",
    "draw",
)


class TripletDataset(ScannedDataset):
    """Frames to produce between two others, read from one data set's own layout on disk.

    An item is ``dict(inputs=float Tensor 2×3×H×W in 0..1, data_samples=InterpolationSample)`` after the default
    pipeline. :meth:`scan` yields what :meth:`triplet` makes. Arguments and errors are those of
    :class:`ffplug.datasets.ScannedDataset`.
    """

    noun = "triplets"
    default_pipeline = (dict(type="ffplug_ugsp.LoadTriplet"), dict(type="ffplug_ugsp.PackTriplet"))

    def triplet(
        self,
        frame0: str,
        target: str,
        frame1: str,
        *,
        sequence: str,
        frame: int,
        sample_id: str,
        timestep: float = 0.5,
        kind: str = "",
        flows: Sequence[str] = (),
        labels: Sequence[str] = (),
        packed: str | None = None,
        dataset: str | None = None,
    ) -> dict[str, Any]:
        """One entry of the list; paths are below the root, ``packed`` that of the frames' array."""
        paths = dict(zip(FRAMES, (frame0, target, frame1), strict=True))
        paths |= dict(zip(FLOWS, flows, strict=False)) | dict(zip(LABELS, labels, strict=False))
        paths |= {} if packed is None else {"packed": packed}
        return {
            **{f"{name}_path": path for name, path in paths.items()},
            **dict(sequence=sequence, frame=frame, sample_id=sample_id, timestep=timestep, kind=kind),
            "dataset": dataset or self.name,
        }

    def check_files(self, folder: str, names: Iterable[str], sequence: str, problems: list[Problem]) -> bool:
        """Whether a folder holds these files; each that it does not is a problem."""
        there = set(self.files(folder))
        missing = [name for name in names if name not in there]
        problems.extend(Problem(join(folder, name), "this frame is missing", sequence) for name in missing)
        return not missing

    def located(self, path: str) -> str:
        """A path below the root, with the root before it; an absolute one as it is."""
        return path if os.path.isabs(path) or "://" in path else join(self.data_root, path)

    def resolve(self, info: dict[str, Any]) -> dict[str, Any]:
        """Put ``data_root`` before the paths of an entry."""
        return {key: self.located(value) if key.endswith("_path") else value for key, value in info.items()}


@TRANSFORMS.register_module()
class LoadTriplet:
    """Read the frames, and the flows and labels that the data set names, and check that their sizes agree.

    Args:
        canvas: (height, width) that frames are enlarged to by black at the bottom and right, as Middlebury's are in the
            published evaluations; ``ori_shape`` tells the metric what counts. None leaves them as they are.
        view: ``'half'``, frames averaged to half their size, or ``'centre'``, the middle half of each side: what papers
            call 2K and 4K of 4K data; None is the whole frame.
        crop: side of the square in the middle that is left; a shorter side of the frame stays. None leaves all.

    Raises:
        ConfigError: no such view, or a crop of nothing.
        DataError: a file is unreadable, or sizes differ.

    Example:
        dict(type="ffplug_ugsp.LoadTriplet")
    """

    def __init__(self, canvas: tuple[int, int] | None = None, view: str | None = None, crop: int | None = None) -> None:
        if view not in (None, "half", "centre"):
            raise ConfigError(f"view={view!r}: expected 'half', 'centre' or None")
        if crop is not None and crop < 1:
            raise ConfigError(f"crop={crop}: expected 1 pixel or more, or None")
        self.canvas, self.view, self.crop = canvas, view, crop

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the frames, what truth there is, and ``ori_shape``."""
        if results.get("packed_path"):
            results.update(zip(FRAMES, read_packed(results["packed_path"]), strict=True))
        else:
            results.update({name: read_image(results[f"{name}_path"]) for name in FRAMES})
        for name in FLOWS:
            if results.get(f"{name}_path"):
                results[name] = read_flow(results[f"{name}_path"])[0]
        for name in LABELS:
            if results.get(f"{name}_path"):
                results[name] = read_mask(results[f"{name}_path"], above=127)
        first = results["frame0"].shape[:2]
        for name in ARRAYS:
            if name in results and results[name].shape[:2] != first:
                found = "×".join(map(str, results[name].shape[1::-1]))
                wanted = f"{first[1]}×{first[0]} (W×H) as {results['frame0_path']}"
                raise DataError(f"{results[f'{name}_path']}: expected {wanted}, found {found}")
        if self.view:
            self._cut(results)
        if self.crop:
            self._crop(results, self.crop)
        results["ori_shape"] = results["frame0"].shape[:2]
        if self.canvas:
            self._enlarge(results)
        return results

    def _cut(self, results: dict[str, Any]) -> None:
        height, width = (side // 2 for side in results["frame0"].shape[:2])
        for name in (*FLOWS, *LABELS):
            results.pop(name, None)
        for name in FRAMES:
            frame = results[name]
            if self.view == "half":
                results[name] = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
            else:
                top, left = height // 2, width // 2
                results[name] = frame[top : top + height, left : left + width]

    def _crop(self, results: dict[str, Any], side: int) -> None:
        corner = [max(0, (found - side) // 2) for found in results["frame0"].shape[:2]]
        for name in ARRAYS:
            if name in results:
                results[name] = results[name][corner[0] : corner[0] + side, corner[1] : corner[1] + side]

    def _enlarge(self, results: dict[str, Any]) -> None:
        height, width = results["ori_shape"]
        if height > self.canvas[0] or width > self.canvas[1]:
            canvas = f"a canvas of {self.canvas[1]}×{self.canvas[0]}"
            raise DataError(f"{results['frame0_path']}: {width}×{height} (W×H) does not fit on {canvas}")
        for name in ARRAYS:
            if name in results:
                array = results[name]
                margin = [(0, self.canvas[0] - height), (0, self.canvas[1] - width)] + [(0, 0)] * (array.ndim - 2)
                results[name] = np.pad(array, margin)


@TRANSFORMS.register_module()
class AugmentTriplet:
    """Crop, flip, transpose, swap the ends and reverse the channels, at random (RIFE, UGSP).

    Flows are turned with the frames; swapping the ends swaps the flows and mirrors the time.

    Args:
        crop: height and width, or the side of a square; None for whole frames.
        reverse_channels: probability that red and blue change places.
        flip_vertical: probability of a flip upside down.
        flip_horizontal: probability of a flip left to right.
        swap: probability that time runs backwards.
        transpose: probability that rows become columns; only with a square crop.

    Raises:
        ConfigError: a probability is none, or transposed crops would differ in shape.
        DataError: a frame is smaller than the crop.

    Example:
        dict(type="ffplug_ugsp.AugmentTriplet", crop=224)
    """

    def __init__(
        self,
        crop: int | tuple[int, int] | None = 224,
        reverse_channels: float = 0.5,
        flip_vertical: float = 0.5,
        flip_horizontal: float = 0.5,
        swap: float = 0.5,
        transpose: float = 0.05,
    ) -> None:
        self.crop = (crop, crop) if isinstance(crop, int) else crop and tuple(crop)
        self.chances = dict(
            reverse_channels=reverse_channels,
            flip_vertical=flip_vertical,
            flip_horizontal=flip_horizontal,
            swap=swap,
            transpose=transpose,
        )
        for name, chance in self.chances.items():
            if not 0 <= chance <= 1:
                raise ConfigError(f"{name}={chance}: expected a probability, 0 to 1")
        if transpose and (self.crop is None or self.crop[0] != self.crop[1]):
            raise ConfigError(
                f"transpose={transpose} with crop={crop}: batches need one shape, so only with a square crop"
            )

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Change every array of the sample alike."""
        names = [name for name in ARRAYS if name in results]
        if self.crop is not None:
            height, width = results["frame0"].shape[:2]
            if height < self.crop[0] or width < self.crop[1]:
                raise DataError(
                    f"{results.get('frame0_path')}: {width}×{height} (W×H) is smaller than the crop of "
                    f"{self.crop[1]}×{self.crop[0]}"
                )
            top, left = np.random.randint(height - self.crop[0] + 1), np.random.randint(width - self.crop[1] + 1)
            for name in names:
                results[name] = results[name][top : top + self.crop[0], left : left + self.crop[1]]
        drawn = {name: np.random.random() < chance for name, chance in self.chances.items()}
        if drawn["reverse_channels"]:
            results.update({name: results[name][..., ::-1] for name in FRAMES})
        for name in names:
            results[name] = _turned(results[name], name in FLOWS, drawn)
        if drawn["swap"]:
            results["frame0"], results["frame1"] = results["frame1"], results["frame0"]
            results["timestep"] = 1 - results.get("timestep", 0.5)
            if FLOWS[0] in results:
                results[FLOWS[0]], results[FLOWS[1]] = results[FLOWS[1]], results[FLOWS[0]]
        results["ori_shape"] = results["frame0"].shape[:2]
        return results


def _turned(array: np.ndarray, is_flow: bool, drawn: dict[str, bool]) -> np.ndarray:
    signs = np.ones(2, np.float32)
    if drawn["flip_vertical"]:
        array, signs[1] = array[::-1], -1
    if drawn["flip_horizontal"]:
        array, signs[0] = array[:, ::-1], -1
    if is_flow:
        array = array * signs
    if drawn["transpose"]:
        array = array.swapaxes(0, 1)
        array = array[..., ::-1] if is_flow else array
    return array


@TRANSFORMS.register_module()
class PackTriplet:
    """The last step: ``dict(inputs=float Tensor 2×3×H×W in 0..1, data_samples=InterpolationSample)``.

    Example:
        dict(type="ffplug_ugsp.PackTriplet")
    """

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack the sample."""
        frames = {name: _planes(results[name]).div_(255) for name in FRAMES}
        sample = InterpolationSample(metainfo={key: results.get(key) for key in META_KEYS})
        sample.gt_frame = frames["target"]
        if all(name in results for name in FLOWS):
            sample.gt_flow = torch.cat([_planes(results[name]) for name in FLOWS])
        if all(name in results for name in LABELS):
            sample.gt_labels = torch.stack([_planes(results[name][..., None])[0] for name in LABELS])
        if "occluded" in results:
            sample.region_occluded = _planes(results["occluded"][..., None])[0]
        return dict(inputs=torch.stack([frames["frame0"], frames["frame1"]]), data_samples=sample)


def _planes(array: np.ndarray) -> torch.Tensor:
    """H×W×C as a tensor C×H×W with memory of its own."""
    return torch.from_numpy(np.array(array.transpose(2, 0, 1), np.float32, order="C"))

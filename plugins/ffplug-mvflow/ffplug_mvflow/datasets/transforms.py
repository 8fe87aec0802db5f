"""Motion vectors in a pipeline: from a clip on disk or encoded on the fly, dropped in part, packed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ffplug.datasets.transforms import LoadFlowPair, PackFlowInputs
from ffplug.errors import ConfigError, DataError
from ffplug_mvflow.encoding import Encoding, decode_pair, encode_pair
from ffplug_mvflow.fields import INPUTS, flow_from_previous, no_vectors, spread
from ffplug_mvflow.registry import TRANSFORMS
from ffplug_mvflow.structures import MotionSample


def add_motion(results: dict[str, Any], inputs: dict[str, np.ndarray]) -> None:
    """Put motion vectors into a sample so that spatial transforms take them along, as those of blocks."""
    flow, valid, gap, size = (inputs[name] for name in INPUTS)
    results.update(motion_flow=np.ascontiguousarray(flow.transpose(1, 2, 0)), motion_valid=valid)
    results.update(motion_gap=gap, motion_size=size)
    results["further_flows"] = (*results.get("further_flows", ()), "motion_flow")
    results["nearest_flows"] = (*results.get("nearest_flows", ()), "motion_flow")
    results["further_maps"] = (*results.get("further_maps", ()), "motion_gap", "motion_size")


@TRANSFORMS.register_module()
class LoadCompressedPair(LoadFlowPair):
    """Read the truth of a pair as :class:`ffplug.LoadFlowPair` does, and frames and motion vectors from its clip.

    Args:
        masks: read occlusion, foreground and further masks too, where they exist.
        mask_invalid: see :class:`ffplug.LoadFlowPair`.

    Raises:
        DataError: an unreadable file, or a clip that does not fit the pair.

    Example:
        dict(type="ffplug_mvflow.LoadCompressedPair")
    """

    def __init__(self, masks: bool = True, mask_invalid: bool = False) -> None:
        super().__init__(masks, mask_invalid)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``img1`` and ``img2`` by the decoded frames, and add the motion vectors."""
        if "img1" not in results:
            results = super().__call__(results)
        path, place = results["clip_path"], results["clip_frame"]
        height, width = results["img1"].shape[:2]
        if place is None:
            try:
                content = Path(path).read_bytes()
            except OSError as error:
                raise DataError(f"{path}: the clip cannot be read ({error.strerror})") from None
            first, second, inputs = decode_pair(content, (height, width), path)
        else:
            first, second, inputs = _from_clip(path, place)
        if first.shape[0] < height or first.shape[1] < width:
            raise DataError(
                f"{path}: the clip is {first.shape[1]}×{first.shape[0]} but the frames are {width}×{height} (W×H): "
                "encode it again"
            )
        results.update(img1=first[:height, :width], img2=second[:height, :width])
        add_motion(results, {name: value[..., :height, :width] for name, value in inputs.items()})
        results["erased"] = np.zeros((height, width), np.float32)  # for the augmentation to mark
        results["further_maps"] = (*results["further_maps"], "erased")
        return results


def _from_clip(path: str, place: int) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Frames ``place`` and the next of a clip in order of time, and the flow by the second one's vectors."""
    from ffplug_mvflow.video import MotionVectorVideo

    found = []
    for coded in MotionVectorVideo(path, threads=1).coded_frames(place):
        if coded.problem is not None:
            raise DataError(coded.problem)
        found.append(coded)
        if len(found) == 2:
            break
    if len(found) < 2:
        raise DataError(f"{path}: has no frames {place} and {place + 1}")
    first, second = found
    if second.field is None:
        return first.image(), second.image(), no_vectors(second.height, second.width)
    cells = flow_from_previous(second.field)
    return first.image(), second.image(), spread(cells, second.height, second.width)


@TRANSFORMS.register_module()
class EncodePair:
    """Encode the pair and decode it again, with motion vectors: compressed video from any flow data, on the fly.

    Put it behind the spatial augmentation, then the vectors belong to the very frames that the network sees. Each
    sample draws its quality and preset.

    Args:
        quality: least and greatest CRF (H.264) or quantiser.
        codec: see :class:`ffplug_mvflow.encoding.Encoding`.
        presets: of x264, of which one is drawn.

    Raises:
        ConfigError: a value is unknown or out of its range.

    Example:
        dict(type="ffplug_mvflow.EncodePair")
    """

    def __init__(
        self, quality: Sequence[int] = (18, 38), codec: str = "h264", presets: Sequence[str] = ("veryfast", "medium")
    ) -> None:
        if len(quality) != 2 or quality[0] > quality[1] or not presets:
            raise ConfigError(
                f"EncodePair: quality={quality}, presets={presets}: expected (least, greatest), and a preset"
            )
        self.quality = tuple(quality)
        self.codec = codec
        self.presets = tuple(presets)
        for end in self.quality:
            for preset in self.presets:
                Encoding(codec, end, preset)

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace the frames by the decoded ones, and add the motion vectors."""
        quality = int(np.random.randint(self.quality[0], self.quality[1] + 1))
        preset = self.presets[np.random.randint(len(self.presets))]
        encoding = Encoding(self.codec, quality, preset)
        images = [np.ascontiguousarray(results[key]) for key in ("img1", "img2")]
        name = str(results.get("sample_id", "a pair"))
        first, second, inputs = decode_pair(encode_pair(*images, encoding), images[0].shape[:2], name)
        results.update(img1=first, img2=second)
        add_motion(results, inputs)
        return results


@TRANSFORMS.register_module()
class DropMotionVectors:
    """Take vectors away or make them wrong, so that a network does not lean on them blindly.

    Args:
        whole: probability that a sample loses all (as key frames have none).
        part: probability that it loses one to three rectangles.
        swap: share of the cells of 8×8 pixels that get another cell's vector.
        noise: scale of the Laplacian noise that is added to each cell's vector, in pixels, with probability one half.
        erased: probability that vectors into what the augmentation has erased from frame 2 are lost. That concerns
            clips from disk; what is encoded behind the augmentation has vectors of what is to be seen.

    Example:
        dict(type="ffplug_mvflow.DropMotionVectors")
    """

    def __init__(
        self, whole: float = 0.15, part: float = 0.3, swap: float = 0.05, noise: float = 1.0, erased: float = 0.5
    ) -> None:
        for name, value in (("whole", whole), ("part", part), ("swap", swap), ("erased", erased)):
            if not 0 <= value <= 1:
                raise ConfigError(f"DropMotionVectors: {name}={value}: expected a share in 0..1")
        self.whole, self.part, self.swap, self.noise, self.erased = whole, part, swap, noise, erased

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Change ``motion_flow`` and its companions."""
        height, width = results["motion_valid"].shape
        keep = np.full((height, width), np.random.rand() >= self.whole)
        if np.random.rand() < self.part:
            for _ in range(np.random.randint(1, 4)):
                tall, wide = (np.random.randint(1, max(2, side // 2)) for side in (height, width))
                top, left = np.random.randint(0, height), np.random.randint(0, width)
                keep[top : top + tall, left : left + wide] = False
        erased = results.pop("erased", None)
        if erased is not None and np.random.rand() < self.erased:
            y, x = np.mgrid[:height, :width]
            target = np.rint(results["motion_flow"]).astype(int)
            y, x = np.clip(y + target[..., 1], 0, height - 1), np.clip(x + target[..., 0], 0, width - 1)
            keep &= erased[y, x] == 0
        rows, columns = -(-height // 8), -(-width // 8)
        noise = np.random.laplace(0, self.noise, (rows, columns, 2)) * (np.random.rand() < 0.5)
        flow = results["motion_flow"]
        swapped = np.random.rand(rows, columns) < self.swap
        y, x = np.random.randint(0, height, (rows, columns)), np.random.randint(0, width, (rows, columns))
        y, x, swapped, noise = (a.repeat(8, 0).repeat(8, 1)[:height, :width] for a in (y, x, swapped, noise))
        swapped = swapped & (results["motion_valid"][y, x] > 0)
        flow = np.where(swapped[..., None], flow[y, x], flow) + noise
        valid = results["motion_valid"] * keep
        results["motion_flow"] = (flow * valid[..., None]).astype(np.float32)
        results["motion_valid"] = valid.astype(np.float32)
        for name in ("motion_gap", "motion_size"):
            results[name] = (results[name] * valid).astype(np.float32)
        return results


@TRANSFORMS.register_module()
class PackMotionInputs(PackFlowInputs):
    """Pack frames and truth as :class:`~ffplug_mvflow.structures.MotionSample`, the vectors as the network's inputs.

    Example:
        dict(type="ffplug_mvflow.PackMotionInputs")
    """

    sample_type = MotionSample

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Pack the sample; the last step of a pipeline."""
        results.pop("erased", None)
        if "motion_flow" in results:
            # What the augmentation made unknown or interpolated away stays unknown in all.
            known = results["motion_valid"] > 0
            for name in ("motion_gap", "motion_size"):
                results[name] = np.where(known, results[name], np.float32(0))
        packed = super().__call__(results)
        sample = packed["data_samples"]
        for name in INPUTS:
            if f"gt_{name}" in sample:
                setattr(sample, f"input_{name}", sample.pop(f"gt_{name}"))
        return packed

"""From the flow between onset and apex to a small picture of horizontal flow, vertical flow and optical strain."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ffplug.apis.weights import find_file, sha256
from ffplug.datasets.formats import read_flow, read_image
from ffplug.errors import ConfigError, DataError, did_you_mean
from ffplug.files import atomic_path
from ffplug_face.crops import FaceDetector, YuNet, align
from ffplug_face.micro_expression.manifest import Clip, frames_in
from ffplug_face.registry import TRANSFORMS

FACE_WIDTH = 128
"""Features are in pixels of a face this wide, whatever the size at which flow is computed."""

RIGID = ((0.25, 0.02, 0.75, 0.16), (0.42, 0.3, 0.58, 0.55), (0.08, 0.4, 0.26, 0.6), (0.74, 0.4, 0.92, 0.6))
"""Forehead, bridge of the nose and cheek bones of a face crop: left, top, right, bottom as parts of its sides."""

ACTIVE = ((0.15, 0.15, 0.85, 0.4), (0.25, 0.6, 0.75, 0.95))
"""Brows and mouth of a face crop, where micro-expressions move."""

EYES_AND_MOUTH = ((0.3, 0.38), (0.7, 0.38), (0.36, 0.75), (0.64, 0.75))
"""Left and right eye and mouth corner of an upright face crop: x, y as parts of its sides."""

HEADS = ("none", "median", "similarity")
CHANNELS = ("u", "v", "strain", "magnitude")


def optical_strain(flow: Tensor) -> Tensor:
    """Magnitude of the infinitesimal strain, sqrt(u_x² + v_y² + (u_y + v_x)²/2), by central differences.

    Args:
        flow: ...×2×H×W in pixels; H and W at least 2.

    Returns:
        ...×H×W, without unit; one-sided differences at the edges.
    """
    u, v = flow.unbind(-3)
    (u_y, u_x), (v_y, v_x) = (torch.gradient(part, dim=(-2, -1)) for part in (u, v))
    return (u_x**2 + v_y**2 + 0.5 * (u_y + v_x) ** 2).sqrt()


def _mask(shape: Sequence[int], boxes: Iterable[Sequence[float]]) -> np.ndarray:
    """H×W bool, True within any of the boxes."""
    height, width = shape
    mask = np.zeros((height, width), bool)
    for left, top, right, bottom in boxes:
        mask[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
    return mask


def head_motion(flow: np.ndarray, how: str, boxes: Iterable[Sequence[float]] = RIGID) -> np.ndarray:
    """The part of a flow that comes from the head as a whole.

    Args:
        flow: H×W×2 in pixels.
        how: ``"none"``, ``"median"`` (one translation) or ``"similarity"`` (translation, rotation, scale; least squares
            with Cauchy weights, reweighted until they stand).
        boxes: where the face hardly moves by itself, as parts of the sides; see :data:`RIGID`.

    Returns:
        H×W×2; subtract it.

    Raises:
        ConfigError: unknown ``how``, or boxes without a pixel.
    """
    if how not in HEADS:
        raise ConfigError(f"head={how!r}: expected one of {', '.join(HEADS)}{did_you_mean(how, HEADS)}")
    if how == "none":
        return np.zeros_like(flow)
    mask = _mask(flow.shape[:2], boxes)
    if mask.sum() < 4:
        raise ConfigError(f"head={how!r}: the boxes of rigid skin hold fewer than four pixels of {flow.shape[:2]}")
    y, x = np.nonzero(mask)
    moved = flow[mask].astype(np.float64)
    if how == "median":
        return np.broadcast_to(np.median(moved, axis=0), flow.shape).astype(np.float32)
    centre, unit = np.array([x.mean(), y.mean()]), max(flow.shape[:2])
    px, py = (x - centre[0]) / unit, (y - centre[1]) / unit
    one, zero = np.ones_like(px), np.zeros_like(px)
    system = np.concatenate([np.stack([px, -py, one, zero], 1), np.stack([py, px, zero, one], 1)])
    target = moved.T.reshape(-1)
    weights = np.ones(len(px))
    solution = np.zeros(4)
    for _ in range(30):
        double = np.tile(np.sqrt(weights), 2)
        previous, solution = solution, np.linalg.lstsq(system * double[:, None], target * double, rcond=None)[0]
        if np.abs(solution - previous).max() < 1e-6:
            break
        residual = np.linalg.norm((target - system @ solution).reshape(2, -1), axis=0)
        scale = max(2.3849 * 1.4826 * float(np.median(residual)), 1e-6)
        weights = 1 / (1 + (residual / scale) ** 2)
    rows, columns = np.mgrid[: flow.shape[0], : flow.shape[1]]
    px, py = (columns - centre[0]) / unit, (rows - centre[1]) / unit
    a, b, tx, ty = solution
    return np.stack([a * px - b * py + tx, b * px + a * py + ty], axis=-1).astype(np.float32)


def area_resize(maps: Tensor, side: int) -> Tensor:
    """Resize ...×C×H×W maps to side×side by averaging, which keeps the mean where the sides divide."""
    return functional.interpolate(maps.flatten(0, -4) if maps.ndim > 4 else maps, size=(side, side), mode="area")


def tile_patches(maps: Tensor, points: Sequence[Sequence[float]]) -> Tensor:
    """Cut patches of half the side around four points and lay them out as two rows of two.

    Args:
        maps: C×S×S.
        points: x, y of each as parts of the side; a patch that would leave the picture is moved inside.

    Returns:
        C×S×S.
    """
    side = maps.shape[-1]
    half = side // 2

    def patch(x: float, y: float) -> Tensor:
        left, top = (min(max(round(value * side) - half // 2, 0), side - half) for value in (x, y))
        return maps[:, top : top + half, left : left + half]

    first, second, third, fourth = (patch(*point) for point in points)
    return torch.cat([torch.cat([first, second], 2), torch.cat([third, fourth], 2)], 1)


@TRANSFORMS.register_module()
class FlowFeature:
    """Makes the feature of a clip: flow from onset to apex, head motion removed, with strain, resized by area.

    Args:
        flow: a flow model: the config of its class (anything with ``predict_flow``), a model's name, or a config file.
        checkpoint: its weights, a file or the name of released ones.
        flow_key: which of the model's results to take, such as ``"expression_flow"`` of one that splits the motion.
        flow_root: take flow from files ``flow_root/DATASET/SUBJECT/CLIP.flo`` instead, relative to the data's folder.
        flow_size: side in pixels to which the frames are resized for the flow model; None leaves them as they are.
        detector: OpenCV's YuNet file (.onnx), or the config of another :class:`~ffplug_face.crops.FaceDetector`, by
            which the face is found in the onset frame and both frames are laid upright into a crop of ``flow_size``;
            None takes frames as they are, as for the data sets' cropped versions.
        head: how head motion is removed, see :func:`head_motion`.
        size: side of the feature in pixels.
        channels: of the feature: ``"u"``, ``"v"``, ``"strain"``, ``"magnitude"``.
        patches: x, y of two eyes and two mouth corners as parts of the sides, whose surroundings are cut and laid out
            (HTNet); None keeps the whole face.
        cache: folder where computed flow is kept, by frames and model; None keeps none.
        device: for the flow model.
        random_weights: allow a network without a checkpoint, whose flow means nothing; it is not kept in ``cache``.

    Raises:
        ConfigError: an argument is wrong.

    Example:
        dict(type="ffplug_face.FlowFeature", flow=dict(type="ffplug_face.FarnebackFlow"))
    """

    def __init__(
        self,
        flow: Mapping[str, Any] | str | None = None,
        checkpoint: str | None = None,
        flow_key: str = "flow",
        flow_root: str | None = None,
        flow_size: int | None = 256,
        detector: str | Mapping[str, Any] | None = None,
        head: str | None = "similarity",
        size: int = 28,
        channels: Sequence[str] = ("u", "v", "strain"),
        patches: Sequence[Sequence[float]] | None = None,
        cache: str | None = None,
        device: str = "cpu",
        random_weights: bool = False,
    ) -> None:
        if (flow is None) == (flow_root is None):
            raise ConfigError("FlowFeature: give flow (a model) or flow_root (files), one of the two")
        head = "none" if head is None else head  # --cfg-options makes None of the word
        if head not in HEADS:
            raise ConfigError(
                f"FlowFeature.head={head!r}: expected one of {', '.join(HEADS)}{did_you_mean(head, HEADS)}"
            )
        unknown = [name for name in channels if name not in CHANNELS]
        if unknown:
            raise ConfigError(f"FlowFeature.channels: {unknown[0]!r} is none of {', '.join(CHANNELS)}")
        if patches is not None and (len(patches) != 4 or size % 2):
            raise ConfigError("FlowFeature.patches: expected four points, and an even size")
        if detector is not None and flow_size is None:
            raise ConfigError("FlowFeature.detector lays faces into crops of flow_size pixels: give flow_size")
        self.flow = flow
        self.checkpoint = checkpoint
        self.flow_key = flow_key
        self.flow_root = flow_root
        self.flow_size = flow_size
        self.detector = detector
        self.head = head
        self.size = size
        self.channels = tuple(channels)
        self.patches = patches
        self.cache = None if cache is None else Path(cache)
        self.device = device
        self.random_weights = random_weights
        self._model: nn.Module | None = None
        self._finder: FaceDetector | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without models, which other processes build where they need them."""
        return {**self.__dict__, "_model": None, "_finder": None}

    def __call__(self, clip: Clip, root: Path) -> Tensor:
        """The feature of a clip.

        Args:
            clip: of a manifest.
            root: folder of its paths.

        Returns:
            C×size×size float32: flow in pixels of a face 128 pixels wide, strain without unit.

        Raises:
            DataError: a frame or flow file is missing, damaged or of another size, or the flow is not finite.
            NoFaceError: the detector finds no face in the onset frame.
        """
        flow = self.clip_flow(clip, root)
        if not np.isfinite(flow).all():
            raise DataError(f"{clip.key}: its flow holds NaN or infinity")
        return self.encode(flow)

    def encode(self, flow: np.ndarray) -> Tensor:
        """The feature of a flow H×W×2 in pixels; see :meth:`__call__`."""
        moved = torch.from_numpy(np.ascontiguousarray(flow - head_motion(flow, self.head))).permute(2, 0, 1)
        shown = moved * (FACE_WIDTH / flow.shape[1])
        maps = {"u": shown[0], "v": shown[1], "strain": optical_strain(moved), "magnitude": shown.norm(dim=0)}
        feature = area_resize(torch.stack([maps[name] for name in self.channels])[None], self.size)[0]
        return feature if self.patches is None else tile_patches(feature, self.patches)

    def clip_flow(self, clip: Clip, root: Path) -> np.ndarray:
        """Flow from onset to apex, H×W×2 in pixels, head motion included."""
        if self.flow_root is not None:
            return read_flow(str(root / self.flow_root / f"{clip.key}.flo"))[0]
        return self.pair_flow(root / clip.onset_path, root / clip.apex_path)

    def pair_flow(self, onset: Path, apex: Path) -> np.ndarray:
        """Flow between two frames on disk, from the cache if it is there."""
        stored = None if self.cache is None or self.random_weights else self.cache / f"{self._key(onset, apex)}.npy"
        if stored is not None and stored.is_file():
            return np.load(stored, allow_pickle=False)
        first, second = self._frames(onset, [apex])
        if first.shape != second.shape:
            raise DataError(f"{apex}: {second.shape[:2]} pixels, but {onset.name} has {first.shape[:2]}")
        flow = self.estimate(first, second)
        if stored is not None:
            with atomic_path(stored, sync=False) as temporary, open(temporary, "wb") as file:
                np.save(file, flow)
        return flow

    def estimate(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Flow between two pictures H×W×3 uint8 RGB, H×W×2 float32 in pixels."""
        tensors = [torch.from_numpy(frame).permute(2, 0, 1)[None].float().to(self.device) for frame in (first, second)]
        with torch.inference_mode():
            found = self.model.predict_flow(*tensors)
        if self.flow_key not in found:
            raise ConfigError(f"flow_key={self.flow_key!r}: the flow model gives {', '.join(found)}")
        return found[self.flow_key][0].float().permute(1, 2, 0).cpu().numpy()

    @property
    def model(self) -> nn.Module:
        """The flow model, built when it is first needed."""
        if self._model is None:
            from ffplug.apis.models import build_model, load_weights
            from ffplug.registry import MODELS

            model = MODELS.build(dict(self.flow)) if isinstance(self.flow, Mapping) else build_model(self.flow)
            if not hasattr(model, "predict_flow"):
                raise ConfigError(f"flow: {type(model).__name__} has no predict_flow: it is no optical-flow model")
            if self.checkpoint is not None:
                load_weights(model, self.checkpoint)
            elif not self.random_weights and any(True for _ in model.parameters()):
                raise ConfigError("flow: give the model's weights as checkpoint, or random_weights=True for a trial")
            self._model = model.eval().to(self.device)
        return self._model

    def _frames(self, onset: Path, others: Iterable[Path]) -> list[np.ndarray]:
        """The onset frame and others as the flow model gets them: whatever aligns the first moves the others alike."""
        first = read_image(str(onset))
        if self.detector is None:
            return [self._resize(first), *(self._resize(read_image(str(path))) for path in others)]
        size = (self.flow_size, self.flow_size)
        if self._finder is None:
            given = self.detector
            self._finder = TRANSFORMS.build(dict(given)) if isinstance(given, Mapping) else YuNet(given)
        move = align(self._finder.one(first, str(onset)).points, size)
        return [move.warp(first, size), *(move.warp(read_image(str(path)), size) for path in others)]

    def _resize(self, image: np.ndarray) -> np.ndarray:
        if self.flow_size is None or image.shape[:2] == (self.flow_size, self.flow_size):
            return image
        shrinks = min(image.shape[:2]) > self.flow_size
        method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        return cv2.resize(image, (self.flow_size, self.flow_size), interpolation=method)

    def _key(self, onset: Path, apex: Path) -> str:
        """Hash of the frames' content, the flow model and its weights."""
        digest = self._model_digest.copy()
        for path in (onset, apex):
            digest.update(_digest(path))
        return digest.hexdigest()[:32]

    @functools.cached_property
    def _model_digest(self) -> Any:
        """Hash of the flow model's config and weights, whatever name or file they were given by, and of the crop."""
        from ffplug.config import load_config

        flow = self.flow if isinstance(self.flow, Mapping) else load_config(self.flow).to_dict()["model"]
        digest = hashlib.sha256(
            json.dumps([flow, self.flow_key, self.flow_size, self.detector], sort_keys=True, default=str).encode()
        )
        if self.checkpoint is not None:
            digest.update(_digest(find_file(self.checkpoint)[0]))
        return digest


def _digest(path: Path) -> bytes:
    try:
        return bytes.fromhex(sha256(path))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None


def motion_curve(frames: Sequence[np.ndarray], feature: FlowFeature) -> np.ndarray:
    """How far each frame has moved from the first one in brows and mouth.

    Args:
        frames: pictures H×W×3 uint8, the onset first.
        feature: whose flow model and removal of head motion are used.

    Returns:
        Mean length of the flow from the first frame without the head's motion, pixels; 0 for the first.
    """
    curve = [0.0]
    for frame in frames[1:]:
        flow = feature.estimate(frames[0], frame)
        moved = (flow - head_motion(flow, feature.head))[_mask(flow.shape[:2], ACTIVE)]
        curve.append(float(np.linalg.norm(moved, axis=-1).mean()))
    return np.array(curve)


def find_apex(curve: np.ndarray, window: int = 5) -> int:
    """Index of the largest value of a motion curve after a mean filter, of a third of the curve at most."""
    window = min(window, max(1, len(curve) // 3)) // 2 * 2 + 1
    padded = np.pad(curve, window // 2, mode="edge")
    return int(np.convolve(padded, np.full(window, 1 / window), mode="valid").argmax())


def search_apex(clip: Clip, root: Path, feature: FlowFeature) -> tuple[int, str]:
    """Find the apex of a clip in its frames from onset to offset.

    Returns:
        The frame's number, and its path relative to ``root``.
    """
    folder = (root / clip.onset_path).parent
    frames = {number: path for number, path in frames_in(folder).items() if clip.onset <= number <= clip.offset}
    if len(frames) < 2:
        raise DataError(f"{clip.key}: {folder} holds {len(frames)} frames from {clip.onset} to {clip.offset}")
    onset, *others = frames.values()
    curve = motion_curve(feature._frames(onset, others), feature)
    number = [*frames][max(1, find_apex(curve))]
    return number, Path(os.path.relpath(frames[number], root)).as_posix()


class Normaliser:
    """Makes features into pictures of 0..255. Statistics come from :meth:`fit`, which sees training clips alone."""

    def fit(self, features: Tensor, datasets: Sequence[str]) -> Normaliser:
        """Learn what is needed from N×3×H×W features of clips of these data sets; returns itself."""
        return self

    def __call__(self, features: Tensor, datasets: Sequence[str]) -> Tensor:
        """N×3×H×W features to float pictures in 0..255."""
        raise NotImplementedError


@TRANSFORMS.register_module()
class MinMax(Normaliser):
    """The least value of a clip's channel becomes 0, the greatest 255, in whole numbers: the literature's way.

    It hides how strong a movement is, and puts zero motion at another grey value in each clip.

    Example:
        dict(type="ffplug_face.MinMax")
    """

    def __call__(self, features: Tensor, datasets: Sequence[str]) -> Tensor:  # noqa: D102
        low, high = features.amin((2, 3), keepdim=True), features.amax((2, 3), keepdim=True)
        return (255 * (features - low) / (high - low).clamp_min(1e-12)).round()


@TRANSFORMS.register_module()
class FixedScale(Normaliser):
    """128 + 127·flow/s and 255·strain/t, clipped: zero motion is grey, and strength stays.

    Args:
        flow: s, in pixels of a face 128 pixels wide.
        strain: t.

    Example:
        dict(type="ffplug_face.FixedScale", flow=1.0)
    """

    def __init__(self, flow: float = 2.0, strain: float = 0.1) -> None:
        if not (flow > 0 and strain > 0):
            raise ConfigError(f"FixedScale(flow={flow}, strain={strain}): expected positive scales")
        self.scales = (flow, strain)

    def __call__(self, features: Tensor, datasets: Sequence[str]) -> Tensor:  # noqa: D102
        return _scaled(features, features.new_tensor(self.scales).expand(len(features), 2))


def _scaled(features: Tensor, scales: Tensor) -> Tensor:
    """Pictures of features N×3×H×W at the scales N×2 of flow and strain."""
    flow, strain = features[:, :2], features[:, 2:]
    pictures = [128 + 127 * flow / scales[:, :1, None, None], 255 * strain / scales[:, 1:, None, None]]
    return torch.cat(pictures, 1).clamp(0, 255)


@TRANSFORMS.register_module()
class RobustScale(Normaliser):
    """As :class:`FixedScale`, with scales for each data set from a quantile of its training clips.

    Args:
        quantile: of the absolute values that reaches full scale. A data set without training clips gets that of all.

    Example:
        dict(type="ffplug_face.RobustScale", quantile=0.98)
    """

    def __init__(self, quantile: float = 0.99) -> None:
        if not 0 < quantile <= 1:
            raise ConfigError(f"RobustScale(quantile={quantile}): expected above 0 and at most 1")
        self.quantile = quantile
        self.scales: dict[str, tuple[float, float]] = {}

    def fit(self, features: Tensor, datasets: Sequence[str]) -> Normaliser:  # noqa: D102
        self.scales = {"": self._measure(features)}
        for name in sorted(set(datasets)):
            self.scales[name] = self._measure(features[torch.tensor([item == name for item in datasets])])
        return self

    def _measure(self, features: Tensor) -> tuple[float, float]:
        parts = (features[:, :2].abs(), features[:, 2:].abs())
        return tuple(max(float(np.quantile(part.numpy(), self.quantile)), 1e-6) for part in parts)

    def __call__(self, features: Tensor, datasets: Sequence[str]) -> Tensor:  # noqa: D102
        return _scaled(features, features.new_tensor([self.scales.get(name, self.scales[""]) for name in datasets]))

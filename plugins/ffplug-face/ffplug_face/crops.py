"""Faces in pictures: detection with a file of the user's, similarity alignment, crops, and curves of expression."""

from __future__ import annotations

import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ffplug.errors import CheckpointError, DataError, did_you_mean

FIVE_POINTS = ("right_eye", "left_eye", "nose_tip", "mouth_right", "mouth_left")
"""Landmarks that align a face, in the order of OpenCV's detector; right and left are the subject's."""

ALIGNED = np.array([[0.32, 0.40], [0.68, 0.40], [0.50, 0.60], [0.36, 0.78], [0.64, 0.78]])
"""Where :data:`FIVE_POINTS` lie in an aligned crop, in shares of its width and height."""


@dataclasses.dataclass(frozen=True, eq=False)
class Face:
    """A face that was found.

    Attributes:
        box: left, top, width, height in pixels.
        points: 5×2, see :data:`FIVE_POINTS`, pixels (integers are pixels' centres).
        score: of the detector, 0..1.
    """

    box: tuple[float, float, float, float]
    points: np.ndarray
    score: float


class NoFaceError(DataError):
    """A picture shows no face; what works through many pictures leaves it out and says so."""


class FaceDetector(ABC):
    """Finds faces; a detector of your own derives from it."""

    @abstractmethod
    def __call__(self, image: np.ndarray) -> list[Face]:
        """The faces of an RGB picture H×W×3 uint8, the largest first."""

    def one(self, image: np.ndarray, name: str = "the picture") -> Face:
        """The largest face.

        Raises:
            NoFaceError: there is none; ``name`` says where.
        """
        faces = self(image)
        if not faces:
            raise NoFaceError(
                f"{name}: no face found; expected a face of some 20 pixels or more, looking to the camera"
            )
        return faces[0]


_YUNET = "YuNet is models/face_detection_yunet/face_detection_yunet_2023mar.onnx of github.com/opencv/opencv_zoo"


class YuNet(FaceDetector):
    """OpenCV's face detector YuNet (Wu et al., Machine Intelligence Research 2023), from a model file of the user's.

    Args:
        path: ``face_detection_yunet_2023mar.onnx``, from the models of github.com/opencv/opencv_zoo (MIT licence).
        score: least score of a face.

    Raises:
        CheckpointError: there is no such file, or OpenCV can't read it.
    """

    def __init__(self, path: str | os.PathLike, score: float = 0.6) -> None:
        self.path = path
        if not Path(path).is_file():
            raise CheckpointError(f"{path}: no such file. {_YUNET}; download it, and give its path")
        try:
            self.detector = cv2.FaceDetectorYN.create(str(path), "", (320, 320), score)
        except cv2.error as error:
            raise CheckpointError(f"{path}: OpenCV can't read it ({error.err or error}). {_YUNET}") from error

    def __call__(self, image: np.ndarray) -> list[Face]:
        """The faces of an RGB picture H×W×3 uint8, the largest first.

        Raises:
            DataError: it is no such picture.
            CheckpointError: the model file is one of another network.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise DataError(f"a picture of {image.shape}, {image.dtype}: expected H×W×3 of uint8 to look for faces in")
        self.detector.setInputSize((image.shape[1], image.shape[0]))
        try:
            rows = self.detector.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
        except cv2.error as error:
            raise CheckpointError(f"{self.path}: not a model of YuNet ({error.err or error}). {_YUNET}") from error
        return faces_of_rows(rows)


def faces_of_rows(rows: np.ndarray | None) -> list[Face]:
    """The detector's rows N×15 (box, five points, score) as faces, the largest first."""
    found = [
        Face(tuple(map(float, row[:4])), np.asarray(row[4:14], np.float64).reshape(5, 2), float(row[14]))
        for row in ([] if rows is None else rows)
        if np.isfinite(row).all()
    ]
    return sorted(found, key=lambda face: -face.box[2] * face.box[3])


@dataclasses.dataclass(frozen=True, eq=False)
class Similarity:
    """A turn, a scale and a shift of the plane: p -> matrix·p + shift.

    Attributes:
        matrix: 2×2.
        shift: 2, pixels.
    """

    matrix: np.ndarray
    shift: np.ndarray

    @classmethod
    def fit(cls, source: np.ndarray, target: np.ndarray, weights: np.ndarray | None = None) -> Similarity:
        """The one that brings points nearest to others in (weighted) least squares (Umeyama, PAMI 1991).

        Args:
            source: N×2, at least two different points.
            target: N×2, where they should go.
            weights: N, at least 0; all alike by default.

        Raises:
            DataError: the points do not say which.
        """
        source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
        if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2:
            raise DataError(f"points {source.shape} and {target.shape}: expected N×2 both")
        share = np.ones(len(source)) if weights is None else np.asarray(weights, np.float64)
        total = share.sum()
        if not (np.isfinite(source).all() and np.isfinite(target).all() and total > 0):
            raise DataError("points to align hold numbers that are not finite, or have no weight")
        share = share / total
        middles = share @ source, share @ target
        # As complex numbers a similarity without reflection is one factor.
        first, second = ((points - middle) @ [1, 1j] for points, middle in zip((source, target), middles, strict=True))
        spread = (share * np.abs(first) ** 2).sum()
        if spread < 1e-12:
            raise DataError("points to align all lie in one place: expected at least two different ones")
        factor = (share * first.conj() * second).sum() / spread
        matrix = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
        return cls(matrix, middles[1] - matrix @ middles[0])

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Move points ...×2."""
        return np.asarray(points) @ self.matrix.T + self.shift

    def inverse(self) -> Similarity:
        """The way back."""
        matrix = np.linalg.inv(self.matrix)
        return Similarity(matrix, -matrix @ self.shift)

    def warp(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The picture H×W or H×W×C as the similarity shows it, at ``size`` (height, width); edges are repeated.

        Where it shrinks by more than half, the picture is smoothed first.
        """
        scale = float(np.sqrt(np.linalg.det(self.matrix)))
        if scale < 0.5:
            image = cv2.GaussianBlur(image, (0, 0), 0.5 * np.sqrt(1 / scale**2 - 1))
        matrix = np.concatenate([self.matrix, self.shift[:, None]], axis=1)
        return cv2.warpAffine(image, matrix, size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def warp_flow(self, flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Flow H×W×2 (pixels) between pictures as the flow between them after :meth:`warp`, at ``size``."""
        moved = self.warp(np.ascontiguousarray(flow, np.float32), size)
        return (moved @ self.matrix.T).astype(np.float32)


def align(points: np.ndarray, size: tuple[int, int]) -> Similarity:
    """What brings a face to its place in a crop: the same for all frames of a clip, or the crop itself would move.

    Args:
        points: 5×2, pixels (see :data:`FIVE_POINTS`), of the clip's first frame.
        size: height and width of the crop.
    """
    return Similarity.fit(points, ALIGNED * (np.array(size[::-1]) - 1))


def five_points(names: Sequence[str], landmarks: np.ndarray) -> np.ndarray:
    """:data:`FIVE_POINTS` (5×2) of a head model's landmarks L×2 with their names.

    Raises:
        DataError: one is missing.
    """
    for name in FIVE_POINTS:
        if name not in names:
            raise DataError(f"no landmark {name!r}{did_you_mean(name, names)}; there are {', '.join(names) or 'none'}")
    return np.asarray(landmarks)[[list(names).index(name) for name in FIVE_POINTS]]


_STEADY = ("eye_right_outer", "eye_right_inner", "eye_left_inner", "eye_left_outer", "nose_tip")

CURVES = {
    "mouth_open": ("lip_upper", "lip_lower"),
    "mouth_wide": ("mouth_right", "mouth_left"),
    "eye_right_open": ("eye_right_upper", "eye_right_lower"),
    "eye_left_open": ("eye_left_upper", "eye_left_lower"),
    "brow_right_up": ("brow_right_middle", "right_eye"),
    "brow_left_up": ("brow_left_middle", "left_eye"),
    "brows_apart": ("brow_right_inner", "brow_left_inner"),
    "mouth_right_up": ("mouth_right", "nose_tip"),
    "mouth_left_up": ("mouth_left", "nose_tip"),
}
"""Pairs of landmarks whose distance says what the face does."""


def expression_curves(names: Sequence[str], tracks: np.ndarray) -> dict[str, np.ndarray]:
    """How a face's expression goes over a clip, whatever its head does in the picture's plane.

    Every frame is laid on the first by a similarity of points that expressions hardly move (corners of the eyes, tip of
    the nose). A curve is the distance of a pair of landmarks less that in the first frame, in distances of the eyes.

    Args:
        names: of the L landmarks.
        tracks: n×L×2, pixels.

    Returns:
        n numbers for each of :data:`CURVES` whose landmarks there are, and ``motion``: the root mean square way of all
        landmarks from the first frame.

    Raises:
        DataError: the steady points or the eyes are missing.
    """
    tracks = np.asarray(tracks, np.float64)
    index = {name: position for position, name in enumerate(names)}
    missing = [name for name in (*_STEADY, "right_eye", "left_eye") if name not in index]
    if missing:
        raise DataError(f"expression curves need the landmarks {', '.join(missing)}; there are {', '.join(names)}")
    steady = [index[name] for name in _STEADY]
    laid = np.stack([Similarity.fit(frame[steady], tracks[0, steady])(frame) for frame in tracks])
    unit = np.linalg.norm(laid[0, index["right_eye"]] - laid[0, index["left_eye"]])
    curves = {}
    for name, (one, other) in CURVES.items():
        if one in index and other in index:
            apart = np.linalg.norm(laid[:, index[one]] - laid[:, index[other]], axis=-1)
            curves[name] = (apart - apart[0]) / unit
    curves["motion"] = np.sqrt(((laid - laid[0]) ** 2).sum(-1).mean(1)) / unit
    return curves

"""The open head: realistic, CC0, shipped with the package."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np

from ffplug_face.models.arrays import read_npz
from ffplug_face.models.head import HeadData, HeadModel, eyes_and_nose
from ffplug_face.registry import MODELS

OPEN_HEAD = Path(__file__).parents[1] / "assets" / "open_head.npz"

_KEYS = ("v_template", "f", "shapedirs", "exprdirs", "expr_names", "J_regressor", "weights", "parents", "vt", "ft")


@MODELS.register_module()
class OpenHead(HeadModel):
    """A head of 4,665 vertices with 60 identity directions, ARKit's 52 actions, eyes, mouth cavity and tongue.

    Its origin and licence (CC0 1.0) are in ``assets/open_head.md``. Expression coefficients are 0..1.

    Args:
        path: another head in a file with the same keys, such as one made from blend shapes of your own; its regions are
            eyes, neck and skin, its landmarks eyes and nose.

    Example:
        dict(type="ffplug_face.OpenHead")
    """

    def __init__(self, path: str | os.PathLike | None = None) -> None:
        arrays = read_npz(OPEN_HEAD if path is None else path, _KEYS)
        data = HeadData(
            template=arrays["v_template"],
            faces=arrays["f"],
            shape_directions=arrays["shapedirs"],
            expression_directions=arrays["exprdirs"],
            joint_regressor=arrays["J_regressor"],
            weights=arrays["weights"],
            parents=arrays["parents"].tolist(),
            uv=arrays["vt"],
            uv_faces=arrays["ft"],
            expression_names=arrays["expr_names"].tolist(),
            landmarks=eyes_and_nose(arrays["v_template"], arrays["weights"]),
        )
        if path is None:
            _describe(data)
        super().__init__(data, "the open head" if path is None else str(path))


_MOUTH = (0.75, 0.93, 0.0, 0.14)
_TONGUE = (0.62, 0.65, 0.92, 1.0)
_SOCKETS = {"right": (0.01, 0.08, 0.54, 0.64), "left": (0.08, 0.16, 0.54, 0.64)}
"""Where the texture has the pieces whose seams are the lips' and the lids' edges: u from, to, v from, to."""


def _describe(data: HeadData) -> None:
    """Regions and landmarks of the shipped mesh, from the seams of its texture."""
    template = data.template
    mouth, seam = _piece(data, _MOUTH)
    tongue, _ = _piece(data, _TONGUE)
    inside = np.zeros(len(template), np.float32)
    inside[np.union1d(np.setdiff1d(mouth, seam), tongue)] = 1
    across, up = template[:, 0] / 0.027, template[:, 1] - template[seam, 1].mean()
    edge = (1 - across**2) * np.where(up > 0, 0.009, 0.011)
    lips = np.clip((edge - np.abs(up)) / 0.002, 0, 1) * (template[:, 2] > 0.125) * (1 - inside)
    points = {**data.landmarks, **_extremes(template, seam, "mouth_right", "mouth_left")}
    middle = seam[np.abs(template[seam, 0]) < 0.002]
    points["lip_upper"] = middle[[template[middle, 1].argmax()]]
    points["lip_lower"] = middle[[template[middle, 1].argmin()]]
    brows = np.zeros(len(template), np.float32)
    for side, sign in (("right", -1), ("left", 1)):
        _, seam = _piece(data, _SOCKETS[side])
        names = (f"eye_{side}_outer", f"eye_{side}_inner")
        points.update(_extremes(template, seam, *(names if sign < 0 else names[::-1])))
        points[f"eye_{side}_upper"] = seam[[template[seam, 1].argmax()]]
        points[f"eye_{side}_lower"] = seam[[template[seam, 1].argmin()]]
        line = template[seam].mean(0) + np.array([[-sign * 0.018, 0.019, 0], [0, 0.026, 0], [sign * 0.019, 0.021, 0]])
        for place, name in zip(line, ("inner", "middle", "outer"), strict=True):
            points[f"brow_{side}_{name}"] = [_front(template, place)]
        brows = np.maximum(brows, np.clip(2 - _distance(template[:, :2], line[:, :2]) / 0.004, 0, 1))
    chin = np.flatnonzero((np.abs(template[:, 0]) < 0.004) & (template[:, 1] < 0.06) & (template[:, 2] > 0.12))
    points["chin"] = chin[[template[chin, 1].argmin()]]
    data.masks = {"lips": lips, "brows": brows * (template[:, 2] > 0.1), "mouth": inside}
    data.landmarks = {name: np.asarray(index) for name, index in points.items()}


def _piece(data: HeadData, box: tuple[float, float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """The vertices of one piece of the texture, and those that it shares with others."""
    u, v = data.uv[data.uv_faces].mean(1).T
    inside = (u > box[0]) & (u < box[1]) & (v > box[2]) & (v < box[3])
    own = np.unique(data.faces[inside])
    return own, np.intersect1d(own, data.faces[~inside])


def _extremes(template: np.ndarray, index: np.ndarray, least: str, most: str) -> dict[str, np.ndarray]:
    across = template[index, 0]
    return {least: index[[across.argmin()]], most: index[[across.argmax()]]}


def _front(template: np.ndarray, place: np.ndarray) -> int:
    """The vertex of the face that lies nearest to a place seen from the front."""
    off = np.linalg.norm(template[:, :2] - place[:2], axis=1) + np.where(template[:, 2] > 0.1, 0, 1)
    return int(off.argmin())


def _distance(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Distance of points N×2 from a polyline."""
    nearest = np.full(len(points), np.inf)
    for start, end in pairwise(line):
        along = np.clip((points - start) @ (end - start) / ((end - start) ** 2).sum(), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(points - start - along[:, None] * (end - start), axis=1))
    return nearest

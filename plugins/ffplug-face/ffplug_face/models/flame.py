"""FLAME from a file of the user's."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ffplug.errors import CheckpointError, DataError
from ffplug_face.models.arrays import read_npz, read_pickle
from ffplug_face.models.head import HeadData, HeadModel, eyes_and_nose
from ffplug_face.registry import MODELS

_KEYS = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")
_WHERE = (
    "FLAME comes from flame.is.tue.mpg.de, under its authors' licence; give the path of generic_model.pkl or "
    "flame2023.pkl"
)


@MODELS.register_module()
class FLAMEHead(HeadModel):
    """FLAME (Li et al., SIGGRAPH Asia 2017) from the model file of its authors.

    The pickle is read without importing a class that it names or running code in it; an ``.npz`` with the same keys
    does as well. Coefficients are standard deviations; EMOCA's and DECA's 100 identity and 50 expression coefficients
    go in as they are. Eyes and neck follow from the skinning weights, other regions from
    FLAME's file of vertex masks.

    Args:
        path: the model file.
        identities: how many of ``shapedirs`` are identity; the rest are expression.
        texture: ``FLAME_texture.npz`` with ``vt`` and ``ft``, for pictures in FLAME's texture coordinates.
        masks: ``FLAME_masks.pkl``, vertices by region.
        landmarks: vertices by name, each the mean of one or more; eyes and the tip of the nose are found without.
        embedding: ``flame_static_embedding.pkl``, where FLAME's authors put 51 points of the face: the landmarks of the
            open head, but for the chin.

    Example:
        dict(type="ffplug_face.FLAMEHead", path="weights/flame2023.pkl")
    """

    def __init__(
        self,
        path: str | os.PathLike,
        identities: int = 300,
        texture: str | os.PathLike | None = None,
        masks: str | os.PathLike | None = None,
        landmarks: Mapping[str, int | Sequence[int]] | None = None,
        embedding: str | os.PathLike | None = None,
    ) -> None:
        arrays = _read_model(path)
        template, directions = arrays["v_template"], arrays["shapedirs"]
        if directions.ndim != 3 or not 0 <= identities <= directions.shape[2]:
            raise DataError(
                f"{path}: shapedirs {directions.shape}: expected V×3×N with at least {identities} identity directions"
            )
        parents = arrays["kintree_table"].reshape(2, -1)[0].astype(np.int64)
        maps = {} if texture is None else read_npz(texture, ("vt", "ft"))
        points = {name: np.atleast_1d(index) for name, index in (landmarks or {}).items()}
        data = HeadData(
            template=template,
            faces=arrays["f"].astype(np.int64),
            shape_directions=directions[:, :, :identities],
            expression_directions=directions[:, :, identities:],
            pose_directions=arrays["posedirs"],
            joint_regressor=arrays["J_regressor"],
            weights=arrays["weights"],
            parents=[-1, *map(int, parents[1:])],  # the root's is 2^32 - 1 in the file
            uv=maps.get("vt"),
            uv_faces=maps.get("ft"),
            masks={} if masks is None else _masks(masks, len(template)),
        )
        data.check(str(path))
        found = {} if embedding is None else _embedded(embedding, data.faces)
        data.landmarks = {
            **eyes_and_nose(data.template, data.weights),
            **{k: v for k, (v, _) in found.items()},
            **points,
        }
        data.landmark_weights = {name: share for name, (_, share) in found.items() if name not in points}
        super().__init__(data, str(path))


def _read_model(path: str | os.PathLike) -> dict[str, np.ndarray]:
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such file. {_WHERE}")
    if Path(path).suffix == ".npz":
        return read_npz(path, _KEYS)
    content = read_pickle(path)
    missing = [key for key in _KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}: expected a FLAME model. {_WHERE}")
    arrays = {key: _numbers(path, key, content[key]) for key in _KEYS}
    if arrays["kintree_table"].size != 10:
        raise DataError(f"{path}: kintree_table {arrays['kintree_table'].shape}: expected 2×5, FLAME's five joints")
    return arrays


def _numbers(path: str | os.PathLike, key: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise DataError(f"{path}: {key} holds {array.dtype}: expected numbers")
    return array


_PARTS = {"lips": "lips", "neck": "neck", "eyes": ("left_eyeball", "right_eyeball")}
"""Our regions, by the names in FLAME's file of masks."""


def _masks(path: str | os.PathLike, points: int) -> dict[str, np.ndarray]:
    """Vertex masks from FLAME's file of vertices by region."""
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected vertices by region, as in FLAME_masks.pkl")
    found: dict[str, np.ndarray] = {}
    for region, names in _PARTS.items():
        for name in [names] if isinstance(names, str) else names:
            if name not in content:
                continue
            index = np.asarray(content[name]).astype(np.int64)
            if index.size and not 0 <= index.min() <= index.max() < points:
                raise DataError(f"{path}: {name} names vertices {index.min()}..{index.max()}: there are {points}")
            found.setdefault(region, np.zeros(points))[index] = 1
    return found


_EMBEDDED = {
    "brow_right_outer": 0,
    "brow_right_middle": 2,
    "brow_right_inner": 4,
    "brow_left_inner": 5,
    "brow_left_middle": 7,
    "brow_left_outer": 9,
    "nose_tip": 13,
    "eye_right_outer": 19,
    "eye_right_upper": (20, 21),
    "eye_right_inner": 22,
    "eye_right_lower": (23, 24),
    "eye_left_inner": 25,
    "eye_left_upper": (26, 27),
    "eye_left_outer": 28,
    "eye_left_lower": (29, 30),
    "mouth_right": 31,
    "mouth_left": 37,
    "lip_upper": 45,
    "lip_lower": 49,
}
"""Our landmarks in the order of the embedding, which is iBUG's 68 points (Sagonas et al., 2013) less the jaw's 17."""


def _embedded(path: str | os.PathLike, faces: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Vertices and their weights of the landmarks in FLAME's static embedding (a triangle and barycentrics each)."""
    keys = ("lmk_face_idx", "lmk_b_coords")
    content = read_npz(path, keys) if Path(path).suffix == ".npz" else read_pickle(path)
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}: expected FLAME's flame_static_embedding.pkl")
    triangles, shares = (_numbers(path, key, content[key]) for key in keys)
    if triangles.shape != (51,) or shares.shape != (51, 3):
        raise DataError(f"{path}: lmk_face_idx {triangles.shape}, lmk_b_coords {shares.shape}: expected (51,), (51, 3)")
    triangles = triangles.astype(np.int64)
    if not 0 <= triangles.min() <= triangles.max() < len(faces):
        raise DataError(f"{path}: names triangles {triangles.min()}..{triangles.max()}: there are 0..{len(faces) - 1}")
    if not np.isfinite(shares).all() or np.abs(shares.sum(1) - 1).max() > 1e-3:
        raise DataError(f"{path}: lmk_b_coords: expected barycentrics, which sum to 1")
    found = {}
    for name, index in _EMBEDDED.items():
        index = np.atleast_1d(index)
        found[name] = faces[triangles[index]].ravel(), shares[index].ravel() / len(index)
    return found

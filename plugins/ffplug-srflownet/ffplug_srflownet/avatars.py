"""GaussianAvatars (Qian et al., CVPR 2024): a cloud on a mesh, the mesh's motion, and the cameras that see it."""

from __future__ import annotations

import dataclasses
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ffplug_face.models import HeadModel
from ffplug_face.rendering import Camera
from mmengine.logging import print_log
from torch import Tensor

from ffplug.datasets.base import choose
from ffplug.datasets.layouts import read_json_object
from ffplug.errors import ConfigError, DataError
from ffplug_srflownet.heads import get_head
from ffplug_srflownet.ply import read_splats
from ffplug_srflownet.scenes import SplatScene
from ffplug_srflownet.splats import SH_FRAMES, Splats

_PARAMETERS = {"expr": None, "rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6, "translation": 3}
"""What ``flame_param.npz`` holds for each frame, and how many numbers; beside it ``shape`` and two offsets."""

_OFFSETS = ("static_offset", "dynamic_offset")
_TEETH = 168
"""Triangles that GaussianAvatars adds behind FLAME's own."""

_CHUNK = 32  # frames whose skinning is held at a time


class Motion(NamedTuple):
    """A mesh that moves.

    Attributes:
        vertices: T×V×3 float32, metres.
        faces: F×3 int64.
        labels: F int64, the region of each triangle; None where that is not known.
    """

    vertices: Tensor
    faces: Tensor
    labels: Tensor | None = None


class Avatar:
    """A GaussianAvatars head: the files of one person, and scenes of it.

    Args:
        splats: a ``.ply`` whose Gaussians are bound (``binding_0``).
        motion: what drives them, see :func:`read_motion`: FLAME's parameters, or any tracker's meshes with the
            triangles that the Gaussians were bound to.
        flame: FLAME's model file, or the config of a head model; needed for parameters. GaussianAvatars' teeth are not
            in that file: Gaussians on them are left out, and counted in the log.
        cameras: ``transforms_train.json`` or its like, see :func:`read_cameras`; None for one camera from the front.
        field_of_view: of that one, angle (degrees) over the picture's shorter side, which the mesh fills to nine
            tenths.
        sh_frame: ``"world"``: colours are functions of the world's directions, as the published renderers have it;
            ``"local"``: of directions in the triangle's frame, so that a head that turns as a whole with the camera
            keeps its colours.
        sh_degree: leave out spherical harmonics above this; with 0 colours depend on no direction, and brightness is
            constant along the flow. None keeps all.

    Attributes:
        views: numbers of the cameras.

    Raises:
        DataError: a file is not as described, or does not fit the others.
    """

    def __init__(
        self,
        splats: str | os.PathLike,
        motion: str | os.PathLike,
        flame: str | os.PathLike | Mapping[str, Any] | None = None,
        cameras: str | os.PathLike | None = None,
        field_of_view: float = 20.0,
        sh_frame: str = "world",
        sh_degree: int | None = None,
    ) -> None:
        self.sh_frame = choose("sh_frame", sh_frame, SH_FRAMES)
        if sh_degree is not None and sh_degree not in range(4):
            raise ConfigError(f"sh_degree={sh_degree}: expected 0, 1, 2, 3 or None")
        self.motion = read_motion(motion, flame)
        cloud = read_splats(splats)
        if self.motion.labels is not None:
            cloud = _without_teeth(cloud, len(self.motion.faces), str(splats))
        if sh_degree is not None:
            cloud = dataclasses.replace(cloud, sh=cloud.sh[:, : (sh_degree + 1) ** 2])
        try:
            cloud.bound_to(self.motion.vertices[0], self.motion.faces)  # one that does not fit is named now
        except DataError as error:
            raise DataError(f"{splats} with {motion}: {error}") from None
        self.splats = cloud
        self.field_of_view = field_of_view
        self.transforms = None if cameras is None else read_cameras(cameras)

    @property
    def views(self) -> tuple[int, ...]:  # noqa: D102 (see the class)
        return (0,) if self.transforms is None else tuple(self.transforms)

    def scene(self, size: tuple[int, int], view: int | None = None) -> SplatScene:
        """The avatar in motion, before white.

        Args:
            size: height and width of the pictures, pixels.
            view: number of the camera, the first one by default.

        Raises:
            ConfigError: there is no such camera.
            DataError: the camera moves, and is not there for each frame.
        """
        view = self.views[0] if view is None else view
        if view not in self.views:
            raise ConfigError(f"view={view}: expected one of the cameras {', '.join(map(str, self.views))}")
        vertices, faces, labels = self.motion
        cameras = [self._front(size)] if self.transforms is None else self._path(size, view)
        return SplatScene(
            self.splats,
            faces,
            lambda frame: vertices[frame],
            len(vertices),
            cameras[0] if len(cameras) == 1 else cameras,
            labels=labels,
            sh_frame=self.sh_frame,
        )

    def _front(self, size: tuple[int, int]) -> Camera:
        low, high = torch.aminmax(self.motion.vertices.flatten(0, 1), dim=0)
        distance = float((high - low)[:2].max()) / 0.9 / 2 / math.tan(math.radians(self.field_of_view) / 2)
        return Camera.facing(
            ((low + high) / 2).tolist(), distance + float((high - low)[2]) / 2, self.field_of_view, *size
        )

    def _path(self, size: tuple[int, int], view: int) -> list[Camera]:
        """One camera, or one for each frame."""
        by_time = self.transforms[view]
        first = next(iter(by_time.values()))
        if all(other == first for other in by_time.values()):
            return [first.camera(size)]
        missing = next((frame for frame in range(len(self.motion.vertices)) if frame not in by_time), None)
        if missing is not None:
            raise DataError(f"camera {view} moves and is not there for timestep {missing}: put all splits in one file")
        return [by_time[frame].camera(size) for frame in range(len(self.motion.vertices))]


def _without_teeth(splats: Splats, faces: int, path: str) -> Splats:
    """The Gaussians on FLAME's own triangles, where the others are on GaussianAvatars' teeth."""
    if splats.binding is None or not len(splats) or not faces <= int(splats.binding.max()) < faces + _TEETH:
        return splats
    kept = splats.binding < faces
    print_log(f"{path}: {int((~kept).sum())} Gaussians on teeth are left out, which FLAME does not have", "current")
    return splats.where(kept)


class Viewpoint(NamedTuple):
    """A camera of any picture size.

    Attributes:
        angle: horizontal field of view, radians.
        rotation: world to camera (x right, y down, z forward), 3×3 rows.
        translation: likewise, metres.
    """

    angle: float
    rotation: tuple[tuple[float, float, float], ...]
    translation: tuple[float, float, float]

    def camera(self, size: tuple[int, int]) -> Camera:
        """The camera for pictures of a height and width; the field of view goes over the width."""
        height, width = size
        return Camera(height, width, width / 2 / math.tan(self.angle / 2), self.translation, self.rotation)


def read_cameras(path: str | os.PathLike) -> dict[int, dict[int, Viewpoint]]:
    """Read ``transforms_train.json`` and its like: viewpoints by ``camera_index`` and ``timestep_index``.

    Each frame has ``transform_matrix``, camera to world in OpenGL's axes, and ``camera_angle_x`` of its own or the
    file's. Without numbers of camera and time, frame k is camera k at time 0. The principal point is the middle.

    Raises:
        DataError: the file is not as described; the message names the frame and the field.
    """
    content = read_json_object(str(path))
    if content is None:
        raise DataError(f"{path}: no such file; expected GaussianAvatars' transforms_*.json")
    frames = content.get("frames")
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise DataError(f"{path}: frames: expected a list with one or more cameras")
    found: dict[int, dict[int, Viewpoint]] = {}
    for number, frame in enumerate(frames):
        where = f"{path}: frame {number}"
        angle = frame.get("camera_angle_x", content.get("camera_angle_x"))
        if not isinstance(angle, int | float) or not 0 < angle < math.pi:
            raise DataError(f"{where}: camera_angle_x is {angle}: expected 0 to π, radians")
        view, time = frame.get("camera_index", number), frame.get("timestep_index", 0)
        if type(view) is not int or type(time) is not int:
            raise DataError(f"{where}: camera_index {view!r}, timestep_index {time!r}: expected whole numbers")
        found.setdefault(view, {})[time] = Viewpoint(float(angle), *_world_to_camera(frame, where))
    return dict(sorted(found.items()))


def _world_to_camera(frame: Mapping[str, Any], where: str) -> tuple[tuple, tuple]:
    """Rotation and translation to OpenCV's axes, from a matrix out of OpenGL's."""
    try:
        matrix = np.array(frame.get("transform_matrix"), np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    good = matrix.shape == (4, 4) and np.isfinite(matrix).all() and np.linalg.det(matrix[:3, :3]) > 0
    if not good or np.abs(matrix[:3, :3] @ matrix[:3, :3].T - np.eye(3)).max() > 1e-3:
        raise DataError(f"{where}: transform_matrix: expected 4×4 with a rotation, camera to world")
    rotation = (matrix[:3, :3] * (1, -1, -1)).T
    translation = -rotation @ matrix[:3, 3]
    return tuple(map(tuple, rotation.tolist())), tuple(translation.tolist())


def read_motion(path: str | os.PathLike, flame: str | os.PathLike | Mapping[str, Any] | None = None) -> Motion:
    """Read a mesh's motion; nothing in the file is run.

    Args:
        path: a ``.npz`` with ``verts`` T×V×3 (metres, y up, face towards +z) and ``faces`` F×3; or GaussianAvatars'
            ``flame_param.npz``: ``shape``, and for T frames ``expr``, ``rotation``, ``neck_pose``, ``jaw_pose``,
            ``eyes_pose`` (axis times angle) and ``translation``; ``static_offset`` 1×V×3 and ``dynamic_offset`` T×V×3
            where they are there, which count as part of the mesh before its joints turn; or a folder with one such
            file for each frame, in the order of their names.
        flame: FLAME's model file or the config of a head model, needed for parameters.

    Raises:
        DataError: the files or an array are not as described.
        ConfigError: they are FLAME's parameters, and ``flame`` is not given.
    """
    files = sorted(Path(path).glob("*.npz")) if Path(path).is_dir() else [Path(path)]
    if not files:
        raise DataError(f"{path}: no .npz in this folder; expected flame_param/00000.npz and on")
    parts = [_load(file) for file in files]
    if "verts" in parts[0] or "faces" in parts[0]:
        return _meshes(files[0], parts[0])
    if "expr" not in parts[0]:
        names = ", ".join(parts[0]) or "nothing"
        raise DataError(f"{files[0]}: expected verts and faces, or FLAME's shape, expr and poses; it holds {names}")
    if flame is None:
        raise ConfigError(
            f"{path} holds FLAME's parameters: give flame=, FLAME's model file (flame2023.pkl, of flame.is.tue.mpg.de)"
        )
    head = get_head(flame if isinstance(flame, Mapping) else dict(type="ffplug_face.FLAMEHead", path=os.fspath(flame)))
    vertices = torch.cat([_posed(file, part, head) for file, part in zip(files, parts, strict=True)])
    if len(vertices) < 2:
        raise DataError(f"{path}: one frame: expected two or more, which flow leads from and to")
    return Motion(vertices, head.faces, head.regions)


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            names = ("verts", "faces", "shape", *_PARAMETERS, *_OFFSETS)
            return {name: file[name] for name in names if name in file}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: expected a .npz with arrays of numbers ({error})") from None


def _meshes(path: Path, arrays: Mapping[str, np.ndarray]) -> Motion:
    for name, shape in (("verts", (None, None, 3)), ("faces", (None, 3))):
        _check(path, arrays, name, shape)
    verts, faces = arrays["verts"].astype(np.float32), arrays["faces"].astype(np.int64)
    if len(verts) < 2:
        raise DataError(f"{path}: verts has {len(verts)} frames: expected two or more")
    if faces.size and not 0 <= faces.min() <= faces.max() < verts.shape[1]:
        raise DataError(f"{path}: faces names {faces.min()}..{faces.max()}: there are {verts.shape[1]} vertices")
    return Motion(torch.from_numpy(verts), torch.from_numpy(faces))


def _check(path: Path, arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int | None, ...]) -> None:
    """Raise :class:`DataError` unless an array has a shape (None: any length) and finite numbers."""
    array = arrays.get(name)
    fits = array is not None and array.ndim == len(shape) and array.dtype.kind in "fiu"
    if not fits or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True)):
        found = "missing" if array is None else f"{'×'.join(map(str, array.shape))} {array.dtype}"
        wanted = "×".join("N" if length is None else str(length) for length in shape)
        raise DataError(f"{path}: {name} is {found}: expected {wanted} numbers")
    if not np.isfinite(array).all():
        raise DataError(f"{path}: {name} is not finite")


@torch.no_grad()
def _posed(path: Path, arrays: Mapping[str, np.ndarray], head: HeadModel) -> Tensor:
    """Vertices T×V×3 of FLAME's parameters."""
    _check(path, arrays, "expr", (None, None))
    count, points = len(arrays["expr"]), len(head.template)
    _check(path, arrays, "shape", (None,))
    for name, numbers in _PARAMETERS.items():
        _check(path, arrays, name, (count, numbers))
    for name, most in (("shape", head.n_shape), ("expr", head.n_expression)):
        if arrays[name].shape[-1] > most:
            raise DataError(f"{path}: {name} has {arrays[name].shape[-1]} coefficients: the head model has {most}")
    offsets = np.zeros((1, points, 3), np.float32)
    for name, frames in zip(_OFFSETS, (1, count), strict=True):
        if name in arrays:
            _check(path, arrays, name, (frames, None, 3))
            if arrays[name].shape[1] < points:
                raise DataError(f"{path}: {name} has {arrays[name].shape[1]} vertices: the head model has {points}")
            offsets = offsets + arrays[name][:, :points]  # the teeth come after FLAME's vertices
    poses = np.concatenate([arrays[name] for name in ("rotation", "neck_pose", "jaw_pose", "eyes_pose")], 1)
    like = head.template
    shape, expression, pose, translation, offset = (
        torch.from_numpy(np.ascontiguousarray(part, np.float32)).to(like)
        for part in (arrays["shape"][None], arrays["expr"], poses, arrays["translation"], offsets)
    )
    chunks = []
    for start in range(0, count, _CHUNK):
        part = slice(start, start + _CHUNK)
        moved = offset[part] if len(offset) > 1 else offset
        chunks.append(head(shape, expression[part], pose[part], translation[part], moved))
    return torch.cat(chunks)

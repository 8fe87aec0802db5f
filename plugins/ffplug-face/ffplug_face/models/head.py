"""What every head model is: a mesh that identity, expression, pose and translation move."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ffplug.errors import DataError, did_you_mean
from ffplug_face.actions import action_unit_weights

JOINTS = ("root", "neck", "jaw", "left_eye", "right_eye")
"""Order of the joints, and of the axis-angle triples in a pose."""

REGIONS = ("skin", "lips", "brows", "eyes", "mouth", "neck")
"""Names of the region labels; a label is an index into this."""


@dataclasses.dataclass
class HeadData:
    """The numbers of a head model, as NumPy arrays; lengths in metres, +x to the subject's left, +y up, +z forward.

    Attributes:
        template: V×3, the mean head at rest.
        faces: F×3 integers, triangles that turn counter-clockwise seen from outside.
        shape_directions: V×3×S, identity, a standard deviation each.
        expression_directions: V×3×E.
        joint_regressor: 5×V, joints from vertices.
        weights: V×5, skinning weights; rows sum to 1.
        parents: the joint above each of the five, -1 for the root; a joint comes after its parent.
        pose_directions: V×3×36, corrections by the rotations of the joints but the root; none by default.
        uv: T×2 texture coordinates in 0..1, v up; none by default.
        uv_faces: F×3 integers, which texture coordinate each corner has.
        expression_names: E names (ARKit's where they are), or empty.
        masks: by name of a region (see :data:`REGIONS`), V numbers in 0..1, how much a vertex belongs to it. Eyes and
            neck follow from the skinning weights where they are not given, and skin is the rest.
        landmarks: vertices by name, each the mean of one or more.
        landmark_weights: by name, the weights of a landmark's vertices where they are not all alike; they sum to 1.
    """

    template: np.ndarray
    faces: np.ndarray
    shape_directions: np.ndarray
    expression_directions: np.ndarray
    joint_regressor: np.ndarray
    weights: np.ndarray
    parents: Sequence[int]
    pose_directions: np.ndarray | None = None
    uv: np.ndarray | None = None
    uv_faces: np.ndarray | None = None
    expression_names: Sequence[str] = ()
    masks: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    landmarks: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    landmark_weights: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)

    def check(self, source: str) -> None:
        """Raise :class:`DataError` with ``source`` and the field that is not as it should be."""
        points = len(self.template)
        joints = len(JOINTS)
        expected = {
            "template": (points, 3),
            **{f"masks[{name!r}]": (points,) for name in self.masks},
            "faces": (None, 3),
            "shape_directions": (points, 3, None),
            "expression_directions": (points, 3, None),
            "joint_regressor": (joints, points),
            "weights": (points, joints),
            "pose_directions": (points, 3, 9 * (joints - 1)),
            "uv": (None, 2),
            "uv_faces": (len(self.faces), 3),
        }
        for name, shape in expected.items():
            value = self.masks[name[7:-2]] if name.startswith("masks") else getattr(self, name)
            if value is None:
                continue
            value = np.asarray(value)
            if value.ndim != len(shape) or any(
                want not in (None, have) for want, have in zip(shape, value.shape, strict=True)
            ):
                wanted = "×".join("N" if size is None else str(size) for size in shape)
                raise DataError(f"{source}: {name} is {'×'.join(map(str, value.shape))}: expected {wanted}")
            if not np.isfinite(value).all():
                raise DataError(f"{source}: {name} holds numbers that are not finite: expected finite ones")
        for name, size in (("faces", points), ("uv_faces", 0 if self.uv is None else len(self.uv))):
            value = getattr(self, name)
            if value is not None and value.size and not 0 <= value.min() <= value.max() < size:
                raise DataError(f"{source}: {name} names {value.min()}..{value.max()}: there are 0..{size - 1}")
        if len(self.parents) != joints or any(not -1 <= parent < k for k, parent in enumerate(self.parents)):
            raise DataError(
                f"{source}: parents {list(self.parents)}: expected {joints}, each after its parent, -1 for the root"
            )


class HeadModel(nn.Module):
    """A linear head with joints: blend shapes, pose corrections, linear blend skinning (FLAME, Li et al. 2017).

    With identity β, expression ψ and pose θ, the rest mesh is template + directions·(β, ψ) + corrections·(R(θ) - I),
    its joints follow from the mesh without the corrections, and each vertex moves with its joints by its weights.
    All is differentiable; the same numbers give the same mesh.

    Args:
        data: the numbers of the model.
        source: what to call it in errors.

    Attributes:
        faces: F×3 (int64).
        uv: T×2 texture coordinates, or None.
        uv_faces: F×3 (int64), or None.
        masks: V×R, how much each vertex belongs to each of :data:`REGIONS` (0..1).
        regions: F labels (int64), indices into :data:`REGIONS`.
        joint_names: see :data:`JOINTS`.
        expression_names: of the expression's coefficients, or empty.
        landmark_names: see :meth:`landmarks`.
        n_shape: number of identity coefficients.
        n_expression: number of expression coefficients.
    """

    joint_names = JOINTS

    def __init__(self, data: HeadData, source: str = "head") -> None:
        super().__init__()
        data.check(source)
        self.source = source
        self.parents = tuple(int(parent) for parent in data.parents)
        self.expression_names = tuple(map(str, data.expression_names))
        self._landmarks = {
            name: (
                list(map(int, index)),
                list(map(float, data.landmark_weights.get(name, [1 / len(index)] * len(index)))),
            )
            for name, index in data.landmarks.items()
        }
        masks, regions = region_masks(data)
        floats = {
            "template": data.template,
            "shape_directions": data.shape_directions,
            "expression_directions": data.expression_directions,
            "pose_directions": data.pose_directions,
            "joint_regressor": data.joint_regressor,
            "weights": data.weights,
            "uv": data.uv,
            "masks": masks,
        }
        for name, value in floats.items():
            self._buffer(name, value, np.float32)
        for name, value in {"faces": data.faces, "uv_faces": data.uv_faces, "regions": regions}.items():
            self._buffer(name, value, np.int64)

    def _buffer(self, name: str, value: np.ndarray | None, dtype: type) -> None:
        tensor = None if value is None else torch.as_tensor(np.ascontiguousarray(value, dtype))
        self.register_buffer(name, tensor, persistent=False)

    @property
    def n_shape(self) -> int:  # noqa: D102 (see the class)
        return self.shape_directions.shape[2]

    @property
    def n_expression(self) -> int:  # noqa: D102 (see the class)
        return self.expression_directions.shape[2]

    @property
    def landmark_names(self) -> tuple[str, ...]:  # noqa: D102 (see the class)
        return tuple(self._landmarks)

    def forward(
        self,
        shape: Tensor | None = None,
        expression: Tensor | None = None,
        pose: Tensor | None = None,
        translation: Tensor | None = None,
        offsets: Tensor | None = None,
    ) -> Tensor:
        """The vertices.

        Args:
            shape: B×(up to ``n_shape``) identity coefficients, in standard deviations; missing ones are zero.
            expression: B×(up to ``n_expression``) coefficients; ARKit's in 0..1, FLAME's in standard deviations.
            pose: B×15, an axis-angle triple (radians) for each joint.
            translation: B×3, metres.
            offsets: B×V×3, metres: what a tracker found of the person that the coefficients do not say; the joints
                follow them, as they follow the coefficients.

        Returns:
            B×V×3, metres. The batch is that of the arguments; those of one sample serve all.
        """
        rest = self.rest(shape, expression)
        if offsets is not None:
            rest = rest + offsets
        if pose is None:
            posed = rest
        else:
            self._check("pose", pose, 3 * len(JOINTS), exact=True)
            joints = torch.einsum("jv,bvc->bjc", self.joint_regressor, rest)
            rotations = rotation_matrices(pose.unflatten(1, (len(JOINTS), 3)))
            if self.pose_directions is not None:
                features = (rotations[:, 1:] - torch.eye(3, dtype=rotations.dtype, device=rotations.device)).flatten(1)
                rest = rest + torch.einsum("vcp,bp->bvc", self.pose_directions, features)
            posed = skin(rest, joints, rotations, self.parents, self.weights)
        if translation is not None:
            self._check("translation", translation, 3, exact=True)
            posed = posed + translation[:, None]
        return posed

    def rest(self, shape: Tensor | None = None, expression: Tensor | None = None) -> Tensor:
        """The vertices B×V×3 of an identity and expression before any joint turns."""
        vertices = self.template[None]
        for name, value in (("shape", shape), ("expression", expression)):
            if value is not None:
                directions = getattr(self, f"{name}_directions")
                self._check(name, value, directions.shape[2])
                vertices = vertices + torch.einsum("vck,bk->bvc", directions[..., : value.shape[1]], value)
        return vertices

    def joints(self, shape: Tensor | None = None, expression: Tensor | None = None) -> Tensor:
        """The joints B×5×3 of an identity and expression at rest."""
        return torch.einsum("jv,bvc->bjc", self.joint_regressor, self.rest(shape, expression))

    def landmarks(self, vertices: Tensor) -> Tensor:
        """Where ``landmark_names`` lie, B×L×3, for vertices B×V×3 (of any coordinates)."""
        points = [vertices.new_tensor(share) @ vertices[:, index] for index, share in self._landmarks.values()]
        return torch.stack(points, 1) if points else vertices.new_zeros(len(vertices), 0, 3)

    def expression_of(self, weights: Mapping[str, float]) -> Tensor:
        """The coefficients (``n_expression``) of named actions.

        Args:
            weights: strength (0..1) by the name of a coefficient (``mouthSmileLeft``) or of an action unit (``AU12``,
                ``AU12L``, ``AU12R``); strengths of one coefficient add up.

        Raises:
            DataError: the model has no such name; models without names take coefficients by number.
        """
        result = self.template.new_zeros(self.n_expression)
        for name, strength in weights.items():
            known = action_unit_weights(name) or {name: 1.0}
            present = {key: value for key, value in known.items() if key in self.expression_names}
            if not present:
                if not self.expression_names:
                    raise DataError(
                        f"{self.source} names no expressions: set its {self.n_expression} coefficients by number"
                    )
                raise DataError(
                    f"{self.source} has no expression {name!r}{did_you_mean(name, self.expression_names)}; "
                    f"there are {', '.join(self.expression_names)}"
                )
            for key, value in present.items():
                result[self.expression_names.index(key)] += strength * value
        return result

    def _check(self, name: str, value: Tensor, most: int, exact: bool = False) -> None:
        if value.dim() != 2 or value.shape[1] > most or (exact and value.shape[1] != most):
            wanted = most if exact else f"(at most {most})"
            raise ValueError(f"{self.source}: {name} {tuple(value.shape)}: expected B×{wanted}")


def rotation_matrices(axis_angle: Tensor) -> Tensor:
    """Rodrigues' formula: ...×3 axis times angle (radians) -> ...×3×3, smooth at zero."""
    square = (axis_angle**2).sum(-1)
    small = square < 1e-8
    angle = torch.where(small, torch.ones_like(square), square).sqrt()
    first = torch.where(small, 1 - square / 6, angle.sin() / angle)
    second = torch.where(small, 0.5 - square / 24, (1 - angle.cos()) / angle**2)
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return identity + first[..., None, None] * cross + second[..., None, None] * (cross @ cross)


def skin(rest: Tensor, joints: Tensor, rotations: Tensor, parents: Sequence[int], weights: Tensor) -> Tensor:
    """Linear blend skinning.

    Args:
        rest: B×V×3.
        joints: B×J×3 at rest.
        rotations: B×J×3×3, of each joint against its parent.
        parents: the joint above each, -1 for the root.
        weights: V×J.

    Returns:
        B×V×3.
    """
    turned: list[Tensor] = []
    places: list[Tensor] = []
    for index, parent in enumerate(parents):
        if parent < 0:
            turned.append(rotations[:, index])
            places.append(joints[:, index].expand(len(rotations), 3))
            continue
        turned.append(turned[parent] @ rotations[:, index])
        step = joints[:, index] - joints[:, parent]
        places.append(torch.einsum("bij,bj->bi", turned[parent], step.expand(len(rotations), 3)) + places[parent])
    rotation, place = torch.stack(turned, 1), torch.stack(places, 1)
    shift = place - torch.einsum("bjik,bjk->bji", rotation, joints.expand(len(rotations), -1, -1))
    blended = torch.einsum("vj,bjik->bvik", weights, rotation)
    return torch.einsum("bvik,bvk->bvi", blended, rest.expand(len(rotations), -1, -1)) + torch.einsum(
        "vj,bji->bvi", weights, shift
    )


def region_masks(data: HeadData) -> tuple[np.ndarray, np.ndarray]:
    """The masks V×R of the regions, and the labels (F) of the triangles that follow; a later region wins."""
    given = {"neck": (data.weights[:, 0] > 0.5), "eyes": data.weights[:, 3:].sum(1) > 0.5, **data.masks}
    masks = np.zeros((len(data.template), len(REGIONS)), np.float32)
    for name, mask in given.items():
        masks[:, REGIONS.index(name)] = mask
    masks[:, 0] = 1 - masks[:, 1:].max(1)
    labels = np.zeros(len(data.faces), np.int64)
    for index in range(1, len(REGIONS)):
        labels[masks[:, index][data.faces].mean(1) > 0.5] = index
    return masks, labels


def eyes_and_nose(template: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Vertices of the eyeballs, and of the nose's tip: the foremost one below and between them."""
    found = {"right_eye": np.flatnonzero(weights[:, 4] > 0.5), "left_eye": np.flatnonzero(weights[:, 3] > 0.5)}
    if not all(map(len, found.values())):
        return {}
    eyes = np.stack([template[index].mean(0) for index in found.values()])
    apart = np.linalg.norm(eyes[0] - eyes[1])
    x, y, z = (template - eyes.mean(0)).T
    near = np.flatnonzero((np.abs(x) < 0.2 * apart) & (y < 0) & (y > -apart))
    return {**found, "nose_tip": near[[z[near].argmax()]]} if len(near) else found

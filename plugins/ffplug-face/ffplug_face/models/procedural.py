"""A head made of formulas, for tests and machines without any file."""

from __future__ import annotations

import numpy as np

from ffplug_face.models.head import HeadData, HeadModel, eyes_and_nose
from ffplug_face.registry import MODELS

_CENTRE = np.array([0.0, 0.15, 0.02])
_AXES = np.array([0.075, 0.11, 0.095])
_EYES = np.array([[-0.031, 0.165, 0.093], [0.031, 0.165, 0.093]])  # right, left
_EYE_RADIUS = 0.012
_MOUTH_Y, _MOUTH_HALF = 0.098, 0.026
_LOWEST = -0.95  # latitude (radians) where the head goes over into the neck

_BUMPS = (
    ((0.0, 0.135), (0.011, 0.024), 0.025),  # nose
    ((0.0, 0.188), (0.045, 0.010), 0.004),  # brow
    ((-0.043, 0.138), (0.018, 0.016), 0.004),  # cheek bones
    ((0.043, 0.138), (0.018, 0.016), 0.004),
    ((0.0, _MOUTH_Y + 0.006), (0.022, 0.006), 0.005),  # lips
    ((0.0, _MOUTH_Y - 0.007), (0.020, 0.006), 0.006),
    ((0.0, 0.066), (0.018, 0.012), 0.007),  # chin
    ((-0.031, 0.165), (0.014, 0.010), -0.008),  # eye sockets
    ((0.031, 0.165), (0.014, 0.010), -0.008),
)
"""Centre (x, y), spread and height (metres, forward) of what makes a face of an ellipsoid."""

_ACTIONS = {
    "browDownLeft": (((0.026, 0.184), 0.014, (-0.004, -0.006, 0.001)),),
    "browDownRight": (((-0.026, 0.184), 0.014, (0.004, -0.006, 0.001)),),
    "browInnerUp": (((0.0, 0.186), 0.018, (0.0, 0.007, 0.0)),),
    "browOuterUpLeft": (((0.045, 0.186), 0.014, (0.0, 0.007, 0.0)),),
    "browOuterUpRight": (((-0.045, 0.186), 0.014, (0.0, 0.007, 0.0)),),
    "cheekPuff": (((0.042, 0.105), 0.018, (0.006, 0.0, 0.008)), ((-0.042, 0.105), 0.018, (-0.006, 0.0, 0.008))),
    "cheekSquintLeft": (((0.038, 0.142), 0.013, (0.0, 0.005, 0.002)),),
    "cheekSquintRight": (((-0.038, 0.142), 0.013, (0.0, 0.005, 0.002)),),
    "eyeBlinkLeft": (((0.031, 0.171), 0.012, (0.0, -0.004, 0.012)),),
    "eyeBlinkRight": (((-0.031, 0.171), 0.012, (0.0, -0.004, 0.012)),),
    "jawOpen": (((0.0, 0.072), 0.030, (0.0, -0.022, -0.004)),),
    "mouthFrownLeft": (((0.024, _MOUTH_Y), 0.012, (0.002, -0.007, 0.0)),),
    "mouthFrownRight": (((-0.024, _MOUTH_Y), 0.012, (-0.002, -0.007, 0.0)),),
    "mouthPucker": (
        ((0.020, _MOUTH_Y), 0.012, (-0.007, 0.0, 0.004)),
        ((-0.020, _MOUTH_Y), 0.012, (0.007, 0.0, 0.004)),
        ((0.0, _MOUTH_Y), 0.016, (0.0, 0.0, 0.005)),
    ),
    "mouthSmileLeft": (((0.026, _MOUTH_Y), 0.016, (0.006, 0.008, -0.003)),),
    "mouthSmileRight": (((-0.026, _MOUTH_Y), 0.016, (-0.006, 0.008, -0.003)),),
    "noseSneerLeft": (((0.014, 0.130), 0.011, (0.0, 0.004, 0.001)),),
    "noseSneerRight": (((-0.014, 0.130), 0.011, (0.0, 0.004, 0.001)),),
}
"""Each action as Gaussian-weighted moves: anchor (x, y), spread, displacement (metres)."""


@MODELS.register_module()
class ProceduralHead(HeadModel):
    """An ellipsoid with nose, brows, sockets, lips and chin, a mouth that opens, two eyeballs and a neck.

    It has 20 identity directions, smooth fields along the normal, and 18 actions with ARKit's names (0..1).

    Args:
        rows: rows of vertices from the crown to the chin.
        columns: vertices round the head, a multiple of 4.

    Example:
        dict(type="ffplug_face.ProceduralHead", rows=24, columns=32)
    """

    def __init__(self, rows: int = 60, columns: int = 72) -> None:
        if rows < 12 or columns < 16 or columns % 4:
            raise ValueError(
                f"ProceduralHead: {rows} rows, {columns} columns: expected at least 12 and 16, columns a multiple of 4"
            )
        super().__init__(_build(rows, columns), "the procedural head")


def _smoothstep(value: np.ndarray, low: float, high: float) -> np.ndarray:
    t = np.clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def _face_shape(points: np.ndarray) -> np.ndarray:
    """Push what lies in front outward and inward into a face."""
    front = _smoothstep(points[:, 2], _CENTRE[2] + 0.01, _CENTRE[2] + 0.05)
    points = points.copy()
    for centre, spread, height in _BUMPS:
        off = (points[:, :2] - centre) / spread
        points[:, 2] += front * height * np.exp(-(off**2).sum(1))
    for side in (-1, 1):  # ears
        off = (points - (side * 0.075, 0.15, 0.01)) / (0.02, 0.025, 0.012)
        points[:, 0] += side * 0.014 * np.exp(-(off**2).sum(1))
    return points


def _build(rows: int, columns: int) -> HeadData:
    points, grid, latitude = _surface(rows, columns)
    quads, mouth = _with_mouth(points, grid)
    points = np.concatenate([points, mouth["points"]])
    skin_count = len(points)
    uv, uv_quads, pocket_uv = _texture(grid, quads, mouth)
    triangles = [_split(np.concatenate([quads, mouth["quads"]]))]
    uv_triangles = [_split(np.concatenate([uv_quads, pocket_uv]))]
    uvs = [uv]
    for index, centre in enumerate(_EYES):
        ball, faces, ball_uv = _sphere(centre, _EYE_RADIUS, 12, 16)
        triangles.append(faces + len(points))
        uv_triangles.append(faces + sum(map(len, uvs)))
        uvs.append(ball_uv * 0.1 + (0.02 + 0.15 * index, 0.87))
        points = np.concatenate([points, ball])
    skinned = np.arange(len(points)) < skin_count
    inside = np.isin(np.arange(len(points)), np.arange(mouth["first_inside"], skin_count))
    lower = np.isin(np.arange(len(points)), mouth["lower"])
    front = points[:, 2] > _CENTRE[2] + 0.02
    off = (points[:, :2] - (0, _MOUTH_Y)) / (_MOUTH_HALF + 0.002, 0.011)
    lips = np.clip((1.1 - (off**2).sum(1)) / 0.4, 0, 1) * front * skinned * ~inside
    brows = np.zeros(len(points))
    for side in (-1, 1):
        off = (points[:, :2] - (side * 0.031, 0.187)) / (0.021, 0.0045)
        brows = np.maximum(brows, np.clip(1.5 - (off**2).sum(1), 0, 1) * front * skinned)
    weights = _weights(points, skinned, inside, lower, grid)
    data = HeadData(
        template=points,
        faces=np.concatenate(triangles),
        shape_directions=_identity(points, skinned, inside, weights),
        expression_directions=_expressions(points, skinned, inside, lower),
        joint_regressor=_joints(points, skinned, grid, latitude),
        weights=weights,
        parents=[-1, 0, 1, 1, 1],
        uv=np.concatenate(uvs),
        uv_faces=np.concatenate(uv_triangles),
        expression_names=list(_ACTIONS),
        masks={"lips": lips, "brows": brows, "mouth": inside.astype(float)},
    )
    data.landmarks = _landmarks(points, skinned & ~inside, weights, mouth)
    return data


def _surface(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices of the skin, their places in a grid of rows and columns, and the rows' latitudes (NaN on the neck).

    Columns go round from the back by the subject's left, so that the face is in the middle of the grid.
    """
    latitude = np.linspace(1.5, _LOWEST, rows)
    mouth = np.arcsin((_MOUTH_Y - _CENTRE[1]) / _AXES[1])
    latitude[np.abs(latitude - mouth).argmin()] = mouth
    around = np.pi - 2 * np.pi * np.arange(columns) / columns
    lat, lon = np.meshgrid(latitude, around, indexing="ij")
    unit = np.stack([np.sin(lon) * np.cos(lat), np.sin(lat), np.cos(lon) * np.cos(lat)], -1)
    head = _face_shape((_CENTRE + _AXES * unit).reshape(-1, 3)).reshape(rows, columns, 3)
    below = max(4, rows // 8)
    base = np.stack([0.052 * np.sin(around), np.zeros(columns), 0.052 * np.cos(around)], -1)
    steps = np.linspace(0, 1, below + 1)[1:, None, None]
    neck = (1 - steps) * head[-1] + steps * base
    neck[..., [0, 2]] += (_smoothstep(steps, 0, 1) - steps) * (base - head[-1])[..., [0, 2]]
    points = np.concatenate([head, neck]).reshape(-1, 3)
    grid = np.arange(len(points)).reshape(rows + below, columns)
    return points, grid, np.concatenate([latitude, np.full(below, np.nan)])


def _with_mouth(points: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, dict]:
    """The skin's quads, cut open along the mouth line, and the pocket behind it."""
    left = np.roll(grid, -1, axis=1)
    quads = np.stack([grid[:-1], left[:-1], left[1:], grid[1:]], -1)  # rows-1 × columns × 4
    front = np.abs(grid.shape[1] // 2 - np.arange(grid.shape[1])) < grid.shape[1] // 4
    row = np.abs(np.where(front[None], points[grid][..., 1] - _MOUTH_Y, 1)).min(1).argmin()
    line = grid[row][front & (np.abs(points[grid[row], 0]) <= _MOUTH_HALF)]
    opened, corners = line[1:-1], line[[0, -1]]
    total = len(points)
    lower = total + np.arange(len(opened))
    back = total + len(opened) + np.arange(len(line))
    below = quads[row]
    for old, new in zip(opened, lower, strict=True):
        below[below == old] = new
    lower_line = np.concatenate([corners[:1], lower, corners[1:]])
    behind = points[line] - (0, 0, 0.02)
    pocket = [
        np.stack([edge[:-1], edge[1:], back[1:], back[:-1]], -1)[:, order]
        for edge, order in ((line, [3, 2, 1, 0]), (lower_line, [0, 1, 2, 3]))
    ]
    mouth = {
        "points": np.concatenate([points[opened], behind]),
        "quads": np.concatenate(pocket),
        "lower": lower,
        "first_inside": back[0],
        "upper": opened,
        "corners": corners,
    }
    return quads.reshape(-1, 4), mouth


def _texture(grid: np.ndarray, quads: np.ndarray, mouth: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Texture coordinates: the grid unrolled over most of the square, the pocket in a corner."""
    rows, columns = grid.shape
    u, v = np.meshgrid(np.linspace(0.0, 1.0, columns + 1), np.linspace(0.85, 0.0, rows))
    index = np.arange(rows * (columns + 1)).reshape(rows, columns + 1)
    uv_quads = np.stack([index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]], -1).reshape(-1, 4)
    corner = np.array([[0.4, 0.88], [0.5, 0.88], [0.5, 0.98], [0.4, 0.98]])
    uv = np.concatenate([np.stack([u, v], -1).reshape(-1, 2), corner])
    pocket = np.tile(rows * (columns + 1) + np.arange(4), (len(mouth["quads"]), 1))
    return uv, uv_quads, pocket


def _split(quads: np.ndarray) -> np.ndarray:
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def _sphere(centre: np.ndarray, radius: float, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A ball whose poles look forward and back."""
    polar, around = np.linspace(0.02, np.pi - 0.02, rows), 2 * np.pi * np.arange(columns) / columns
    p, a = np.meshgrid(polar, around, indexing="ij")
    points = centre + radius * np.stack([np.sin(p) * np.cos(a), np.sin(p) * np.sin(a), np.cos(p)], -1)
    grid = np.arange(rows * columns).reshape(rows, columns)
    left = np.roll(grid, -1, axis=1)
    quads = np.stack([grid[:-1], grid[1:], left[1:], left[:-1]], -1).reshape(-1, 4)
    uv = 0.5 + 0.5 * np.stack([p / np.pi * np.cos(a), p / np.pi * np.sin(a)], -1)
    return points.reshape(-1, 3), _split(quads), uv.reshape(-1, 2)


def _weights(
    points: np.ndarray, skinned: np.ndarray, inside: np.ndarray, lower: np.ndarray, grid: np.ndarray
) -> np.ndarray:
    weights = np.zeros((len(points), 5))
    skull = _smoothstep(points[:, 1], 0.0, 0.06)
    below = _smoothstep(_MOUTH_Y - points[:, 1], 0.0, 0.012)
    above_neck = _smoothstep(points[:, 1], 0.045, 0.06)
    jaw = below * above_neck * _smoothstep(points[:, 2], _CENTRE[2], _CENTRE[2] + 0.04)
    jaw[inside] = 0.5
    jaw[lower] = 1.0
    weights[:, 1] = skull * (1 - jaw)
    weights[:, 2] = skull * jaw
    weights[:, 0] = 1 - skull
    eyes = np.flatnonzero(~skinned)
    weights[eyes] = 0
    right = points[eyes, 0] < 0
    weights[eyes[right], 4] = 1
    weights[eyes[~right], 3] = 1
    return weights


def _joints(points: np.ndarray, skinned: np.ndarray, grid: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Root: the neck's base; neck: its top; jaw: between the ears; eyes: the middle of the balls."""
    columns = grid.shape[1]
    ears = [grid[np.nanargmin(np.abs(latitude)), column] for column in (columns // 4, 3 * columns // 4)]
    eyes = np.flatnonzero(~skinned)
    groups = (
        grid[-1],
        grid[len(latitude) - int(np.isnan(latitude).sum()) - 1],
        np.array(ears),
        eyes[points[eyes, 0] > 0],
        eyes[points[eyes, 0] < 0],
    )
    regressor = np.zeros((5, len(points)))
    for row, group in zip(regressor, groups, strict=True):
        row[group] = 1 / len(group)
    return regressor


def _identity(points: np.ndarray, skinned: np.ndarray, inside: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Spherical harmonics of degree 1 to 4 along the ellipsoid's normal, 6 mm falling as 1/k; eyes follow whole."""
    places = points.copy()
    for index in (3, 4):
        ball = weights[:, index] == 1
        places[ball] = points[ball].mean(0)
    unit = (places - _CENTRE) / _AXES
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    normal = unit / _AXES
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    fields = _harmonics(unit)[:, :20]
    fields = fields / np.sqrt((fields**2).mean(0)) * (0.006 / np.arange(1, 21))
    return (normal[:, :, None] * fields[:, None]) * _smoothstep(points[:, 1], 0.0, 0.06)[:, None, None]


def _harmonics(unit: np.ndarray) -> np.ndarray:
    """Real spherical harmonics of degree 1 to 4 as polynomials (unnormalised), N×24."""
    x, y, z = unit.T
    first = [x, y, z]
    second = [x * y, y * z, 3 * z**2 - 1, x * z, x**2 - y**2]
    third = [
        y * (3 * x**2 - y**2),
        x * y * z,
        y * (5 * z**2 - 1),
        z * (5 * z**2 - 3),
        x * (5 * z**2 - 1),
        z * (x**2 - y**2),
        x * (x**2 - 3 * y**2),
    ]
    fourth = [
        x * y * (x**2 - y**2),
        y * z * (3 * x**2 - y**2),
        x * y * (7 * z**2 - 1),
        y * z * (7 * z**2 - 3),
        35 * z**4 - 30 * z**2 + 3,
        x * z * (7 * z**2 - 3),
        (x**2 - y**2) * (7 * z**2 - 1),
        x * z * (x**2 - 3 * y**2),
        x**4 - 6 * x**2 * y**2 + y**4,
    ]
    return np.stack(first + second + third + fourth, 1)


def _expressions(points: np.ndarray, skinned: np.ndarray, inside: np.ndarray, lower: np.ndarray) -> np.ndarray:
    directions = np.zeros((len(points), 3, len(_ACTIONS)))
    front = _smoothstep(points[:, 2], _CENTRE[2] + 0.01, _CENTRE[2] + 0.05) * skinned
    below = np.where(points[:, 1] < _MOUTH_Y - 1e-6, 1.0, 0.0)
    below[inside], below[lower] = 0.5, 1.0
    for index, (name, moves) in enumerate(_ACTIONS.items()):
        for anchor, spread, displacement in moves:
            off = (points[:, :2] - anchor) / spread
            weight = front * np.exp(-(off**2).sum(1))
            if name == "jawOpen":
                weight = weight * below
            directions[:, :, index] += weight[:, None] * displacement
    return directions


def _landmarks(points: np.ndarray, skin: np.ndarray, weights: np.ndarray, mouth: dict) -> dict[str, np.ndarray]:
    def at(x: float, y: float) -> np.ndarray:
        off = np.linalg.norm(points[:, :2] - (x, y), axis=1) + np.where(skin & (points[:, 2] > _CENTRE[2]), 0, 1)
        return np.array([off.argmin()])

    found = dict(eyes_and_nose(points, weights))
    corners = sorted(mouth["corners"], key=lambda index: points[index, 0])
    found["mouth_right"], found["mouth_left"] = np.array(corners[:1]), np.array(corners[1:])
    middle = len(mouth["upper"]) // 2
    found["lip_upper"], found["lip_lower"] = mouth["upper"][[middle]], mouth["lower"][[middle]]
    for side, sign in (("right", -1), ("left", 1)):
        for name, x, y in (
            ("outer", 0.046, 0.164),
            ("inner", 0.017, 0.163),
            ("upper", 0.031, 0.173),
            ("lower", 0.031, 0.156),
        ):
            found[f"eye_{side}_{name}"] = at(sign * x, y)
        for name, x in (("inner", 0.013), ("middle", 0.031), ("outer", 0.050)):
            found[f"brow_{side}_{name}"] = at(sign * x, 0.187)
    found["chin"] = at(0.0, 0.060)
    return found

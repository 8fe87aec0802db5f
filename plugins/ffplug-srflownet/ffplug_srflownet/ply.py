"""Reading and writing Gaussians in the ``.ply`` files of 3D Gaussian splatting and of GaussianAvatars."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ffplug.datasets.formats import read_bytes, write_bytes
from ffplug.errors import DataError
from ffplug_srflownet.splats import Splats

_HEADER = 1 << 16
"""Bytes within which a header must end."""

_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_DEGREES = {0: 0, 9: 1, 24: 2, 45: 3}
"""Degree of the spherical harmonics by the number of ``f_rest`` fields."""

_MEANS, _NORMALS, _BASE = ("x", "y", "z"), ("nx", "ny", "nz"), tuple(f"f_dc_{k}" for k in range(3))
_SCALES, _QUATS = tuple(f"scale_{k}" for k in range(3)), tuple(f"rot_{k}" for k in range(4))
_NEEDED = (*_MEANS, *_BASE, "opacity", *_SCALES, *_QUATS)


def read_splats(path: str | os.PathLike) -> Splats:
    """Read Gaussians: binary of either byte order or ascii, properties in any order; unknown ones are ignored.

    The file's numbers are activated: sigmoid of opacity, exponential of scales; quaternions are normalised. Without
    ``f_rest`` the colours are of degree 0. With ``binding_0`` (GaussianAvatars) the Gaussians lie in their triangles'
    frames: see :meth:`Splats.bound_to`.

    Raises:
        DataError: the file is no such ``.ply``, truncated, or holds numbers that are no Gaussians; the message names
            the file and the field.
    """
    table = _read_vertices(read_bytes(path), str(path))
    missing = [name for name in _NEEDED if name not in table]
    if missing:
        raise DataError(
            f"{path}: the field {missing[0]} is missing ({len(missing)} of {len(_NEEDED)} are): expected the .ply of "
            "3D Gaussian splatting, not of a mesh or of points"
        )
    rest = sorted((name for name in table if re.fullmatch(r"f_rest_\d+", name)), key=lambda name: int(name[7:]))
    if len(rest) not in _DEGREES or rest != [f"f_rest_{k}" for k in range(len(rest))]:
        raise DataError(f"{path}: {len(rest)} fields f_rest: expected f_rest_0 and on, 0, 9, 24 or 45 of them")
    used = [*_NEEDED, *rest, *(["binding_0"] if "binding_0" in table else [])]
    for name in used:
        bad = np.flatnonzero(~np.isfinite(table[name]))
        if len(bad):
            raise DataError(f"{path}: {name} is not finite in {len(bad)} Gaussians, the first is number {bad[0]}")
    quats = _columns(table, _QUATS)
    lengths = np.linalg.norm(quats, axis=1)
    if (lengths == 0).any():
        raise DataError(f"{path}: rot_0..3 of Gaussian {lengths.argmin()} are all 0: expected a quaternion")
    with np.errstate(over="ignore", under="ignore"):
        scales = np.exp(_columns(table, _SCALES)).astype(np.float32)
        opacities = 1 / (1 + np.exp(-table["opacity"].astype(np.float64)))
    for k, name in enumerate(_SCALES):
        odd = np.flatnonzero(~((scales[:, k] > 0) & (scales[:, k] < np.inf)))
        if len(odd):
            value = table[name][odd[0]]
            raise DataError(f"{path}: {name}={value} of Gaussian {odd[0]}: expected the logarithm of a length")
    # f_rest counts the coefficients of one channel after the other.
    higher = _columns(table, rest).reshape(len(quats), 3, len(rest) // 3).transpose(0, 2, 1)
    sh = np.concatenate((_columns(table, _BASE)[:, None], higher), axis=1)
    binding = None
    if "binding_0" in table:
        binding = table["binding_0"].astype(np.int64)
        if (binding < 0).any() or (binding != table["binding_0"]).any():
            raise DataError(f"{path}: binding_0 holds {table['binding_0'].min()}: expected indices of triangles")
        binding = torch.from_numpy(binding)
    parts = (_columns(table, _MEANS), quats / lengths[:, None], scales, opacities, sh)
    return Splats(*(torch.from_numpy(np.ascontiguousarray(part, np.float32)) for part in parts), binding)


def write_splats(path: str | os.PathLike, splats: Splats, encoding: str = "binary_little_endian") -> None:
    """Write Gaussians so that :func:`read_splats` gives them again: 62 properties at degree 3, 63 where they are bound.

    Opacities are kept 1e-7 away from 0 and 1, where their logit ends.

    Args:
        path: file to write.
        splats: what to write.
        encoding: ``"binary_little_endian"``, ``"binary_big_endian"`` or ``"ascii"``.
    """
    count, basis = splats.sh.shape[:2]
    sh = splats.sh.double().cpu()
    rest = sh[:, 1:].transpose(1, 2).flatten(1)
    fields = [
        (_MEANS, splats.means),
        (_NORMALS, torch.zeros(count, 3)),
        (_BASE, sh[:, 0]),
        ([f"f_rest_{k}" for k in range(3 * (basis - 1))], rest),
        (["opacity"], splats.opacities.double().clamp(1e-7, 1 - 1e-7).logit()[:, None]),
        (_SCALES, splats.scales.double().log()),
        (_QUATS, splats.quats),
    ]
    if splats.binding is not None:
        fields.append((["binding_0"], splats.binding[:, None]))
    names = [name for part, _ in fields for name in part]
    table = torch.cat([values.double().cpu() for _, values in fields], 1).numpy()
    header = ["ply", f"format {encoding} 1.0", f"element vertex {count}"]
    header += [f"property float {name}" for name in names]
    if encoding == "ascii":
        body = "".join(" ".join(f"{value:.9g}" for value in row) + "\n" for row in table.astype(np.float32)).encode()
    else:
        body = table.astype(f"{_ORDERS[encoding]}f4").tobytes()
    write_bytes(path, ("\n".join([*header, "end_header"]) + "\n").encode() + body)


def _columns(table: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    count = len(table["x"])
    return np.stack([table[name].astype(np.float64) for name in names], 1) if names else np.zeros((count, 0))


def _read_vertices(data: bytes, path: str) -> dict[str, np.ndarray]:
    """The columns of the element ``vertex``, by name."""
    end = re.search(rb"\nend_header[ \t]*\r?\n", data[:_HEADER])
    if not data.startswith((b"ply\n", b"ply\r\n")) or end is None:
        raise DataError(f"{path}: not a .ply file: expected a header from 'ply' to 'end_header'")
    try:
        lines = [line.split() for line in data[: end.start()].decode("ascii").splitlines()[1:]]
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a .ply file: its header is not ascii") from None
    lines = [line for line in lines if line and line[0] not in ("comment", "obj_info")]
    if not lines or lines[0][0] != "format" or lines[0][1:2] == [] or lines[0][1] not in _ORDERS:
        raise DataError(
            f"{path}: the header's format is {' '.join(lines[0][1:]) if lines else 'missing'!r}: expected "
            f"one of {', '.join(_ORDERS)}"
        )
    encoding = lines[0][1]
    count, properties = _vertex_header(lines[1:], path)
    body = data[end.end() :]
    if encoding == "ascii":
        return _read_ascii(body, count, [name for name, _ in properties], path)
    kind = np.dtype([(name, _ORDERS[encoding] + code) for name, code in properties])
    if count * kind.itemsize > len(body):
        raise DataError(
            f"{path}: truncated, or its count is wrong: element vertex says {count} Gaussians of {kind.itemsize} "
            f"bytes, there are {len(body)} bytes"
        )
    table = np.frombuffer(body, kind, count)
    return {name: table[name] for name, _ in properties}


def _vertex_header(lines: Sequence[Sequence[str]], path: str) -> tuple[int, list[tuple[str, str]]]:
    """Count and properties (name, NumPy's type) of the element ``vertex``, which must be the first."""
    if not lines or lines[0][:2] != ["element", "vertex"] or len(lines[0]) != 3:
        raise DataError(f"{path}: expected the first element of the header to be vertex")
    if not re.fullmatch(r"\d{1,18}", lines[0][2]):
        raise DataError(f"{path}: element vertex has the count {lines[0][2]!r}: expected a number of Gaussians")
    properties: list[tuple[str, str]] = []
    for line in lines[1:]:
        if line[0] == "element":
            break
        if len(line) != 3 or line[0] != "property" or line[1] not in _TYPES:
            raise DataError(f"{path}: {' '.join(line)!r}: expected 'property TYPE NAME' with a type of numbers")
        if line[2] in dict(properties):
            raise DataError(f"{path}: the field {line[2]} is there twice")
        properties.append((line[2], _TYPES[line[1]]))
    if not properties:
        raise DataError(f"{path}: element vertex has no properties")
    return int(lines[0][2]), properties


def _read_ascii(body: bytes, count: int, names: Sequence[str], path: str) -> dict[str, np.ndarray]:
    if count * len(names) > len(body):  # before anything of that size is made
        raise DataError(f"{path}: truncated: element vertex says {count} Gaussians, there are {len(body)} bytes")
    rows = [line.split() for line in body.splitlines()[:count]]
    short = next((number for number, row in enumerate(rows) if len(row) != len(names)), len(rows))
    if short < count:
        raise DataError(f"{path}: truncated: Gaussian {short} of {count} has not {len(names)} numbers")
    try:
        table = np.array(rows, dtype="S").astype(np.float64).reshape(count, len(names))
    except ValueError as error:
        raise DataError(f"{path}: element vertex holds what is no number ({error})") from None
    return {name: table[:, k] for k, name in enumerate(names)}

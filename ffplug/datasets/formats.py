"""Readers and writers of images, flow fields and masks.

Every reader takes bytes from :mod:`mmengine.fileio`, so remote back-ends work, and raises
:class:`~ffplug.errors.DataError` naming the file, what was expected and what was found. A flow is H×W×2 float32 in
pixels, x to the right and y down, with a mask H×W float32 in {0, 1}; what is not known is 0 in both, never a magic
number. Writers write to a temporary file beside the target and rename it, so that no half-written file is left.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from mmengine import fileio

from ffplug.errors import DataError
from ffplug.files import atomic_path

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")
FLOW_SUFFIXES = (".flo", ".pfm", ".flo5", ".png", ".npz", ".npy")

UNKNOWN = 1.666666752e9
"""What Middlebury's files hold where the flow is unknown; every value above ``UNKNOWN_ABOVE`` reads as unknown."""
UNKNOWN_ABOVE = 1e9

FLO_MAGIC = b"PIEH"
KITTI_SCALE = 64.0
KITTI_OFFSET = 32768.0
VIPER_LIMIT = 512.0
MAX_SIDE = 1 << 16

# OpenCV 5 has moved it.
_set_log_level = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel

Flow = tuple[np.ndarray, np.ndarray]
PathLike = str | os.PathLike


def read_bytes(path: PathLike) -> bytes:
    """Return the content of a file of any back-end.

    Raises:
        DataError: the file is missing, unreadable or empty.
    """
    try:
        data = fileio.get(os.fspath(path))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not data:
        raise DataError(f"{path}: the file is empty (0 bytes); download or write it again")
    return data


def write_bytes(path: PathLike, data: bytes) -> None:
    """Write a file so that it is either there in full or not at all."""
    with atomic_path(path, sync=False) as temporary:
        temporary.write_bytes(data)


def _decode(data: bytes, path: PathLike, flags: int, what: str) -> np.ndarray:
    """Decode an image file; OpenCV's own complaints are silenced, for the error says it all."""
    level = _set_log_level(0)
    try:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        array = None
    finally:
        _set_log_level(level)
    # Older OpenCV fills up a cut JPEG with grey: a whole one has an end marker after its last start of scan.
    cut = data[:2] == b"\xff\xd8" and data.find(b"\xff\xd9", data.rfind(b"\xff\xda")) < 0
    if array is None or cut:
        raise DataError(f"{path}: expected {what}, found a truncated or damaged file ({len(data)} bytes)")
    return array


def read_image(path: PathLike) -> np.ndarray:
    """Read a picture as RGB, H×W×3 uint8.

    Grey is repeated over the three channels, a palette is expanded, alpha is dropped, and 16-bit values v become
    (v + 128) // 257, the nearest 8-bit level.

    Raises:
        DataError: the file is missing, empty, truncated, not a picture, or of floating-point values.
    """
    array = _decode(read_bytes(path), path, cv2.IMREAD_UNCHANGED, "a picture")
    if array.dtype == np.uint16:
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise DataError(f"{path}: expected 8 or 16 bits per channel, found {array.dtype} values")
    channels = 1 if array.ndim == 2 else array.shape[2]
    conversion = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}.get(channels)
    if conversion is None:
        raise DataError(f"{path}: expected 1, 3 or 4 channels, found {channels}")
    return cv2.cvtColor(array, conversion)


def write_image(path: PathLike, image: np.ndarray) -> None:
    """Write an RGB picture H×W×3 uint8 (or grey H×W uint8); the suffix names the format."""
    path = Path(path)
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise DataError(f"{path}: expected H×W×3 or H×W uint8, found {image.shape} {image.dtype}")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise DataError(f"{path}: unknown picture suffix; expected one of {', '.join(IMAGE_SUFFIXES)}")
    array = image if image.ndim == 2 else cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    write_bytes(path, cv2.imencode(path.suffix.lower(), array)[1].tobytes())


def read_mask(path: PathLike, above: int = 0) -> np.ndarray:
    """Read a mask picture as H×W bool: where any channel is above a value.

    Args:
        path: file of any back-end.
        above: 0 for exact masks (Sintel's occlusions, KITTI's object map, Spring's maps); 127 for those in JPEG.
    """
    array = _decode(read_bytes(path), path, cv2.IMREAD_UNCHANGED, "a mask picture") > above
    return array if array.ndim == 2 else array[..., :3].any(axis=2)


def write_mask(path: PathLike, mask: np.ndarray) -> None:
    """Write a mask H×W bool as an 8-bit picture of 0 and 255."""
    write_image(path, np.where(mask, np.uint8(255), np.uint8(0)))


def split_unknown(flow: np.ndarray, limit: float = UNKNOWN_ABOVE) -> Flow:
    """Turn NaN, infinity and magnitudes above ``limit`` into mask.

    Args:
        flow: H×W×2 float32.
        limit: largest absolute value of a component that counts as known.

    Returns:
        The flow (0 where unknown; the very array when nothing is) and the mask H×W float32.
    """
    known = np.abs(flow) <= limit  # False for NaN as well
    if known.all():
        return flow, np.ones(flow.shape[:2], np.float32)
    valid = known[..., 0] & known[..., 1]
    return np.where(valid[..., None], flow, np.float32(0)), valid.astype(np.float32)


def decode_flo(data: bytes, path: PathLike) -> Flow:
    """Decode Middlebury's ``.flo``: ``PIEH``, int32 width and height, then (u, v) float32 row by row."""
    if data[:4] != FLO_MAGIC:
        raise DataError(f"{path}: not a .flo file: expected the magic bytes {FLO_MAGIC!r}, found {data[:4]!r}")
    if len(data) < 12:
        raise DataError(f"{path}: truncated .flo file: expected a header of 12 bytes, found {len(data)}")
    width, height = (side.item() for side in np.frombuffer(data, "<i4", 2, 4))
    _check_sides(width, height, path)
    _check_length(12 + 8 * width * height, len(data), width, height, path)
    flow = np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2)
    return split_unknown(flow.astype(np.float32, copy=False))


def encode_flo(flow: np.ndarray, valid: np.ndarray) -> bytes:
    """Encode ``.flo``; unknown pixels hold 1.6666e9."""
    height, width = flow.shape[:2]
    header = FLO_MAGIC + np.array([width, height], "<i4").tobytes()
    return header + _fill(flow, valid, UNKNOWN).astype("<f4", copy=False).tobytes()


_PFM_TOKEN = re.compile(rb"(?:\s|#[^\n]*\n)*([^\s#]+)")


def read_pfm_header(data: bytes, path: PathLike) -> tuple[int, int, bool, int]:
    """Return width, height, whether the bytes are little endian, and where the header's last token ends."""
    tokens, position = [], 0
    while len(tokens) < 4 and (match := _PFM_TOKEN.match(data, position)):
        tokens.append(match[1])
        position = match.end()
        if tokens[0] not in (b"PF", b"Pf"):
            break
    if not tokens or tokens[0] != b"PF":
        found = (tokens[0] if tokens else data)[:8]
        hint = ", one channel only" if found == b"Pf" else ""
        raise DataError(f"{path}: not a .pfm flow: expected the magic 'PF' (3 channels), found {found!r}{hint}")
    try:
        width, height, scale = int(tokens[1]), int(tokens[2]), float(tokens[3])
    except (IndexError, ValueError):
        shown = b" ".join(tokens[1:])[:40]
        raise DataError(f"{path}: damaged .pfm header: expected width, height and scale, found {shown!r}") from None
    _check_sides(width, height, path)
    if scale == 0 or not np.isfinite(scale):
        raise DataError(f"{path}: damaged .pfm header: the scale must be a number other than 0, found {tokens[3]!r}")
    return width, height, scale < 0, position


def decode_pfm(data: bytes, path: PathLike) -> Flow:
    """Decode ``.pfm`` with 3 channels (u, v, unused), rows from the bottom to the top, either byte order.

    The header may be spread over any white space and hold ``#`` comments; the sign of the scale is the byte order
    (negative = little endian), its magnitude is ignored.
    """
    width, height, little_endian, position = read_pfm_header(data, path)
    size = 12 * width * height
    two = data[position : position + 2] == b"\r\n" and len(data) - position - 2 == size
    start = position + (2 if two else 1)
    _check_length(start + size, len(data), width, height, path)
    values = np.frombuffer(data, "<f4" if little_endian else ">f4", offset=start).reshape(height, width, 3)
    return split_unknown(np.ascontiguousarray(values[::-1, :, :2], np.float32))


def encode_pfm(flow: np.ndarray, valid: np.ndarray, little_endian: bool = True) -> bytes:
    """Encode ``.pfm`` with 3 channels (u, v, 0); unknown pixels hold 1.6666e9."""
    height, width = flow.shape[:2]
    values = np.zeros((height, width, 3), "<f4" if little_endian else ">f4")
    values[..., :2] = _fill(flow, valid, UNKNOWN)[::-1]
    return f"PF\n{width} {height}\n{-1.0 if little_endian else 1.0}\n".encode() + values.tobytes()


def decode_kitti(data: bytes, path: PathLike) -> Flow:
    """Decode KITTI's and HD1K's 16-bit RGB picture: (value - 32768) / 64 for u and v, the third channel is the mask."""
    what = "a KITTI flow picture (PNG of 3 channels, 16 bits each)"
    array = _decode(data, path, cv2.IMREAD_UNCHANGED, what)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint16:
        channels = 1 if array.ndim == 2 else array.shape[2]
        raise DataError(f"{path}: expected {what}, found {channels} channel(s) of {8 * array.dtype.itemsize} bits")
    valid = array[..., 0] > 0  # OpenCV gives blue, green, red
    flow = (array[..., :0:-1].astype(np.float32) - np.float32(KITTI_OFFSET)) / np.float32(KITTI_SCALE)
    flow[~valid] = 0
    return flow, valid.astype(np.float32)


def encode_kitti(flow: np.ndarray, valid: np.ndarray) -> bytes:
    """Encode KITTI's 16-bit PNG, rounding to the nearest 1/64 px and clipping to the format's -512..+511.98 px."""
    array = np.zeros((*flow.shape[:2], 3), np.uint16)
    coded = np.clip(np.rint(_fill(flow, valid, 0.0).astype(np.float64) * KITTI_SCALE + KITTI_OFFSET), 0, 65535)
    array[..., 2], array[..., 1], array[..., 0] = coded[..., 0], coded[..., 1], 1
    array[valid == 0] = 0
    return cv2.imencode(".png", array)[1].tobytes()


def decode_flo5(data: bytes, path: PathLike) -> Flow:
    """Decode Spring's ``.flo5``: HDF5 with the data set ``flow``, H×W×2, NaN where unknown."""
    import h5py

    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            if "flow" not in file:
                raise DataError(f"{path}: expected an HDF5 data set 'flow', found {sorted(file) or 'none'}")
            flow = np.asarray(file["flow"][()], np.float32)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{path}: expected an HDF5 file (.flo5), found a truncated or damaged one ({error})") from None
    return split_unknown(_check_flow(flow, path))


def encode_flo5(flow: np.ndarray, valid: np.ndarray) -> bytes:
    """Encode ``.flo5`` (HDF5, gzip level 5); unknown pixels hold NaN."""
    import h5py

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("flow", data=_fill(flow, valid, np.nan), compression="gzip", compression_opts=5)
    return buffer.getvalue()


def decode_npz(data: bytes, path: PathLike) -> Flow:
    """Decode ``.npz``: VIPER's arrays ``u`` and ``v``, H×W, where NaN or more than 512 px is unknown; or one H×W×2."""
    arrays = _load_numpy(data, path, "an .npz with arrays 'u' and 'v'")
    names = sorted(arrays) if isinstance(arrays, dict) else []
    if len(names) == 1 and arrays[names[0]].ndim == 3:
        return split_unknown(_check_flow(np.ascontiguousarray(arrays[names[0]], np.float32), path))
    if not {"u", "v"} <= set(names):
        raise DataError(
            f"{path}: expected an .npz with arrays 'u' and 'v', or one of shape H×W×2, found {names or 'an .npy'}"
        )
    u, v = arrays["u"], arrays["v"]
    if u.shape != v.shape:
        raise DataError(f"{path}: expected 'u' and 'v' of one size, found {u.shape} and {v.shape}")
    return split_unknown(_check_flow(np.stack([u, v], axis=-1).astype(np.float32), path), VIPER_LIMIT)


def encode_viper(flow: np.ndarray, valid: np.ndarray) -> bytes:
    """Encode VIPER's ``.npz`` (float16, NaN where unknown)."""
    values = _fill(flow, valid, np.nan).astype(np.float16)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, u=values[..., 0], v=values[..., 1])
    return buffer.getvalue()


def decode_npy(data: bytes, path: PathLike) -> Flow:
    """Decode TartanAir's ``.npy``: H×W×2 float32; the mask lies in a file of its own."""
    array = _load_numpy(data, path, "an .npy of shape H×W×2")
    if isinstance(array, dict):
        raise DataError(f"{path}: expected an .npy of shape H×W×2, found an .npz")
    return split_unknown(_check_flow(np.ascontiguousarray(array, np.float32), path))


def encode_npy(flow: np.ndarray, valid: np.ndarray) -> bytes:
    """Encode ``.npy``, H×W×2 float32; unknown pixels hold NaN."""
    buffer = io.BytesIO()
    np.save(buffer, _fill(flow, valid, np.nan))
    return buffer.getvalue()


def read_tartanair_valid(path: PathLike, above: int = 0) -> np.ndarray:
    """Read TartanAir's mask ``.npy`` (0 = good, 1 occluded, 10 dynamic, 100 out of view) as valid, H×W float32.

    Args:
        path: the mask file.
        above: values above this are invalid; 0 as the authors' viewer does, 99 drops what leaves the view only.
    """
    array = _load_numpy(read_bytes(path), path, "a TartanAir mask of shape H×W")
    if isinstance(array, dict) or array.ndim != 2 or array.dtype.kind not in "ui":
        found = "an .npz" if isinstance(array, dict) else f"{array.shape} {array.dtype}"
        raise DataError(f"{path}: expected a TartanAir mask of shape H×W and integers, found {found}")
    return (array <= above).astype(np.float32)


_DECODERS: dict[str, Callable[[bytes, PathLike], Flow]] = {
    ".flo": decode_flo,
    ".pfm": decode_pfm,
    ".png": decode_kitti,
    ".flo5": decode_flo5,
    ".npz": decode_npz,
    ".npy": decode_npy,
}
_ENCODERS: dict[str, Callable[[np.ndarray, np.ndarray], bytes]] = {
    ".flo": encode_flo,
    ".pfm": encode_pfm,
    ".png": encode_kitti,
    ".flo5": encode_flo5,
    ".npz": encode_viper,
    ".npy": encode_npy,
}


def read_flow(path: PathLike) -> Flow:
    """Read a flow field; the suffix names the format.

    ``.flo`` Middlebury, ``.pfm`` SceneFlow, ``.png`` KITTI and HD1K (16 bits), ``.flo5`` Spring, ``.npz`` VIPER
    (or one array H×W×2), ``.npy`` TartanAir.

    Returns:
        Flow H×W×2 float32 in pixels, 0 where unknown (it may be read-only), and valid H×W float32 in {0, 1}.

    Raises:
        DataError: missing, empty, truncated or damaged file, wrong magic, size or suffix.
    """
    return _codec(path, _DECODERS)(read_bytes(path), path)


def write_flow(path: PathLike, flow: np.ndarray, valid: np.ndarray | None = None) -> None:
    """Write a flow field; the suffix names the format (see :func:`read_flow`).

    Args:
        path: the file; its folder is made when missing.
        flow: H×W×2, pixels. NaN, infinity and magnitudes above 1e9 are written as unknown.
        valid: H×W, 0 or False where the flow is unknown.

    Raises:
        DataError: wrong shape or suffix.
    """
    encode = _codec(path, _ENCODERS)
    flow, known = split_unknown(_check_flow(np.asarray(flow, np.float32), path))
    if valid is not None:
        if np.shape(valid) != known.shape:
            raise DataError(f"{path}: expected a mask of {known.shape}, as the flow, found {np.shape(valid)}")
        known = known * (np.asarray(valid) > 0)
    write_bytes(path, encode(flow, known))


def _codec(path: PathLike, table: dict[str, Callable]) -> Callable:
    suffix = os.path.splitext(os.fspath(path))[1].lower()
    if suffix not in table:
        raise DataError(f"{path}: unknown flow suffix {suffix!r}; expected one of {', '.join(table)}")
    return table[suffix]


def _fill(flow: np.ndarray, valid: np.ndarray, value: float) -> np.ndarray:
    """Flow with ``value`` where it is unknown."""
    return flow if valid.all() else np.where((valid > 0)[..., None], flow, np.float32(value))


def _check_flow(flow: np.ndarray, path: PathLike) -> np.ndarray:
    if flow.ndim != 3 or flow.shape[2] != 2 or 0 in flow.shape:
        raise DataError(f"{path}: expected a flow of shape H×W×2, found {'×'.join(map(str, flow.shape)) or 'a scalar'}")
    return flow


def _check_sides(width: int, height: int, path: PathLike) -> None:
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise DataError(f"{path}: damaged header: expected sides of 1..{MAX_SIDE}, found {width}×{height}")


def _check_length(expected: int, found: int, width: int, height: int, path: PathLike) -> None:
    if expected != found:
        state = "truncated" if found < expected else "too long"
        raise DataError(f"{path}: {state}: {width}×{height} pixels (W×H) take {expected} bytes, found {found}")


def _load_numpy(data: bytes, path: PathLike, what: str) -> np.ndarray | dict[str, np.ndarray]:
    try:
        loaded = np.load(io.BytesIO(data), allow_pickle=False)
        return loaded if isinstance(loaded, np.ndarray) else dict(loaded)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: expected {what}, found a truncated or damaged file ({error})") from None

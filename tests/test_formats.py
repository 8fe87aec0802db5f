"""Readers and writers of images, flow fields and masks: reference files, round trips and damaged input."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from ffplug.datasets.formats import (
    read_flow,
    read_image,
    read_mask,
    read_tartanair_valid,
    write_flow,
    write_image,
    write_mask,
)
from ffplug.errors import DataError

GOLDEN = Path(__file__).parent / "golden" / "flow_data"
ARRAYS = np.load(GOLDEN / "case1.npz")
STEPS = {".flo": 0, ".pfm": 0, ".flo5": 0, ".npy": 0, ".png": 1 / 128}


@pytest.mark.parametrize("name", ["case1.flo", "case1_le.pfm", "case1_be.pfm"])
def test_reference_files_of_dense_formats(name: str) -> None:
    flow, valid = read_flow(GOLDEN / name)
    np.testing.assert_array_equal(flow, ARRAYS["flow"])
    assert flow.dtype == np.float32 and flow.flags.c_contiguous
    assert valid.dtype == np.float32 and valid.all()


def test_reference_flo5_reads_nan_as_invalid() -> None:
    flow, valid = read_flow(GOLDEN / "case1.flo5")
    unknown = np.isnan(ARRAYS["flo5"]).any(-1)
    assert unknown.sum() == 4
    np.testing.assert_array_equal(valid == 0, unknown)
    np.testing.assert_array_equal(flow[~unknown], ARRAYS["flo5"][~unknown])
    assert np.isfinite(flow).all()


def test_reference_kitti_png() -> None:
    flow, valid = read_flow(GOLDEN / "case1_kitti.png")
    np.testing.assert_array_equal(valid, ARRAYS["kitti_valid"])
    known = valid > 0
    np.testing.assert_array_equal(flow[known], ARRAYS["kitti_flow"][known])
    assert (ARRAYS["kitti_flow"][~known] == -512).all() and (flow[~known] == 0).all()


def test_kitti_writer_rounds_where_the_published_one_truncates(tmp_path: Path) -> None:
    write_flow(tmp_path / "flow.png", ARRAYS["flow"])
    raw = cv2.imread(str(tmp_path / "flow.png"), cv2.IMREAD_UNCHANGED)[..., ::-1].astype(int)
    difference = raw[..., :2] - ARRAYS["kitti_trunc_raw"][..., :2].astype(int)
    assert set(np.unique(difference)) == {0, 1}
    assert (raw[..., 2] == 1).all()


def test_kitti_writer_clips(tmp_path: Path) -> None:
    write_flow(tmp_path / "flow.png", np.full((2, 3, 2), (-600, 600), np.float32))
    flow, valid = read_flow(tmp_path / "flow.png")
    assert valid.all()
    np.testing.assert_array_equal(flow[0, 0], [-512, 65535 / 64 - 512])


def test_flo_writer_is_byte_exact(tmp_path: Path) -> None:
    write_flow(tmp_path / "flow.flo", ARRAYS["flow"])
    assert (tmp_path / "flow.flo").read_bytes() == (GOLDEN / "case1.flo").read_bytes()


fields = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(2)),
    elements=st.floats(-500, 500, width=32),
)


@settings(max_examples=25, deadline=None)
@given(flow=fields, data=st.data(), suffix=st.sampled_from([*STEPS, ".npz"]))
def test_round_trip_keeps_flow_and_mask(flow: np.ndarray, data: st.DataObject, suffix: str, tmp_path_factory) -> None:
    valid = data.draw(hnp.arrays(np.bool_, flow.shape[:2]))
    path = tmp_path_factory.mktemp("flow") / f"flow{suffix}"
    write_flow(path, flow, valid)
    back, mask = read_flow(path)
    np.testing.assert_array_equal(mask, valid.astype(np.float32))
    step = STEPS[suffix] if suffix in STEPS else np.abs(flow[valid]) / 2048 + 1e-7
    assert (np.abs(back - flow)[valid] <= step).all()
    assert not back[~valid].any()


@pytest.mark.parametrize("suffix", [*STEPS, ".npz"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1.6e9])
def test_unknown_values_become_mask_not_motion(tmp_path: Path, suffix: str, value: float) -> None:
    flow = np.full((4, 5, 2), 3, np.float32)
    flow[1, 2, 0] = value
    write_flow(tmp_path / f"flow{suffix}", flow)
    back, valid = read_flow(tmp_path / f"flow{suffix}")
    assert valid[1, 2] == 0 and valid.sum() == 19
    assert (back[valid > 0] == 3).all()


def test_large_motion_below_the_limit_is_kept(tmp_path: Path) -> None:
    write_flow(tmp_path / "flow.pfm", np.full((2, 2, 2), 5e4, np.float32))
    flow, valid = read_flow(tmp_path / "flow.pfm")
    assert valid.all() and (flow == 5e4).all()


def test_viper_limit(tmp_path: Path) -> None:
    np.savez(tmp_path / "flow.npz", u=np.array([[513, 1]], np.float16), v=np.array([[0, np.nan]], np.float16))
    np.testing.assert_array_equal(read_flow(tmp_path / "flow.npz")[1], [[0, 0]])


def test_npz_with_one_array(tmp_path: Path) -> None:
    flow = np.array([[[600.5, -1.25], [np.nan, 0]]], np.float32)
    np.savez_compressed(tmp_path / "flow.npz", flow)
    read, valid = read_flow(tmp_path / "flow.npz")
    np.testing.assert_array_equal(valid, [[1, 0]])
    np.testing.assert_array_equal(read[0, 0], flow[0, 0])
    np.savez(tmp_path / "flow.npz", flow[..., 0])
    with pytest.raises(DataError, match=r"or one of shape H×W×2, found \['arr_0'\]"):
        read_flow(tmp_path / "flow.npz")


def test_tartanair_mask_threshold(tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", np.array([[0, 1, 10, 100]], np.uint8))
    np.testing.assert_array_equal(read_tartanair_valid(tmp_path / "mask.npy"), [[1, 0, 0, 0]])
    np.testing.assert_array_equal(read_tartanair_valid(tmp_path / "mask.npy", above=99), [[1, 1, 1, 0]])


@pytest.mark.parametrize(
    "header",
    [
        b"PF\n3 2\n-1.0\n",
        b"PF 3 2 -1\n",
        b"PF\r\n3 2\r\n-1\r\n",
        b"PF\n# a comment\n3\n2 # more\n-0.5\n",
        b"PF\t3  2\n-1 ",
    ],
)
def test_pfm_headers(tmp_path: Path, header: bytes) -> None:
    values = np.arange(18, dtype="<f4").reshape(2, 3, 3)
    (tmp_path / "flow.pfm").write_bytes(header + values.tobytes())
    np.testing.assert_array_equal(read_flow(tmp_path / "flow.pfm")[0], values[::-1, :, :2])


def _flo(width: int, height: int, size: int) -> bytes:
    return b"PIEH" + np.array([width, height], "<i4").tobytes() + bytes(size)


def _png(array: np.ndarray) -> bytes:
    return cv2.imencode(".png", array)[1].tobytes()


PNG = _png(np.random.RandomState(0).randint(0, 255, (20, 30, 3), np.uint8))
FLOW_PNG = _png(np.random.RandomState(0).randint(0, 2**16, (20, 30, 3)).astype(np.uint16))
FLO5 = (GOLDEN / "case1.flo5").read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.flo", b"", "empty"),
        ("a.flo", b"HEIP" + bytes(100), "magic"),
        ("a.flo", b"PIEH\1\0", "truncated"),
        ("a.flo", _flo(4, 3, 50), "take 108 bytes, found 62"),
        ("a.flo", _flo(4, 3, 97), "too long"),
        ("a.flo", _flo(-4, 3, 96), "damaged header"),
        ("a.flo", _flo(1 << 20, 3, 96), "damaged header"),
        ("a.pfm", b"P6\n4 3\n255\n" + bytes(99), "magic"),
        ("a.pfm", b"Pf\n4 3\n-1\n" + bytes(48), "one channel"),
        ("a.pfm", b"PF\n4 3\n", "damaged .pfm header"),
        ("a.pfm", b"PF\n4 x\n-1\n", "damaged .pfm header"),
        ("a.pfm", b"PF\n4 3\n0\n" + bytes(144), "scale"),
        ("a.pfm", b"PF\n4 3\n-1\n" + bytes(100), "truncated"),
        ("a.png", PNG, "16 bits"),
        ("a.png", FLOW_PNG[:-40], "truncated"),
        ("a.png", b"not a picture", "truncated or damaged"),
        ("a.flo5", FLO5[:-100], "truncated"),
        ("a.flo5", b"no HDF5", "truncated or damaged"),
        ("a.npy", b"\x93NUMPY", "damaged"),
        ("a.npz", b"PK\3\4 cut", "damaged"),
        ("a.xyz", b"1", "unknown flow suffix"),
    ],
)
def test_damaged_flow_files_are_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        read_flow(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "flow.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError):
        read_flow(tmp_path / "flow.npy")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_flow(tmp_path / "none.flo")
    (tmp_path / "dir.png").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path / "dir.png")


def test_writer_checks_shape_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="H×W×2"):
        write_flow(tmp_path / "flow.flo", np.zeros((2, 4, 5)))
    with pytest.raises(DataError, match="mask"):
        write_flow(tmp_path / "flow.flo", np.zeros((4, 5, 2)), np.ones((5, 4)))
    assert not any(tmp_path.iterdir())


def test_a_failing_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "flow.flo"
    write_flow(path, ARRAYS["flow"])
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_flow(path, ARRAYS["flow"] + 1)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["flow.flo"]


RGB = np.random.RandomState(1).randint(0, 256, (7, 11, 3)).astype(np.uint8)


def test_images_of_every_kind_become_rgb(tmp_path: Path) -> None:
    alpha = np.dstack([RGB, np.full(RGB.shape[:2], 9, np.uint8)])
    palette = Image.fromarray(RGB).quantize(32)
    grey = RGB[..., 0]
    cases = {
        "rgb": (Image.fromarray(RGB), RGB),
        "rgba": (Image.fromarray(alpha), RGB),
        "grey": (Image.fromarray(grey), np.repeat(grey[..., None], 3, 2)),
        "greyalpha": (Image.fromarray(np.dstack([grey, grey])), np.repeat(grey[..., None], 3, 2)),
        "palette": (palette, np.array(palette.convert("RGB"))),
        "bits": (Image.fromarray(grey > 128), np.repeat(((grey > 128) * np.uint8(255))[..., None], 3, 2)),
    }
    for name, (image, expected) in cases.items():
        image.save(tmp_path / f"{name}.png")
        found = read_image(tmp_path / f"{name}.png")
        assert found.dtype == np.uint8 and found.flags.c_contiguous
        np.testing.assert_array_equal(found, expected, err_msg=name)


def test_16_bit_images_round_to_the_nearest_level(tmp_path: Path) -> None:
    deep = RGB.astype(np.uint16) * 257
    jitter = np.random.RandomState(2).randint(-128, 129, RGB.shape)
    noisy = np.clip(deep.astype(int) + jitter, 0, 65535).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(_png(noisy[..., ::-1]))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), RGB)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 1), (5, 9)])
@pytest.mark.parametrize("suffix", [".png", ".ppm", ".bmp"])
def test_odd_sizes_round_trip(tmp_path: Path, size: tuple[int, int], suffix: str) -> None:
    image = np.random.RandomState(3).randint(0, 256, (*size, 3)).astype(np.uint8)
    write_image(tmp_path / f"a{suffix}", image)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), image)


@pytest.mark.parametrize("suffix", [".png", ".ppm", ".jpg"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_truncated_images_are_named(tmp_path: Path, suffix: str, keep: float, capfd: pytest.CaptureFixture) -> None:
    data = cv2.imencode(suffix, cv2.GaussianBlur(np.tile(RGB, (9, 9, 1)), (0, 0), 2))[1].tobytes()
    (tmp_path / f"a{suffix}").write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DataError, match=r"empty|truncated") as caught:
        read_image(tmp_path / f"a{suffix}")
    assert f"a{suffix}" in str(caught.value)
    assert "ERROR" not in capfd.readouterr().err


def test_a_flipped_byte_in_a_png_is_found(tmp_path: Path) -> None:
    damaged = bytearray(PNG)
    damaged[len(damaged) // 2] ^= 0x55
    (tmp_path / "a.png").write_bytes(damaged)
    with pytest.raises(DataError, match="damaged"):
        read_image(tmp_path / "a.png")


def test_floating_point_pictures_are_refused(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.tiff"), np.zeros((4, 4, 3), np.float32))
    with pytest.raises(DataError, match="8 or 16 bits"):
        read_image(tmp_path / "a.tiff")


def test_masks(tmp_path: Path) -> None:
    mask = RGB[..., 0] > 100
    write_mask(tmp_path / "mask.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), mask)


def test_flow_picture_equals_torchvision(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    pixels = torchvision.io.decode_png(torchvision.io.read_file(str(GOLDEN / "case1_kitti.png"))).numpy().astype(int)
    flow, valid = read_flow(GOLDEN / "case1_kitti.png")
    known = valid > 0
    np.testing.assert_array_equal(flow[known], ((pixels[:2].transpose(1, 2, 0) - 32768) / 64)[known])

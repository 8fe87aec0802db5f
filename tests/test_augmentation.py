"""Augmentation: equal to a plain writing-down of the published recipe, and consistent with the motion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from ffplug.datasets import ColorJitter, RAFTDenseAugment, RAFTSparseAugment, resize_sparse_flow
from ffplug.errors import ConfigError, DataError

ARRAYS = np.load(Path(__file__).parent / "golden" / "flow_data" / "case1.npz")


def smooth_image(seed: int, height: int, width: int) -> np.ndarray:
    noise = np.random.RandomState(seed).rand(height, width, 3).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 3)
    low, high = blurred.min(), blurred.max()
    return ((blurred - low) / (high - low) * 255).astype(np.uint8)


def dense_sample(seed: int, height: int = 100, width: int = 140) -> dict[str, Any]:
    flow = cv2.GaussianBlur(np.random.RandomState(seed).randn(height, width, 2).astype(np.float32) * 40, (0, 0), 4)
    return dict(
        img1=smooth_image(seed, height, width),
        img2=smooth_image(seed + 1000, height, width),
        flow=flow,
        valid=np.ones((height, width), np.float32),
        img1_path="one.png",
    )


def sparse_sample(seed: int, height: int = 100, width: int = 140) -> dict[str, Any]:
    sample = dense_sample(seed, height, width)
    sample["valid"] = (np.random.RandomState(seed).rand(height, width) < 0.3).astype(np.float32)
    sample["flow"] = sample["flow"] * sample["valid"][..., None]
    return sample


def torchvision_jitter(*strength: float):
    transforms = pytest.importorskip("torchvision.transforms")
    jitter = transforms.ColorJitter(*strength)
    return lambda image: np.array(jitter(Image.fromarray(image)), dtype=np.uint8)


def erase(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    if np.random.rand() < 0.5:
        mean = np.mean(image.reshape(-1, 3), axis=0)
        for _ in range(np.random.randint(1, 3)):
            x0 = np.random.randint(0, width)
            y0 = np.random.randint(0, height)
            dx = np.random.randint(50, 100)
            dy = np.random.randint(50, 100)
            image[y0 : y0 + dy, x0 : x0 + dx, :] = mean
    return image


def dense_reference(sample: dict[str, Any], crop: tuple[int, int], low: float, high: float, flip: bool):
    """The published dense recipe, step by step (RAFT, section 4 and its training code's order of random numbers)."""
    jitter = torchvision_jitter(0.4, 0.4, 0.4, 0.5 / 3.14)
    one, two, flow = sample["img1"], sample["img2"], sample["flow"]
    if np.random.rand() < 0.2:
        one, two = jitter(one), jitter(two)
    else:
        one, two = np.split(jitter(np.concatenate([one, two], axis=0)), 2, axis=0)
    two = erase(two.copy())
    height, width = one.shape[:2]
    least = np.maximum((crop[0] + 8) / float(height), (crop[1] + 8) / float(width))
    sx = sy = 2 ** np.random.uniform(low, high)
    if np.random.rand() < 0.8:
        sx = sx * 2 ** np.random.uniform(-0.2, 0.2)
        sy = sy * 2 ** np.random.uniform(-0.2, 0.2)
    sx, sy = np.clip(sx, least, None), np.clip(sy, least, None)
    if np.random.rand() < 0.8:
        one = cv2.resize(one, None, fx=sx, fy=sy, interpolation=cv2.INTER_LINEAR)
        two = cv2.resize(two, None, fx=sx, fy=sy, interpolation=cv2.INTER_LINEAR)
        flow = cv2.resize(flow, None, fx=sx, fy=sy, interpolation=cv2.INTER_LINEAR) * [sx, sy]
    if flip:
        if np.random.rand() < 0.5:
            one, two, flow = one[:, ::-1], two[:, ::-1], flow[:, ::-1] * [-1.0, 1.0]
        if np.random.rand() < 0.1:
            one, two, flow = one[::-1], two[::-1], flow[::-1] * [1.0, -1.0]
    y0 = np.random.randint(0, one.shape[0] - crop[0])
    x0 = np.random.randint(0, one.shape[1] - crop[1])
    window = np.s_[y0 : y0 + crop[0], x0 : x0 + crop[1]]
    flow = flow[window].astype(np.float32)
    return one[window], two[window], flow, (np.abs(flow) < 1000).all(-1)


def scatter_reference(flow: np.ndarray, valid: np.ndarray, fx: float, fy: float):
    height, width = round(flow.shape[0] * fy), round(flow.shape[1] * fx)
    out, mask = np.zeros((height, width, 2), np.float32), np.zeros((height, width))
    for y in range(flow.shape[0]):
        for x in range(flow.shape[1]):
            if valid[y, x] >= 1:
                tx, ty = int(np.round(x * fx)), int(np.round(y * fy))
                if 0 < tx < width and 0 < ty < height:
                    out[ty, tx] = flow[y, x] * [fx, fy]
                    mask[ty, tx] = 1
    return out, mask


def sparse_reference(sample: dict[str, Any], crop: tuple[int, int], low: float, high: float, flip: bool):
    """The published sparse recipe, with FlowFormer's padding of small images."""
    jitter = torchvision_jitter(0.3, 0.3, 0.3, 0.3 / 3.14)
    flow, valid = sample["flow"], sample["valid"]
    one, two = np.split(jitter(np.concatenate([sample["img1"], sample["img2"]], axis=0)), 2, axis=0)
    two = erase(two.copy())
    down, across = max(0, crop[0] - one.shape[0]), max(0, crop[1] - one.shape[1])
    one, two, flow = (np.pad(array, ((0, down), (0, across), (0, 0))) for array in (one, two, flow))
    valid = np.pad(valid, ((0, down), (0, across)))
    height, width = one.shape[:2]
    least = np.maximum((crop[0] + 1) / float(height), (crop[1] + 1) / float(width))
    scale = np.clip(2 ** np.random.uniform(low, high), least, None)
    if np.random.rand() < 0.8:
        one = cv2.resize(one, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        two = cv2.resize(two, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        flow, valid = scatter_reference(flow, valid, scale, scale)
    if flip and np.random.rand() < 0.5:
        one, two, flow, valid = one[:, ::-1], two[:, ::-1], flow[:, ::-1] * [-1.0, 1.0], valid[:, ::-1]
    y0 = np.random.randint(0, one.shape[0] - crop[0] + 20)
    x0 = np.random.randint(-50, one.shape[1] - crop[1] + 50)
    y0, x0 = np.clip(y0, 0, one.shape[0] - crop[0]), np.clip(x0, 0, one.shape[1] - crop[1])
    window = np.s_[y0 : y0 + crop[0], x0 : x0 + crop[1]]
    return one[window], two[window], flow[window].astype(np.float32), valid[window]


def seed_all(seed: int) -> None:
    np.random.seed(seed)
    torch.manual_seed(seed)


def check_equal(augment, reference, sample: dict[str, Any], seed: int) -> None:
    seed_all(seed)
    expected = reference({key: value.copy() for key, value in sample.items() if key != "img1_path"})
    state = np.random.get_state()[2], torch.rand(1).item()
    seed_all(seed)
    found = augment(dict(sample))
    assert state == (np.random.get_state()[2], torch.rand(1).item())
    for key, value in zip(("img1", "img2", "flow", "valid"), expected, strict=True):
        np.testing.assert_array_equal(found[key], value, err_msg=key)


@pytest.mark.parametrize("seed", range(24))
def test_dense_equals_the_published_recipe(seed: int) -> None:
    augment = RAFTDenseAugment((64, 80), -0.2, 0.6)
    check_equal(augment, lambda s: dense_reference(s, (64, 80), -0.2, 0.6, True), dense_sample(seed), seed)


@pytest.mark.parametrize("seed", range(24))
def test_sparse_equals_the_published_recipe(seed: int) -> None:
    augment = RAFTSparseAugment((64, 80), -0.3, 0.5, do_flip=True)
    check_equal(augment, lambda s: sparse_reference(s, (64, 80), -0.3, 0.5, True), sparse_sample(seed), seed)


@pytest.mark.parametrize("seed", range(6))
def test_sparse_pads_small_images(seed: int) -> None:
    augment = RAFTSparseAugment((120, 150), -0.2, 0.4)
    check_equal(augment, lambda s: sparse_reference(s, (120, 150), -0.2, 0.4, False), sparse_sample(seed), seed)


def test_the_callers_arrays_stay_as_they_are() -> None:
    for sample, augment in (
        (dense_sample(0), RAFTDenseAugment((64, 80), jitter=None)),
        (sparse_sample(0), RAFTSparseAugment((64, 80))),
    ):
        copies = {key: value.copy() for key, value in sample.items() if key != "img1_path"}
        for seed in range(8):
            seed_all(seed)
            augment(dict(sample))
        for key, value in copies.items():
            np.testing.assert_array_equal(sample[key], value)


@pytest.mark.parametrize("seed", range(30))
def test_jitter_equals_torchvision(seed: int) -> None:
    theirs = torchvision_jitter(0.4, 0.4, 0.4, 0.5 / 3.14)
    image = smooth_image(seed, 30, 40)
    torch.manual_seed(seed)
    expected = theirs(image)
    torch.manual_seed(seed)
    found = ColorJitter(0.4, 0.4, 0.4, 0.5 / 3.14)(image)
    np.testing.assert_array_equal(found, expected)
    assert found.flags.writeable


def test_reference_sparse_resize() -> None:
    fx, fy = ARRAYS["sparse_scale"].tolist()
    flow, valid = resize_sparse_flow(ARRAYS["flow"], ARRAYS["sparse_valid_in"], fx, fy)
    np.testing.assert_array_equal(flow, ARRAYS["sparse_flow_out"])
    np.testing.assert_array_equal(valid, ARRAYS["sparse_valid_out"])


def test_reference_dense_resize() -> None:
    fx, fy = ARRAYS["sparse_scale"].tolist()
    flow = cv2.resize(ARRAYS["flow"], None, fx=fx, fy=fy, interpolation=cv2.INTER_LINEAR) * np.array([fx, fy])
    np.testing.assert_allclose(flow, ARRAYS["flow_resized_dense"], rtol=1e-5, atol=1e-5)
    image = cv2.resize(ARRAYS["img"], None, fx=fx, fy=fy, interpolation=cv2.INTER_LINEAR)
    assert np.abs(image.astype(int) - ARRAYS["img_resized"].astype(int)).max() <= 1


def moving_pair(height: int = 160, width: int = 200) -> dict[str, Any]:
    """A smooth picture under an affine motion: frame 2 is sampled from the same picture, so the flow is exact."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    matrix, shift = np.array([[1.03, 0.02], [-0.03, 0.98]]), np.array([4.0, -3.0])
    centre = np.array([width / 2, height / 2])
    points = np.stack([x, y], -1)
    flow = (points - centre) @ matrix.T + centre + shift - points
    back = (points - centre - shift) @ np.linalg.inv(matrix).T + centre

    def picture(p: np.ndarray) -> np.ndarray:
        waves = [np.sin(p[..., 0] / 9 + c) * np.cos(p[..., 1] / 7 - c) for c in range(3)]
        return np.round(127 + 100 * np.stack(waves, -1)).astype(np.uint8)

    return dict(
        img1=picture(points),
        img2=picture(back),
        flow=flow.astype(np.float32),
        valid=np.ones((height, width), np.float32),
        img1_path="one.png",
    )


@pytest.mark.parametrize("mode", ["raft", "clean"])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
@pytest.mark.parametrize("seed", range(6))
def test_warping_frame_2_by_the_augmented_flow_gives_frame_1(kind: str, mode: str, seed: int) -> None:
    common = dict(crop_size=(90, 110), min_scale=-0.2, max_scale=0.4, do_flip=True, mode=mode, jitter=None)
    augment = RAFTDenseAugment(**common) if kind == "dense" else RAFTSparseAugment(**common)
    augment.erase_probability = 0.0
    seed_all(seed)
    out = augment(moving_pair())
    height, width = out["img1"].shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    tx, ty = x + out["flow"][..., 0], y + out["flow"][..., 1]
    warped = cv2.remap(np.ascontiguousarray(out["img2"]), tx, ty, cv2.INTER_LINEAR).astype(float)
    inside = (tx >= 0) & (ty >= 0) & (tx <= width - 1) & (ty <= height - 1) & (out["valid"] > 0)
    error = np.abs(warped - out["img1"])[inside]
    assert inside.sum() > 2000
    # Scattered flow sits half a pixel off its place at most, where the picture's slope is 100/7 levels a pixel.
    assert error.mean() < (1.5 if kind == "dense" else 3.0)
    unmoved = np.abs(out["img2"].astype(float) - out["img1"])[inside]
    assert unmoved.mean() > 10


def test_unknown_flow_stays_unknown_and_never_becomes_motion() -> None:
    sample = dense_sample(0)
    sample["flow"] = np.full((100, 140, 2), 7, np.float32)
    sample["flow"][30:60, 40:90] = 0
    sample["valid"][30:60, 40:90] = 0
    for seed in range(12):
        seed_all(seed)
        out = RAFTDenseAugment((64, 80), jitter=None)(dict(sample))
        known = out["valid"] > 0
        assert 0.2 < known.mean() < 1
        ratio = np.abs(out["flow"][known]) / np.abs(out["flow"][known]).max(axis=0)
        np.testing.assert_allclose(ratio, 1, rtol=1e-5)
        assert np.isfinite(out["flow"]).all()


def test_absurd_motion_is_invalid() -> None:
    sample = dense_sample(0)
    sample["flow"][:, :70] = 5000
    seed_all(0)
    out = RAFTDenseAugment((90, 130), 0, 0, jitter=None)(sample)
    assert 0 < out["valid"].mean() < 1
    assert np.abs(out["flow"][out["valid"] > 0]).max() < 1000


def test_masks_follow_the_frames() -> None:
    sample = dense_sample(0)
    sample["occlusion"] = sample["img1"][..., 0] > 128
    sample["img1"] = np.repeat((sample["occlusion"] * np.uint8(255))[..., None], 3, 2)
    for seed in range(8):
        seed_all(seed)
        out = RAFTDenseAugment((64, 80), jitter=None)(dict(sample))
        assert out["occlusion"].dtype == bool and out["occlusion"].shape == (64, 80)
        assert (out["occlusion"] == (out["img1"][..., 0] > 127)).mean() > 0.93


@pytest.mark.parametrize(("kind", "make"), [(RAFTDenseAugment, dense_sample), (RAFTSparseAugment, sparse_sample)])
@pytest.mark.parametrize("seed", range(6))
def test_further_flows_and_masks_go_through_the_same(kind: type, make: Any, seed: int) -> None:
    sample = make(seed, 110, 150)
    sample["valid"][20:30, 40:60] = 0
    sample.update(head_flow=-2 * sample["flow"], head_valid=sample["valid"].copy(), further_flows=("head_flow",))
    columns = np.arange(150) > 70
    mask = np.broadcast_to(columns, (110, 150)).copy()
    sample.update(mask=mask, occlusion=mask.copy(), further_masks=("mask",))
    seed_all(seed)
    done = kind(crop_size=(72, 96), do_flip=True, mode="clean", min_scale=-0.2, max_scale=0.6)(sample)
    np.testing.assert_allclose(done["head_flow"], -2 * done["flow"], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(done["head_valid"], done["valid"])
    np.testing.assert_array_equal(done["mask"], done["occlusion"])
    assert done["mask"].shape == done["flow"].shape[:2] == (72, 96)


def test_noc_mask_stays_within_valid() -> None:
    sample = sparse_sample(0)
    sample["valid_noc"] = sample["valid"] * (np.random.RandomState(5).rand(100, 140) < 0.5)
    for seed in range(8):
        seed_all(seed)
        out = RAFTSparseAugment((64, 80), do_flip=True)(dict(sample))
        assert (out["valid_noc"] <= out["valid"]).all() and 0 < out["valid_noc"].sum() < out["valid"].sum()


def test_raft_mode_refuses_small_images_and_names_them() -> None:
    augment = RAFTDenseAugment((120, 150), jitter=None)
    seeds = []
    for seed in range(20):
        seed_all(seed)
        try:
            assert augment(dense_sample(0))["img1"].shape == (120, 150, 3)
        except DataError as error:
            seeds.append(seed)
            assert "one.png" in str(error) and "150×120" in str(error) and "140×100" in str(error)
    assert 0 < len(seeds) < 20


@pytest.mark.parametrize("kind", [RAFTDenseAugment, RAFTSparseAugment])
def test_clean_mode_scales_small_images_up(kind: type) -> None:
    for seed in range(20):
        seed_all(seed)
        sample = dense_sample(0) if kind is RAFTDenseAugment else sparse_sample(0)
        assert kind((120, 150), mode="clean")(sample)["img1"].shape == (120, 150, 3)


@pytest.mark.parametrize(("mode", "last"), [("raft", 3), ("clean", 4)])
def test_clean_mode_reaches_every_crop_position(mode: str, last: int) -> None:
    augment = RAFTDenseAugment((96, 136), jitter=None, do_flip=False, mode=mode)
    augment.spatial_probability = 0.0
    augment.erase_probability = 0.0
    sample = dense_sample(0)
    sample["img1"] = np.repeat(np.arange(100, dtype=np.uint8)[:, None, None], 140, 1).repeat(3, 2)
    tops = set()
    for seed in range(80):
        seed_all(seed)
        tops.add(int(augment(dict(sample))["img1"][0, 0, 0]))
    assert tops == set(range(last + 1))


def test_crop_of_the_very_size_of_the_image() -> None:
    augment = RAFTDenseAugment((100, 140), jitter=None)
    augment.spatial_probability = 0.0
    seed_all(0)
    assert augment(dense_sample(0))["img1"].shape == (100, 140, 3)


def test_clean_sparse_resize_fills_the_first_row_and_column() -> None:
    flow, valid = np.ones((6, 8, 2), np.float32), np.ones((6, 8), np.float32)
    assert not resize_sparse_flow(flow, valid, 1, 1)[1][0].any()
    assert resize_sparse_flow(flow, valid, 1, 1, first=0)[1].all()


def test_eraser_fills_with_the_mean_and_leaves_the_flow_valid() -> None:
    augment = RAFTDenseAugment((100, 140), jitter=None, do_flip=False, eraser_sides=(10, 20))
    augment.spatial_probability, augment.erase_probability = 0.0, 1.0
    sample = dense_sample(0)
    seed_all(0)
    out = augment(dict(sample))
    changed = (out["img2"] != sample["img2"]).any(-1)
    assert changed.any() and (out["img2"][changed] == sample["img2"].reshape(-1, 3).mean(0).astype(np.uint8)).all()
    np.testing.assert_array_equal(out["img1"], sample["img1"])
    assert out["valid"].all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (dict(crop_size=(0, 8)), "crop_size"),
        (dict(crop_size=(8, 8), min_scale=1, max_scale=0), "min_scale"),
        (dict(crop_size=(8, 8), mode="rafd"), "did you mean 'raft'"),
        (dict(crop_size=(8, 8), eraser_sides=(9, 9)), "eraser_sides"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RAFTDenseAugment(**arguments)


def test_a_sample_without_flow_cannot_be_augmented() -> None:
    sample = dense_sample(0)
    del sample["flow"]
    with pytest.raises(DataError, match=r"one\.png.*without true flow"):
        RAFTDenseAugment((64, 80))(sample)

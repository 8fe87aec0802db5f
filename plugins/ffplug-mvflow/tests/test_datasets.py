"""Compressed twins of flow data: exact truth, vectors that follow the augmentation, and what can be wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from ffplug_mvflow.datasets import (
    CompressedFlowDataset,
    DropMotionVectors,
    EncodePair,
    LoadCompressedPair,
    PackMotionInputs,
    compress,
)
from ffplug_mvflow.encoding import Encoding, decode_pair, encode_pair
from ffplug_mvflow.fields import INPUTS
from ffplug_mvflow.structures import MotionSample

from ffplug.datasets import SintelDataset
from ffplug.datasets.augmentation import RAFTDenseAugment, RAFTSparseAugment
from ffplug.datasets.procedural import Recipe, write_procedural
from ffplug.errors import ConfigError, DataError
from ffplug.structures import broken_promises


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Two procedural sequences of four frames in Sintel's layout, of sides that are no multiples of 8."""
    root = tmp_path_factory.mktemp("original") / "Sintel"
    recipe = Recipe("sintel", scenes=2, frames=4, size=(74, 100), textures="analytic", options=dict(speed=(2.0, 5.0)))
    write_procedural(recipe, root)
    return root


@pytest.fixture(scope="module")
def source(original):
    return dict(type="ffplug.SintelDataset", data_root=str(original), render="clean")


@pytest.fixture(scope="module")
def twin(source, tmp_path_factory):
    root = tmp_path_factory.mktemp("twin") / "h264"
    compress(source, root, Encoding(quality=18, preset="veryfast"))
    return root


def motion_error(sample):
    known = sample.input_motion_valid > 0
    error = (sample.input_motion_flow - sample.gt_flow).norm(dim=0)
    return float(error[known].median()), float(known.float().mean())


def test_twin_keeps_the_truth_and_its_vectors_are_that_flow(original, twin):
    plain, compressed = SintelDataset(str(original), render="clean"), CompressedFlowDataset(twin)
    assert len(plain) == len(compressed) == 6
    for item, wanted in zip(compressed, plain, strict=True):
        sample = item["data_samples"]
        assert torch.equal(sample.gt_flow, wanted["data_samples"].gt_flow)
        difference = (item["inputs"].float() - wanted["inputs"].float()).abs()
        assert 0 < difference.mean() < 6 and item["inputs"].shape == (2, 3, 74, 100)
        values = {"inputs": item["inputs"], **{key: sample.get(key) for key in sample.keys()}}  # noqa: SIM118
        assert broken_promises(values, MotionSample.FIELDS) == []
    errors, shares = zip(*(motion_error(item["data_samples"]) for item in compressed), strict=True)
    assert np.mean(errors) < 0.5 and np.mean(shares) > 0.8
    sample = compressed[0]["data_samples"]
    assert sample.dataset == "Sintel/clean h264_veryfast_crf18" and sample.procedural
    assert sample.source.startswith("procedural, not Sintel/clean h264")


def test_meta_tells_how_it_was_made(source, twin):
    meta = json.loads((twin / "meta.json").read_text())
    assert meta["encoding"]["quality"] == 18 and meta["options"]["crf"] == "18" and meta["procedural"]
    assert "libavcodec" in meta["versions"] and len(meta["pairs"]) == 6
    pair = next(iter(meta["pairs"].values()))
    assert pair["flow"].endswith(".flo") and (twin / pair["clip"]).is_file()
    with pytest.raises(DataError, match="holds another compressed set"):
        compress(source, twin, Encoding(quality=30))


def test_an_interrupted_builder_goes_on(source, twin, tmp_path):
    meta = compress(source, tmp_path, Encoding(quality=30, preset="ultrafast"))
    names = sorted(pair["clip"] for pair in meta["pairs"].values())
    kept, lost = (tmp_path / names[0], tmp_path / names[1])
    before = kept.stat().st_mtime_ns
    lost.unlink()
    with pytest.raises(DataError, match="this clip is missing"):
        CompressedFlowDataset(tmp_path)
    told = []
    compress(source, tmp_path, Encoding(quality=30, preset="ultrafast"), progress=lambda *n: told.append(n))
    assert told == [(6, 6)] and lost.is_file() and kept.stat().st_mtime_ns == before


@pytest.mark.parametrize("b_frames", [0, 2])
def test_whole_clips_in_order_of_time(source, tmp_path, b_frames):
    meta = compress(source, tmp_path, Encoding(quality=18, gop=12, b_frames=b_frames), kind="clips")
    assert len({pair["clip"] for pair in meta["pairs"].values()}) == 2
    assert sorted(pair["frame"] for pair in meta["pairs"].values()) == [0, 0, 1, 1, 2, 2]
    errors = [motion_error(item["data_samples"]) for item in CompressedFlowDataset(tmp_path)]
    assert np.median([error for error, _ in errors]) < 1.0 and np.mean([share for _, share in errors]) > 0.7


@pytest.mark.parametrize(("codec", "b_frames"), [("mpeg4", 1), ("mpeg2", 0), ("mpeg1", 2)])
def test_whole_clips_of_other_codecs_have_vectors_up_to_the_last(source, tmp_path, codec, b_frames):
    compress(source, tmp_path, Encoding(codec, 3, b_frames=b_frames), kind="clips")
    shares = [motion_error(item["data_samples"])[1] for item in CompressedFlowDataset(tmp_path)]
    assert len(shares) == 6 and min(shares) > 0.5


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2", "mpeg1"])
def test_other_codecs(original, codec):
    encode = EncodePair((3, 3), codec)
    pipeline = [dict(type="ffplug.LoadFlowPair"), encode, PackMotionInputs()]
    pairs = SintelDataset(str(original), render="clean", pipeline=pipeline, indices=2)
    errors, shares = zip(*(motion_error(item["data_samples"]) for item in pairs), strict=True)
    assert np.mean(errors) < 1.0 and np.mean(shares) > 0.6


def test_encoded_on_the_fly_as_on_disk(original):
    plain = SintelDataset(str(original), render="clean", pipeline=[dict(type="ffplug.LoadFlowPair")])
    results = EncodePair((20, 20), presets=("veryfast",))(plain[0])
    images = [plain[0][key] for key in ("img1", "img2")]
    content = encode_pair(*images, Encoding(quality=20, preset="veryfast"))
    first, second, inputs = decode_pair(content, (74, 100), "clip")
    assert np.array_equal(results["img1"], first) and np.array_equal(results["img2"], second)
    assert np.array_equal(results["motion_flow"].transpose(2, 0, 1), inputs["motion_flow"])


@pytest.mark.parametrize("sparse", [False, True])
def test_vectors_follow_the_spatial_augmentation(original, sparse):
    """Vectors that equal the true flow still do after it, where both are known."""
    plain = SintelDataset(str(original), render="clean", pipeline=[dict(type="ffplug.LoadFlowPair")])
    options = dict(crop_size=(56, 72), min_scale=-0.1, max_scale=0.4, do_flip=True, mode="clean")
    augment = (RAFTSparseAugment if sparse else RAFTDenseAugment)(**options)
    augment.spatial_probability = 1.0
    closeness = []
    for seed in range(6):
        results = EncodePair((20, 20))(plain[seed])
        # Smooth flow, so that the nearest pixel's is near that between pixels.
        y, x = np.mgrid[:74, :100].astype(np.float32)
        flow = np.stack((x / 20, y / 30 - 1), axis=-1)
        results.update(flow=flow.copy(), motion_flow=flow.copy(), valid=np.ones((74, 100), np.float32))
        results["motion_valid"] = (x > 10).astype(np.float32)
        results["motion_gap"], results["motion_size"] = results["motion_valid"] / 2, x + 1
        np.random.seed(seed)
        sample = PackMotionInputs()(augment(results))["data_samples"]
        known = (sample.input_motion_valid > 0) & (sample.gt_valid > 0)
        closeness.append(float((sample.input_motion_flow - sample.gt_flow).abs()[:, known].max()))
        assert known.float().mean() > 0.3
        assert set(np.unique(sample.input_motion_gap)) <= {0.0, 0.5}
        assert not sample.input_motion_size[sample.input_motion_valid == 0].any()
        assert "gt_motion_flow" not in sample and sample.input_motion_flow.shape == (2, 56, 72)
    assert max(closeness) < 0.15


def full(height=40, width=48):
    ones = np.ones((height, width), np.float32)
    return dict(
        motion_flow=np.full((height, width, 2), 3, np.float32), motion_valid=ones, motion_gap=ones, motion_size=ones
    )


def test_dropping():
    np.random.seed(0)
    assert not DropMotionVectors(whole=1.0)(full())["motion_flow"].any()
    quiet = dict(swap=0.0, noise=0.0)
    kept = DropMotionVectors(0.0, 0.0, **quiet)(full())
    assert np.array_equal(kept["motion_flow"], full()["motion_flow"])
    shares = [DropMotionVectors(0.0, 1.0, **quiet)(full())["motion_valid"].mean() for _ in range(20)]
    assert all(share < 1 for share in shares) and np.mean(shares) > 0.3
    half = full()
    half["motion_valid"][:, :24] = 0
    half["motion_flow"][:, :24] = 0
    swapped = DropMotionVectors(0.0, 0.0, 1.0, 0.0)(half)
    assert np.array_equal(swapped["motion_valid"], half["motion_valid"])  # none comes from where there is none
    assert set(np.unique(swapped["motion_flow"])) == {0, 3}
    noisy = [DropMotionVectors(0.0, 0.0, 0.0, 1.0)(full())["motion_flow"] for _ in range(8)]
    assert {bool((flow == 3).all()) for flow in noisy} == {True, False}
    assert all(len(np.unique(flow[:8, :8, 0])) == 1 for flow in noisy)  # by cells


def test_vectors_into_what_was_erased_are_dropped(twin):
    augment = dict(
        type="ffplug.RAFTDenseAugment", crop_size=(64, 88), min_scale=0.0, max_scale=0.1, eraser_sides=(20, 30)
    )
    quiet = dict(whole=0.0, part=0.0, swap=0.0, noise=0.0)
    found = {}
    for share in (0.0, 1.0):
        drop = DropMotionVectors(**quiet, erased=share)
        pipeline = [LoadCompressedPair(), augment, drop, PackMotionInputs()]
        samples = CompressedFlowDataset(twin, pipeline=pipeline)
        np.random.seed(3)
        torch.manual_seed(3)
        found[share] = [samples.pipeline(samples.get_data_info(index))["data_samples"] for index in range(6)]
    lost = []
    for kept, dropped in zip(found[0.0], found[1.0], strict=True):
        assert "gt_erased" not in kept and torch.equal(kept.gt_flow, dropped.gt_flow)
        gone = (kept.input_motion_valid > 0) & (dropped.input_motion_valid == 0)
        assert not (dropped.input_motion_valid > kept.input_motion_valid).any()
        lost.append(float(gone.float().mean()))
    assert 0 in lost and 0.02 < max(lost) < 0.5  # half of the pairs are not erased


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(codec="hevc"), "codec='hevc'"),
        (dict(quality=60), "quality=60: h264 has 0 to 51"),
        (dict(codec="mpeg4", quality=0), "mpeg4 has 1 to 31"),
        (dict(preset="mediun"), "did you mean 'medium'"),
        (dict(gop=0), "gop=0"),
    ],
)
def test_bad_encoding(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Encoding(**arguments)


def test_bad_sets(tmp_path, twin):
    with pytest.raises(DataError, match=r"no meta.json.*ffplug mvflow encode"):
        CompressedFlowDataset(tmp_path)
    (tmp_path / "meta.json").write_text("{}")
    with pytest.raises(DataError, match="lacks encoding, pairs, source"):
        CompressedFlowDataset(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        CompressedFlowDataset(twin, source=dict(data_root=str(tmp_path / "gone")))
    with pytest.raises(ConfigError, match="quality="):
        EncodePair(quality=(30, 20))
    with pytest.raises(ConfigError, match="whole=2"):
        DropMotionVectors(whole=2)


def test_a_clip_that_does_not_fit(original, tmp_path):
    plain = SintelDataset(str(original), render="clean", pipeline=[dict(type="ffplug.LoadFlowPair")])
    small = tmp_path / "small.mp4"
    images = [np.zeros((32, 40, 3), np.uint8)] * 2
    small.write_bytes(encode_pair(*images, Encoding()))
    with pytest.raises(DataError, match="is 40×32 but the frames are 100×74"):
        LoadCompressedPair()({**plain[0], "clip_path": str(small), "clip_frame": None})
    with pytest.raises(DataError, match="cannot be read"):
        LoadCompressedPair()({**plain[0], "clip_path": str(tmp_path / "none.mp4"), "clip_frame": None})
    assert set(INPUTS) == {"motion_flow", "motion_valid", "motion_gap", "motion_size"}

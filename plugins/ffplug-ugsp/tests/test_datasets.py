"""Public layouts through their own readers, the exact truth of procedural scenes, and the augmentation."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from ffplug_ugsp.datasets import (
    Adobe240Dataset,
    AugmentTriplet,
    GoProDataset,
    LoadTriplet,
    MiddleburyInterpolationDataset,
    PackTriplet,
    ProceduralTripletDataset,
    SNUFILMDataset,
    UCF101Dataset,
    VimeoSeptupletDataset,
    VimeoTripletDataset,
    X4KDataset,
    XiphDataset,
)
from ffplug_ugsp.labels import write_labels

from ffplug.cli import cli, run
from ffplug.datasets import SeededIndex
from ffplug.datasets.checker import check_dataset
from ffplug.datasets.procedural.writers import Recipe, write_procedural
from ffplug.errors import ConfigError, DataError
from ffplug.ops import backward_warp

SIZE = (32, 48)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Gives the root of a small procedural set in a layout, written once."""
    folder = tmp_path_factory.mktemp("sets")

    def write(layout, scenes=3, frames=4):
        root = folder / layout
        write_procedural(Recipe(layout, scenes, frames, SIZE, textures="analytic"), root)
        return root

    return write


def test_vimeo_splits_are_the_published_ones(written):
    root = written("vimeo-triplet")
    names = {split: [item["sample_id"] for item in map(VimeoTripletDataset(root, split).get_data_info, range(n))]
             for split, n in (("train", 2), ("validation", 1), ("all", 3), ("test", 1))}  # fmt: skip
    assert names["all"] == [f"00001/{n:04d}" for n in (1, 2, 3)] == names["train"] + names["validation"]
    assert names["test"] == ["00002/0001"]
    assert len(VimeoTripletDataset(root, "test")) == 1  # the list ends with an empty line
    report = check_dataset(str(root), full=True)
    assert report.ok and report.layout == "vimeo-triplet" and report.files == 4 * 5


def test_vimeo_flow_warps_the_ends_onto_the_middle(written):
    dataset = VimeoTripletDataset(written("vimeo-triplet"), "all")
    item = max(dataset, key=lambda item: float(item["data_samples"].gt_flow.abs().mean()))
    sample = item["data_samples"]
    assert sample.source == "procedural, not Vimeo90K/all" and sample.timestep == 0.5
    for frame, flow in zip(item["inputs"], sample.gt_flow.split(2), strict=True):
        error = (backward_warp(frame[None], flow[None], "border")[0] - sample.gt_frame).abs().mean(dim=0)
        still = (frame - sample.gt_frame).abs().mean(dim=0)
        assert error.median() < 0.3 * still.median()


def test_vimeo_labels_lie_in_a_tree_of_their_own(written, tmp_path):
    root = written("vimeo-triplet")
    with pytest.raises(DataError, match=r"guide_mask_3\.png: this label is missing and 8 more"):
        VimeoTripletDataset(root, "all", labels=str(tmp_path))
    planes = (torch.rand(3, *SIZE) > 0.5).float()
    for number in (1, 2, 3):
        write_labels(planes, tmp_path / f"00001/{number:04d}")
    assert torch.equal(VimeoTripletDataset(root, "all", labels=str(tmp_path))[0]["data_samples"].gt_labels, planes)


def test_packed_triplets_are_the_pictures(written, tmp_path, capsys):
    root = tmp_path / "set"
    shutil.copytree(written("vimeo-triplet"), root)
    with pytest.raises(DataError, match=r"packed/00001/0001\.npy: this packed triplet is missing and 2 more"):
        VimeoTripletDataset(root, "all", packed="packed")
    assert run(cli, ["pack-triplets", str(root)], "ffplug") == 0
    assert "packed: 3 triplets" in capsys.readouterr().out
    plain, packed = VimeoTripletDataset(root, "all"), VimeoTripletDataset(root, "all", packed="packed")
    for one, other in zip(plain, packed, strict=True):
        assert torch.equal(one["inputs"], other["inputs"])
        assert torch.equal(one["data_samples"].gt_frame, other["data_samples"].gt_frame)
    first, second = (root / f"packed/00001/{number:04d}.npy" for number in (1, 2))
    first.write_bytes(first.read_bytes()[:-5])
    np.save(second, np.zeros((2, 4)))
    for place, message in ((0, r"0001\.npy: no packed triplet"), (1, r"0002\.npy: expected a packed triplet")):
        with pytest.raises(DataError, match=message):
            packed[place]


def test_septuplets_are_all_choices_of_three_frames(written):
    root = written("vimeo-septuplet", scenes=2)
    dataset = VimeoSeptupletDataset(root, "all")
    assert len(dataset) == 2 * 35
    found = {dataset.get_data_info(index)["sample_id"]: dataset.get_data_info(index)["timestep"] for index in range(35)}
    assert found["00001/0001/147"] == 0.5 and found["00001/0001/125"] == 0.25 and found["00001/0001/367"] == 0.75
    middle = VimeoSeptupletDataset(root, "all", middle=True)
    assert [middle.get_data_info(index)["sample_id"] for index in range(2)] == ["00001/0001/147", "00001/0002/147"]


def test_ucf101_and_middlebury(written):
    assert len(UCF101Dataset(written("ucf101-dvf"))) == 3
    dataset = MiddleburyInterpolationDataset(written("middlebury-interp"))
    item = dataset[0]
    sample = item["data_samples"]
    assert sample.sample_id == "Beanbags" and sample.ori_shape == SIZE
    assert item["inputs"].shape == (2, 3, 480, 640) and not item["inputs"][..., SIZE[0] :, :].any()
    assert not sample.gt_frame[..., SIZE[1] :].any() and sample.gt_frame[:, : SIZE[0], : SIZE[1]].any()
    assert MiddleburyInterpolationDataset(written("middlebury-interp"), canvas=None)[0]["inputs"].shape[2:] == SIZE
    with pytest.raises(DataError, match="does not fit on a canvas of 32×16"):
        MiddleburyInterpolationDataset(written("middlebury-interp"), canvas=(16, 32))[0]


def test_snu_film_understands_its_lists(written, tmp_path):
    root = written("snu-film", scenes=2)
    dataset = SNUFILMDataset(root)
    assert len(dataset) == 8
    easy, extreme = dataset[0]["data_samples"], dataset[6]["data_samples"]
    assert (easy.kind, extreme.kind) == ("easy", "extreme")
    assert easy.frame0_path.endswith("000007.png") and extreme.frame1_path.endswith("000016.png")
    assert torch.equal(easy.gt_frame, extreme.gt_frame)
    # The folders lie where other tools expect them, one level higher.
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    shutil.move(moved / "test" / "GOPRO_test", moved / "GOPRO_test")
    assert len(SNUFILMDataset(moved, levels="hard")) == 2
    (moved / "test-hard.txt").write_text("a.png b.png\n")
    with pytest.raises(DataError, match="line 1: expected three paths, found 2"):
        SNUFILMDataset(moved, levels="hard")


def test_xiph_and_x4k_are_cut_as_the_papers_do(written):
    root = written("xiph", scenes=2, frames=4)
    whole = XiphDataset(root, pipeline=[LoadTriplet(), PackTriplet()])
    assert [whole.get_data_info(index)["frame"] for index in range(len(whole))] == [2, 4] * 2
    frame = whole[0]["inputs"][0]
    half, centre = (XiphDataset(root, view=view)[0]["inputs"][0] for view in ("2K", "4K"))
    assert half.shape == centre.shape == (3, SIZE[0] // 2, SIZE[1] // 2)
    assert torch.equal(centre, frame[:, 8:24, 12:36])
    torch.testing.assert_close(half, torch.nn.functional.avg_pool2d(frame, 2), rtol=0, atol=0.51 / 255)

    root = written("x4k1000fps", scenes=1)
    test, train = X4KDataset(root), X4KDataset(root, split="train")
    assert len(test) == 7 and len(train) == 7
    assert [test.get_data_info(place)["timestep"] for place in range(7)] == [n / 8 for n in range(1, 8)]
    assert test.get_data_info(0)["target_path"].endswith("test/Type1/TEST01/0004.png")


def test_high_speed_videos_are_cut_into_windows_of_nine(written, tmp_path):
    root, kind = written("gopro", scenes=1, frames=16), GoProDataset
    test, train = kind(root), kind(root, split="train")
    assert len(train) == len(test) == 2 * 7
    other = written("adobe240", scenes=1, frames=2)
    assert len(Adobe240Dataset(other)) == 7 and check_dataset(str(other)).layout == "adobe240"
    entries = [train.get_data_info(place) for place in (0, 6, 7, 13)]
    assert [entry["frame"] for entry in entries] == [2, 8, 10, 16]
    assert [entry["timestep"] for entry in entries] == [1 / 8, 7 / 8, 1 / 8, 7 / 8]
    assert [[entry[key][-10:-4] for key in ("frame0_path", "frame1_path")] for entry in entries[1:3]] == [
        ["000001", "000009"],
        ["000009", "000017"],
    ]
    assert check_dataset(str(root)).layout == "gopro"
    frame = train[3]["data_samples"].gt_frame
    assert frame.shape[1:] == SIZE
    cropped = kind(root, split="train", pipeline=[LoadTriplet(crop=40), PackTriplet()])[3]["data_samples"]
    assert torch.equal(cropped.gt_frame, frame[:, :, 4:44]) and cropped.ori_shape == (32, 40)
    broken = tmp_path / "broken"
    shutil.copytree(root, broken)
    next(broken.glob("test/*/000004.png")).unlink()
    with pytest.raises(DataError, match=r"000004\.png: this frame is missing"):
        kind(broken)


def test_procedural_truth_is_exact():
    dataset = ProceduralTripletDataset(length=4, size=(64, 96), kinds=("moving", "pan", "background", "still"), seed=3)
    for item in dataset:
        sample = item["data_samples"]
        seen = sample.region_occluded == 0
        for frame, flow in zip(item["inputs"], sample.gt_flow.split(2), strict=True):
            error = (backward_warp(frame[None], flow[None], "border")[0] - sample.gt_frame).abs().mean(dim=0)
            assert error[seen].median() < 0.02
        if sample.kind == "still":
            assert torch.equal(item["inputs"][0], sample.gt_frame) and sample.gt_flow.abs().max() < 1e-9
        if sample.kind == "pan":
            assert sample.gt_flow.flatten(1).std(dim=1).max() < 1e-4 and sample.gt_flow.abs().max() > 0.5
        if sample.kind == "background":
            assert (sample.gt_flow == 0).all(dim=0).float().mean() > 0.05
    other = ProceduralTripletDataset(length=9, size=(32, 32), any_timestep=True)
    assert len({other.get_data_info(index)["timestep"] for index in range(9)}) > 3


def test_augmentation_turns_flow_with_the_frames():
    plain = ProceduralTripletDataset(
        length=1, size=(48, 64), kinds="moving", seed=1, pipeline=[lambda results: results]
    )[0]
    for draw in range(8):
        np.random.seed(draw)
        changed = AugmentTriplet(crop=32, transpose=0.5)(dict(plain))
        sample = PackTriplet()(changed)
        assert sample["inputs"].shape == (2, 3, 32, 32)
        truth = sample["data_samples"]
        seen = truth.region_occluded == 0
        for frame, flow in zip(sample["inputs"], truth.gt_flow.split(2), strict=True):
            error = (backward_warp(frame[None], flow[None], "border")[0] - truth.gt_frame).abs().mean(dim=0)
            assert error[seen].median() < 0.03
    swapped = AugmentTriplet(None, 0, 0, 0, 1, 0)({**plain, "timestep": 0.25})
    assert swapped["timestep"] == 0.75 and np.array_equal(swapped["flow_t0"], plain["flow_t1"])
    with pytest.raises(ConfigError, match="only with a square crop"):
        AugmentTriplet(crop=(32, 48))
    with pytest.raises(DataError, match="smaller than the crop of 224×224"):
        AugmentTriplet()(dict(plain))


def test_draws_follow_the_stream_alone(written):
    pipeline = [LoadTriplet(), AugmentTriplet(crop=16), PackTriplet()]
    dataset = VimeoTripletDataset(written("vimeo-triplet"), pipeline=pipeline)
    first, again, other = (dataset[SeededIndex(0, draw)]["inputs"] for draw in (7, 7, 8))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_what_is_missing_is_named(written, tmp_path):
    root = tmp_path / "damaged"
    shutil.copytree(written("vimeo-triplet"), root)
    (root / "sequences/00001/0002/im2.png").unlink()
    with pytest.raises(DataError, match=r"00001/0002/im2\.png: this frame is missing"):
        VimeoTripletDataset(root, "all")
    assert not check_dataset(str(root)).ok
    (root / "sequences/00001/0001/im3.png").write_bytes(b"\x89PNG")
    broken = VimeoTripletDataset(written("vimeo-triplet"), "test").get_data_info(0)
    broken["frame1_path"] = str(root / "sequences/00001/0001/im3.png")
    with pytest.raises(DataError, match=r"im3\.png: expected a picture"):
        LoadTriplet()(broken)
    with pytest.raises(DataError, match="expected Vimeo90K septuplets, found Vimeo90K triplets"):
        VimeoSeptupletDataset(written("vimeo-triplet"))
    with pytest.raises(DataError, match="no such folder; expected SNU-FILM"):
        SNUFILMDataset(tmp_path / "none")

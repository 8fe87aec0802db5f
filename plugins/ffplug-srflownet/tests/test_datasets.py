import json
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from ffplug_srflownet.datasets import GaussianSequenceDataset, MaskedDenseAugment, SRFlowDataset

from ffplug.datasets import read_flow, write_flow, write_image
from ffplug.datasets.augmentation import RAFTDenseAugment
from ffplug.datasets.checker import check_dataset
from ffplug.datasets.layouts import detect_layout, get_layout
from ffplug.datasets.procedural import Recipe, write_procedural
from ffplug.errors import ConfigError, DataError

SMALL = dict(size=(48, 64), head=dict(type="ffplug_face.ProceduralHead", rows=24, columns=32))


def write(root: Path, split: str, subject: str, frames: int, kinds: tuple[str, ...] = ("flow",)) -> None:
    """Frames of one grey each; the flow of a frame is (its number, the kind's number)."""
    for frame in range(frames):
        stem = f"{subject}/{frame:04d}"
        write_image(root / split / "render" / f"{stem}.jpg", np.full((16, 24, 3), 20 * frame, np.uint8))
        mask = np.zeros((16, 24), np.uint8)
        mask[:, :12] = 255
        write_image(root / split / "mask" / f"{stem}.jpg", mask)
        for number, kind in enumerate(kinds):
            write_flow(root / split / kind / f"{stem}.flo", np.full((16, 24, 2), (frame, number), np.float32))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two subjects for training and one with two clips for testing; flow is as published."""
    write(tmp_path / "set", "train", "018", 4)
    write(tmp_path / "set", "train", "030", 3)
    write(tmp_path / "set", "test", "031", 6, ("flow", "flow_backward", "flow_stride2", "flow_backward_stride2"))
    clips = tmp_path / "set" / "test" / "camera" / "031" / "clip.json"
    clips.parent.mkdir(parents=True)
    clips.write_text(json.dumps({"clips": [[0, 3], [4, 5]]}))
    return tmp_path / "set"


def frames_of(dataset: SRFlowDataset) -> list[tuple[str, int, int]]:
    ids = (dataset.get_data_info(k)["sample_id"].split("/") for k in range(len(dataset)))
    return [(subject, *map(int, pair.split("-"))) for _, subject, pair in ids]


def test_pairs_are_read_as_they_were_written(root: Path):
    dataset = SRFlowDataset(str(root))
    expected = [("018", 0, 1), ("018", 1, 2), ("018", 2, 3), ("030", 0, 1), ("030", 1, 2)]
    assert frames_of(dataset) == expected and dataset.metainfo["flow_definition"] == "unknown"
    item = dataset[2]
    sample = item["data_samples"]
    assert (item["inputs"][0].float() - 40).abs().max() < 2 and (item["inputs"][1].float() - 60).abs().max() < 2
    assert (sample.gt_flow[0] == 2).all() and (sample.gt_flow[1] == 0).all() and (sample.gt_valid == 1).all()
    assert sample.gt_foreground[:, :12].all() and not sample.gt_foreground[:, 12:].any()
    assert not sample.procedural and detect_layout(str(root)) in ("srflow", "srflow-center")


def test_no_pair_crosses_a_clip_and_reversed_ones_have_their_own_flow(root: Path):
    forward = SRFlowDataset(str(root), split="test")
    assert [pair[1:] for pair in frames_of(forward)] == [(0, 1), (1, 2), (2, 3), (4, 5)]
    every = SRFlowDataset(str(root), split="test", stride=(1, 2), direction="both")
    backward, strided, both = [(1, 0), (2, 1), (3, 2), (5, 4)], [(0, 2), (1, 3)], [(2, 0), (3, 1)]
    pairs = [pair[1:] for pair in frames_of(every)]
    assert pairs == [pair[1:] for pair in frames_of(forward)] + backward + strided + both
    for number, (first, _) in enumerate(pairs):
        kind = 0 if number < 4 else 1 if number < 8 else 2 if number < 10 else 3
        flow = every[number]["data_samples"].gt_flow
        assert (flow[0] == first).all() and (flow[1] == kind).all()
    clips = root / "test" / "camera" / "031" / "clip.json"
    for bad in ("[]", '{"clips": [[3, 0]]}', '{"clips": [[0.5, 2]]}', '{"clips": 3}'):
        clips.write_text(bad)
        with pytest.raises(DataError, match="expected"):
            SRFlowDataset(str(root), split="test")
    clips.write_text("{")
    with pytest.raises(DataError, match=r"clip\.json: not valid JSON"):
        SRFlowDataset(str(root), split="test")


def test_masks_are_cut_at_the_threshold(root: Path):
    """Values that JPEG's ringing leaves beside an edge are no person."""
    path = root / "train" / "mask" / "018" / "0000.jpg"
    mask = np.full((16, 24), 90, np.uint8)
    mask[:8] = 170
    path.write_bytes(cv2.imencode(".jpg", mask)[1].tobytes())
    for threshold, rows in ((60, 16), (128, 8), (200, 0)):
        found = SRFlowDataset(str(root), mask_threshold=threshold)[0]["data_samples"].gt_foreground
        assert found[:rows].all() and not found[rows:].any()
    with pytest.raises(ConfigError, match="mask_threshold=0"):
        SRFlowDataset(str(root), mask_threshold=0)


def test_what_is_missing_is_named(root: Path):
    with pytest.raises(DataError, match=r"train/flow_backward/ is missing: the published set"):
        SRFlowDataset(str(root), direction="both")
    with pytest.raises(ConfigError, match="stride="):
        SRFlowDataset(str(root), stride=0)
    (root / "train/render/018/0002.jpg").unlink()
    with pytest.raises(DataError, match=r"018/0002\.jpg: this frame is missing"):
        SRFlowDataset(str(root))
    shutil.copy(root / "train/render/018/0001.jpg", root / "train/render/018/0002.jpg")
    for path in ("flow/030/0001.flo", "mask/030/0000.jpg"):
        (root / "train" / path).rename(root / "kept")
        with pytest.raises(DataError, match=f"{path}: this file is missing".replace(".", r"\.")):
            SRFlowDataset(str(root))
        assert [problem.path for problem in check_dataset(str(root)).problems] == [str(root / "train" / path)]
        (root / "kept").rename(root / "train" / path)
    data = (root / "train/flow/030/0001.flo").read_bytes()
    (root / "train/flow/030/0001.flo").write_bytes(data[:-4])
    with pytest.raises(DataError, match=r"030/0001\.flo"):
        SRFlowDataset(str(root))[4]
    shutil.rmtree(root / "train" / "render")
    with pytest.raises(DataError, match="train/render/ is missing"):
        SRFlowDataset(str(root))


@pytest.mark.parametrize(("layout", "definition"), [("srflow", "ray"), ("srflow-center", "center")])
def test_procedural_heads_come_in_this_layout(tmp_path: Path, layout: str, definition: str):
    recipe = Recipe(layout, scenes=1, frames=4, size=(48, 64))
    folder = tmp_path / "set"
    write_procedural(recipe, folder)
    assert detect_layout(str(folder)) == layout and check_dataset(str(folder)).ok
    train = SRFlowDataset(str(folder), stride=(1, 2), direction="both")
    assert len(train) == 3 + 3 + 2 + 2 and train.metainfo["flow_definition"] == definition
    assert [pair[1:] for pair in frames_of(SRFlowDataset(str(folder), split="test"))] == [(0, 1), (2, 3)]
    sample = train[0]["data_samples"]
    assert sample.procedural and sample.gt_foreground.float().mean() > 0.1 and "gt_occlusion" in sample
    still = ~cv2.dilate(sample.gt_foreground.numpy().astype(np.uint8), np.ones((5, 5))).astype(bool)
    assert (sample.gt_flow.numpy()[:, still] == 0).all() and sample.gt_flow.abs().max() > 0.1
    # There and back again: the backward flow at the target undoes the forward flow, and is not its negative.
    back = next(item["data_samples"] for item in (train[k] for k in range(3, 6)) if item["data_samples"].frame == 1)
    height, width = 48, 64
    x = (torch.arange(width) + 0.5 + sample.gt_flow[0]) * 2 / width - 1
    y = (torch.arange(height)[:, None] + 0.5 + sample.gt_flow[1]) * 2 / height - 1
    grid = torch.stack((x, y), -1)[None]
    returned = torch.nn.functional.grid_sample(back.gt_flow[None], grid, align_corners=False)[0] + sample.gt_flow
    where = sample.gt_foreground & ~sample.gt_occlusion
    assert returned.norm(dim=0)[where].median() < 0.1 * sample.gt_flow.norm(dim=0)[where].median()
    assert not torch.equal(back.gt_flow, -sample.gt_flow)
    depth = np.load(folder / "train/depth/001/0000.npy")
    assert depth.shape == (48, 64) and 0.2 < depth[sample.gt_foreground.numpy()].mean() < 3
    frames = json.loads((folder / "train/camera/001/spirals.json").read_text())["frames"]
    assert len(frames) == 4 and np.shape(frames[0]["extrinsics"]) == (4, 4)
    # Regions lie beside, and their masks are taken by name.
    steps = [dict(type="ffplug.LoadFlowPair"), dict(type="ffplug_srflownet.LoadRegions", names=("skin", "neck"))]
    labelled = SRFlowDataset(str(folder), [*steps, dict(type="ffplug.PackFlowInputs")])[0]["data_samples"]
    assert labelled.gt_skin.any() and not (labelled.gt_skin & ~labelled.gt_foreground).any()
    assert not (labelled.gt_skin & labelled.gt_neck).any() and "gt_lips" not in labelled
    write_image(folder / "train/region/001/0000.png", np.zeros((8, 8), np.uint8))
    with pytest.raises(DataError, match=r"0000\.png: expected 64×48 as the frames, found 8×8"):
        SRFlowDataset(str(folder), steps)[0]
    shutil.rmtree(folder / "train/region")
    with pytest.raises(DataError, match="the set has no region/ of this frame"):
        SRFlowDataset(str(folder), steps)[0]


def test_a_scene_does_not_depend_on_those_before_it(tmp_path: Path):
    recipe = Recipe("srflow", scenes=2, frames=2, size=(32, 48), options=dict(fill=(0.6, 0.7)))
    write_procedural(recipe, tmp_path / "one")
    layout = get_layout("srflow")
    for subset, index in ((1, 0), (0, 1), (0, 0)):
        layout.write_scene(tmp_path / "two", recipe, subset, index)
    paths = sorted(path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*") if path.is_file())
    assert len(paths) > 20
    for path in paths:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path
    first, second = (read_flow(str(tmp_path / "one/train/flow" / k / "0000.flo"))[0] for k in ("001", "002"))
    assert not np.array_equal(first, second)
    with pytest.raises(ConfigError, match="'fil' is none to set; did you mean 'fill'"):
        Recipe("srflow", options=dict(fil=(0.6, 0.7)))


def test_pairs_are_rendered_on_line():
    dataset = GaussianSequenceDataset(length=3, seed=3, stride=(1, 3), **SMALL)
    again = pickle.loads(pickle.dumps(GaussianSequenceDataset(length=3, seed=3, stride=(1, 3), **SMALL)))
    item, other = dataset[1], again[1]
    assert torch.equal(item["inputs"], other["inputs"])
    sample = item["data_samples"]
    assert torch.equal(sample.gt_flow, other["data_samples"].gt_flow) and sample.procedural
    assert item["inputs"].shape == (2, 3, 48, 64) and sample.gt_foreground.float().mean() > 0.05
    assert (sample.gt_flow[:, ~sample.gt_foreground] == 0).all() and sample.gt_flow.abs().max() > 0.05
    assert not torch.equal(item["inputs"], dataset[2]["inputs"])
    few = GaussianSequenceDataset(length=3, seed=4, **SMALL)
    assert not torch.equal(few[1]["inputs"], item["inputs"])
    center = GaussianSequenceDataset(length=3, seed=3, stride=(1, 3), definition="center", **SMALL)[1]
    assert torch.equal(center["inputs"], item["inputs"])
    difference = (center["data_samples"].gt_flow - sample.gt_flow).abs()
    assert difference.max() > 1e-4 and difference.mean() < 0.2 * sample.gt_flow.abs().mean()


def test_reversed_pairs_change_the_frames_and_not_the_sign():
    forward, backward = (
        GaussianSequenceDataset(length=1, direction=way, **SMALL)[0] for way in ("forward", "backward")
    )
    assert torch.equal(forward["inputs"].flip(0), backward["inputs"])
    flows = [item["data_samples"].gt_flow for item in (forward, backward)]
    assert not torch.equal(flows[0], -flows[1]) and (flows[0] + flows[1]).abs().mean() < flows[0].abs().mean()


def test_options_that_do_not_do():
    with pytest.raises(ConfigError, match="did you mean 'translation'"):
        GaussianSequenceDataset(options=dict(translations=0.1))
    with pytest.raises(ConfigError, match="definition='rays'"):
        GaussianSequenceDataset(definition="rays")
    with pytest.raises(ConfigError, match="1 to 9"):
        GaussianSequenceDataset(stride=10)
    with pytest.raises(ConfigError, match="length=0"):
        GaussianSequenceDataset(length=0)
    with pytest.raises(ConfigError, match="size="):
        GaussianSequenceDataset(size=(8, 64))


def test_masks_and_flow_are_augmented_alike():
    steps = [
        dict(type="ffplug.RAFTDenseAugment", crop_size=(40, 40), min_scale=0, max_scale=0.2, mode="clean", v_flip=0.0),
        dict(type="ffplug.PackFlowInputs"),
    ]
    dataset = GaussianSequenceDataset(length=1, pipeline=[dict(type="ffplug.LoadFlowPair"), *steps], **SMALL)
    for seed in range(4):
        np.random.seed(seed)
        torch.manual_seed(seed)
        sample = dataset[0]["data_samples"]
        moving = sample.gt_flow.abs().sum(0) > 1e-3
        assert sample.gt_foreground.shape == (40, 40) and sample.gt_foreground.any()
        # The resize of the flow is linear, that of the mask to the nearest pixel: they differ at the edge alone.
        assert (moving != sample.gt_foreground).float().mean() < 0.12


def test_no_flow_crosses_the_mask_when_it_is_resized():
    face = np.zeros((20, 24), bool)
    face[:, :11] = True
    flow = np.where(face[..., None], np.full(2, 3, np.float32), np.full(2, -5, np.float32))
    flow[4, 4] = np.nan

    def resized(kind: type, **kwargs: object) -> dict:
        step = kind((30, 36), min_scale=1.0, max_scale=1.2, do_flip=False, mode="clean", jitter=None, **kwargs)
        np.random.seed(0)
        pair = dict(img1=np.zeros((20, 24, 3), np.uint8), img2=np.zeros((20, 24, 3), np.uint8), flow=flow.copy())
        return step(dict(pair, valid=(~np.isnan(flow[..., 0])).astype(np.float32), foreground=face.copy()))

    masked, plain = resized(MaskedDenseAugment), resized(RAFTDenseAugment)
    known = masked["valid"] > 0
    assert (masked["foreground"] == plain["foreground"]).all() and (masked["valid"] == plain["valid"]).all()
    assert 0 < (~known).sum() < 0.1 * known.size and masked["foreground"].any() and not masked["foreground"].all()
    # Two values per component and no other; the plain resize has some in between.
    for component in (0, 1):
        values = masked["flow"][..., component]
        for side, sign in ((masked["foreground"] & known, 3), (~masked["foreground"] & known, -5)):
            assert np.ptp(values[side]) < 1e-3 and 2 < values[side][0] / sign < 2 ** (1.2 + 0.21)
    assert np.ptp(plain["flow"][..., 0][plain["foreground"] & known]) > 0.5
    with pytest.raises(DataError, match="the sample has no mask 'skin'"):
        resized(MaskedDenseAugment, mask="skin")

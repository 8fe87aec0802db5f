"""Every dataset reader on its real layout, complaints about wrong folders, and randomness that knows its place."""

from __future__ import annotations

import logging
import pickle
import shutil
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import warm
from mmengine.dataset import ConcatDataset, RepeatDataset, pseudo_collate
from mmengine.logging import MMLogger
from torch.utils.data import DataLoader

from ffplug.datasets import (
    FlowDataset,
    FlowSampler,
    FlyingChairsDataset,
    FlyingThings3DDataset,
    FlyingThings3DSubsetDataset,
    FolderFlowDataset,
    HD1KDataset,
    KITTI2012Dataset,
    KITTI2015Dataset,
    MixDataset,
    SeededIndex,
    SintelDataset,
    SpringDataset,
    read_flow,
    write_flow,
    write_image,
    write_mask,
)
from ffplug.datasets.layouts import detect_layout, layout_names
from ffplug.datasets.procedural.writers import Recipe, write_procedural
from ffplug.errors import ConfigError, DataError
from ffplug.registry import DATASETS

READERS: dict[str, type[FlowDataset]] = {
    "sintel": SintelDataset,
    "chairs": FlyingChairsDataset,
    "things": FlyingThings3DDataset,
    "things-subset": FlyingThings3DSubsetDataset,
    "kitti2012": KITTI2012Dataset,
    "kitti2015": KITTI2015Dataset,
    "hd1k": HD1KDataset,
    "spring": SpringDataset,
}
SCENES, FRAMES, SIZE = 5, 3, (48, 64)


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small procedural set in each layout; never changed by a test."""
    root = tmp_path_factory.mktemp("trees")
    for layout in READERS:
        write_procedural(Recipe(layout, scenes=SCENES, frames=FRAMES, size=SIZE, difficulty="demo"), root / layout)
    return root


@pytest.fixture
def tree(trees: Path, tmp_path: Path):
    """A copy of a layout's tree to damage, without the procedural marker."""

    def copy(layout: str, name: str = "data") -> Path:
        shutil.copytree(trees / layout, tmp_path / name)
        (tmp_path / name / "PROCEDURAL.json").unlink()
        return tmp_path / name

    return copy


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture):
    """What went to the current MMEngine logger."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


EXPECTED = [
    ("sintel", {}, SCENES * 2),
    ("sintel", dict(render="final"), SCENES * 2),
    ("sintel", dict(render="both"), SCENES * 4),
    ("sintel", dict(split="test"), 2),
    ("sintel", dict(scenes=["alley_2"]), 2),
    ("chairs", dict(split="all"), SCENES),
    ("chairs", dict(split="train"), SCENES - 1),
    ("chairs", dict(split="val"), 1),
    ("things", {}, SCENES * 2 * 2),
    ("things", dict(render="both", directions="into_past", cameras=("left", "right")), SCENES * 2 * 2 * 2),
    ("things", dict(split="test"), 4),
    ("things-subset", {}, SCENES * 2 * 2),
    ("things-subset", dict(split="val", cameras="right"), 4),
    ("kitti2012", {}, SCENES),
    ("kitti2012", dict(split="test"), 1),
    ("kitti2015", dict(target="noc"), SCENES),
    ("kitti2015", dict(split="test"), 1),
    ("hd1k", {}, SCENES * 2),
    ("hd1k", dict(split="test"), 2),
    ("spring", {}, SCENES * 2),
    ("spring", dict(directions=("FW", "BW"), cameras=("left", "right")), SCENES * 2 * 4),
    ("spring", dict(split="test"), 2),
]


@pytest.mark.parametrize(("layout", "options", "pairs"), EXPECTED)
def test_readers(trees: Path, layout: str, options: dict[str, Any], pairs: int) -> None:
    data = DATASETS.build(dict(type=f"ffplug.{READERS[layout].__name__}", data_root=str(trees / layout), **options))
    assert len(data) == pairs
    items = [data[i] for i in range(pairs)]
    ids = [item["data_samples"].sample_id for item in items]
    assert len(set(ids)) == pairs
    for item in items:
        sample = item["data_samples"]
        height, width = sample.ori_shape
        assert item["inputs"].shape == (2, 3, height, width) and item["inputs"].dtype == torch.uint8
        assert item["inputs"].is_contiguous()
        assert sample.procedural and sample.source.startswith("procedural, not ")
        assert sample.draw is None and sample.sequence and isinstance(sample.frame, int)
        if options.get("split") == "test" and layout != "things":
            assert sample.flow_path is None and "gt_flow" not in sample
            continue
        assert sample.gt_flow.shape == (2, height, width) and sample.gt_flow.dtype == torch.float32
        assert sample.gt_valid.shape == (height, width) and 0 < sample.gt_valid.mean() <= 1
        assert Path(sample.flow_path).is_file()
    assert data[-1]["data_samples"].sample_id == ids[-1]
    with pytest.raises(IndexError):
        data[pairs]


@pytest.mark.parametrize(
    ("layout", "options"),
    [
        ("sintel", {}),
        ("chairs", dict(split="all")),
        ("things", {}),
        ("things", dict(directions="into_past", cameras="right")),
        ("things-subset", dict(directions="into_future")),
        ("things-subset", dict(directions="into_past")),
        ("spring", dict(directions="FW")),
        ("spring", dict(directions="BW", cameras="right")),
        ("kitti2015", {}),
        ("hd1k", {}),
    ],
)
def test_the_flow_belongs_to_its_frames(trees: Path, layout: str, options: dict[str, Any]) -> None:
    """Frame 2 warped by the flow is nearer to frame 1 than frame 2 is, so neither frames nor signs are swapped."""
    data = READERS[layout](str(trees / layout), **options)
    moved = warped = 0.0
    for index in range(len(data)):
        item = data[index]
        first, second = (frame.permute(1, 2, 0).numpy().astype(np.float32) for frame in item["inputs"])
        flow, valid = item["data_samples"].gt_flow.numpy(), item["data_samples"].gt_valid.numpy() > 0
        y, x = np.mgrid[: first.shape[0], : first.shape[1]].astype(np.float32)
        back = cv2.remap(second, x + flow[0], y + flow[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        warped += np.abs(back - first)[valid].mean()
        moved += np.abs(second - first)[valid].mean()
    assert warped < 0.5 * moved


def test_masks_of_each_set(trees: Path) -> None:
    def fields(layout: str, **options: Any) -> set[str]:
        return {key for key in READERS[layout](str(trees / layout), **options)[0]["data_samples"].keys()}  # noqa: SIM118

    dense = {"gt_flow", "gt_valid"}
    assert fields("sintel") == dense | {"gt_occlusion"}
    assert fields("chairs") == fields("things") == fields("hd1k") == dense
    assert fields("things-subset") == dense | {"gt_occlusion"}
    assert fields("kitti2012") == dense | {"gt_valid_noc"}
    assert fields("kitti2015") == dense | {"gt_valid_noc", "gt_foreground"}
    assert fields("spring") == dense | {"gt_occlusion", "gt_detail", "gt_nonrigid", "gt_sky"}
    plain = [dict(type="ffplug.LoadFlowPair", masks=False), dict(type="ffplug.PackFlowInputs")]
    assert fields("spring", pipeline=plain) == dense


def test_sintel_invalid_mask_is_used_on_request(tree) -> None:
    root = tree("sintel")
    mask = np.zeros(SIZE, bool)
    mask[:9] = True
    write_mask(root / "training/invalid/alley_1/frame_0001.png", mask)
    assert SintelDataset(str(root))[0]["data_samples"].gt_valid.all()
    pipeline = [dict(type="ffplug.LoadFlowPair", mask_invalid=True), dict(type="ffplug.PackFlowInputs")]
    np.testing.assert_array_equal(SintelDataset(str(root), pipeline)[0]["data_samples"].gt_valid == 0, mask)


def test_spring_takes_every_second_row_and_column_without_rescaling(trees: Path) -> None:
    pipeline = [dict(type="ffplug.LoadFlowPair", double=True), dict(type="ffplug.PackFlowInputs")]
    sample = SpringDataset(str(trees / "spring"), pipeline)[0]["data_samples"]
    flow, valid = read_flow(sample.flow_path)
    assert flow.shape == (2 * SIZE[0], 2 * SIZE[1], 2) and 0 < valid.mean() < 1
    np.testing.assert_array_equal(sample.gt_flow.permute(1, 2, 0), flow[::2, ::2])
    np.testing.assert_array_equal(sample.gt_valid, valid[::2, ::2])
    double = sample.gt_flow_double.permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(np.isnan(double).any(-1), valid == 0)
    np.testing.assert_array_equal(double[valid > 0], flow[valid > 0])


def test_kitti_targets(trees: Path) -> None:
    occ, noc = (
        KITTI2015Dataset(str(trees / "kitti2015"), target=target)[1]["data_samples"] for target in ("occ", "noc")
    )
    np.testing.assert_array_equal(occ.gt_valid_noc, noc.gt_valid)
    assert noc.gt_valid.sum() < occ.gt_valid.sum()
    assert noc.flow_path.endswith("flow_noc/000001_10.png")


def test_kitti_2012_falls_back_to_grey(tree) -> None:
    root = tree("kitti2012")
    for part in ("training", "testing"):
        (root / part / "colored_0").rename(root / part / "image_0")
    for path in (root / "training/image_0").iterdir():
        write_image(path, cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    inputs = KITTI2012Dataset(str(root))[0]["inputs"]
    assert (inputs[:, 0] == inputs[:, 2]).all()


def test_sintel_scene_choice(trees: Path) -> None:
    root = str(trees / "sintel")
    scenes = {
        split: {SintelDataset(root, split=split)[i]["data_samples"].sequence for i in (0, -1)}
        for split in ("train", "val")
    }
    assert scenes["val"] == {"ambush_2"} and "ambush_2" not in scenes["train"]
    with pytest.raises(DataError, match="did you mean 'alley_1'"):
        SintelDataset(root, scenes=["aley_1"])
    with pytest.raises(ConfigError, match=r"render='finale'.*did you mean 'final'"):
        SintelDataset(root, render="finale")


def test_published_numbers(trees: Path) -> None:
    lazy = dict(lazy_init=True)
    assert SintelDataset(".", **lazy).published_pairs == 1041
    train, val = (SintelDataset(".", split=split, render="both", **lazy).published_pairs for split in ("train", "val"))
    assert train + val == 2082 and val == 2 * (5 * 49 + 20)
    assert SintelDataset(".", split="test", **lazy).published_pairs == 552
    assert FlyingThings3DDataset(".", render="both", **lazy).published_pairs == 80604
    assert FlyingChairsDataset(".", **lazy).published_pairs == 22232


def test_another_number_of_pairs_gives_one_warning(tree, log) -> None:
    SintelDataset(str(tree("sintel")), render="both")
    warnings = [record.getMessage() for record in log.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1 and "found 20 frame pairs, the published set has 2082" in warnings[0]


def test_procedural_data_is_announced(trees: Path, log) -> None:
    data = SintelDataset(str(trees / "sintel"))
    assert data.metainfo["procedural"] and data.metainfo["dataset"] == "Sintel/clean"
    assert any("procedural, not Sintel/clean" in r.getMessage() for r in log.records if r.levelno == logging.WARNING)


def test_things_leaves_excluded_out(trees: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("TRAIN/A/0000\nTRAIN/B/0000/left/0007.png\n\n")
    root = str(trees / "things")
    everything, rest = FlyingThings3DDataset(root), FlyingThings3DDataset(root, exclude=str(tmp_path / "bad.txt"))
    # Sequence A/0000 loses its 4 pairs, B/0000 those 4 of 4 that hold the middle one of three frames.
    assert len(everything) - len(rest) == 8


def test_subset_gaps_start_new_sequences(trees: Path) -> None:
    data = FlyingThings3DSubsetDataset(str(trees / "things-subset"), directions="into_past")
    infos = [data.get_data_info(i) for i in range(len(data))]
    assert len({info["sequence"] for info in infos}) == SCENES
    for info in infos:
        first, second = (int(Path(info[key]).stem) for key in ("img1_path", "img2_path"))
        assert second == first - 1 and first // FRAMES == second // FRAMES


# Wrong folders


@pytest.mark.parametrize("layout", READERS)
def test_missing_and_empty_folders(layout: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder; expected"):
        READERS[layout](str(tmp_path / "none"))
    with pytest.raises(DataError, match="the folder is empty; expected"):
        READERS[layout](str(tmp_path))
    with pytest.raises(DataError, match="data_root is empty"):
        READERS[layout]("")


@pytest.mark.parametrize("layout", READERS)
@pytest.mark.parametrize("other", READERS)
def test_another_data_sets_folder_is_recognised(trees: Path, layout: str, other: str) -> None:
    root = trees / other
    assert detect_layout(str(root)) == other
    if layout == other:
        return
    with pytest.raises(DataError, match=rf"ffplug\.{READERS[other].__name__}"):
        READERS[layout](str(root))


@pytest.mark.parametrize("layout", READERS)
def test_layouts_are_recognised_without_the_marker(tree, layout: str) -> None:
    assert detect_layout(str(tree(layout))) == layout and layout in layout_names()


@pytest.mark.parametrize("layout", READERS)
def test_a_level_too_high_or_too_low_is_pointed_out(trees: Path, layout: str, tree) -> None:
    root = tree(layout, f"above/{layout}")
    with pytest.raises(DataError, match="set data_root to that") as caught:
        READERS[layout](str(root.parent))
    assert f"it lies in {root}" in str(caught.value)
    inner = next(path for path in sorted(root.iterdir()) if path.is_dir())
    with pytest.raises(DataError) as caught:
        READERS[layout](str(inner))
    assert f"it lies in {root}" in str(caught.value)


HALVES = [
    ("sintel", {}, "training/flow", "this flow is missing"),
    ("sintel", dict(render="final"), "training/final", "training/final/ is missing"),
    ("sintel", {}, "training/flow/alley_1/frame_0002.flo", r"alley_1/frame_0002\.flo: this flow is missing;"),
    ("sintel", {}, "training/clean/alley_2/frame_0002.png", r"frame_0002\.png: this frame is missing"),
    ("chairs", dict(split="all"), "data/00002_img2.ppm", r"data/00002_img2\.ppm: this file is missing"),
    ("chairs", {}, "FlyingChairs_train_val.txt", "no split file"),
    ("things", {}, "optical_flow", "optical_flow/TRAIN/ is missing"),
    ("things", {}, "optical_flow/TRAIN/A/0000/into_past/left/OpticalFlowIntoPast_0008_L.pfm", "this flow is missing"),
    ("things-subset", {}, "train/image_clean/left/0000001.png", "this frame is missing"),
    ("kitti2015", {}, "training/flow_occ", "flow_occ/ is missing"),
    ("kitti2015", {}, "training/image_2/000001_11.png", r"000001_11\.png: this file is missing"),
    ("kitti2012", {}, "training/flow_occ/000003_10.png", r"000003_10\.png: this file is missing"),
    ("hd1k", {}, "hd1k_flow_gt/flow_occ/000001_0001.png", "this flow is missing"),
    ("spring", {}, "train/0001/flow_FW_left", "this flow is missing and 1 more"),
]


@pytest.mark.parametrize(("layout", "options", "gone", "said"), HALVES)
def test_half_downloaded_sets(tree, layout: str, options: dict[str, Any], gone: str, said: str) -> None:
    root = tree(layout)
    path = root / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DataError, match=said) as caught:
        READERS[layout](str(root), **options)
    assert str(root) in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_files_are_named_when_they_are_read(tree) -> None:
    root = tree("sintel")
    image, flow = root / "training/clean/alley_1/frame_0001.png", root / "training/flow/alley_2/frame_0001.flo"
    image.write_bytes(image.read_bytes()[:-200])
    flow.write_bytes(flow.read_bytes()[:-200])
    data = SintelDataset(str(root))
    with pytest.raises(DataError, match=r"alley_1/frame_0001\.png.*truncated"):
        data[0]
    with pytest.raises(DataError, match=r"alley_2/frame_0001\.flo: truncated"):
        data[2]


def test_frames_and_flow_of_two_sizes(tree) -> None:
    root = tree("sintel")
    write_image(root / "training/clean/alley_1/frame_0002.png", np.zeros((40, 64, 3), np.uint8))
    write_flow(root / "training/flow/alley_2/frame_0001.flo", np.zeros((9, 7, 2)))
    data = SintelDataset(str(root))
    with pytest.raises(DataError, match=r"frame_0002\.png.*expected 64×48 as .*frame_0001\.png, found 64×40"):
        data[0]
    with pytest.raises(DataError, match=r"frame_0001\.flo: expected 64×48 as the frames, found 7×9"):
        data[2]


@pytest.mark.parametrize(
    ("text", "said"), [("1\n2\n", "found 2 lines"), ("1\n3\n1\n1\n1\n", "line 2"), ("", "found 0 lines")]
)
def test_chairs_split_file(tree, text: str, said: str) -> None:
    root = tree("chairs")
    (root / "FlyingChairs_train_val.txt").write_text(text)
    with pytest.raises(DataError, match=said):
        FlyingChairsDataset(str(root))


# Folders of frames


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    generator = np.random.RandomState(0)
    for name in ("a/f1.png", "a/f2.png", "a/f10.png", "b/x.jpg", "b/y.jpg", "b/notes.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("txt"):
            (tmp_path / "in" / name).write_text("no frame")
        else:
            write_image(tmp_path / "in" / name, generator.randint(0, 255, (9, 11, 3)).astype(np.uint8))
    return tmp_path


def test_folder_pairs_in_natural_order(frames: Path) -> None:
    data = FolderFlowDataset(str(frames / "in"), name="mine")
    ids = [data[i]["data_samples"].sample_id for i in range(len(data))]
    assert ids == ["a/f1", "a/f2", "b/x"]
    sample = data[1]["data_samples"]
    assert sample.img2_path.endswith("a/f10.png") and sample.dataset == "mine" and sample.sequence == "a"
    assert len(FolderFlowDataset(str(frames / "in"), step=2)) == 1


def test_folder_with_flow_and_masks(frames: Path) -> None:
    flow = np.random.RandomState(1).randn(9, 11, 2).astype(np.float32)
    write_flow(frames / "flow/a/f1.flo", flow)
    mask = np.arange(99).reshape(9, 11) % 2 == 0
    write_mask(frames / "mask/a/f1.png", mask)
    data = FolderFlowDataset(str(frames), frames="in", flow="flow", valid="mask")
    assert len(data) == 1
    sample = data[0]["data_samples"]
    np.testing.assert_array_equal(sample.gt_flow.permute(1, 2, 0), flow)
    np.testing.assert_array_equal(sample.gt_valid, mask)


def test_folder_list_of_pairs(frames: Path) -> None:
    (frames / "pairs.txt").write_text("in/a/f1.png in/b/x.jpg\n\nin/a/f2.png in/a/f1.png\n")
    assert len(FolderFlowDataset(str(frames), pairs="pairs.txt")) == 2
    (frames / "pairs.txt").write_text("in/a/f1.png\n")
    with pytest.raises(DataError, match="line 1"):
        FolderFlowDataset(str(frames), pairs="pairs.txt")
    (frames / "pairs.txt").write_text("in/a/f1.png in/a/none.png\n")
    with pytest.raises(DataError, match=r"in/a/none\.png: named by line 1"):
        FolderFlowDataset(str(frames), pairs="pairs.txt")


def test_folder_errors(frames: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        FolderFlowDataset(str(frames / "none"))
    (frames / "empty/x").mkdir(parents=True)
    with pytest.raises(DataError, match="the folder is empty"):
        FolderFlowDataset(str(frames / "empty/x"))
    with pytest.raises(DataError, match="no two frames"):
        FolderFlowDataset(str(frames / "empty"))


def test_one_by_one_frames(tmp_path: Path) -> None:
    for index in range(2):
        write_image(tmp_path / f"{index}.png", np.full((1, 1, 3), 9, np.uint8))
    assert FolderFlowDataset(str(tmp_path))[0]["inputs"].shape == (2, 3, 1, 1)


# Randomness, workers, mixtures


AUGMENTED = [
    dict(type="ffplug.LoadFlowPair"),
    dict(type="ffplug.RAFTDenseAugment", crop_size=(32, 40), eraser_sides=(5, 10)),
    dict(type="ffplug.PackFlowInputs"),
]


def stream(dataset: Any, workers: int, start: int = 0) -> list[tuple[int, str, int]]:
    sampler = FlowSampler(dataset, infinite=False, seed=3)
    sampler.set_start(start)
    loader = DataLoader(dataset, sampler=sampler, num_workers=workers, collate_fn=pseudo_collate, batch_size=2)
    return [
        (sample.draw, sample.sample_id, hash(image.numpy().tobytes() + sample.gt_flow.numpy().tobytes()))
        for batch in loader
        for image, sample in zip(batch["inputs"], batch["data_samples"], strict=True)
    ]


def test_samples_do_not_depend_on_workers_or_on_what_came_before(trees: Path) -> None:
    dataset = SintelDataset(str(trees / "sintel"), AUGMENTED)
    alone = stream(dataset, 0)
    np.random.rand(7)
    assert stream(dataset, 2) == alone == stream(dataset, 3)
    assert len({digest for _, _, digest in alone}) == len(dataset)
    draw, name, digest = alone[4]
    index = next(i for i in range(len(dataset)) if dataset.get_data_info(i)["sample_id"] == name)
    item = dataset[SeededIndex(index, draw, 3)]
    assert hash(item["inputs"].numpy().tobytes() + item["data_samples"].gt_flow.numpy().tobytes()) == digest
    assert {digest for _, _, digest in stream(dataset, 0, start=len(dataset))}.isdisjoint({d for _, _, d in alone})


def test_loading_leaves_the_global_generators_alone(trees: Path) -> None:
    dataset = SintelDataset(str(trees / "sintel"), AUGMENTED)
    states = np.random.get_state()[1].copy(), torch.get_rng_state()
    dataset[SeededIndex(0, 11)]
    np.testing.assert_array_equal(np.random.get_state()[1], states[0])
    assert torch.equal(torch.get_rng_state(), states[1])


def test_a_damaged_file_in_a_worker_is_a_data_error(tree) -> None:
    root = tree("sintel")
    for path in (root / "training/clean/alley_1").iterdir():
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"frame_0001\.png"):
        list(DataLoader(SintelDataset(str(root)), num_workers=1, collate_fn=pseudo_collate))


def test_the_command_line_shows_a_workers_error_in_one_line(tree) -> None:
    root = tree("sintel")
    path = root / "test/clean/ambush_1/frame_0001.png"
    path.write_bytes(path.read_bytes()[:50])
    arguments = [
        "-c",
        "raft_small",
        "--root",
        str(root),
        "--out",
        str(root / "out.zip"),
        "--device",
        "cpu",
        "--partial",
    ]
    command = [warm.python(), "-m", "ffplug.cli", "submit", "sintel", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: {path}: expected a picture, found a truncated")
    assert "Traceback" not in done.stderr


def test_datasets_pickle_small(trees: Path) -> None:
    dataset = FlyingThings3DDataset(str(trees / "things"), render="both")
    data = pickle.dumps(dataset)
    assert len(data) < 1000 * len(dataset)
    again = pickle.loads(data)
    assert torch.equal(again[3]["inputs"], dataset[3]["inputs"])
    assert len(dataset.get_subset(3)) == 3
    assert len(FlyingThings3DDataset(str(trees / "things"), indices=[0, 5])) == 2


def test_mix_repeats_and_keeps_the_draw(trees: Path) -> None:
    sintel = dict(type="ffplug.SintelDataset", data_root=str(trees / "sintel"), pipeline=AUGMENTED)
    kitti = KITTI2015Dataset(str(trees / "kitti2015"))
    mix = DATASETS.build(dict(type="ffplug.MixDataset", datasets=[sintel, kitti], times=[3, 2]))
    assert isinstance(mix, ConcatDataset) and len(mix) == 3 * 10 + 2 * SCENES
    assert mix.metainfo == {"dataset": "Sintel/clean + KITTI2015", "procedural": True}
    for index, dataset, position in ((27, "Sintel/clean", 7), (33, "KITTI2015", 3), (38, "KITTI2015", 3)):
        sample = mix[SeededIndex(index, 1000 + index)]["data_samples"]
        assert (sample.dataset, sample.draw) == (dataset, 1000 + index)
        part = SintelDataset(str(trees / "sintel")) if dataset != "KITTI2015" else kitti
        assert sample.sample_id == part.get_data_info(position)["sample_id"]
    assert not torch.equal(mix[SeededIndex(7, 1)]["inputs"], mix[SeededIndex(7, 2)]["inputs"])


def test_mmengines_own_wrappers_keep_the_draw(trees: Path) -> None:
    kitti = KITTI2015Dataset(str(trees / "kitti2015"))
    both = ConcatDataset([kitti, KITTI2015Dataset(str(trees / "kitti2015"))])
    assert both[SeededIndex(SCENES + 1, 42)]["data_samples"].draw == 42
    assert RepeatDataset(kitti, 4)[SeededIndex(SCENES * 2 + 1, 43)]["data_samples"].draw == 43


@pytest.mark.parametrize("times", [[1], [1, 0], [1, 2.5]])
def test_mix_arguments(trees: Path, times: list) -> None:
    kitti = KITTI2015Dataset(str(trees / "kitti2015"))
    with pytest.raises(ConfigError, match="times"):
        MixDataset([kitti, kitti], times)

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from ffplug_decflow.datasets import FacialFlowNetDataset, FacialFlowNetLayout
from ffplug_decflow.structures import FaceFlowSample

from ffplug.datasets import write_flow, write_image
from ffplug.datasets.checker import check_dataset
from ffplug.datasets.layouts import detect_layout
from ffplug.datasets.procedural import Recipe, write_procedural
from ffplug.datasets.procedural.writers import SynthWork
from ffplug.errors import ConfigError, DataError

SEQUENCE = "train/happy/0001"
SIZE = (16, 24)


def write_set(root: Path, suffix: str = ".jpg", flow_names: str = "{}") -> Path:
    """One sequence of three frames and two pairs, each with numbers of its own."""
    for index in range(3):
        for kind in ("facial", "head"):
            write_image(root / f"image/{kind}/{SEQUENCE}/{index}{suffix}", np.full((*SIZE, 3), 50 * index, np.uint8))
        path = root / f"mask/{SEQUENCE}/{index}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, (np.arange(24) < 4 + index).astype(np.uint8) * np.ones((16, 1), np.uint8))
    for index in range(2):
        for kind, x in (("facial", 3.0 + index), ("head", 1.0)):
            flow = np.full((*SIZE, 2), (x, -0.5), np.float32)
            write_flow(root / f"flow/{kind}/{SEQUENCE}/{flow_names.format(index)}.flo", flow)
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set")


@pytest.mark.parametrize(("suffix", "names"), [(".jpg", "{}"), (".png", "flow_{}")])
def test_pairs_are_read_as_they_were_written(tmp_path: Path, suffix: str, names: str):
    dataset = FacialFlowNetDataset(str(write_set(tmp_path / "set", suffix, names)))
    assert len(dataset) == 2
    item = dataset[1]
    assert (item["inputs"][0] == 50).all() and (item["inputs"][1] == 100).all()
    sample = item["data_samples"]
    assert isinstance(sample, FaceFlowSample) and not sample.procedural
    assert (sample.gt_flow[0] == 4).all() and (sample.gt_head_flow[0] == 1).all()
    assert (sample.gt_expression_flow[0] == 3).all() and (sample.gt_expression_flow[1] == 0).all()
    assert (
        (sample.gt_valid == 1).all() and (sample.gt_head_valid == 1).all() and (sample.gt_expression_valid == 1).all()
    )
    assert sample.gt_mask.sum() == 16 * 5 and sample.gt_mask[:, :5].all()
    assert sample.sample_id == f"{SEQUENCE}/1" and sample.sequence == "happy/0001" and sample.frame == 1


def test_frames_are_in_natural_order(root: Path):
    for number in range(3, 11):
        write_image(root / f"image/facial/{SEQUENCE}/{number}.jpg", np.full((*SIZE, 3), 20 * number, np.uint8))
        for kind in ("facial", "head"):
            write_flow(root / f"flow/{kind}/{SEQUENCE}/{number - 1}.flo", np.full((*SIZE, 2), number, np.float32))
    for mask in (root / f"mask/{SEQUENCE}").iterdir():
        mask.unlink()
    dataset = FacialFlowNetDataset(str(root))
    assert [dataset[i]["data_samples"].sample_id.split("/")[-1] for i in range(10)] == [str(i) for i in range(10)]
    assert (dataset[9]["data_samples"].gt_flow == 10).all()
    assert "gt_mask" not in dataset[9]["data_samples"]


def test_one_flow_alone(root: Path):
    for flows, x in (("facial", 3), ("head", 1)):
        sample = FacialFlowNetDataset(str(root), flows=flows)[0]["data_samples"]
        assert (sample.gt_flow[0] == x).all() and sample.gt_mask.any()
        assert "gt_head_flow" not in sample and "gt_expression_flow" not in sample
    with pytest.raises(ConfigError, match="did you mean 'head'"):
        FacialFlowNetDataset(str(root), flows="heads")


def test_a_missing_file_never_shifts_the_others(root: Path):
    (root / f"flow/head/{SEQUENCE}/0.flo").unlink()
    with pytest.raises(DataError, match=r"flow/head/train/happy/0001/0\.flo: this file is missing"):
        FacialFlowNetDataset(str(root))
    assert [Path(problem.path).name for problem in check_dataset(str(root)).problems] == ["0.flo"]


def test_counts_are_checked_where_names_differ(tmp_path: Path):
    root = write_set(tmp_path / "set", flow_names="flow_{}")
    (root / f"flow/facial/{SEQUENCE}/flow_0.flo").unlink()
    with pytest.raises(DataError, match=r"flow/facial/.*: expected 2 files \(.*\) for 3 frames, found 1"):
        FacialFlowNetDataset(str(root))
    write_flow(root / f"flow/facial/{SEQUENCE}/flow_0.flo", np.zeros((*SIZE, 2), np.float32))
    for number in range(2):
        (root / f"mask/{SEQUENCE}/{number}.npy").unlink()
    with pytest.raises(DataError, match=r"mask/train/happy/0001/0\.npy: this file is missing and 1 more problem"):
        FacialFlowNetDataset(str(root))


def test_a_lone_frame_and_a_missing_split(root: Path):
    write_image(root / "image/facial/train/sad/0002/0.jpg", np.zeros((*SIZE, 3), np.uint8))
    with pytest.raises(DataError, match="train/sad/0002: expected two or more frames, found 1"):
        FacialFlowNetDataset(str(root))
    with pytest.raises(DataError, match="image/facial/val/ is missing"):
        FacialFlowNetDataset(str(root), split="val")
    with pytest.raises(ConfigError, match="did you mean 'train'"):
        FacialFlowNetDataset(str(root), split="trian")


def test_bad_values_are_invalid(root: Path):
    flow = np.ones((*SIZE, 2), np.float32)
    flow[0, 0, 0] = np.nan
    flow[0, 1] = 1000
    flow[0, 2, 1] = -np.inf
    flow[0, 3, 1] = 999
    write_flow(root / f"flow/head/{SEQUENCE}/0.flo", flow)
    sample = FacialFlowNetDataset(str(root))[0]["data_samples"]
    assert sample.gt_head_valid[0, :5].tolist() == [0, 0, 0, 1, 1] and sample.gt_head_valid[1:].all()
    assert (sample.gt_head_flow[:, 0, :3] == 0).all() and (sample.gt_expression_flow[:, 0, :3] == 0).all()
    assert torch.equal(sample.gt_expression_valid, sample.gt_head_valid) and sample.gt_valid.all()


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((16, 23)), r"0\.npy: expected 24×16 as the frames, found 23×16"),
        (np.zeros((16, 24, 3)), r"0\.npy: expected a mask H×W of 0 and 1, found \(16, 24, 3\) float64"),
        (np.array([[object()]]), r"0\.npy: expected a NumPy array H×W"),
    ],
)
def test_bad_masks_are_named(root: Path, array: np.ndarray, said: str):
    np.save(root / f"mask/{SEQUENCE}/0.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=said):
        FacialFlowNetDataset(str(root))[0]


def test_a_mask_with_code_is_not_run(root: Path, tmp_path: Path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    (root / f"mask/{SEQUENCE}/0.npy").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match=r"0\.npy: expected a NumPy array"):
        FacialFlowNetDataset(str(root))[0]
    assert not (tmp_path / "ran").exists()


def test_head_flow_of_another_size(root: Path):
    write_flow(root / f"flow/head/{SEQUENCE}/0.flo", np.zeros((8, 12, 2), np.float32))
    with pytest.raises(DataError, match=r"0\.flo: expected 24×16 as the frames, found 12×8"):
        FacialFlowNetDataset(str(root))[0]


def test_augmentation_treats_all_alike(root: Path):
    pipeline = [
        dict(type="ffplug_decflow.LoadFaceFlow"),
        dict(type="ffplug.RAFTDenseAugment", crop_size=(12, 20), min_scale=0.3, max_scale=0.5, mode="clean"),
        dict(type="ffplug_decflow.PackFaceInputs"),
    ]
    dataset = FacialFlowNetDataset(str(root), pipeline)
    scales = set()
    for seed in range(8):
        np.random.seed(seed)
        torch.manual_seed(seed)
        sample = dataset[0]["data_samples"]
        assert sample.gt_mask.shape == sample.gt_head_flow.shape[1:] == (12, 20)
        torch.testing.assert_close(sample.gt_flow[0], 3 * sample.gt_head_flow[0])
        torch.testing.assert_close(sample.gt_flow[1], sample.gt_head_flow[1])
        torch.testing.assert_close(sample.gt_expression_flow, sample.gt_flow - sample.gt_head_flow)
        scales.add(round(sample.gt_head_flow[0, 0, 0].item(), 3))
    assert len(scales) > 3 and min(scales) < 0 < max(scales)


RECIPE = Recipe("ffn", scenes=2, frames=3, size=(64, 72), textures="analytic")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "set"
    write_procedural(RECIPE, folder)
    return folder


def test_the_generator_writes_this_layout(drawn: Path):
    assert detect_layout(str(drawn)) == "ffn" and check_dataset(str(drawn)).ok
    dataset = FacialFlowNetDataset(str(drawn))
    assert len(dataset) == 4 and len(FacialFlowNetDataset(str(drawn), split="val")) == 2
    sample = dataset[2]["data_samples"]
    assert sample.procedural
    flow = FacialFlowNetLayout().scene(RECIPE, 0, int(sample.sequence.split("/")[1])).flow(0)
    assert torch.equal(sample.gt_flow, flow.facial) and torch.equal(sample.gt_head_flow, flow.head)
    assert torch.equal(sample.gt_mask, flow.mask) and torch.equal(sample.gt_occlusion, ~flow.visible)
    assert flow.mask.float().mean() > 0.05 and flow.head[:, flow.mask].abs().max() > 0.2


def test_facial_flow_is_head_plus_expression_flow(drawn: Path):
    for split in ("train", "val"):
        for item in FacialFlowNetDataset(str(drawn), split=split):
            sample = item["data_samples"]
            difference = sample.gt_flow - sample.gt_head_flow - sample.gt_expression_flow
            assert difference.abs().max() < 1e-4
            assert sample.gt_expression_flow.abs().max() > 0.01
            assert (sample.gt_expression_flow[:, ~sample.gt_mask] == 0).all()


def test_a_scene_follows_from_the_recipe_alone(drawn: Path, tmp_path: Path):
    work = SynthWork(RECIPE, tmp_path / "other")
    write = work.prepare(0)
    last = len(work) - 2  # the scene of the second part, first and by itself
    write(last, [tmp_path / "alone"])
    files = [path for path in (tmp_path / "alone").rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        assert path.read_bytes() == (drawn / path.relative_to(tmp_path / "alone")).read_bytes(), path.name


def test_what_is_drawn_can_be_chosen():
    still = dict(yaw_pitch_roll=[0, 0, 0], translation=0, emotions=["happiness"], eases=["smooth"])
    scene = FacialFlowNetLayout().scene(
        Recipe("ffn", frames=2, size=(48, 48), textures="analytic", options=still), 0, 0
    )
    flow = scene.flow(0)
    assert scene.sequence.emotion == "happiness"
    assert flow.head[:, flow.mask].abs().max() < 1e-3 < flow.expression[:, flow.mask].abs().max()
    for name, said in (("yaw", "'yaw' is unknown"), ("size", "'size' is unknown"), ("emotion", "mean 'emotions'")):
        with pytest.raises(ConfigError, match=said):
            Recipe("ffn", options={name: 1})


def warped(image: np.ndarray, flow: torch.Tensor) -> np.ndarray:
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    return cv2.remap(image, x + flow[0].numpy(), y + flow[1].numpy(), cv2.INTER_LINEAR)


def test_the_flows_lead_from_frame_to_frame():
    scene = FacialFlowNetLayout().scene(Recipe("ffn", scenes=1, frames=4, size=(192, 192), textures="analytic"), 0, 0)
    flow = scene.flow(0)
    first = scene.image(0).permute(1, 2, 0).numpy().astype(np.float32)
    inside = cv2.erode((flow.mask & flow.visible).numpy().astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    for name, image in (("facial", scene.image(1)), ("head", scene.image(1, 0))):
        second = image.permute(1, 2, 0).numpy().astype(np.float32)
        before = np.abs(second - first)[inside].mean()
        after = np.abs(warped(second, getattr(flow, name)) - first)[inside].mean()
        assert after < 0.4 * before, name

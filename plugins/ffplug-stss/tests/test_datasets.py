"""The renderer's truth, the released layout and its reader, and the steps to a sample."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ffplug_stss.channels import OUTSIDES, unpack
from ffplug_stss.datasets import (
    LoadRecord,
    PackSupersample,
    RandomCropPair,
    RandomMirror,
    RandomReshadingMask,
    RenderedDataset,
    STSSDataset,
)
from ffplug_stss.datasets.records import decode
from ffplug_stss.rendering import Renderer, encode_srgb
from ffplug_stss.scenes import STYLES, SceneOptions, draw_scene
from ffplug_stss.sequences import Sequence
from ffplug_stss.warping import inside, same_surface, warp

from ffplug.datasets import SeededIndex
from ffplug.datasets.procedural.writers import Recipe, write_procedural
from ffplug.errors import ConfigError, DataError
from ffplug.testing.golden import image

GOLDEN = Path(__file__).parent / "golden" / "stss" / "loader.npz"
SIZE = (24, 40)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A procedural set in the released layout: two training sequences and one for testing."""
    root = tmp_path_factory.mktemp("stss") / "set"
    write_procedural(Recipe("stss", scenes=2, frames=3, size=SIZE, seed=3, textures="analytic"), root)
    return root


def published_record():
    record = image(400, (24, 32, 33), 0, 1)
    record[..., 26] *= 3
    record[..., 27:30] = 2 * record[..., 27:30] - 1
    record[..., 30:33] = 20 * record[..., 30:33] - 10
    for place in range(3):
        hole = image(401 + place, (24, 32), 0, 1) < 0.2
        zero = image(411 + place, (24, 32), 0, 1) < 0.1
        channels = record[..., 3 * place : 3 * place + 3]
        channels[zero & ~hole] = 0
        channels[hole] = -1
    record[..., 9:12][image(421, (24, 32), 0, 1) < 0.05] = -1
    record[..., 12:15][image(422, (24, 32), 0, 1) < 0.05] = -1
    return record.astype(np.float16)


def test_records_are_read_as_the_published_loader_does():
    golden, record = np.load(GOLDEN), published_record()
    inputs, motion = decode(record)
    found = dict(x=inputs.x, feature=inputs.feature, mask=inputs.mask, his=inputs.history, motion=motion)
    for name, value in found.items():
        np.testing.assert_array_equal(value.numpy().squeeze(), golden[f"{name}_clip"].squeeze(), err_msg=name)
    depth = record[..., 26].astype(np.float32)
    scaled, _ = decode(record, (float(depth.min()), float(depth.max())))
    np.testing.assert_allclose(scaled.feature, golden["feature_scale"].squeeze(), rtol=0, atol=2e-3)
    target = image(431, (48, 64, 3), 0, 1).astype(np.float16)
    sample = PackSupersample()(dict(record=record, target=target))["data_samples"]
    np.testing.assert_array_equal(sample.gt_frame, golden["gt_clip"].squeeze())


def test_records_of_35_channels_have_their_vector_further_on():
    record = published_record()
    longer = np.insert(np.concatenate([record, record[..., :1]], axis=2), 30, 0, axis=2)
    torch.testing.assert_close(decode(longer)[1], decode(record)[1])


@pytest.mark.parametrize("style", STYLES)
def test_motion_is_exact(style):
    """A point of an object that is carried to the earlier time is met again there, by the ray at p + motion."""
    scene = draw_scene(5, 1, SceneOptions(style=style, objects=(4, 4), poles=(1, 1), speed=3))
    renderer = Renderer(scene, (32, 48))
    now, then = renderer.buffers(9), renderer.buffers(8)
    motion = renderer.motion(now, 9, 8)
    assert float(motion.abs().amax()) > 1
    seen = inside(motion) & same_surface(now.label, then.label, motion) & renderer.visible(now, 9, 8)
    assert seen.float().mean() > 0.4
    # The object's own coordinates are smooth on a face, so the earlier ones, interpolated, are the carried ones.
    carried = renderer._carry(now.label.flatten(), now.position.flatten(2)[0].T, 9, 8).T.view(1, 3, 32, 48)
    flat = seen & (now.label == 1) & (now.depth < 0.2)
    error = (warp(then.position + 100, motion) - 100 - carried).norm(dim=1, keepdim=True)
    assert flat.sum() > 20 and float(error[flat].quantile(0.9)) < 0.05
    assert float(renderer.motion(now, 9, 9).abs().amax()) < 1e-3


def test_frames_warp_onto_each_other_outside_of_holes():
    """Shadows and highlights do not follow the vectors, so it is close, not exact."""
    sequence = Sequence(Renderer(draw_scene(0, 2, SceneOptions(style="field", speed=2)), (48, 80)))
    motion, hole = sequence.hole(7, 6)
    error = (warp(sequence.shaded(6), motion) - sequence.shaded(7)).abs().mean(dim=1, keepdim=True)
    still = (sequence.shaded(6) - sequence.shaded(7)).abs().mean(dim=1, keepdim=True)
    assert 0.01 < float(hole.float().mean()) < 0.5
    assert float(error[~hole].mean()) < 0.5 * float(still[~hole].mean())
    assert float(error[hole].mean()) > 3 * float(error[~hole].mean())


def test_the_reference_is_the_average_of_finer_rays():
    scene = draw_scene(1, 0, SceneOptions(samples=2))
    fine = Renderer(draw_scene(1, 0, SceneOptions(samples=1)), (32, 48))
    reference = Renderer(scene, (16, 24)).reference(4)
    linear = torch.nn.functional.avg_pool2d(fine._shade(4, (64, 96), 2), 2)
    torch.testing.assert_close(reference, encode_srgb(linear), rtol=0, atol=1e-5)


def test_a_written_set_is_what_is_rendered(written):
    written_set = STSSDataset(written, split="train")
    online = RenderedDataset(scenes=1, frames=3, size=SIZE, seed=3)
    assert [written_set[i]["data_samples"].kind for i in range(3)] == ["SF", "EF", "SF"]
    for place in (0, 1):
        one, other = written_set[place], online[place]
        assert torch.equal(one["inputs"], other["inputs"])
        assert torch.equal(one["data_samples"].gt_frame, other["data_samples"].gt_frame)
    assert one["data_samples"].source == "procedural, not STSS/Procedural"
    assert len(written_set) == 6 and len(STSSDataset(written, split="test")) == 3
    assert len(STSSDataset(written, kinds="EF")) == 2


def test_the_border_is_repeated_as_a_running_renderer_would():
    """Beyond a small frame, in the same holes; nothing else changes."""
    black, repeated = (
        RenderedDataset(scenes=1, frames=2, size=SIZE, seed=3, options=dict(samples=1, speed=4, outside=outside))[1]
        for outside in OUTSIDES
    )
    one, other = (unpack(item["inputs"][None]) for item in (black, repeated))
    beyond, seen = one.x[0, 3:].sum(dim=0) == 0, one.mask[0, 0] == 1
    assert beyond.any() and not seen[beyond].any() and float(other.x[0, 3:, beyond].sum(dim=0).min()) > 0.05
    torch.testing.assert_close(one.x[..., seen], other.x[..., seen], rtol=0, atol=2e-3)
    assert torch.equal(one.mask, other.mask) and torch.equal(one.history[:, :, 3], other.history[:, :, 3])
    with pytest.raises(ConfigError, match="outside='white'"):
        SceneOptions(outside="white")


def test_shaded_frames_have_no_hole_and_themselves(written):
    inputs = STSSDataset(written)[0]["inputs"]
    assert inputs[15].min() == 1 and inputs[27].min() == 1
    assert torch.equal(inputs[:3], inputs[3:6]) and torch.equal(inputs[:3], inputs[24:27])
    extrapolated = STSSDataset(written)[1]["inputs"]
    assert 0 < float(extrapolated[15].mean()) < 1 and torch.equal(extrapolated[15], extrapolated[27])


def test_the_random_mask_keeps_its_bounds():
    masking, record = RandomReshadingMask(), np.zeros((64, 96, 33), np.float16)
    areas, rows, columns = [], [], []
    for draw in range(300):
        np.random.seed(draw)
        mask = masking(dict(record=record))["reshading"]
        assert mask.any(axis=1).sum() * mask.any(axis=0).sum() == mask.sum()
        areas.append(mask.sum())
        rows.append(mask.any(axis=1).sum())
        columns.append(mask.any(axis=0).sum())
    assert min(areas) >= 1 and max(areas) <= 64 * 96 // 16
    assert min(rows) == 1 and max(rows) == 16 and min(columns) == 1 and 20 <= max(columns) <= 24
    assert not RandomReshadingMask(probability=0)(dict(record=record))["reshading"].any()


def test_crops_lie_on_each_other_and_follow_the_draw(written):
    pipeline = [
        dict(type="ffplug_stss.LoadRecord"),
        dict(type="ffplug_stss.RandomReshadingMask"),
        dict(type="ffplug_stss.RandomCropPair", size=(16, 24)),
        dict(type="ffplug_stss.PackSupersample"),
    ]
    dataset = STSSDataset(written, pipeline=pipeline)
    first, again, other = (dataset[SeededIndex(0, draw)] for draw in (5, 5, 6))
    assert torch.equal(first["inputs"], again["inputs"]) and not torch.equal(first["inputs"], other["inputs"])
    assert first["inputs"].shape == (28, 16, 24)
    sample = first["data_samples"]
    assert sample.gt_frame.shape == (3, 32, 48)
    smaller = torch.nn.functional.avg_pool2d(sample.gt_frame, 2)
    assert float((smaller - first["inputs"][:3]).abs().mean()) < 0.05


def test_the_crop_with_most_to_learn_is_taken():
    record, target = np.zeros((32, 64, 33), np.float16), np.zeros((64, 128, 3), np.float16)
    target[20:24, 70:90] = 1
    shares = {}
    for tries in (1, 8):
        np.random.seed(0)
        crop = RandomCropPair((16, 16), tries)
        cut = [crop(dict(record=record, target=target)) for _ in range(40)]
        assert all(part["record"].shape == (16, 16, 33) and part["target"].shape == (32, 32, 3) for part in cut)
        shares[tries] = np.mean([part["target"].any() for part in cut])
    assert shares[1] < 0.7 < 0.9 < shares[8]


def test_a_mirror_image_is_as_true(written):
    """Mirrored, a frame is what a mirrored scene would give; colours in another order stay colours of the target."""
    item = STSSDataset(written, pipeline=[dict(type="ffplug_stss.LoadRecord")])[1]
    inputs, motion = decode(item["record"])
    mirrored = RandomMirror(mirror=1, colours=0)(item)
    other, turned = decode(mirrored["record"])
    assert np.array_equal(mirrored["target"], item["target"][:, ::-1])
    assert torch.equal(other.x.flip(2), inputs.x) and torch.equal(other.mask.flip(2), inputs.mask)
    assert torch.equal(turned.flip(2), motion * torch.tensor([-1.0, 1.0])[:, None, None])
    signs = torch.tensor([-1.0, *[1.0] * 8])[:, None, None]
    assert torch.equal(other.feature.flip(2), inputs.feature * signs)
    np.random.seed(1)
    shuffled = RandomMirror(mirror=0)(item)
    mixed, same = decode(shuffled["record"])
    order = [int(np.flatnonzero([(mixed.x[k] == inputs.x[c]).all() for c in range(3)])[0]) for k in range(3)]
    assert sorted(order) == [0, 1, 2] != order
    assert torch.equal(mixed.feature[6:], inputs.feature[6:][order]) and torch.equal(
        mixed.feature[:6], inputs.feature[:6]
    )
    assert torch.equal(mixed.history[:, :3], inputs.history[:, order]) and torch.equal(same, motion)
    truth = torch.from_numpy(np.ascontiguousarray(item["target"])).flip(2)
    assert np.array_equal(shuffled["target"][..., ::-1], truth[..., order].numpy())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "not a whole .npy file"),
        (lambda path: path.write_bytes(b""), "not a whole .npy file"),
        (lambda path: np.save(path, np.zeros((24, 40, 21), np.float16)), "expected an array H×W×33"),
        (lambda path: np.save(path, np.zeros((23, 40, 33), np.float16)), "expected 46×80×3 as twice"),
        (lambda path: np.save(path, np.zeros((24, 40, 33), np.int16)), "expected floating-point numbers"),
        (lambda path: np.save(path, np.full((24, 40, 33), np.nan, np.float16)), "31680 values are NaN or infinite"),
    ],
)
def test_damaged_records_are_named(written, tmp_path, damage, message):
    source = next(written.glob("*/train001/NPY/*.0006.*"))
    path = tmp_path / source.name
    path.write_bytes(source.read_bytes())
    damage(path)
    results = dict(record_path=str(path), target_path=str(next(written.glob("*/train001/HR/*.0006.npy"))))
    with pytest.raises(DataError, match=message) as error:
        PackSupersample()(LoadRecord()(results))
    assert path.name in str(error.value)


def test_a_damaged_true_frame_is_named(written):
    source = next(written.glob("*/train001/NPY/*.0006.*"))
    results = LoadRecord()(dict(record_path=str(source), target_path=None))
    results |= dict(target=np.full((48, 80, 3), np.inf, np.float16), target_path="HR/compressedHR.0006.npy")
    with pytest.raises(DataError, match=r"HR/compressedHR\.0006\.npy: the true frame holds NaN or infinity"):
        PackSupersample()(results)


def test_what_is_missing_is_named(written, tmp_path):
    with pytest.raises(DataError, match="no scene 'Procedurel'; did you mean 'Procedural'"):
        STSSDataset(written, scenes="Procedurel")
    with pytest.raises(DataError, match="no such folder"):
        STSSDataset(tmp_path / "nothing")
    folder = tmp_path / "set" / "Hall" / "train1"
    for part in ("NPY", "HR"):
        (folder / part).mkdir(parents=True)
    np.save(folder / "NPY" / "compressed.0007.Warp.npy", np.zeros((8, 8, 33), np.float16))
    with pytest.raises(DataError, match=r"compressedHR\.0007\.npy: this true frame is missing"):
        STSSDataset(tmp_path / "set")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SceneOptions(style="cave"), "style='cave'"),
        (lambda: SceneOptions.preset("easy"), "difficulty='easy'"),
        (lambda: SceneOptions.preset(sped=2), "did you mean 'speed'"),
        (lambda: RandomCropPair((4, 4)), "at least 8 pixels"),
        (lambda: RandomCropPair((16, 16), tries=0), "tries=0"),
        (lambda: RandomMirror(mirror=2), "mirror=2"),
        (lambda: RandomReshadingMask(2), "probability=2"),
        (lambda: RenderedDataset(scenes=0), "scenes=0"),
        (lambda: STSSDataset("x", kinds="XF"), "kinds='XF'"),
    ],
)
def test_wrong_arguments(build, message):
    with pytest.raises(ConfigError, match=message):
        build()

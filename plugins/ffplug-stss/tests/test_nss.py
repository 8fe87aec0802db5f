"""Captures in the layout of Neural Super Sampling: what is written is what is read, and files that are wrong."""

import json
import shutil

import numpy as np
import pytest
import torch
from ffplug_stss.capture import read_exr, write_exr
from ffplug_stss.channels import unpack
from ffplug_stss.datasets import NSSDataset
from ffplug_stss.datasets.nss import NSSSequence
from ffplug_stss.rendering import Renderer
from ffplug_stss.scenes import SceneOptions, draw_scene

from ffplug.datasets.checker import check_dataset
from ffplug.datasets.procedural.writers import Recipe, write_procedural
from ffplug.errors import ConfigError, DataError

pytest.importorskip("OpenEXR")

SIZE, FAR = (24, 32), 50.0
OPTIONS = dict(style="field", speed=16.0, objects=(3, 3), poles=(0, 0), samples=1)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("nss") / "set"
    write_procedural(Recipe("nss", 1, 2, SIZE, seed=3, textures="analytic", options=OPTIONS), root)
    return root


@pytest.fixture
def copy(written, tmp_path):
    shutil.copytree(written, tmp_path / "set")
    return tmp_path / "set"


@pytest.fixture(scope="module")
def renderer():
    return Renderer(draw_scene(3, 0, SceneOptions(**OPTIONS)), SIZE)


def change(root, function):
    document = json.loads((root / "0000.json").read_text())
    function(document)
    (root / "0000.json").write_text(json.dumps(document))


def test_buffers_are_those_of_the_scene(written, renderer):
    found, true = NSSSequence(written, "0000", FAR).buffers(5), renderer.buffers(5)
    # The files' samples lie up to half a pixel beside the centres.
    assert float((found["depth"] - true.depth).abs().median()) < 5e-3
    motion = renderer.motion(true, 5, 4)
    assert float(motion.abs().amax()) > 2
    assert float((found["motion"] - motion).abs().median()) < 0.05
    right, up, ahead = renderer.scene.camera(5).axes
    normal = torch.einsum("ij,jhw->ihw", torch.stack([right, up, -ahead]), true.normal[0])
    solid = true.depth[0, 0] < 1
    assert float((normal * found["normal"][0]).sum(dim=0)[solid].quantile(0.3)) > 0.99
    assert found["normal"][0][:, ~solid].abs().max() == 0


def test_jitter_is_taken_back(written, renderer):
    true = torch.nn.functional.avg_pool2d(renderer.reference(5), 2)
    errors = [
        float((NSSSequence(written, "0000", FAR, jitter=jitter).buffers(5)["image"] - true).square().mean())
        for jitter in ("resample", "keep")
    ]
    assert errors[0] < 0.8 * errors[1]


def test_samples(written):
    dataset = NSSDataset(written, far=FAR)
    assert [dataset.get_data_info(place)["kind"] for place in range(len(dataset))] == ["EF", "SF"]
    extrapolated, shaded = dataset
    inputs = unpack(extrapolated["inputs"][None])
    assert 0 < float(inputs.mask.mean()) < 1
    smaller = torch.nn.functional.avg_pool2d(extrapolated["data_samples"].gt_frame, 2)[None]
    error = (inputs.x[:, :3] - smaller).abs().mean(dim=1, keepdim=True)
    assert float(error[inputs.mask > 0].mean()) < 0.05
    assert unpack(shaded["inputs"][None]).mask.min() == 1
    assert len(NSSDataset(written, kinds="SF")) == 1


def test_no_history_reaches_over_a_cut(copy):
    change(copy, lambda d: d["Frames"][1].update(CameraCut=True))
    assert [NSSDataset(copy).get_data_info(place)["frame"] for place in range(len(NSSDataset(copy)))] == [6]
    change(copy, lambda d: d["Frames"][2].update(CameraCut=True))
    with pytest.raises(DataError, match="no frames in"):
        NSSDataset(copy)


def test_depth_and_colours_in_other_forms(copy):
    sequence = NSSSequence(copy, "0000", FAR)
    depth, target = sequence.buffers(5)["depth"], sequence.target(5)
    path = copy / "x2" / "depth" / "0000" / "0005.exr"
    write_exr(path, {"R": 1 - read_exr(path, "R")[..., 0]})
    path = copy / "ground_truth" / "0000" / "0005.exr"
    colour = read_exr(path, "RGB")
    colour /= 1 + colour.max(axis=2, keepdims=True)
    write_exr(path, {name: colour[..., place] for place, name in enumerate("RGB")})
    change(copy, lambda d: d.update(ReverseZ=True))
    other = NSSSequence(copy, "0000", FAR, truth="karis")
    torch.testing.assert_close(other.buffers(5)["depth"], depth, rtol=0, atol=1e-3)
    np.testing.assert_allclose(other.target(5), target, rtol=0, atol=2e-3)


def spoil(root, part, value):
    path = root / part / "0000" / "0005.exr"
    names = {"motion": "RG", "depth": "R"}.get(path.parts[-3], "RGB")
    values = value(read_exr(path, names))
    write_exr(path, {name: values[..., place] for place, name in enumerate(names[: values.shape[2]])})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "0000.json").write_text("{"), r"0000\.json: can't be read as JSON"),
        (lambda root: (root / "0000.json").write_text("[]"), "expected a list `Frames`"),
        (lambda root: change(root, lambda d: d["Frames"][3].pop("FovX")), "frame 3 lacks FovX"),
        (lambda root: (root / "x2/depth/0000/0004.exr").unlink(), r"0004\.exr: missing, as 1 of 7 frames"),
        (lambda root: shutil.rmtree(root / "x2"), "x2/color"),
        (lambda root: spoil(root, "x2/motion", lambda v: v * np.nan), "1536 values are NaN or infinite"),
        (lambda root: spoil(root, "x2/motion", lambda v: v + 24), "expected shares of the frame's width"),
        (lambda root: spoil(root, "x2/motion", lambda v: -v), "with both negated the vectors fit the frames better"),
        (lambda root: spoil(root, "x2/motion", lambda v: v[..., :1]), "no part has the channels R, G"),
        (lambda root: spoil(root, "x2/motion", lambda v: v[1:]), "23×32 pixels, expected 24×32"),
        (lambda root: spoil(root, "x2/depth", lambda v: v + 3), r"values lie in 3\..*, expected 0\.\.1"),
        (lambda root: spoil(root, "ground_truth", lambda v: v[::2, ::2]), "expected 48×64, twice those of x2"),
        (lambda root: (root / "x2/color/0000/0005.exr").write_bytes(b"\x76\x2f"), "not a whole EXR file"),
    ],
)
def test_wrong_files_are_named(copy, damage, message):
    damage(copy)
    with pytest.raises(DataError, match=message):
        NSSDataset(copy, far=FAR)[0]


def test_damaged_files_are_found_by_data_check(copy):
    assert check_dataset(str(copy)).ok and check_dataset(str(copy), full=True).files == 2 + 3 * 7
    spoil(copy, "x2/motion", lambda v: v * np.nan)
    (copy / "x2/color/0000/0002.exr").write_bytes((copy / "x2/color/0000/0002.exr").read_bytes()[:200])
    found = {problem.path[-22:]: problem.message for problem in check_dataset(str(copy), full=True).problems}
    assert "NaN or infinite" in found["x2/motion/0000/0005.exr"[-22:]]
    assert "not a whole EXR file" in found["x2/color/0000/0002.exr"[-22:]] and len(found) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(far=0), "far=0"),
        (dict(truth="srgb"), "truth='srgb'"),
        (dict(jitter="drop"), "jitter='drop'"),
        (dict(kinds="XF"), "kinds='XF'"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ConfigError, match=message):
        NSSDataset("x", **options)


def test_an_unknown_sequence(written):
    with pytest.raises(DataError, match=r"no sequence .0001.(; there are|; did you mean)"):
        NSSDataset(written, sequences="0001")

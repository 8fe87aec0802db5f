"""From clips to features: strain, head motion, resizing, scales, apex search, cache."""

import numpy as np
import pytest
import torch
from ffplug_face.crops import ALIGNED, Face, FaceDetector, NoFaceError
from ffplug_face.micro_expression.features import (
    EYES_AND_MOUTH,
    area_resize,
    find_apex,
    head_motion,
    optical_strain,
    search_apex,
    tile_patches,
)
from ffplug_face.micro_expression.manifest import Clip
from ffplug_face.micro_expression.procedural import write_example

from ffplug.apis.models import build_model
from ffplug.datasets.formats import read_flow, read_image, write_flow, write_image
from ffplug.errors import CheckpointError, ConfigError, DataError, PluginError
from ffplug.registry import DATASETS, MODELS, TRANSFORMS


def affine(a, b, c, d, tx=0.0, ty=0.0, size=(20, 24)):
    y, x = torch.meshgrid(torch.arange(size[0]).double(), torch.arange(size[1]).double(), indexing="ij")
    return torch.stack([a * x + b * y + tx, c * x + d * y + ty])


def test_strain_of_an_affine_flow():
    a, b, c, d = 0.03, -0.02, 0.05, 0.01
    expected = (a**2 + d**2 + 0.5 * (b + c) ** 2) ** 0.5
    torch.testing.assert_close(
        optical_strain(affine(a, b, c, d)), torch.full((20, 24), expected).double(), atol=1e-6, rtol=0
    )


def test_rotation_and_translation_do_not_strain():
    assert optical_strain(affine(0, -0.01, 0.01, 0, 3.0, -2.0)).abs().max() < 1e-6


def test_a_mirrored_clip():
    flow = torch.randn(2, 12, 16, dtype=torch.float64)
    mirrored = torch.stack([-flow[0].flip(-1), flow[1].flip(-1)])
    torch.testing.assert_close(optical_strain(mirrored), optical_strain(flow).flip(-1))


def test_resizing_by_area_keeps_the_mean():
    maps = torch.randn(1, 3, 112, 140)
    torch.testing.assert_close(area_resize(maps, 28).mean((2, 3)), maps.mean((2, 3)), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("how", ["median", "similarity"])
def test_head_motion_is_found_under_an_expression(how):
    """The lower third of the cheek bones moves by itself, which neither estimate may follow."""
    turn = (0.0, 0.0, 0.0, 0.0) if how == "median" else (0.004, -0.01, 0.01, 0.004)
    head = affine(*turn, 1.5, -0.7, size=(128, 128)).permute(1, 2, 0).numpy().astype(np.float32)
    flow = head.copy()
    flow[69:, :] += (0.0, 2.0)
    assert np.abs(head_motion(flow, how) - head).max() < 0.02
    assert not head_motion(flow, "none").any()


def test_unknown_head_motion():
    with pytest.raises(ConfigError, match="did you mean 'similarity'"):
        head_motion(np.zeros((8, 8, 2), np.float32), "similar")
    with pytest.raises(ConfigError, match="fewer than four"):
        head_motion(np.zeros((8, 8, 2), np.float32), "median", boxes=[(0, 0, 0.1, 0.1)])


def test_patches_around_eyes_and_mouth():
    maps = torch.arange(56 * 56.0).view(1, 56, 56)
    tiled = tile_patches(maps, EYES_AND_MOUTH)
    assert tiled.shape == maps.shape
    assert tiled[0, 0, 0] == maps[0, round(0.38 * 56) - 14, round(0.3 * 56) - 14]  # rows from y, columns from x
    assert tiled[0, 0, 28] == maps[0, round(0.38 * 56) - 14, round(0.7 * 56) - 14]
    assert tiled[0, 28, 0] == maps[0, 28, round(0.36 * 56) - 14]  # the mouth's would leave the picture at its bottom


def random_features(n=6):
    return torch.randn(n, 3, 28, 28, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.5, 0.4, 0.02]).view(
        1, 3, 1, 1
    )


def test_min_max():
    pictures = TRANSFORMS.build(dict(type="ffplug_face.MinMax"))(random_features(), [""] * 6)
    assert (pictures.amin((2, 3)) == 0).all() and (pictures.amax((2, 3)) == 255).all()
    assert torch.equal(pictures, pictures.round())
    assert TRANSFORMS.build(dict(type="ffplug_face.MinMax"))(torch.zeros(1, 3, 4, 4), [""]).isfinite().all()


def test_fixed_scale_keeps_zero_and_strength():
    features = random_features()
    features[:, 2] = features[:, 2].abs()
    pictures = TRANSFORMS.build(dict(type="ffplug_face.FixedScale", flow=3.0, strain=0.2))(features, [""] * 6)
    back = torch.cat([(pictures[:, :2].round() - 128) / 127 * 3.0, pictures[:, 2:].round() / 255 * 0.2], 1)
    step = torch.tensor([3.0 / 127, 3.0 / 127, 0.2 / 255]).view(1, 3, 1, 1)
    assert ((back - features).abs() <= 0.5001 * step).all()
    with pytest.raises(ConfigError, match="positive"):
        TRANSFORMS.build(dict(type="ffplug_face.FixedScale", flow=0))


def test_robust_scale_comes_from_training_clips_of_each_set():
    features = random_features()
    features[3:] *= 4
    sets = ["a"] * 3 + ["b"] * 3
    scale = TRANSFORMS.build(dict(type="ffplug_face.RobustScale")).fit(features, sets)
    assert scale.scales["b"][0] == pytest.approx(4 * scale.scales["a"][0], rel=0.1)
    torch.testing.assert_close(scale(features[3:4], ["b"]), scale(features[3:4], ["b", "a"][:1]))
    assert torch.equal(scale(features[:1], ["unseen"]), scale(features[:1], [""]))


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("micro") / "set"
    return folder, write_example(folder, subjects=3, clips=6, size=96, intensity=(0.15, 0.5), frames=3)


def exact(folder, clip, kind="flow"):
    return read_flow(str(folder / kind / f"{clip.key}.flo"))[0]


def test_the_exact_flow_leads_from_onset_to_apex(tmp_path):
    """The apex looked up by it is nearer to the onset, but for shading and sampling; the other way it is farther."""
    import cv2

    folder = tmp_path / "set"
    calm = dict(noise=0, flicker=0, intensity=(0.3, 0.6), head_motion=1.0)
    errors = []
    for clip in write_example(folder, subjects=2, clips=3, frames=3, **calm):
        flow = exact(folder, clip)
        onset, apex = (read_image(str(folder / path)).astype(np.float32) for path in (clip.onset_path, clip.apex_path))
        y, x = np.mgrid[:96, :96].astype(np.float32)
        face = cv2.erode(flow.any(-1).astype(np.uint8), np.ones((7, 7))) > 0
        assert face.mean() > 0.3
        looked = (
            cv2.remap(apex, x + way * flow[..., 0], y + way * flow[..., 1], cv2.INTER_CUBIC) for way in (-1, 0, 1)
        )
        errors.append([np.abs(onset - other)[face].mean() for other in looked])
    back, still, moved = np.mean(errors, axis=0)
    assert moved < 0.65 * still and back > 1.3 * still, (back, still, moved)


def test_a_drawn_set_follows_from_its_seed(tmp_path):
    """A clip does not depend on how many there are; expression is what head motion leaves; classes move apart."""
    small = dict(size=64, frames=3)
    clips = write_example(tmp_path / "a", 2, 3, **small)
    for kind, changes in (("b", {"subjects": 3}), ("c", {"seed": 1}), ("d", {"head_motion": 0.0})):
        write_example(tmp_path / kind, **{"subjects": 2, "clips": 3, **small, **changes})
    for clip in clips:
        a, b, c = ((tmp_path / kind / clip.apex_path).read_bytes() for kind in "abc")
        assert a == b and a != c
        assert np.array_equal(exact(tmp_path / "a", clip), exact(tmp_path / "b", clip))
        assert np.array_equal(exact(tmp_path / "d", clip), exact(tmp_path / "d", clip, "expression"))
        assert not np.allclose(exact(tmp_path / "a", clip), exact(tmp_path / "a", clip, "expression"), atol=0.01)
    negative, positive, surprise = (exact(tmp_path / "a", clip, "expression") for clip in clips[:3])
    mouth, brows = (slice(40, 60), slice(16, 48)), (slice(16, 27), slice(16, 48))
    assert (negative[brows][..., 1].max() > 0) and surprise[brows][..., 1].min() < 0  # lowered, raised
    assert positive[mouth][..., 1].min() < -2 * abs(positive[brows]).max()  # corners of the mouth go up
    with pytest.raises(DataError, match="not empty"):
        write_example(tmp_path / "a")
    for wrong in ({"subjects": 1}, {"frames": 2}, {"intensity": (0.5, 0.2)}, {"noise": -1}):
        with pytest.raises(ConfigError, match="expected"):
            write_example(tmp_path / "e", **wrong)


def feature(**changes):
    config = dict(type="ffplug_face.FlowFeature", flow=dict(type="ffplug_face.FarnebackFlow"), flow_size=96)
    return TRANSFORMS.build({**config, **changes})


def test_estimated_features_are_near_the_exact_ones(example):
    """On the face, the cosine is high to the features of the same clip, and on average none to those of others."""
    folder, clips = example
    found = []
    for source in (feature(flow=None, flow_root="flow"), feature()):
        features = torch.stack([source(clip, folder) for clip in clips])
        assert features.shape == (18, 3, 28, 28) and features.isfinite().all()
        found.append(torch.nn.functional.normalize(features[:, :2, 6:24, 7:21].flatten(1)))
    cosines = found[0] @ found[1].T
    own = cosines.diagonal()
    assert own.mean() > 0.7 and own.min() > 0.4
    assert abs((cosines.sum() - own.sum()) / (18 * 17)) < 0.2


def test_zero_motion_stays_zero(example):
    folder, clips = example
    still = Clip(**{**vars(clips[0]), "apex_path": clips[0].onset_path})
    assert feature(head="none")(still, folder)[:2, 2:-2, 2:-2].abs().max() < 0.05


def test_cache_of_flow(example, tmp_path):
    folder, clips = example
    cached = feature(cache=str(tmp_path / "cache"))
    first = cached(clips[0], folder)
    [stored] = (tmp_path / "cache").iterdir()
    np.save(stored, np.load(stored) * 0)
    assert not torch.equal(cached(clips[0], folder), first)  # it is read
    again = feature(cache=str(tmp_path / "cache"), flow=dict(type="ffplug_face.FarnebackFlow", window=9))
    again(clips[0], folder)
    cached(clips[1], folder)
    assert len([*(tmp_path / "cache").iterdir()]) == 3  # another model, another clip


@pytest.mark.parametrize("name", ["raft_small"])
def test_flow_of_any_model_by_name(example, name, tmp_path):
    folder, clips = example
    with pytest.raises(ConfigError, match="give the model's weights as checkpoint"):
        feature(flow=name, flow_size=128)(clips[0], folder)
    trial = feature(flow=name, flow_size=128, random_weights=True, cache=str(tmp_path / "cache"))
    assert trial(clips[0], folder).isfinite().all() and not (tmp_path / "cache").exists()
    with pytest.raises(ConfigError, match="flow_key='expression_flow': the flow model gives flow"):
        feature(flow=name, flow_size=128, flow_key="expression_flow", random_weights=True)(clips[0], folder)


def test_feature_configs_that_are_wrong():
    for changes, message in (
        ({"flow_root": "flow"}, "one of the two"),
        ({"head": "similar"}, "did you mean 'similarity'"),
        ({"channels": ("u", "w")}, "'w' is none of"),
        ({"patches": [(0, 0)]}, "four points"),
        ({"detector": "yunet.onnx", "flow_size": None}, "give flow_size"),
    ):
        with pytest.raises(ConfigError, match=message):
            feature(**changes)
    with pytest.raises(ConfigError, match="has no predict_flow"):
        feature(flow=dict(type="ffplug_face.STSTNet")).estimate(*np.zeros((2, 32, 32, 3), np.uint8))


def test_without_the_detector_s_file_it_is_told(example):
    folder, clips = example
    with pytest.raises(CheckpointError, match=r"yunet\.onnx: no such file"):
        feature(detector="yunet.onnx")(clips[0], folder)


class BrightFace(FaceDetector):
    """Sees a face that fills the picture wherever it is not dark."""

    def __call__(self, image):
        if image.mean() < 40:
            return []
        side = np.array(image.shape[1::-1]) - 1
        return [Face((0, 0, *side.tolist()), ALIGNED * side, 1.0)]


def test_a_detector_of_one_s_own_and_a_frame_without_a_face(example, tmp_path):
    """Its crop of an aligned face is the face again; a dark onset is a clip without a face, whatever the apex is."""
    folder, clips = example
    found, plain = (feature(**more)(clips[0], folder) for more in ({"detector": dict(type=BrightFace)}, {}))
    torch.testing.assert_close(found, plain, atol=0.02, rtol=0)
    for name in ("dark0.png", "dark1.png"):
        write_image(tmp_path / name, np.zeros((96, 96, 3), np.uint8))
    dark = Clip(**{**vars(clips[0]), "onset_path": str(tmp_path / "dark0.png")})
    with pytest.raises(NoFaceError, match=r"dark0\.png: no face found"):
        feature(detector=dict(type=BrightFace))(dark, folder)
    with pytest.raises(NoFaceError):
        search_apex(dark, tmp_path, feature(detector=dict(type=BrightFace)))


def test_weights_by_name(example, tmp_path, monkeypatch):
    """The cache tells weights apart by their content, and released ones are found by their name."""
    folder, clips = example
    cached = feature(flow="raft_small", checkpoint="raft_small_c_t_v2", cache=str(tmp_path / "cache"), flow_size=128)
    monkeypatch.setenv("FFPLUG_WEIGHTS", str(tmp_path))
    with pytest.raises(CheckpointError, match="ffplug weights pull raft_small_c_t_v2"):
        cached(clips[0], folder)
    model = build_model("raft_small")
    torch.save(model.state_dict(), tmp_path / "own.pth")
    own = feature(flow="raft_small", checkpoint=str(tmp_path / "own.pth"), cache=str(tmp_path / "cache"), flow_size=128)
    own(clips[0], folder)
    base = "with read_base():\n    from ffplug.configs.models.raft_small import *\n"
    (tmp_path / "raft.py").write_text(f"from mmengine.config import read_base\n\n{base}")
    config = dict(checkpoint=str(tmp_path / "own.pth"), cache=str(tmp_path / "cache"), flow_size=128)
    feature(flow=str(tmp_path / "raft.py"), **config)(clips[0], folder)
    assert len([*(tmp_path / "cache").iterdir()]) == 1  # the same model by another name
    with open(tmp_path / "raft.py", "a") as file:
        file.write("\nmodel.update(test_iterations=2)\n")
    feature(flow=str(tmp_path / "raft.py"), **config)(clips[0], folder)
    assert len([*(tmp_path / "cache").iterdir()]) == 2  # the file says something else now


def test_frames_that_do_not_do(example, tmp_path):
    clips = example[1]
    for name, shape in (("a.png", (40, 40, 3)), ("b.png", (40, 44, 3))):
        write_image(tmp_path / name, np.zeros(shape, np.uint8))
    odd = Clip(**{**vars(clips[0]), "onset_path": "a.png", "apex_path": "b.png"})
    with pytest.raises(DataError, match=r"b\.png: \(40, 44\) pixels, but a\.png has \(40, 40\)"):
        feature(flow_size=None)(odd, tmp_path)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"b\.png"):
        feature()(odd, tmp_path)
    flow = np.zeros((8, 8, 2), np.float32)
    flow[3, 3] = np.nan
    target = tmp_path / "flow" / f"{odd.key}.flo"
    target.parent.mkdir(parents=True)
    write_flow(str(target), np.zeros((8, 8, 2), np.float32))
    stored = feature(flow=None, flow_root="flow")
    assert stored(odd, tmp_path).shape == (3, 28, 28)
    with pytest.raises(DataError, match="no such file"):
        stored(clips[1], tmp_path)


def test_tvl1_or_the_line_that_installs_it(example):
    import cv2

    folder, clips = example
    if hasattr(cv2, "optflow"):
        assert feature(flow=dict(type="ffplug_face.TVL1Flow"))(clips[0], folder).isfinite().all()
    else:
        with pytest.raises(PluginError, match="opencv-contrib-python-headless"):
            MODELS.build(dict(type="ffplug_face.TVL1Flow")).predict_flow(*torch.zeros(2, 1, 3, 32, 32))


def test_apex_search(tmp_path):
    """Nearer to the apex than the middle frame."""
    folder = tmp_path / "set"
    clips = write_example(folder, subjects=2, clips=6, intensity=(0.5, 0.8), size=64)
    assert find_apex(np.array([0, 1, 2, 9, 2, 1, 0.0]), window=3) == 3
    distances = []
    for clip in clips:
        number, path = search_apex(clip, folder, feature())
        assert path.endswith(f"{number:02}.png") and (folder / path).is_file()
        distances.append(abs(number - clip.apex))
    assert np.mean(distances) < 0.9 * np.mean([abs(number - 4) for number in (3, 4, 5, 6)]), distances


def test_dataset(example):
    folder, clips = example
    config = dict(
        type="ffplug_face.MicroExpressionDataset",
        data_root=str(folder),
        feature=dict(type="ffplug_face.FlowFeature", flow_root="flow"),
    )
    dataset = DATASETS.build(config)
    assert len(dataset) == 18 and dataset.procedural
    item = dataset[4]
    assert item["inputs"].shape == (3, 28, 28) and item["data_samples"].gt_label.tolist() == [clips[4].label]
    assert item["data_samples"].subject == clips[4].subject
    with pytest.raises(DataError, match="holds procedural, and nothing of casme2"):
        DATASETS.build({**config, "datasets": ["casme2"]})

"""The inferencer and its command: pictures of every kind, folders, videos, batches, tiles, warm start."""

import itertools
import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import ffplug
from ffplug.apis.checkpoints import save_weights
from ffplug.apis.video import VideoWriter
from ffplug.cli import cli, run
from ffplug.datasets.formats import read_flow
from ffplug.errors import CheckpointError, ConfigError, DataError
from ffplug.models.tiling import TiledFlowInference
from ffplug.ops import forward_warp_flow
from ffplug.visualization import flow_to_image


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    model = ffplug.build_model("raft_small")
    return save_weights(tmp_path_factory.mktemp("weights") / "raft_small.safetensors", model.state_dict())


def inferencer(weights, **options):
    return ffplug.FlowInferencer("raft_small", weights, iterations=2, device="cpu", **options)


@pytest.fixture
def frames(tmp_path):
    rng = np.random.default_rng(0)
    base = cv2.resize(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8), (96, 72), interpolation=cv2.INTER_CUBIC)
    paths = []
    for index in range(4):
        paths.append(str(tmp_path / f"frame_{index}.png"))
        cv2.imwrite(paths[-1], np.roll(base, 2 * index, axis=1))
    return paths


def test_folder_equals_pairs_and_batches_equal_singles(weights, frames, tmp_path):
    alone = [inferencer(weights).predict(a, b).flow for a, b in itertools.pairwise(frames)]
    together = [result.flow for result in inferencer(weights, batch_size=2)(tmp_path)]
    assert len(together) == 3
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_arrays_and_tensors(weights, frames):
    arrays = [cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB) for path in frames[:2]]
    from_files = inferencer(weights).predict(*frames[:2]).flow
    np.testing.assert_array_equal(inferencer(weights).predict(*arrays).flow, from_files)
    tensors = [torch.from_numpy(array).permute(2, 0, 1) for array in arrays]
    np.testing.assert_array_equal(inferencer(weights).predict(*tensors).flow, from_files)


def test_warm_start_carries_the_flow_and_starts_anew_with_each_sequence(weights, frames):
    model = ffplug.build_model("raft_small", weights)
    images = [
        torch.from_numpy(cv2.cvtColor(cv2.imread(p), cv2.COLOR_BGR2RGB)).permute(2, 0, 1)[None].float() for p in frames
    ]
    first = model.predict_flow(images[0], images[1], iterations=2)
    second = model.predict_flow(images[1], images[2], iterations=2, flow_init=forward_warp_flow(first["flow_low"]))
    results = list(inferencer(weights, warm_start=True)([frames[:3], frames[1:3]]))
    np.testing.assert_allclose(results[1].flow, second["flow"][0].permute(1, 2, 0), atol=1e-4)
    cold = model.predict_flow(images[1], images[2], iterations=2)["flow"]
    np.testing.assert_allclose(results[2].flow, cold[0].permute(1, 2, 0), atol=1e-4)
    with pytest.raises(ConfigError, match="batch_size=1"):
        inferencer(weights, warm_start=True, batch_size=2)


def two_decoders():
    config = ffplug.load_config("raft_small").model
    head = {"update": config["update"], "upsampler": config.upsampler}
    config.update(decoders={"head": head}, differences={"expression": ("", "head")})
    torch.manual_seed(0)
    return ffplug.build_model(config)


def test_every_flow_of_a_model_is_written_and_shown(frames, tmp_path):
    model = two_decoders()
    result = ffplug.FlowInferencer(model, iterations=2, device="cpu").predict(*frames[:2])
    assert set(result.further) == {"head_flow", "expression_flow"}
    np.testing.assert_array_equal(result.further["expression_flow"], result.flow - result.further["head_flow"])
    result.write(tmp_path / "a.flo")
    result.show(tmp_path / "a.png")
    for name, flow in (("a", result.flow), *((f"a_{key}", flow) for key, flow in result.further.items())):
        np.testing.assert_array_equal(read_flow(str(tmp_path / f"{name}.flo"))[0], flow)
        assert cv2.imread(str(tmp_path / f"{name}.png")).shape == (72, 96, 3)
    longest = np.linalg.norm(result.flow, axis=2).max()
    picture = cv2.cvtColor(cv2.imread(str(tmp_path / "a_expression_flow.png")), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(picture, flow_to_image(result.further["expression_flow"], longest))
    assert result.side_by_side().shape == (72, 5 * 96, 3)


@pytest.mark.parametrize("tile", [None, (64, 72)])
def test_a_warm_start_gives_each_decoder_its_own_flow(frames, tile):
    model = two_decoders()
    options = dict(iterations=2, device="cpu", warm_start=True, tile=tile)
    first, second = (result for result in ffplug.FlowInferencer(model, **options)(frames[:3]))
    predict = model.predict_flow if tile is None else partial(TiledFlowInference(tile), model.predict_flow)
    images = [torch.from_numpy(cv2.imread(path)[..., ::-1].copy()).permute(2, 0, 1)[None].float() for path in frames]
    before = predict(images[0], images[1], iterations=2)
    np.testing.assert_allclose(first.further["head_flow"], before["head_flow"][0].permute(1, 2, 0), atol=1e-4)
    start = {"": forward_warp_flow(before["flow_low"]), "head": forward_warp_flow(before["head_flow_low"])}
    after = predict(images[1], images[2], iterations=2, flow_init=start)
    np.testing.assert_allclose(second.flow, after["flow"][0].permute(1, 2, 0), atol=1e-4)
    np.testing.assert_allclose(second.further["head_flow"], after["head_flow"][0].permute(1, 2, 0), atol=1e-4)
    alike = predict(images[1], images[2], iterations=2, flow_init=start[""])
    assert not np.allclose(second.further["head_flow"], alike["head_flow"][0].permute(1, 2, 0), atol=1e-3)


def test_a_compiled_network_gives_the_same_flow(weights, frames):
    plain = list(inferencer(weights, warm_start=True)(frames[:3]))
    compiled = list(inferencer(weights, warm_start=True, compile="aot_eager")(frames[:3]))
    for one, other in zip(plain, compiled, strict=True):
        np.testing.assert_allclose(one.flow, other.flow, atol=1e-4)


def test_tiles(weights, frames):
    whole = inferencer(weights).predict(*frames[:2]).flow
    one_tile = inferencer(weights, tile=(72, 96)).predict(*frames[:2]).flow
    np.testing.assert_allclose(one_tile, whole, atol=1e-4)
    assert inferencer(weights, tile=(64, 64)).predict(*frames[:2]).flow.shape == whole.shape
    warm = [result.flow for result in inferencer(weights, tile=(64, 64), warm_start=True)(frames)]
    cold = [result.flow for result in inferencer(weights, tile=(64, 64))(frames)]
    np.testing.assert_array_equal(warm[0], cold[0])
    assert np.abs(warm[1] - cold[1]).max() > 1e-3
    for tile in ((33, 64), (40, 64)):
        with pytest.raises(ConfigError, match="multiples of 8 and at least 64"):
            inferencer(weights, tile=tile, warm_start=True)


def test_no_weights_no_result(caplog):
    with pytest.raises(CheckpointError, match=r"random weights give noise.*`ffplug weights pull raft_large_c_t"):
        ffplug.FlowInferencer("raft_large")
    assert ffplug.FlowInferencer("raft_small", random_weights=True, device="cpu").model is not None
    assert "the flow means nothing" in caplog.text


def test_weights_and_folders_of_a_training_say_which_model_they_are(weights, frames, tmp_path):
    expected = inferencer(weights).predict(*frames[:2]).flow
    config = ffplug.load_config("raft_small")
    state = ffplug.build_model("raft_small", weights).state_dict()
    alone = save_weights(
        tmp_path / "alone" / "weights.safetensors", state, {"model": json.dumps(config.model.to_dict())}
    )
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    config.dump(run_folder / "raft_small.py")
    (run_folder / "setup.py").write_text("# a model is what this is about, but no config\n")
    torch.save({"state_dict": state}, run_folder / "iter_5.pth")
    (run_folder / "last_checkpoint").write_text("/moved/since/iter_5.pth")
    for model, checkpoint in ((None, alone), (None, run_folder / "iter_5.pth"), (None, run_folder), (run_folder, None)):
        found = ffplug.FlowInferencer(model, checkpoint, iterations=2, device="cpu")
        np.testing.assert_allclose(found.predict(*frames[:2]).flow, expected, atol=1e-5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no weights in this folder"):
        ffplug.FlowInferencer("raft_small", tmp_path / "empty", device="cpu")
    with pytest.raises(ConfigError, match="no config in this folder"):
        ffplug.FlowInferencer(tmp_path / "alone", device="cpu")


def infer(*arguments):
    return run(cli, ["infer", *map(str, arguments), "--iterations", "1", "--device", "cpu"], "ffplug")


def test_command_on_a_pair(weights, frames, tmp_path, capsys):
    out, show = tmp_path / "new" / "flow.flo", tmp_path / "new" / "flow.png"
    assert infer(*frames[:2], "--model", "raft_small", "--checkpoint", weights, "--out", out, "--show", show) == 0
    flow, valid = read_flow(out)
    assert flow.shape == (72, 96, 2) and valid.all()
    assert cv2.imread(str(show)).shape == (72, 96, 3)
    assert "1 pair(s) of 72×96" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image[..., 0],
        lambda image: np.dstack([image, np.full(image.shape[:2], 255, np.uint8)]),
        lambda image: image.astype(np.uint16) * 257,
        lambda image: image[:1, :1],
        lambda image: image[:33, :51],
    ],
    ids=["grey", "rgba", "16 bit", "1x1", "odd"],
)
def test_pictures_of_every_kind(weights, frames, tmp_path, change):
    paths = []
    for index, path in enumerate(frames[:2]):
        paths.append(tmp_path / f"changed_{index}.png")
        cv2.imwrite(str(paths[-1]), change(cv2.imread(path)))
    assert infer(*paths, "--model", "raft_small", "--checkpoint", weights, "--out", tmp_path / "flow.flo") == 0
    assert read_flow(tmp_path / "flow.flo")[0].shape[:2] == change(cv2.imread(frames[0])).shape[:2]


def test_video_in_and_out(weights, frames, tmp_path):
    clip = tmp_path / "clip.mp4"
    with VideoWriter(clip, 12) as writer:
        for path in frames:
            writer.write(cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB))
    out, film = tmp_path / "flows", tmp_path / "film.mp4"
    options = ("--model", "raft_small", "--checkpoint", weights, "--out", out, "--format", "npy", "--video", film)
    assert infer(clip, *options) == 0
    assert len(list(out.rglob("*.npy"))) == 3
    from ffplug.apis.video import VideoFrames

    assert len(list(VideoFrames(film))) == 3 and VideoFrames(film).rate == 12


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda paths, folder: [paths[0], folder / "none.png"], "none.png"),
        (lambda paths, folder: [paths[0], _picture(folder, (40, 50))], "must have one size"),
        (lambda paths, folder: [paths[0], _cut(paths[1], folder)], "cut.png"),
        (lambda paths, folder: [_text(folder / "clip.mp4")], "clip.mp4"),
        (lambda paths, folder: [paths[0]], "one picture makes no pair"),
    ],
    ids=["missing", "two sizes", "truncated", "not a video", "one frame"],
)
def test_bad_input_is_one_line(weights, frames, tmp_path, capsys, prepare, message):
    folder = tmp_path / "bad"
    folder.mkdir()
    inputs = prepare(frames, folder)
    assert infer(*inputs, "--model", "raft_small", "--checkpoint", weights, "--out", tmp_path / "x.flo") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "x.flo").exists()


def _picture(folder, size):
    path = folder / "small.png"
    cv2.imwrite(str(path), np.zeros((*size, 3), np.uint8))
    return path


def _cut(source, folder):
    path = folder / "cut.png"
    data = Path(source).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def _text(path):
    path.write_text("this is no video")
    return path


def test_results_before_a_damaged_frame_stay(weights, frames, tmp_path, capsys):
    (tmp_path / "frame_3.png").write_bytes(b"")
    out = tmp_path / "flows"
    assert infer(tmp_path, "--model", "raft_small", "--checkpoint", weights, "--out", out) == 2
    assert "frame_3.png" in capsys.readouterr().err
    assert len(list(out.rglob("*.flo"))) == 2


def test_wrong_options(weights, frames, tmp_path, capsys):
    cases = {
        ("--out", tmp_path / "flow.xyz"): "unknown suffix",
        ("--out", tmp_path / "f.flo", "--tile", "432"): "--tile 432: expected",
        ("--out", tmp_path / "f.flo", "--dtype", "flot16"): "did you mean 'float16'",
        (): "nothing to write",
    }
    for options, message in cases.items():
        assert infer(*frames[:2], "--model", "raft_small", "--checkpoint", weights, *options) == 2
        assert message in capsys.readouterr().err
    assert infer(*frames, "--model", "raft_small", "--checkpoint", weights, "--out", tmp_path / "f.flo") == 2
    assert "must be a folder" in capsys.readouterr().err


def test_flops_count_what_runs():
    from ffplug.apis.complexity import complexity

    model = ffplug.build_model("raft_large")
    two, three = (complexity(model, 128, 160, iterations).flops for iterations in (2, 3))
    five = complexity(model, 128, 160, 5)
    assert five.parameters == 5_257_536
    assert five.flops - two == 3 * (three - two)  # every further iteration costs the same
    # By hand for one iteration, in multiply-accumulates per cell: motion encoder, recurrent unit, flow head.
    motion = 324 * 256 + 9 * 256 * 192 + 49 * 2 * 128 + 9 * 128 * 64 + 9 * 256 * 126
    unit = 2 * 5 * 256 * (256 + 128)
    head = 9 * (128 * 256 + 256 * 2)
    assert three - two == 2 * 16 * 20 * (motion + unit + head)


def test_flops_and_benchmark_commands(capsys):
    assert run(cli, ["flops", "raft_small", "--size", "64x64", "--iterations", "2"], "ffplug") == 0
    assert "parameters 990,162" in capsys.readouterr().out
    options = ["--size", "64x64", "--iterations", "1", "--repeat", "2", "--device", "cpu"]
    assert run(cli, ["benchmark", "raft_small", *options], "ffplug") == 0
    assert "median" in capsys.readouterr().out
    assert run(cli, ["flops", "raft_small", "--size", "64"], "ffplug") == 2


def test_errors_are_of_the_right_kind(weights):
    with pytest.raises(ConfigError, match="cannot be used here"):
        inferencer(weights, dtype="bf16").__class__("raft_small", weights, device="cuda:99")
    with pytest.raises(DataError, match="no input"):
        list(inferencer(weights)([]))

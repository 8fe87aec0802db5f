"""MMFlow's networks run in FFPlug as they are: its version gate, its ops and two faults are got round.

The tests that need ``mmflow`` 1.x (``pip install 'ffplug-mmflow[baselines]'``) are skipped without it.
"""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import ffplug
from ffplug.datasets.formats import read_flow, write_image
from ffplug.datasets.procedural import Recipe, write_procedural
from ffplug.errors import CheckpointError, ConfigError
from ffplug.plugin import find

needs_mmflow = pytest.mark.skipif(importlib.util.find_spec("mmflow") is None, reason="mmflow 1.x is not installed")
MODELS = sorted(find("mmflow").models)
SMALL = [name for name in MODELS if name != "mmflow_flownet2"]


def frames(height=90, width=124):
    return torch.from_numpy(np.random.RandomState(0).randint(0, 256, (2, 1, 3, height, width)).astype(np.uint8))


@pytest.fixture(scope="module")
def pwcnet():
    torch.manual_seed(0)
    return ffplug.build_model("mmflow_pwcnet")


def python(program, *arguments, **environment):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


@needs_mmflow
def test_importing_leaves_mmcv_as_it_was():
    program = """
import sys, importlib.util
try:
    import mmflow
    sys.exit("MMFlow imports without help: the bridge is not needed any more")
except AssertionError:
    pass
import mmcv
version = mmcv.__version__
from ffplug_mmflow.bridge import import_mmflow
models = import_mmflow()
assert models is import_mmflow()
assert mmcv.__version__ == version, mmcv.__version__
assert "mmcv.ops" not in sys.modules
from mmflow.registry import MODELS
assert MODELS.get("Correlation").__module__ == "ffplug_mmflow.ops"
"""
    done = python(program)
    assert done.returncode == 0, done.stderr


@needs_mmflow
@pytest.mark.parametrize("name", SMALL)
def test_a_network_predicts_and_trains(name):
    torch.manual_seed(0)
    model = ffplug.build_model(name)
    flow = model.predict_flow(*frames())["flow"]
    assert flow.shape == (1, 2, 90, 124) and flow.isfinite().all()
    model.train()
    losses = model(**model.data_preprocessor(model.example_batch(1), True), mode="loss")
    total = model.parse_losses(losses)[0]
    total.backward()
    reached = [value for value in model.parameters() if value.grad is not None and value.grad.abs().sum() > 0]
    # IRR-PWC's occlusion has no ground truth here.
    assert total.isfinite() and len(reached) > (0.5 if name == "mmflow_irrpwc" else 0.9) * len([*model.parameters()])


@needs_mmflow
def test_the_large_network_builds():
    with torch.device("meta"):
        model = ffplug.build_model("mmflow_flownet2")
    assert 160e6 < sum(value.numel() for value in model.parameters()) < 165e6


@needs_mmflow
@pytest.mark.parametrize(
    "source, config", [("mmflow_raft", "raft.py"), ("mmflow_gma_position_only", "gma/gma_p-only.py")]
)
def test_the_flow_of_the_other_branch(source, config, golden_case, mmflow_state, flow_difference):
    """MMFlow 1.x behind our doors gives what MMFlow 0.5.2 gave through its own pipeline."""
    model = ffplug.build_model(
        dict(type="ffplug_mmflow.MMFlowEstimator", network=f"_base_/models/{config}", multiple=8, fit="pad")
    )
    model.network.test_cfg = {"iters": int(golden_case(source)["iterations"])}
    state = mmflow_state(source)
    wanted = model.network.state_dict()
    assert set(state) == set(wanted)  # both branches name their tensors alike
    model.network.load_state_dict({**wanted, **{k: v for k, v in state.items() if v.is_floating_point()}})

    assert flow_difference(source, lambda first, second, _: model.predict_flow(first, second)) < 1e-4


@needs_mmflow
@pytest.mark.parametrize("size", [(90, 124), (128, 192)])
def test_frames_get_to_their_size_as_in_mmflow(pwcnet, size):
    from mmflow.datasets.transforms import InputResize
    from mmflow.structures import FlowDataSample

    first, second = frames(*size)
    arrays = [frame[0].flip(0).permute(1, 2, 0).float().numpy() for frame in (first, second)]
    sample = dict(zip(("img1", "img2"), arrays, strict=True))
    InputResize(exponent=6).transform(sample)
    shape = sample["img1"].shape[:2]
    target = FlowDataSample(metainfo=dict(ori_shape=size, img_shape=shape, scale_factor=sample["scale_factor"]))
    pair = torch.stack([torch.from_numpy(sample[key]).permute(2, 0, 1) for key in ("img1", "img2")])
    with torch.no_grad():
        data = pwcnet.network.data_preprocessor({"inputs": [pair], "data_samples": [target]}, False)
        expected = pwcnet.network(**data, mode="predict")[0].pred_flow_fw.data
    found = pwcnet.predict_flow(first, second)["flow"][0]
    scale = float(expected.abs().max())
    assert scale > 0 and float((found - expected).abs().max()) < 1e-3 * scale


@needs_mmflow
def test_unknown_pixels_do_not_count(pwcnet):
    losses = []
    for value in (0.0, 300.0):
        batch = pwcnet.example_batch(2)
        for sample in batch["data_samples"]:
            sample.gt_valid[:40] = 0
            sample.gt_flow[:, :40] = value
        data = pwcnet.data_preprocessor(batch, False)
        losses.append(float(pwcnet(**data, mode="loss")["loss_flow"]))
    assert losses[0] == losses[1]
    for sample in batch["data_samples"]:
        sample.gt_flow[:, 40:] = 300.0
    assert float(pwcnet(**data, mode="loss")["loss_flow"]) > losses[0]


@needs_mmflow
def test_a_model_dict_of_mmflow(pwcnet):
    from ffplug_mmflow.config_file import read_config

    written = read_config("mmflow::_base_/models/pwcnet.py")["model"]
    written["type"] = "mmflow.PWCNet"
    model = ffplug.build_model(dict(type="ffplug_mmflow.MMFlowEstimator", network=written))
    assert model.state_dict().keys() == pwcnet.state_dict().keys()
    with pytest.raises(ConfigError, match=r"MMFlow does not build 'PWCNot'"):
        ffplug.build_model(dict(type="ffplug_mmflow.MMFlowEstimator", network=dict(written, type="PWCNot")))
    with pytest.raises(ConfigError, match=r"netwrk: ffplug_mmflow\.MMFlowEstimator has no such argument"):
        ffplug.build_model(dict(type="ffplug_mmflow.MMFlowEstimator", netwrk=written))
    with pytest.raises(ConfigError, match="expected 'resize' or 'pad'"):
        ffplug.build_model(dict(type="ffplug_mmflow.MMFlowEstimator", network=written, fit="crop"))
    with pytest.raises(ConfigError, match="does not exist"):
        ffplug.build_model(dict(type="ffplug_mmflow.MMFlowEstimator", network="_base_/models/gone.py"))
    with pytest.raises(ConfigError, match="has no model"):
        ffplug.build_model(dict(type="ffplug_mmflow.MMFlowEstimator", network="_base_/default_runtime.py"))


@needs_mmflow
def test_what_these_networks_do_not_have(pwcnet):
    with pytest.raises(ConfigError, match="no number of iterations"):
        pwcnet.predict_flow(*frames(), iterations=4)
    with pytest.raises(ValueError, match="expected N×3×H×W"):
        pwcnet.predict_flow(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 65))


@needs_mmflow
def test_the_commands(pwcnet, tmp_path, cli):
    """MMFlow's own checkpoint, in infer and test."""
    content = {"meta": {"mmflow_version": "1.0.0rc0"}, "state_dict": pwcnet.network.state_dict()}
    torch.save(content, tmp_path / "pwcnet_8x1.pth")
    first, second = frames()
    for name, frame in zip("ab", (first, second), strict=True):
        write_image(tmp_path / f"{name}.png", frame[0].permute(1, 2, 0).numpy())
    options = ("--model", "mmflow_pwcnet", "--checkpoint", "pwcnet_8x1.pth", "--out", "flow.flo")
    done = cli("infer", "a.png", "b.png", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    flow, _ = read_flow(tmp_path / "flow.flo")
    expected = pwcnet.predict_flow(first, second)["flow"][0].permute(1, 2, 0)
    np.testing.assert_allclose(flow, expected.numpy(), atol=1e-4)

    write_procedural(Recipe("sintel", 2, 2, (96, 128), 0, "standard", "analytic"), tmp_path / "data" / "Sintel")
    (tmp_path / "mine.py").write_text(
        "from mmengine.config import read_base\n\nwith read_base():\n"
        "    from ffplug.configs.data.loaders import *\n    from ffplug.configs.runtime import *\n"
        "    from ffplug_mmflow.configs.mmflow_pwcnet import *\n\nval_dataloader['num_workers'] = 0\n"
        "val_dataloader['dataset']['render'] = 'clean'\nval_cfg = dict(type='ValLoop')\n"
    )
    done = cli("test", "mine.py", "pwcnet_8x1.pth", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    metrics = json.loads((tmp_path / "work_dirs" / "mine" / "metrics.json").read_text())["metrics"]
    assert any("epe" in key.lower() and value > 0 for key, value in metrics.items()), metrics


@needs_mmflow
def test_weights_of_another_network_are_refused(tmp_path, mmflow_state):
    torch.save({"state_dict": mmflow_state("mmflow_raft")}, tmp_path / "raft.pth")
    with pytest.raises(CheckpointError, match="not weights of this model"):
        ffplug.build_model("mmflow_pwcnet", checkpoint=tmp_path / "raft.pth")


def test_without_mmflow_the_install_line_is_told():
    program = "import sys; sys.modules['mmflow'] = None; from ffplug.cli import main; sys.argv[0] = 'ffplug'; main()"
    done = python(program, "flops", "mmflow_pwcnet")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "pip install 'ffplug-mmflow[baselines]'" in done.stderr


def test_the_other_branch_is_told_apart(tmp_path):
    (tmp_path / "mmflow").mkdir()
    (tmp_path / "mmflow" / "__init__.py").touch()
    done = python("from ffplug.cli import main; main()", "flops", "mmflow_pwcnet", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2 and "is of the 0.x branch" in done.stderr

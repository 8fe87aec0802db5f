"""Loop, hooks and optimiser wrappers, training a toy in this process; bad input through the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from mmengine.runner import Runner
from safetensors import safe_open
from safetensors.torch import load_file
from toy_engine.runs import CONFIG, command, records, run, toy_config

from ffplug.cli import run as run_command
from ffplug.cli.test import command as test_command
from ffplug.cli.train import command as train_command
from ffplug.compat import load_from_local
from ffplug.engine.checkpoint_hook import find_resumable, list_checkpoints
from ffplug.engine.run import set_resume
from ffplug.errors import CheckpointError, ConfigError, FFPlugError


def train(work_dir: Path, *options: str, resume: str | None = None) -> Runner:
    config = toy_config(work_dir, *options)
    set_resume(config, resume)
    runner = Runner.from_cfg(config)
    runner.train()
    return runner


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp("trained")
    train(work_dir)
    return work_dir


# ---- checkpoints


def test_checkpoints_are_plain_data(trained: Path):
    for path in trained.glob("*.pth"):
        assert torch.serialization.get_unsafe_globals_in_checkpoint(path) == []
    content = load_from_local(trained / "iter_24.pth")
    assert not [key for part in ("state_dict", "ema_state_dict") for key in content[part] if "frozen" in key]
    assert content["meta"]["iter"] == 24 and content["meta"]["seed"] == 3


def test_newest_and_best_are_kept(trained: Path):
    assert [path.name for path in list_checkpoints(trained)] == ["iter_24.pth", "iter_20.pth"]
    errors = {step: float.fromhex(values[0][0]) for step, values in records(trained, "metrics").items()}
    best = json.loads((trained / "best.json").read_text())
    assert best["value"] == min(errors.values()) and errors[best["iter"]] == best["value"]
    assert (trained / "best.pth").is_file()
    assert not list(trained.glob(".*"))


def test_released_weights_are_the_averaged_ones(trained: Path):
    released = load_file(trained / "weights.safetensors")
    content = load_from_local(trained / "iter_24.pth")
    assert released.keys() == content["state_dict"].keys()
    assert all(torch.equal(value, content["state_dict"][key]) for key, value in released.items())
    # In ``ema_state_dict`` MMEngine keeps the weights that train, which differ from their average.
    assert not torch.equal(released["first.weight"], content["ema_state_dict"]["module.first.weight"])
    with safe_open(trained / "weights.safetensors", "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["model"]) == {"type": "toy_engine.ToyEstimator"}
    assert (metadata["iterations"], metadata["weights"]) == ("24", "exponential moving average")


def test_averages_share_what_is_frozen(tmp_path: Path):
    config = toy_config(tmp_path)
    runner = Runner.from_cfg(config)
    hook = next(hook for hook in runner.hooks if type(hook).__name__ == "EMAHook")
    hook.before_run(runner)
    twin, model = hook.ema_model.module, runner.model
    assert twin.frozen.weight is model.frozen.weight
    assert twin.first.weight is not model.first.weight


def test_new_run_moves_the_earlier_one_aside(tmp_path: Path):
    options = ("train_cfg.max_iters=4", "train_cfg.val_interval=4")
    train(tmp_path, *options)
    first = (tmp_path / "iter_4.pth").read_bytes()
    (tmp_path / ".iter_8.pth.1.tmp").write_text("left by a killed writer")
    (tmp_path / "iter_4.deepspeed").mkdir()
    train(tmp_path, *options)
    (moved,) = tmp_path.glob("before_*")
    assert (moved / "iter_4.pth").read_bytes() == first
    assert (moved / "weights.safetensors").is_file() and (moved / "best.pth").is_file()
    assert (moved / "iter_4.deepspeed").is_dir()
    assert (tmp_path / "iter_4.pth").is_file() and not list(tmp_path.glob(".*.tmp"))


def test_damaged_checkpoints_are_passed_over(trained: Path, tmp_path: Path):
    content = (trained / "iter_24.pth").read_bytes()
    assert find_resumable(tmp_path) is None
    (tmp_path / "iter_8.pth").write_bytes(content)
    (tmp_path / "iter_100.pth").write_bytes(content[:-100])
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0xFF
    (tmp_path / "iter_90.pth").write_bytes(flipped)
    (tmp_path / "iter_9.pth").write_bytes(b"")
    assert find_resumable(tmp_path) == tmp_path / "iter_8.pth"


def test_checkpoint_of_another_model_is_refused(trained: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"of another model.*3 of another shape \(first\.weight"):
        train(tmp_path, "model.width=6", resume=str(trained / "iter_24.pth"))
    torch.save({"state_dict": {f"layer{index}.weight": torch.ones(1) for index in range(5)}}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"4 missing.*5 unexpected \(layer0.weight, layer1.weight, layer2.weight"):
        train(tmp_path, f"load_from={tmp_path / 'other.pth'}")
    with pytest.raises(CheckpointError, match="weights alone"):
        train(tmp_path, resume=str(trained / "weights.safetensors"))


def test_training_starts_from_released_weights(trained: Path, tmp_path: Path):
    options = ("train_cfg.max_iters=2", "default_hooks.checkpoint.interval=2", "optim_wrapper.optimizer.lr=0.0")
    runner = train(tmp_path, *options, "param_scheduler=None", f"load_from={trained / 'weights.safetensors'}")
    released = load_file(trained / "weights.safetensors")
    assert all(torch.equal(runner.model.state_dict()[key], value) for key, value in released.items())


# ---- the loop


def test_gradient_accumulation_equals_the_larger_batch(tmp_path: Path):
    options = ("model.dropout=0", "param_scheduler=None", "optim_wrapper.optimizer.type=SGD", "val_dataloader=None")
    options += ("val_cfg=None", "val_evaluator=None", "default_hooks.checkpoint.save_best=None")
    small = train(tmp_path / "small", *options, "train_cfg.max_iters=8", "optim_wrapper.accumulative_counts=2")
    large = train(
        tmp_path / "large",
        *options,
        "train_cfg.max_iters=4",
        "optim_wrapper.accumulative_counts=1",
        "train_dataloader.batch_size=4",
    )
    expected = large.model.state_dict()
    for key, value in small.model.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("default_hooks.checkpoint.interval=3", "interval=3 must be a multiple of accumulative_counts=2"),
        ("train_dataloader.sampler.type=InfiniteSampler", "InfiniteSampler cannot resume.*ffplug.FlowSampler"),
        ("train_dataloader.sampler.infinite=False", "FlowSampler cannot resume"),
        ("train_cfg.max_iters=0", "max_iters and val_interval must be at least 1"),
        ("default_hooks.checkpoint.save_best=EPEE", "save_best='EPEE' is none of EPE, samples"),
    ],
)
def test_what_would_break_a_resume_is_refused(tmp_path: Path, option: str, message: str):
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, option)


# ---- mixed precision


def test_bfloat16_trains_on_the_cpu(tmp_path: Path, trained: Path):
    seen = []

    def look(module: Any, inputs: Any, output: torch.Tensor) -> None:
        seen.append((module.training, output.dtype))

    config = toy_config(tmp_path, "optim_wrapper.type=ffplug.AmpOptimWrapper", "optim_wrapper.dtype=bf16")
    runner = Runner.from_cfg(config)
    runner.model.last.register_forward_hook(look)
    runner.train()
    assert {dtype for training, dtype in seen if training} == {torch.bfloat16}
    assert {dtype for training, dtype in seen if not training} == {torch.float32}
    plain, mixed = ([float.fromhex(v[0][0]) for v in records(folder).values()] for folder in (trained, tmp_path))
    assert plain != mixed
    assert mixed == pytest.approx(plain, rel=0.1)
    weights = load_from_local(tmp_path / "iter_24.pth")["state_dict"]
    assert all(value.dtype == torch.float32 for value in weights.values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a machine without a GPU")
def test_mixed_precision_by_default_leaves_the_cpu_alone(tmp_path: Path, trained: Path):
    train(tmp_path, "optim_wrapper.type=ffplug.AmpOptimWrapper")
    assert records(tmp_path) == records(trained)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a machine without a GPU")
@pytest.mark.parametrize(
    ("dtype", "message"), [("fp16", "float16 needs a GPU; use dtype='bfloat16'"), ("int8", "expected one of float16")]
)
def test_impossible_precision_is_refused(tmp_path: Path, dtype: str, message: str):
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, "optim_wrapper.type=ffplug.AmpOptimWrapper", f"optim_wrapper.dtype={dtype}")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_mixed_precision_trains_and_resumes_on_the_gpu(tmp_path: Path, dtype: str):
    options = ("optim_wrapper.type=ffplug.AmpOptimWrapper", f"optim_wrapper.dtype={dtype}")
    train(tmp_path, *options)
    train(tmp_path, *options, resume=str(tmp_path / "iter_20.pth"))
    found = records(tmp_path)
    assert all(len(found[step]) == 2 and found[step][0] == found[step][1] for step in range(20, 24))


# ---- the NaN guard


def test_nan_stops_training_and_names_the_files(tmp_path: Path):
    # Sample 2 turns up after the first checkpoint; its true flow is not a number.
    with pytest.raises(FFPlugError, match=r"loss=nan.*toy/2\.png.*non_finite_batch\.json"):
        train(tmp_path, "train_dataloader.dataset.poison=2", "default_hooks.checkpoint.interval=2")
    report = json.loads((tmp_path / "non_finite_batch.json").read_text())
    assert report["terms"]["loss_flow"] == "nan"
    poisoned = [sample["img1_path"] for sample in report["samples"] if not sample["finite_flow"]]
    assert poisoned == ["toy/2.png"] and len(report["samples"]) == 2
    newest = list_checkpoints(tmp_path)
    for path in newest:
        assert int(path.stem[5:]) < report["iteration"]
        assert all(torch.isfinite(value).all() for value in load_from_local(path)["state_dict"].values())
    assert newest, "the batch came before the first checkpoint; choose another sample"


# ---- bad input, through the command line


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        (train_command, ["none.py"], "config none.py does not exist"),
        (train_command, [CONFIG, "--resume", "none.pth"], "checkpoint none.pth does not exist"),
        (train_command, [CONFIG, "--cfg-options", "load_from=none.pth"], "checkpoint none.pth does not exist"),
        (train_command, [CONFIG, "--cfg-options", "train_cfg.max_iter=3"], "no such argument"),
        (train_command, [CONFIG, "--cfg-options", "train_cfg.type=ffplug.IterBasedTrainLop"], "IterBasedTrainLoop"),
        (train_command, [CONFIG, "--cfg-options", "train_dataloader.dataset.length=0"], "ToyFlow has no samples"),
        (test_command, [CONFIG, "none.pth"], "checkpoint none.pth does not exist"),
    ],
)
def test_wrong_input_is_one_line_and_a_status(
    tmp_path: Path, capfd: pytest.CaptureFixture, tool: Any, arguments: list, message: str
):
    status = run_command(tool, [*map(str, arguments), "--work-dir", str(tmp_path)], "tool")
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert status == 2
    assert line.startswith("error: ") and message in line


def test_testing_writes_metrics_and_refuses_other_weights(trained: Path, tmp_path: Path):
    done = run(command("test", CONFIG, trained / "iter_24.pth", "--work-dir", tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "metrics.json").read_text())
    validated = float.fromhex(records(trained, "metrics")[24][0][0])
    assert record["metrics"] == {"EPE": pytest.approx(validated, rel=1e-6), "samples": 5}
    torch.save({"weight": torch.ones(1)}, tmp_path / "other.pth")
    refused = run(command("test", CONFIG, tmp_path / "other.pth", "--work-dir", tmp_path))
    assert refused.returncode == 2
    assert "4 keys missing" in refused.stderr and "Traceback" not in refused.stderr


def test_help_is_there():
    for tool in (train_command, test_command):
        shown = CliRunner().invoke(tool, ["--help"])
        assert shown.exit_code == 0 and "CONFIG" in shown.output
    assert "mmengine" in sys.modules  # here; the command line itself imports it only to run

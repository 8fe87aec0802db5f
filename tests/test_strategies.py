"""Sharded models train as unsharded ones do, on two processes of the CPU; activations computed twice change nothing."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.runner import Runner
from safetensors import safe_open
from safetensors.torch import load_file
from toy_engine.runs import CONFIG, TOOLS, command, records, run, toy_config

from ffplug.compat import load_from_local, turn_on_activation_checkpointing
from ffplug.config import load_config, validate_config
from ffplug.errors import ConfigError

SHARDED = CONFIG.with_name("train_toy_sharded.py")
DEEPSPEED = CONFIG.with_name("train_toy_deepspeed.py")
RAFT, RAFT_SHARDED = CONFIG.with_name("train_raft.py"), CONFIG.with_name("train_raft_sharded.py")


def train(config: Path, work_dir: Path, *options: str | Path) -> None:
    done = run(["bash", TOOLS / "dist_train.sh", config, 2, "--work-dir", work_dir, *options])
    assert done.returncode == 0, done.stdout + done.stderr


def losses(work_dir: Path) -> list[float]:
    return [float.fromhex(values[0][0]) for _, values in sorted(records(work_dir).items())]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training by DistributedDataParallel."""
    work_dir = tmp_path_factory.mktemp("whole")
    train(CONFIG, work_dir)
    return work_dir


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp("sharded")
    train(SHARDED, work_dir)
    return work_dir


# ---- FSDP


def test_sharded_training_equals_the_whole_one(whole: Path, sharded: Path):
    # Gradients are clipped, dropout is on, the average is validated between.
    assert losses(sharded) == pytest.approx(losses(whole), rel=1e-5)
    metrics, others = records(whole, "metrics"), records(sharded, "metrics")
    for step in metrics:
        assert float.fromhex(others[step][0][0]) == pytest.approx(float.fromhex(metrics[step][0][0]), rel=1e-5)
    ends = [load_from_local(folder / "iter_24.pth") for folder in (whole, sharded)]
    for part in ("state_dict", "ema_state_dict"):
        assert ends[0][part].keys() == ends[1][part].keys()
        for key, value in ends[0][part].items():
            if not key.endswith("first.bias"):  # without effect: its gradient is rounding
                torch.testing.assert_close(ends[1][part][key], value, rtol=1e-4, atol=1e-5)


def test_sharded_checkpoints_are_plain_and_whole(sharded: Path):
    for path in sharded.glob("*.pth"):
        assert torch.serialization.get_unsafe_globals_in_checkpoint(path) == []
    content = load_from_local(sharded / "iter_24.pth")
    assert content["state_dict"]["first.weight"].shape == (8, 6, 3, 3)
    assert content["optimizer"]["state"]["first.weight"]["exp_avg"].shape == (8, 6, 3, 3)
    released = load_file(sharded / "weights.safetensors")
    assert all(torch.equal(value, content["state_dict"][key]) for key, value in released.items())
    with safe_open(sharded / "weights.safetensors", "pt") as file:
        assert file.metadata()["weights"] == "exponential moving average"
    assert json.loads((sharded / "best.json").read_text())["iter"] in (8, 16, 24)


def test_sharded_training_resumes_exactly(sharded: Path, tmp_path: Path):
    (tmp_path / "iter_20.pth").write_bytes((sharded / "iter_20.pth").read_bytes())
    train(SHARDED, tmp_path, "--resume")
    expected, found = records(sharded), records(tmp_path)
    assert {step: values[0] for step, values in found.items()} == {step: expected[step][0] for step in range(20, 24)}
    ends = [load_from_local(folder / "iter_24.pth") for folder in (sharded, tmp_path)]
    for part in ("state_dict", "ema_state_dict"):
        assert all(torch.equal(ends[0][part][key], value) for key, value in ends[1][part].items())


@pytest.mark.parametrize("direction", ["whole to sharded", "sharded to whole"])
def test_a_resume_may_change_the_kind(whole: Path, sharded: Path, tmp_path: Path, direction: str):
    start, config = (whole, SHARDED) if direction == "whole to sharded" else (sharded, CONFIG)
    (tmp_path / "iter_20.pth").write_bytes((start / "iter_20.pth").read_bytes())
    train(config, tmp_path, "--resume")
    assert losses(tmp_path) == pytest.approx(losses(whole)[20:], rel=1e-5)
    ends = [load_from_local(folder / "iter_24.pth")["state_dict"]["last.weight"] for folder in (whole, tmp_path)]
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-4, atol=1e-5)


def test_weights_of_a_sharded_training_are_tested_and_trained_on(sharded: Path, tmp_path: Path):
    done = run(command("test", SHARDED, sharded / "weights.safetensors", "--work-dir", tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert metrics["EPE"] == pytest.approx(float.fromhex(records(sharded, "metrics")[24][0][0]), rel=1e-5)
    options = ("train_cfg.max_iters=1", "optim_wrapper.accumulative_counts=1", "default_hooks.checkpoint.interval=1")
    train(SHARDED, tmp_path, "--cfg-options", f"load_from={sharded / 'weights.safetensors'}", *options)
    assert losses(tmp_path)[0] < losses(sharded)[0]


def test_raft_shards_and_computes_twice_with_the_same_losses(tmp_path: Path):
    short = ("--cfg-options", "train_cfg.max_iters=3", "default_hooks.checkpoint.interval=3")
    train(RAFT, tmp_path / "whole", *short)
    train(RAFT_SHARDED, tmp_path / "sharded", *short)
    assert losses(tmp_path / "sharded") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)


def test_sharding_asks_for_processes(tmp_path: Path):
    done = run(command("train", SHARDED, "--work-dir", tmp_path))
    assert done.returncode == 2
    assert "error: FSDPStrategy works over several processes: start them by torchrun" in done.stderr


# ---- DeepSpeed


def train_by_deepspeed(work_dir: Path, *options: str) -> None:
    script = ["bash", TOOLS / "dist_train.sh", DEEPSPEED, 2, "--work-dir", work_dir, *options]
    done = run(script, {"DS_ACCELERATOR": "cpu"})
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs DeepSpeed: pip install deepspeed")
def test_deepspeed_equals_the_whole_training_and_resumes(whole: Path, tmp_path: Path):
    train_by_deepspeed(tmp_path)
    assert losses(tmp_path) == pytest.approx(losses(whole), rel=1e-5)
    assert records(tmp_path, "metrics").keys() == {8, 16, 24}
    content = load_from_local(tmp_path / "iter_24.pth")
    released = load_file(tmp_path / "weights.safetensors")
    assert all(torch.equal(value, content["state_dict"][key]) for key, value in released.items())
    # The newest two are kept, of the file as of the folder.
    assert {path.name for path in tmp_path.glob("iter_*")} == {
        f"iter_{step}.{kind}" for step in (20, 24) for kind in ("pth", "deepspeed")
    }
    again = tmp_path / "again"
    again.mkdir()
    for part in ("iter_20.pth", "iter_20.deepspeed"):
        (tmp_path / part).rename(again / part)
    refused = run(["bash", TOOLS / "dist_train.sh", DEEPSPEED, 2, "--work-dir", again, "--resume"])
    assert refused.returncode == 1 and "by pickle, which runs code in it: add --trust-checkpoint" in refused.stderr
    train_by_deepspeed(again, "--resume", "--trust-checkpoint")
    assert {step: values[0] for step, values in records(again).items()} == {
        step: values[0] for step, values in records(tmp_path).items() if step >= 20
    }


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is not None, reason="asks for a machine without DeepSpeed")
def test_deepspeed_that_is_absent_is_named(tmp_path: Path):
    done = run(command("train", DEEPSPEED, "--work-dir", tmp_path))
    assert done.returncode == 2
    assert "error: ffplug.DeepSpeedStrategy needs DeepSpeed: pip install deepspeed" in done.stderr


# ---- activation checkpointing


def gradients(model: torch.nn.Module, twice: list[str]) -> tuple[dict, dict]:
    """Gradients and state of a copy after a training step in which the parts ``twice`` keep no activation."""
    model = copy.deepcopy(model)
    turn_on_activation_checkpointing(model, twice)
    model.train()
    torch.manual_seed(0)
    frames = torch.rand(2, 2, 3, 64, 96) * 255
    outputs = model(frames, mode="tensor")
    sum(flow.abs().mean() for flow in outputs["flows"]).backward()
    return {key: value.grad for key, value in model.named_parameters()}, model.state_dict()


@pytest.mark.parametrize("name", ["raft_small", "raft_large", "gma"])
def test_activations_computed_twice_change_no_gradient(name: str):
    config = load_config(name)
    config.model.update(iterations=2)
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    parts = load_config(RAFT_SHARDED).activation_checkpointing
    (once, state), (twice, other) = gradients(model, []), gradients(model, parts)
    for key, value in once.items():
        torch.testing.assert_close(twice[key], value, rtol=1e-4, atol=1e-5)
    # Batch norm's statistics count a batch once.
    assert all(torch.equal(other[key], value) for key, value in state.items())


def test_what_cannot_be_computed_twice_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="no part 'frist'; did you mean 'first'"):
        turn_on_activation_checkpointing(MODELS.build({"type": "toy_engine.ToyEstimator"}), "frist")
    config = toy_config(tmp_path)
    config.activation_checkpointing = ["encoder"]
    with pytest.raises(ConfigError, match=r"no part 'encoder'; its parts are data_preprocessor, first, norm, last"):
        Runner.from_cfg(config).train()


# ---- the fragments


@pytest.mark.parametrize("recipe", ["raft_small_chairs", "gma_sintel"])
@pytest.mark.parametrize("fragment", ["fsdp", "deepspeed", "activation_checkpointing"])
def test_any_recipe_inherits_a_fragment(tmp_path: Path, recipe: str, fragment: str):
    config = tmp_path / "mine.py"
    config.write_text(
        "from mmengine.config import read_base\n"
        "with read_base():\n"
        f"    from ffplug.configs.recipes.{recipe} import *\n"
        f"    from ffplug.configs.strategies.{fragment} import *\n"
    )
    loaded = load_config(config)
    validate_config(loaded)
    assert loaded.get("strategy") or loaded.get("activation_checkpointing")
    assert loaded.optim_wrapper == load_config(recipe).optim_wrapper

"""What the training of a policy asks for, its calibration to a budget, and its curves."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from ffplug_iterpolicy import curves
from ffplug_iterpolicy.budget import calibrate, read_calibration
from ffplug_iterpolicy.costs import step_costs
from ffplug_iterpolicy.curves import Outcome, errors_by_step, oracle_steps, pareto, run_policy, table
from ffplug_iterpolicy.engine import PolicyHook
from ffplug_iterpolicy.losses import IterationPolicyLoss
from ffplug_iterpolicy.models import FixedSteps

import ffplug
from ffplug.apis.checkpoints import save_weights
from ffplug.cli import cli, run
from ffplug.config import load_config
from ffplug.datasets import FlyingChairsDataset
from ffplug.datasets.procedural import Recipe, write_procedural
from ffplug.errors import CheckpointError, ConfigError

ITERATIONS = 5


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data") / "pairs"
    write_procedural(Recipe("chairs", scenes=12, size=(64, 80), textures="analytic"), root)
    return root


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Weights of the base alone, which no training has seen."""
    torch.manual_seed(0)
    model = ffplug.build_model("iterpolicy_small_base")
    with torch.no_grad():
        for parameter in model.decoder.update.flow_head[-1].parameters():
            parameter.mul_(10)
    return save_weights(tmp_path_factory.mktemp("base") / "base.safetensors", model.state_dict())


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Weights of a base and a policy, which no training has seen."""
    torch.manual_seed(0)
    model = ffplug.build_model("iterpolicy_small")
    return save_weights(tmp_path_factory.mktemp("policy") / "weights.safetensors", model.state_dict())


def test_the_temperature_falls_to_its_floor():
    model = ffplug.build_model("iterpolicy_small")
    hook, seen = PolicyHook(), []
    for iteration in (0, 25, 30, 60, 99):
        hook.before_train_iter(SimpleNamespace(model=model, iter=iteration, max_iters=100), 0)
        seen.append(model.decoder.policy.temperature)
    assert seen == pytest.approx([1.0, 0.5, 0.4, 0.4, 0.4])


def test_a_policy_needs_the_base_that_it_is_for(trained, base):
    runner = SimpleNamespace(model=ffplug.build_model("iterpolicy_small"), _load_from=None, _resume=False)
    with pytest.raises(ConfigError, match=r"trained on a finished network.*load_from"):
        PolicyHook().before_train(runner)
    hook, state = PolicyHook(), dict(ffplug.apis.checkpoints.read_state_dict(base))
    hook.after_load_checkpoint(runner, {"state_dict": state})
    state["decoder.update.gru.0.gates.weight"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match=r"another base than the config's: 1 tensors.*gru\.0\.gates"):
        hook.after_load_checkpoint(runner, {"state_dict": state})
    with pytest.raises(CheckpointError, match="not weights of this model"):
        ffplug.build_model("raft_large_iterpolicy", trained)
    runner.model = ffplug.build_model("iterpolicy_small_base")
    with pytest.raises(ConfigError, match="the model has no policy"):
        hook.before_train(runner)


def test_the_recipe_trains_the_policy_alone(base, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = ("train_dataloader.dataset", "val_dataloader.dataset")
    options = [f"{part}.data_root={root}" for part in parts] + ["prepare_data=None", f"load_from={base}"]
    options += ["model.iterations=3", "train_dataloader.batch_size=2", "default_hooks.logger.interval=1"]
    steps = ["train_cfg.max_iters=2", "train_cfg.val_interval=2"]
    assert run(cli, ["train", "iterpolicy_small", "--cfg-options", *options, *steps], "ffplug") == 0
    work_dir = tmp_path / "work_dirs" / "iterpolicy_small"
    log = next(work_dir.glob("*/*.log")).read_text()
    assert "loss_increment" in log and "steps" in log
    before, after = (ffplug.apis.checkpoints.read_state_dict(path) for path in (base, work_dir / "weights.safetensors"))
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert {key.split(".")[1] for key in after.keys() - before.keys()} == {"policy"}


def test_the_loss_asks_for_a_policy():
    config = load_config("iterpolicy_small").model
    config.policy = {"type": "ffplug_iterpolicy.FixedSteps", "steps": 2}
    model = ffplug.build_model(config).train()
    batch = model.data_preprocessor(model.example_batch(1), training=True)
    with pytest.raises(ConfigError, match="this decoder has no learned policy"):
        model(**batch, mode="loss")
    assert IterationPolicyLoss(name="head").prefix == "head_"


def pairs_of(root):
    dataset = FlyingChairsDataset(str(root), split="all")
    return [dataset[index] for index in range(6)]


def wavering(weights):
    """The trained network with a policy whose hidden map is r times the number b of the iteration's bin.

    It keeps the next iteration where r·b is above 0.4. Of five iterations the bins are 0, 1, 3, 4 and 6, so it runs one
    iteration for r below 0.1, two below 0.133, three below 0.4, and four above.
    """
    model = ffplug.build_model("iterpolicy_small", weights)
    cell = model.decoder.policy.cell
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.share("embedding")[0, 0, 1, 1] = 1.0
        cell.decision.weight[1, 0] = 1.0
        cell.decision.bias[2] = 0.4
    return model


def test_curves_measure_every_policy_alike(trained, root):
    model, pairs = wavering(trained), pairs_of(root)
    own = model.decoder.policy
    errors = errors_by_step(model, pairs, ITERATIONS, batch_size=4)
    for steps in (1, 3):
        found = run_policy(model, FixedSteps(steps), pairs, ITERATIONS, batch_size=2)
        torch.testing.assert_close(found.errors, errors[:, steps - 1], atol=1e-4, rtol=1e-4)
        assert found.steps.tolist() == [steps] * len(pairs)
    assert oracle_steps(errors, 0.0).tolist() == (errors.argmin(dim=1) + 1).tolist()
    assert oracle_steps(errors, 1e6).tolist() == [1] * len(pairs)
    costs = step_costs(model, 64, 80)
    points = pareto(model, pairs, ITERATIONS, costs, preferences=(0.1, 1.2), thresholds=(0.1,), batch_size=4)
    assert {point.policy for point in points} == {"learned", "fixed", "threshold", "random", "oracle"}
    full = next(point for point in points if point.policy == "fixed" and point.setting == ITERATIONS)
    assert full.epe == pytest.approx(float(errors[:, -1].mean()), rel=1e-4)
    assert full.gflops == pytest.approx(costs.gflops(ITERATIONS)) and model.decoder.policy is own
    assert table(points).count("\n") == len(points) + 2
    assert isinstance(run_policy(model, own, pairs, ITERATIONS), Outcome)


def test_a_budget_is_met_or_the_range_is_told(trained, root, tmp_path):
    model, pairs = wavering(trained), pairs_of(root)
    costs = step_costs(model, 64, 80)
    with pytest.raises(ConfigError, match=r"1000 gflops.*out of reach: on these 6 pairs preferences of 0\.02 to 1\.3"):
        calibrate(model, pairs, 1000.0, "gflops", ITERATIONS, costs)
    with pytest.raises(ConfigError, match="'gflops' or 'ms'"):
        calibrate(model, pairs, 1.0, "joules", ITERATIONS, costs)
    source = save_weights(tmp_path / "w.safetensors", model.state_dict(), {"model": "kept"})
    target = costs.gflops(3.0, ITERATIONS)
    out = tmp_path / "out.safetensors"
    arguments = ["policy", "calibrate", "iterpolicy_small", str(source), "--gflops", str(target), "--out", str(out)]
    arguments += ["--iterations", str(ITERATIONS), "--batch", "4", "--pairs", "6"]
    arguments += [part for option in (f"val_dataloader.dataset.data_root={root}", "val_dataloader.dataset.split=all")
                  for part in ("--cfg-options", option)]  # fmt: skip
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = read_calibration(out)
    assert found.unit == "gflops" and found.size == (64, 80) and found.pairs == 6
    assert found.steps == 3.0 and 0.4 / 3 < found.preference < 0.4
    assert found.value == pytest.approx(target)
    again = ffplug.build_model("iterpolicy_small", out)
    assert float(again.decoder.policy.calibrated) == pytest.approx(found.preference)
    outcome = run_policy(again, again.decoder.policy, pairs, ITERATIONS, batch_size=4)
    assert float(outcome.steps.mean()) == pytest.approx(found.steps)
    assert read_calibration(source) is None
    again.decoder.policy.preference = 1.3
    assert float(run_policy(again, again.decoder.policy, pairs, ITERATIONS).steps.mean()) > found.steps


def test_a_budget_of_milliseconds(trained, root, monkeypatch):
    """On a clock that passes a millisecond for each pair's update, so that the time is exactly that of the steps."""
    model, pairs = wavering(trained), pairs_of(root)
    now = [0.0]
    model.decoder.update.register_forward_hook(
        lambda module, args, result: now.__setitem__(0, now[0] + 1e-3 * len(args[0]))
    )
    monkeypatch.setattr(curves.time, "perf_counter", lambda: now[0])
    costs = step_costs(model, 64, 80)
    with pytest.raises(ConfigError, match=r"give 1 to 4 ms \(1\.0 to 4\.0 of 5 iterations\)"):
        calibrate(model, pairs, 1e6, "ms", ITERATIONS, costs, batch_size=3)
    found = calibrate(model, pairs, 3.0, "ms", ITERATIONS, costs, batch_size=3)
    assert (found.unit, found.device, found.steps) == ("ms", "cpu", 3.0)
    assert found.value == pytest.approx(3.0)
    assert float(model.decoder.policy.calibrated) == pytest.approx(found.preference)


def test_the_command_draws_the_curve(trained, root, tmp_path):
    arguments = [
        "policy",
        "curve",
        "iterpolicy_small",
        str(trained),
        "--out",
        str(tmp_path),
        "--no-time",
        "--pairs",
        "2",
    ]
    arguments += ["--iterations", "2", "--cfg-options", f"val_dataloader.dataset.data_root={root}"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    points = json.loads((tmp_path / "curve.json").read_text())
    assert len(points) > 10 and (tmp_path / "curve.png").stat().st_size > 5000 and (tmp_path / "curve.md").exists()
    wrong = ["policy", "calibrate", "raft_large_iterpolicy", str(trained), "--out", "a"]
    with pytest.raises(ConfigError, match="no val_dataloader"):
        CliRunner().invoke(cli, [*wrong, "--ms", "1"], catch_exceptions=False)
    with pytest.raises(ConfigError, match="--gflops or as --ms, one of them"):
        CliRunner().invoke(cli, wrong, catch_exceptions=False)

"""Two processes on the CPU do what one does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_engine.runs import CONFIG, TOOLS, command, records, run

# Dropout and noise are drawn per rank; without them one process and two must agree.
SAME = ("--cfg-options=model.dropout=0",)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp("single")
    done = run(command("train", CONFIG, "--work-dir", work_dir, *SAME, "--cfg-options=train_dataloader.batch_size=4"))
    assert done.returncode == 0, done.stdout + done.stderr
    return work_dir


def test_two_ranks_reach_the_losses_of_one_with_the_same_global_batch(single: Path, tmp_path: Path):
    done = run(["bash", TOOLS / "dist_train.sh", CONFIG, 2, "--work-dir", tmp_path, *SAME])
    assert done.returncode == 0, done.stdout + done.stderr
    one, two = records(single), records(tmp_path)
    assert one.keys() == two.keys() == set(range(24))
    for step in one:
        (loss, rate), (other_loss, other_rate) = one[step][0], two[step][0]
        assert rate == other_rate
        assert float.fromhex(other_loss) == pytest.approx(float.fromhex(loss), rel=1e-4), f"iteration {step}"
    metrics, others = records(single, "metrics"), records(tmp_path, "metrics")
    for step in metrics:
        assert float.fromhex(others[step][0][0]) == pytest.approx(float.fromhex(metrics[step][0][0]), rel=1e-3)


def test_two_ranks_give_the_very_metrics_of_one(single: Path, tmp_path: Path):
    weights = single / "weights.safetensors"
    one = run(command("test", CONFIG, weights, "--work-dir", tmp_path / "one", "--out", tmp_path / "one.json", *SAME))
    assert one.returncode == 0, one.stdout + one.stderr
    script = ["bash", TOOLS / "dist_test.sh", CONFIG, weights, 2]
    two = run([*script, "--work-dir", tmp_path / "two", "--out", tmp_path / "two.json", *SAME])
    assert two.returncode == 0, two.stdout + two.stderr
    metrics = [json.loads((tmp_path / name).read_text())["metrics"] for name in ("one.json", "two.json")]
    assert metrics[0]["samples"] == 5
    assert metrics[0] == metrics[1]

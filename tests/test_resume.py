"""A training that is killed and resumed goes on exactly as the one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_engine.runs import CONFIG, ENVIRONMENT, command, records, run

RAFT = CONFIG.with_name("train_raft.py")


@pytest.fixture(scope="module", params=[(CONFIG, 0), (RAFT, 2)], ids=["toy", "raft"])
def setting(request: pytest.FixtureRequest) -> tuple[Path, int]:
    """A config, and the number of workers of the run that is killed; the one that is not has none."""
    return request.param


@pytest.fixture(scope="module")
def uninterrupted(setting: tuple[Path, int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp("whole")
    done = run(command("train", setting[0], "--work-dir", work_dir))
    assert done.returncode == 0, done.stdout + done.stderr
    return work_dir


def kill_in_mid_run(config: Path, work_dir: Path, workers: int, iteration: int) -> None:
    """Train slowly, and kill -9 the process and its workers once ``iteration`` is recorded."""
    options = [f"train_dataloader.num_workers={workers}", "custom_hooks.3.pause=0.1"]
    arguments = command("train", config, "--work-dir", work_dir, *(f"--cfg-options={option}" for option in options))
    with open(work_dir / "log", "w") as log:
        process = subprocess.Popen(arguments, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)
    losses = work_dir / "losses.jsonl"
    deadline = time.monotonic() + 60
    while not (losses.is_file() and iteration in records(work_dir)):
        assert process.poll() is None and time.monotonic() < deadline, (work_dir / "log").read_text()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_killed_and_resumed_equals_uninterrupted(setting: tuple[Path, int], uninterrupted: Path, tmp_path: Path):
    config, workers = setting
    kill_in_mid_run(config, tmp_path, workers, iteration=14)
    assert max(records(tmp_path)) < 23
    option = f"--cfg-options=train_dataloader.num_workers={workers}"
    resumed = run(command("train", config, "--work-dir", tmp_path, "--resume", option))
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    expected, found = records(uninterrupted), records(tmp_path)
    assert found.keys() == expected.keys() == set(range(24))
    # Each loss and learning rate, to the last bit, also of the iterations that were done twice.
    assert all(value == expected[step][0] for step, values in found.items() for value in values)
    assert any(len(values) == 2 for values in found.values()), "nothing was done twice: the kill came at a checkpoint"
    assert 0 not in {step for step, values in found.items() if len(values) == 2}, "it started from scratch"
    if config == CONFIG:
        assert records(tmp_path, "metrics")[24] == records(uninterrupted, "metrics")[24]
    ends = [torch.load(folder / "iter_24.pth", weights_only=True) for folder in (uninterrupted, tmp_path)]
    for part in ("state_dict", "ema_state_dict"):
        assert all(torch.equal(ends[0][part][key], value) for key, value in ends[1][part].items())
    released = [load_file(folder / "weights.safetensors") for folder in (uninterrupted, tmp_path)]
    assert all(torch.equal(released[0][key], value) for key, value in released[1].items())


@pytest.mark.parametrize("setting", [(CONFIG, 0)], indirect=True)
def test_resume_takes_an_older_checkpoint_if_the_newest_is_torn(uninterrupted: Path, tmp_path: Path):
    for name in ("iter_20.pth", "iter_24.pth"):
        content = (uninterrupted / name).read_bytes()
        (tmp_path / name).write_bytes(content if name == "iter_20.pth" else content[: len(content) * 2 // 3])
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_24.p"))
    resumed = run(command("train", CONFIG, "--work-dir", tmp_path, "--resume"))
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert "iter_24.pth is damaged" in resumed.stdout + resumed.stderr
    assert {step: values[0] for step, values in records(tmp_path).items()} == {
        step: values[0] for step, values in records(uninterrupted).items() if step >= 20
    }

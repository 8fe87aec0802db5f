"""Processes that die are started again, and the training ends as if they had not; machines may come and go."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_engine.runs import CONFIG, TOOLS, reached, records, run, started, wait_for, workers

PAUSE = "custom_hooks.3.pause=0.1"


def script(work_dir: Path, ranks: int, *options: str) -> list:
    return ["bash", TOOLS / "dist_train.sh", CONFIG, ranks, "--work-dir", work_dir, *options]


def free_port() -> str:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return str(door.getsockname()[1])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp("whole")
    done = run(script(work_dir, 2))
    assert done.returncode == 0, done.stdout + done.stderr
    return work_dir


def test_killed_worker_is_replaced_and_nothing_differs(uninterrupted: Path, tmp_path: Path):
    log = tmp_path / "log"
    with started(script(tmp_path, 2, "--cfg-options", PAUSE), log, MAX_RESTARTS="1") as process:
        wait_for(lambda: reached(tmp_path, 14), process, log)
        second = workers(process.pid)[1]
        os.kill(second, signal.SIGKILL)
        assert process.wait(timeout=240) == 0, log.read_text()
    expected, found = records(uninterrupted), records(tmp_path)
    assert found.keys() == expected.keys() == set(range(24))
    # Each loss and learning rate to the last bit, also of the iterations that were done twice.
    assert all(value == expected[step][0] for step, values in found.items() for value in values)
    twice = {step for step, values in found.items() if len(values) > 1}
    assert 1 <= len(twice) <= 4, f"a checkpoint is written every 4 iterations, but {sorted(twice)} were done twice"
    ends = [torch.load(folder / "iter_24.pth", weights_only=True) for folder in (uninterrupted, tmp_path)]
    for part in ("state_dict", "ema_state_dict"):
        assert all(torch.equal(ends[0][part][key], value) for key, value in ends[1][part].items())
    released = [load_file(folder / "weights.safetensors") for folder in (uninterrupted, tmp_path)]
    assert all(torch.equal(released[0][key], value) for key, value in released[1].items())


def test_error_of_the_input_ends_after_the_last_restart(tmp_path: Path):
    # Sample 2 comes after the first checkpoint.
    options = ("train_dataloader.dataset.torn=2", "default_hooks.checkpoint.interval=2")
    done = run(script(tmp_path, 1, "--cfg-options", *options), {"MAX_RESTARTS": "1"})
    assert done.returncode == 1
    assert "OSError: toy/2.png is torn" in done.stderr.partition("Root Cause")[2]
    assert len(records(tmp_path)[0]) == 1, "it started from scratch instead of from the checkpoint"


def test_machines_come_and_go(tmp_path: Path):
    """Two launchers stand for two machines; the second comes later and vanishes without a word."""
    options = ["custom_hooks.3.pause=0.25", "train_cfg.max_iters=300", "param_scheduler=None", "val_dataloader=None"]
    options += ["val_cfg=None", "val_evaluator=None", "default_hooks.checkpoint.save_best=None"]
    environment = {
        "NNODES": "1:2",
        "MAX_RESTARTS": "3",
        "MASTER_ADDR": "127.0.0.1",
        "LOCAL_ADDR": "127.0.0.1",
        "PORT": free_port(),
        "RDZV_CONF": "last_call_timeout=1,keep_alive_interval=2,keep_alive_max_attempt=4",
    }
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    work_dir = tmp_path / "run"
    arguments = script(work_dir, 1, "--resume", "--cfg-options", *options)
    with started(arguments, logs[0], NODE_RANK="0", **environment) as first:
        wait_for(lambda: reached(work_dir, 5), first, logs[0])
        with started(arguments, logs[1], NODE_RANK="1", **environment) as second:
            wait_for(lambda: worlds(work_dir)[-1:] == [2], second, logs[1])
            joined = max(records(work_dir))
            wait_for(lambda: reached(work_dir, joined + 6), first, logs[0])
        wait_for(lambda: worlds(work_dir)[-1:] == [1], first, logs[0])
        (work_dir / "hurry").touch()
        assert first.wait(timeout=240) == 0, logs[0].read_text()
    assert records(work_dir).keys() == set(range(300))
    assert worlds(work_dir) == [1, 2, 1]
    end = torch.load(work_dir / "iter_300.pth", weights_only=True)
    # Each rank took 2 samples in an iteration; those with two ranks, of which a checkpoint told, took 4.
    with_two = (end["message_hub"]["runtime_info"]["samples"] - 300 * 2) // 2
    assert 4 <= with_two < 100


def worlds(work_dir: Path) -> list[int]:
    """The numbers of ranks that trained, one after the other."""
    path = work_dir / "worlds"
    return [int(line) for line in path.read_text().split()] if path.is_file() else []

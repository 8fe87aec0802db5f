"""Several processes on the CPU do what one does, whatever started them, and end with a word when they can't."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import warm
from toy_engine.runs import (
    CONFIG,
    ENVIRONMENT,
    TOOLS,
    command,
    reached,
    records,
    run,
    started,
    wait_for,
    workers,
)

from ffplug.compat import read_launcher
from ffplug.errors import ConfigError

# Dropout and noise are drawn per rank; without them one process and several must agree.
SAME = ("--cfg-options", "model.dropout=0")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp("single")
    done = run(command("train", CONFIG, "--work-dir", work_dir, *SAME, "train_dataloader.batch_size=4"))
    assert done.returncode == 0, done.stdout + done.stderr
    return work_dir


def assert_same_losses(work_dir: Path, single: Path, iterations: int = 24) -> None:
    one, several = records(single), records(work_dir)
    assert several.keys() == set(range(iterations))
    for step in several:
        (loss, rate), (other_loss, other_rate) = one[step][0], several[step][0]
        assert rate == other_rate
        assert float.fromhex(other_loss) == pytest.approx(float.fromhex(loss), rel=1e-4), f"iteration {step}"


# ---- the same results


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_reach_the_losses_of_one_with_the_same_global_batch(single: Path, tmp_path: Path, ranks: int):
    # The 11 samples divide neither by the ranks nor by the global batch.
    options = (*SAME, f"train_dataloader.batch_size={4 // ranks}")
    done = run(["bash", TOOLS / "dist_train.sh", CONFIG, ranks, "--work-dir", tmp_path, *options])
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_losses(tmp_path, single)
    metrics, others = records(single, "metrics"), records(tmp_path, "metrics")
    for step in metrics:
        assert float.fromhex(others[step][0][0]) == pytest.approx(float.fromhex(metrics[step][0][0]), rel=1e-3)


@pytest.fixture(scope="module")
def measured(single: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What one process measures."""
    folder = tmp_path_factory.mktemp("measured")
    done = run(command("test", CONFIG, single / "weights.safetensors", "--work-dir", folder, *SAME))
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "metrics.json").read_text())["metrics"]


@pytest.mark.parametrize(("ranks", "option"), [(2, "round_up=True"), (4, "round_up=False")])
def test_ranks_give_the_very_metrics_of_one(single: Path, measured: dict, tmp_path: Path, ranks: int, option: str):
    # 5 samples: some ranks have one more, or one twice; without rounding up they have different numbers of batches.
    script = ["bash", TOOLS / "dist_test.sh", CONFIG, single / "weights.safetensors", ranks]
    done = run([*script, "--work-dir", tmp_path, *SAME, f"val_dataloader.sampler.{option}"], cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    assert metrics["samples"] == 5
    assert metrics == measured
    assert not (tmp_path / ".dist_test").exists(), "results travelled through files"


# ---- launchers


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def by_hand(launcher: str, rank: int, size: int) -> dict[str, str]:
    """The variables that srun, or mpirun of Open MPI, gives to a process."""
    if launcher == "pytorch":
        here = {}
    elif launcher == "slurm":
        here = {"SLURM_PROCID": rank, "SLURM_NTASKS": size, "SLURM_LOCALID": rank, "SLURM_NNODES": 1}
    else:
        here = dict.fromkeys(("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"), rank)
        here |= dict.fromkeys(("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"), size)
    return {name: str(value) for name, value in here.items()}


@pytest.mark.parametrize("launcher", ["slurm", "mpi"])
def test_processes_of_slurm_and_mpi_find_each_other(launcher: str, single: Path, tmp_path: Path):
    short = (*SAME, "train_cfg.max_iters=4")
    _, *arguments = command("train", CONFIG, "--launcher", launcher, "--work-dir", tmp_path, *short)
    port = {"PORT": str(free_port())}
    processes = [
        subprocess.Popen(
            [warm.python(), *arguments],
            env={**ENVIRONMENT, **by_hand(launcher, rank, 2), **port},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output
    assert_same_losses(tmp_path, single, 4)


@pytest.mark.parametrize(
    ("launcher", "missing", "message"),
    [
        ("pytorch", (), "RANK, WORLD_SIZE, LOCAL_RANK is not set; start the processes by torchrun"),
        ("slurm", ("SLURM_PROCID", "SLURM_LOCALID"), "SLURM_PROCID, SLURM_LOCALID is not set; .* by srun"),
        ("slurm", ("SLURM_NNODES",), "set MASTER_ADDR to the address of the machine that has rank 0"),
        ("mpi", ("OMPI_COMM_WORLD_LOCAL_SIZE",), "set MASTER_ADDR to the address of the machine that has rank 0"),
    ],
)
def test_what_a_launcher_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, launcher: str, missing: tuple[str, ...], message: str
):
    for name, value in by_hand(launcher, 0, 2).items():
        if name not in missing:
            monkeypatch.setenv(name, value)
    with restored_environment(), pytest.raises(ConfigError, match=f"--launcher {launcher}: {message}"):
        read_launcher(launcher)


def test_slurm_names_the_first_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "scontrol").write_text('#!/bin/sh\n[ "$3" = "a,b[07-08]" ] && printf "a\\nb07\\nb08\\n"')
    (tmp_path / "scontrol").chmod(0o755)
    variables = {"SLURM_NNODES": "3", "SLURM_JOB_NODELIST": "a,b[07-08]", "SLURM_JOB_ID": "123456"}
    variables["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    for name, value in (by_hand("slurm", 1, 3) | variables).items():
        monkeypatch.setenv(name, value)
    with restored_environment():
        read_launcher("slurm")
        assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("a", "23456")
        assert (os.environ["RANK"], os.environ["WORLD_SIZE"]) == ("1", "3")


@contextmanager
def restored_environment() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_scripts_say_how_they_are_used(tmp_path: Path):
    train = ["bash", TOOLS / "dist_train.sh", CONFIG, "2"]
    assert "usage" in run(train[:3]).stderr
    refused = run(train, {"NNODES": "2"})
    assert refused.returncode == 2 and "set MASTER_ADDR" in refused.stderr
    refused = run(train, {"NNODES": "1:2", "MASTER_ADDR": "localhost"})
    assert refused.returncode == 2 and "add --resume" in refused.stderr


def test_slurm_script_starts_one_torchrun_per_machine(tmp_path: Path):
    # In place of srun stands what it does on the first machine: it runs the command, with the variables set.
    (tmp_path / "srun").write_text(
        '#!/bin/bash\necho "$@" > "$0.log"\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"'
    )
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho localhost")
    for name in ("srun", "scontrol"):
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "GPUS_PER_NODE": "1", "PORT": str(free_port())}
    environment |= {"SLURM_NODEID": "0", "SLURM_JOB_NODELIST": "localhost", "SLURM_JOB_ID": "7"}
    options = ("--work-dir", tmp_path / "run", *SAME, "train_cfg.max_iters=2")
    done = run(["bash", TOOLS / "slurm_train.sh", "part", "job", CONFIG, *options], environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "--partition=part --job-name=job --nodes=1 --ntasks-per-node=1" in (tmp_path / "srun.log").read_text()
    assert (tmp_path / "run" / "weights.safetensors").is_file()


# ---- what goes wrong


def torchrun(ranks: int, work_dir: Path, *options: str) -> subprocess.CompletedProcess:
    """Train from the installed package alone, as who has no checkout does."""
    arguments = ["-m", "ffplug.cli", "train", CONFIG, "--work-dir", work_dir, "--cfg-options", "train_cfg.max_iters=8"]
    return run([*TORCHRUN, ranks, *arguments, *options])


@pytest.mark.parametrize(
    ("spare", "told"),
    [([], "rank 0 of 2"), ([0], "rank 1 of 2")],
    ids=["on no rank", "on one rank"],
)
def test_parameters_without_gradient_are_named(tmp_path: Path, spare: list, told: str):
    done = torchrun(2, tmp_path, f"model.spare={spare}")
    assert done.returncode == 1
    message = f"error: {told}: 2 parameters got no gradient: extra.weight, extra.bias. Let a loss depend on them"
    assert message in done.stderr and "find_unused_parameters=True" in done.stderr, done.stderr
    # Gradients meet at every second iteration. The first two passes of the one rank's case use the parameters.
    assert len(records(tmp_path)) == (3 if spare else 1)


def test_parameters_without_gradient_can_be_allowed(tmp_path: Path):
    done = torchrun(2, tmp_path, "model.spare=[0]", "find_unused_parameters=True")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(records(tmp_path)) == 8


def test_rank_that_raises_ends_all_with_its_traceback(tmp_path: Path):
    # Sample 5 comes to one of the two ranks first, to a worker of its loader.
    done = torchrun(2, tmp_path, "train_dataloader.dataset.torn=5", "train_dataloader.num_workers=1")
    assert done.returncode == 1
    assert "OSError: toy/5.png is torn" in done.stderr and "in __getitem__" in done.stderr
    root_cause = done.stderr.partition("Root Cause")[2]
    assert "OSError: toy/5.png is torn" in root_cause, done.stderr
    assert "Connection" not in root_cause


def test_killed_rank_ends_all(tmp_path: Path):
    log = tmp_path / "log"
    arguments = [*TORCHRUN, 2, TOOLS / "train.py", CONFIG, "--work-dir", tmp_path]
    with started([*arguments, "--cfg-options", "custom_hooks.3.pause=0.1"], log) as process:
        wait_for(lambda: reached(tmp_path, 2), process, log)
        ranks = workers(process.pid)
        assert len(ranks) == 2
        os.kill(ranks[1], signal.SIGKILL)
        assert process.wait(timeout=60) == 1
        assert not [rank for rank in ranks if Path(f"/proc/{rank}").exists()]
    assert "Signal 9 (SIGKILL)" in log.read_text()

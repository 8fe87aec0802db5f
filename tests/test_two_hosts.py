"""Two network namespaces with an address each, joined by a virtual cable, stand for two machines."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from toy_engine.runs import CONFIG, TOOLS, command, descendants, reached, records, run, started, wait_for, workers

ADDRESSES = ("10.123.0.1", "10.123.0.2")
SAME = ("--cfg-options", "model.dropout=0")


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[str]]:
    """Names of two namespaces that reach each other, and nothing else."""
    names = [f"ffplug-{os.getpid()}-{index}" for index in range(2)]
    setup = [f"netns add {name}" for name in names]
    setup.append(f"link add eth0 netns {names[0]} type veth peer name eth0 netns {names[1]}")
    for name, address in zip(names, ADDRESSES, strict=True):
        setup += [f"-n {name} addr add {address}/24 dev eth0", f"-n {name} link set eth0 up"]
        setup += [f"-n {name} link set lo up"]
    known = "".join(f"{address} host{rank}\n" for rank, address in enumerate(ADDRESSES)) + "127.0.0.1 localhost\n"
    if shutil.which("ip") is None:
        pytest.skip("needs the command ip (iproute2)")
    try:
        for step in setup:
            done = subprocess.run(["ip", *step.split()], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"network namespaces are not permitted here: ip {step}: {done.stderr.strip()}")
        for name in names:  # what ip puts in the place of /etc/hosts there
            Path("/etc/netns", name).mkdir(parents=True)
            Path("/etc/netns", name, "hosts").write_text(known)
        yield names
    finally:
        for name in names:
            shutil.rmtree(Path("/etc/netns", name), ignore_errors=True)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def on_host(hosts: list[str], rank: int, work_dir: Path, *options: str, **environment: str) -> tuple[list, dict]:
    """Command and variables that train on one of the machines, as a user gives them there."""
    arguments = ["ip", "netns", "exec", hosts[rank], "bash", TOOLS / "dist_train.sh", CONFIG, "1"]
    arguments += ["--work-dir", work_dir, *options]
    variables = {"NNODES": "2", "NODE_RANK": str(rank), "MASTER_ADDR": "host0", "PORT": "29511"}
    variables |= {"GLOO_SOCKET_IFNAME": "eth0"}  # both have this machine's name, which gloo would go by
    return arguments, variables | environment


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work_dir = tmp_path_factory.mktemp("single")
    done = run(command("train", CONFIG, "--work-dir", work_dir, *SAME, "train_dataloader.batch_size=4"))
    assert done.returncode == 0, done.stdout + done.stderr
    return work_dir


def test_two_hosts_do_what_one_process_does(hosts: list[str], single: Path, tmp_path: Path):
    # They share no folder, and the second host's current folder is another.
    work_dirs = [tmp_path / "first" / "run", tmp_path / "second" / "run"]
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    with ExitStack() as stack:
        processes = []
        for rank in range(2):
            work_dirs[rank].parent.mkdir()
            arguments, variables = on_host(hosts, rank, work_dirs[rank], *SAME)
            processes.append(stack.enter_context(started(arguments, logs[rank], work_dirs[rank].parent, **variables)))
        for process, log in zip(processes, logs, strict=True):
            assert process.wait(timeout=240) == 0, log.read_text()
    one, two = records(single), records(work_dirs[0])
    assert two.keys() == one.keys() == set(range(24))
    for step in one:
        assert float.fromhex(two[step][0][0]) == pytest.approx(float.fromhex(one[step][0][0]), rel=1e-4)
    metrics, others = records(single, "metrics"), records(work_dirs[0], "metrics")
    for step in metrics:
        assert float.fromhex(others[step][0][0]) == pytest.approx(float.fromhex(metrics[step][0][0]), rel=1e-3)
    assert not (work_dirs[1] / "losses.jsonl").exists(), "the second machine took itself for the first"


def test_killed_worker_of_one_host_is_replaced(hosts: list[str], single: Path, tmp_path: Path):
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    work_dir = tmp_path / "shared"
    with ExitStack() as stack:
        processes = []
        for rank in range(2):
            options = (*SAME, "custom_hooks.3.pause=0.1")
            arguments, variables = on_host(
                hosts, rank, work_dir, "--resume", *options, MAX_RESTARTS="2", LOCAL_ADDR=ADDRESSES[rank]
            )
            processes.append(stack.enter_context(started(arguments, logs[rank], **variables)))
        wait_for(lambda: reached(work_dir, 14), processes[0], logs[0], 120)
        (worker,) = workers(processes[1].pid)
        os.kill(worker, signal.SIGKILL)
        for process, log in zip(processes, logs, strict=True):
            assert process.wait(timeout=240) == 0, log.read_text()
    one, two = records(single), records(work_dir)
    assert two.keys() == set(range(24))
    for step, values in two.items():
        for value in values:
            assert float.fromhex(value[0]) == pytest.approx(float.fromhex(one[step][0][0]), rel=1e-4)
    twice = {step for step, values in two.items() if len(values) > 1}
    assert 1 <= len(twice) <= 4, f"a checkpoint is written every 4 iterations, but {sorted(twice)} were done twice"
    ends = [torch.load(folder / "iter_24.pth", weights_only=True)["state_dict"] for folder in (single, work_dir)]
    for key, value in ends[0].items():
        if key == "first.bias":
            continue  # normalization takes it away: its gradient is rounding, whose sign the optimiser follows
        torch.testing.assert_close(ends[1][key], value, rtol=1e-3, atol=1e-4)


def test_lost_host_ends_the_other(hosts: list[str], tmp_path: Path):
    logs = [tmp_path / "first.log", tmp_path / "second.log"]
    with ExitStack() as stack:
        processes = []
        for rank in range(2):
            options = ("--cfg-options", "custom_hooks.3.pause=0.1", "train_cfg.max_iters=24")
            arguments, variables = on_host(hosts, rank, tmp_path / "run", *options)
            processes.append(stack.enter_context(started(arguments, logs[rank], **variables)))
        wait_for(lambda: reached(tmp_path / "run", 2), processes[0], logs[0], 120)
        for pid in [processes[1].pid, *descendants(processes[1].pid)]:
            os.kill(pid, signal.SIGKILL)
        assert processes[0].wait(timeout=240) == 1
    assert "rank 0 of 2: another process ended before, and its own message says why" in logs[0].read_text()

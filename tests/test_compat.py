"""Each mend of MMEngine and torch, on the real thing."""

from __future__ import annotations

import errno
import os
import pathlib
import pickle
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine import fileio, hub
from mmengine.fileio import get_file_backend
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler import OneCycleLR
from mmengine.runner import CheckpointLoader, FlexibleRunner
from mmengine.runner import checkpoint as mmengine_checkpoint
from safetensors.torch import save_file
from torch import nn
from toy_engine.runs import ENVIRONMENT

from ffplug.compat import REMOTE_PREFIXES, AtomicLocalBackend, load_from_local
from ffplug.errors import CheckpointError, DataError, PluginError
from ffplug.files import atomic_path, lack_of_room


class Payload:
    """Unpickling it makes a folder: what an attacker could do, and we can see."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.trace,)


class Method:
    """Unpickling it fetches an attribute of a class that is allowed."""

    def __init__(self, owner: type, name: str) -> None:
        self.owner, self.name = owner, name

    def __reduce__(self) -> tuple:
        return getattr, (self.owner, self.name)


# ---- checkpoints


def test_checkpoints_of_plain_mmengine_load(tmp_path: Path):
    history = HistoryBuffer()
    for value in (3.0, 1.0, 2.0):
        history.update(value)
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    schedule = OneCycleLR(optimizer, eta_max=0.1, total_steps=10, by_epoch=False)
    content = {
        "message_hub": {"log_scalars": {"loss": history}},
        "param_schedulers": [schedule.state_dict()],
        "meta": {
            "best": np.float64(1.5),
            "count": np.int64(3),
            "array": np.arange(4, dtype=np.uint8),
            "ok": np.bool_(True),
        },
        "state_dict": {"weight": torch.ones(2)},
    }
    path = tmp_path / "mmengine.pth"
    torch.save(content, path)
    loaded = CheckpointLoader.load_checkpoint(str(path), map_location="cpu")
    restored = loaded["message_hub"]["log_scalars"]["loss"]
    assert (restored.min(), restored.max(), restored.current(), restored.mean()) == (1, 3, 2, 2)
    assert loaded["meta"]["best"] == 1.5 and loaded["meta"]["array"].tolist() == [0, 1, 2, 3]
    schedule.load_state_dict(loaded["param_schedulers"][0])


@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoint_with_code_is_refused_and_not_run(tmp_path: Path, zipped: bool):
    path, trace = tmp_path / "evil.pth", tmp_path / "ran"
    torch.save({"state_dict": {}, "extra": Payload(trace)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"evil.pth is refused: it holds posix\.mkdir.*--trust-checkpoint"):
        CheckpointLoader.load_checkpoint(str(path))
    assert not trace.exists()
    loader = getattr(mmengine_checkpoint, "_safe_torch_load", None)
    if loader is not None:  # the fork's own would have fallen back to full unpickling
        with pytest.raises(CheckpointError):
            loader(str(path))
    assert not trace.exists()


def test_allowed_classes_give_nothing_but_their_statistics(tmp_path: Path):
    path = tmp_path / "attribute.pth"
    for owner, name in ((HistoryBuffer, "__init__"), (HistoryBuffer, "__subclasses__"), (np.ndarray, "tofile")):
        torch.save({"extra": Method(owner, name)}, path)
        with pytest.raises(CheckpointError, match=r"builtins\.getattr"):
            load_from_local(path)


def test_trust_is_explicit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "odd.pth"
    torch.save({"where": pathlib.PurePosixPath("a/b")}, path)
    with pytest.raises(CheckpointError, match="PurePosixPath"):
        load_from_local(path)
    monkeypatch.setenv("FFPLUG_TRUST_CHECKPOINT", "0")
    with pytest.raises(CheckpointError, match="PurePosixPath"):
        load_from_local(path)
    monkeypatch.setenv("FFPLUG_TRUST_CHECKPOINT", "1")
    assert load_from_local(path) == {"where": pathlib.PurePosixPath("a/b")}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_files_are_named(tmp_path: Path):
    whole = tmp_path / "whole.pth"
    torch.save({"state_dict": {"weight": torch.randn(100)}}, whole)
    content = whole.read_bytes()
    damaged = {
        "half.pth": content[: len(content) // 2],
        "end.pth": content[:-30],
        "empty.pth": b"",
        "page.pth": b"<html>404 not found</html>",
        "text.pth": b"hello",
        "pickle.pth": pickle.dumps([1, {"a": object}]),
        "cut.safetensors": b"\x00\x01",
    }
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(CheckpointError, match=rf"{name} is (truncated|refused)") as caught:
            load_from_local(tmp_path / name)
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="does not exist"):
        load_from_local(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_from_local(tmp_path)


def test_safetensors_load_like_checkpoints(tmp_path: Path):
    save_file({"weight": torch.arange(3.0)}, tmp_path / "a.safetensors", {"iterations": "7"})
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / "a.safetensors"), map_location="cpu")
    assert torch.equal(loaded["state_dict"]["weight"], torch.arange(3.0))
    assert loaded["meta"] == {"iterations": "7"}


@pytest.mark.parametrize("prefix", REMOTE_PREFIXES)
def test_nothing_is_downloaded(prefix: str):
    with pytest.raises(CheckpointError, match="download it yourself"):
        CheckpointLoader.load_checkpoint(f"{prefix}resnet50")


# ---- files

WRITER = """
import sys, ffplug.registry
from mmengine.fileio import put
for step in range(10**6):
    put(bytes([step % 251]) * 30_000_000, sys.argv[1])
    print(step, flush=True)
"""


def test_killed_writer_leaves_a_whole_file(tmp_path: Path):
    target = tmp_path / "iter_1.pth"
    arguments = [sys.executable, "-c", WRITER, str(target)]
    with subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        while not list(tmp_path.glob(".*.tmp")):  # in the middle of a later write
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
    content = target.read_bytes()
    assert len(content) == 30_000_000
    assert len(set(content)) == 1


def test_failed_write_keeps_the_old_file(tmp_path: Path):
    target = tmp_path / "folder" / "file"
    fileio.put_text("old", str(target))
    assert isinstance(get_file_backend(str(target)), AtomicLocalBackend)

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_half()
    assert target.read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["file"]


def test_a_write_without_room_is_told(tmp_path: Path):
    """Also where the writer drops the system's reason, as NumPy's does."""
    target = tmp_path / "values.npy"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(
            DataError, match=r"values\.npy: cannot be written: the file may not grow further; make room"
        ):
            fileio.put(bytes(30_000), str(target))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
    full = OSError(errno.ENOSPC, "No space left on device")
    assert lack_of_room(full, target) == "the disk is full"
    assert lack_of_room(OSError("9 requested and 3 written"), target) is None
    assert lack_of_room(ValueError("no number"), "/dev/full") is None


# ---- packages


def test_hub_runs_no_pip(monkeypatch: pytest.MonkeyPatch):
    def fail(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"a process was started: {args}")

    monkeypatch.setattr(subprocess, "Popen", fail)
    monkeypatch.setattr(os, "system", fail)
    for door in (hub.get_config, hub.get_model):
        with pytest.raises(PluginError, match="pip install mmpose if you want it"):
            door("mmpose::hrnet/none.py")


# ---- runners


def test_flexible_runner_needs_no_env_cfg(tmp_path: Path):
    runner = FlexibleRunner(model=nn.Linear(1, 1), work_dir=str(tmp_path), experiment_name="flexible")
    assert runner.work_dir == str(tmp_path)

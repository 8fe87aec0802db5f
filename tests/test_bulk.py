"""Bulk jobs through the command line: shards, restarts, kills, Ray, wrong lists; the bytes of the unsplit run."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import warm

import ffplug
from ffplug.apis.checkpoints import save_weights
from ffplug.apis.pair_list import PairList
from ffplug.apis.sources import FrameReader
from ffplug.apis.video import VideoWriter
from ffplug.bulk import Shard
from ffplug.cli import cli, run
from ffplug.errors import ConfigError, DataError

LIMIT = 300
HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed (pip install 'ffplug[ray]')")


STARTED: list[subprocess.Popen] = []


@pytest.fixture(autouse=True)
def nothing_goes_on():
    """A test that fails leaves no process behind."""
    yield
    while STARTED:
        STARTED.pop().kill()


def start(*arguments: object, python: str = sys.executable) -> subprocess.Popen:
    command = [python, "-m", "ffplug.cli", *map(str, arguments)]
    STARTED.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    return STARTED[-1]


def finish(process: subprocess.Popen, code: int = 0) -> str:
    text, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == code, text
    return text


def wait_for(condition, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def children(pid: int, of: str) -> list[int]:
    """Processes below ``pid`` whose command line matches."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(re.search(r"^PPid:\s*(\d+)", (folder / "status").read_text(), re.MULTILINE)[1])
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if parent == pid:
            found += [int(folder.name)] * bool(re.search(of, command)) + children(int(folder.name), of)
    return found


def main(*arguments: object) -> int:
    return run(cli, [str(argument) for argument in arguments], "ffplug")


# Synthesis


def synth(layout: str, root: Path, *options: object, scenes: int = 6) -> list[object]:
    small = ("--scenes", scenes, "--frames", 3, "--size", "40x64", "--textures", "analytic")
    return ["synth", layout, "--root", root, *small, *options]


@pytest.fixture(scope="module", params=["sintel", "chairs"])
def unsplit(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("unsplit") / "set"
    assert main(*synth(request.param, root)) == 0
    return request.param, content(root)


@pytest.mark.parametrize("order", [(3, 1, 2), (1, 2, 3)])
def test_shards_of_a_set_in_any_order(unsplit, tmp_path, order, capsys):
    layout, expected = unsplit
    for place, index in enumerate(order):
        assert not (tmp_path / "set").exists()
        assert main(*synth(layout, tmp_path / "set", "--shard", f"{index}/3")) == 0
        assert ("complete" if place == 2 else "parts remain") in capsys.readouterr().out
    assert content(tmp_path / "set") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["set"], "nothing is left beside the set"
    assert main(*synth(layout, tmp_path / "set", "--shard", "2/3")) == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("unsplit", ["sintel"], indirect=True)
def test_shards_of_a_set_at_once_with_workers(unsplit, tmp_path):
    layout, expected = unsplit
    commands = [synth(layout, tmp_path / "set", "--shard", f"{index}/2", "--workers", 1) for index in (1, 2)]
    both = [start(*command, python=warm.python()) for command in commands]
    texts = [finish(process) for process in both]
    assert any("complete" in text for text in texts)
    assert content(tmp_path / "set") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("unsplit", ["sintel"], indirect=True)
def test_the_same_shard_twice_at_once(unsplit, tmp_path):
    layout, expected = unsplit
    for process in [start(*synth(layout, tmp_path / "set"), python=warm.python()) for _ in range(2)]:
        finish(process)
    assert content(tmp_path / "set") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_synthesis_goes_on(tmp_path, workers):
    arguments = synth("chairs", tmp_path / "set", "--workers", workers, scenes=60)
    process = start(*arguments)
    done = tmp_path / ".set.partial" / "done"
    wait_for(lambda: done.exists() and len(list(done.iterdir())) > 4, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = {path.name: path.stat().st_mtime_ns for path in done.iterdir()}
    assert not (tmp_path / "set").exists() and len(kept) < 61
    text = finish(start(*arguments, python=warm.python()))
    assert "were done before" in text and "complete, 60 scenes" in text
    assert main(*synth("chairs", tmp_path / "whole", scenes=60)) == 0
    assert content(tmp_path / "set") == content(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "whole"]


def test_an_unfinished_set_of_other_settings_is_no_part_of_this_one(tmp_path, capsys):
    assert main(*synth("chairs", tmp_path / "set", "--shard", "1/2")) == 0
    assert main(*synth("chairs", tmp_path / "set", "--shard", "2/2", "--seed", 1)) == 2
    assert "seed: 0 there, 1 here" in capsys.readouterr().err
    assert main(*synth("chairs", tmp_path / "set", "--seed", 1, "--overwrite")) == 0
    assert main(*synth("chairs", tmp_path / "fresh", "--seed", 1)) == 0
    assert content(tmp_path / "set") == content(tmp_path / "fresh")
    assert main(*synth("chairs", tmp_path / "set", "--overwrite")) == 0, "a complete set is replaced as well"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "set"]


def test_a_writer_killed_between_the_last_steps_leaves_them_to_the_next(tmp_path):
    for index in (1, 2):
        assert main(*synth("chairs", tmp_path / "set", "--shard", f"{index}/3")) == 0
    partial = tmp_path / ".set.partial"
    shutil.copytree(partial, tmp_path / "kept")
    assert main(*synth("chairs", tmp_path / "set", "--shard", "3/3")) == 0
    expected = content(tmp_path / "set")
    # As if the writer of the last shard had been killed after it took the files for itself.
    shutil.copytree(tmp_path / "set", tmp_path / "kept" / "complete.0123")
    shutil.rmtree(tmp_path / "kept" / "files")
    shutil.rmtree(tmp_path / "set")
    for unit in range(7):
        (tmp_path / "kept" / "done" / str(unit)).touch()
    (tmp_path / "kept").rename(partial)
    assert main(*synth("chairs", tmp_path / "set", "--shard", "1/3")) == 0
    assert content(tmp_path / "set") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


# Inference


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    return save_weights(
        tmp_path_factory.mktemp("weights") / "raft_small.safetensors", ffplug.build_model("raft_small").state_dict()
    )


def write_clip(folder: Path, count: int) -> None:
    folder.mkdir(parents=True)
    for index, frame in enumerate(clip(count)):
        cv2.imwrite(str(folder / f"frame_{index}.png"), frame)


def clip(count: int) -> list[np.ndarray]:
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    base = cv2.resize(noise, (72, 64), interpolation=cv2.INTER_CUBIC)
    return [np.roll(base, 2 * index, axis=1) for index in range(count)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two folders of frames, of 9 and 3 pairs; never changed by a test."""
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "long", 10)
    write_clip(folder / "short", 4)
    return folder


@pytest.fixture
def infer(weights):
    fixed = ("--model", "raft_small", "--checkpoint", weights, "--iterations", 1, "--device", "cpu")
    return lambda source, out, *options: ["infer", *source, "--out", out, *fixed, "--chunk", 2, *options]


@pytest.mark.parametrize("suffix", ["flo", "png", "npy"])
def test_shards_of_an_inference_in_any_order(infer, clips, tmp_path, suffix, capsys):
    options = ("--format", suffix, "--show", tmp_path / "show1")
    assert main(*infer([clips], tmp_path / "one", *options, "--shard", "1/1")) == 0
    assert f"complete, {9 + 3} pairs" in capsys.readouterr().out
    options = ("--format", suffix, "--show", tmp_path / "show3")
    for place, index in enumerate((2, 3, 1)):
        assert (tmp_path / "three" / "INFERENCE.json").exists() is False
        assert main(*infer([clips], tmp_path / "three", *options, "--shard", f"{index}/3")) == 0
        assert ("complete" if place == 2 else "parts remain") in capsys.readouterr().out
    expected = content(tmp_path / "one")
    assert len(expected) == 13 and f"long/frame_8.{suffix}" in expected
    assert content(tmp_path / "three") == expected
    assert len(content(tmp_path / "show1")) == 12 and content(tmp_path / "show3") == content(tmp_path / "show1")
    assert main(*infer([clips], tmp_path / "three", *options)) == 0, "without --shard it is no bulk job"
    assert main(*infer([clips], tmp_path / "three", *options, "--workers", 1)) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_bulk_flow_is_that_of_the_plain_command(infer, clips, tmp_path):
    assert main(*infer([clips], tmp_path / "bulk", "--format", "npy", "--shard", "1/1")) == 0
    assert main(*infer([clips], tmp_path / "plain", "--format", "npy")) == 0
    plain = sorted((tmp_path / "plain").rglob("*.npy"))
    assert len(plain) == 12
    for path in plain:
        other = np.load(tmp_path / "bulk" / path.relative_to(tmp_path / "plain"))
        np.testing.assert_allclose(np.load(path), other, atol=1e-4)


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_a_video_is_cut_in_chunks(infer, tmp_path, name):
    with VideoWriter(tmp_path / name, 12) as writer:
        for frame in clip(8):
            writer.write(frame)
    assert main(*infer([tmp_path / name], tmp_path / "one", "--shard", "1/1")) == 0
    for index in (2, 1):
        assert main(*infer([tmp_path / name], tmp_path / "two", "--shard", f"{index}/2")) == 0
        done = len(list((tmp_path / "two").glob("*.flo")))
        assert done == (3 if index == 2 else 7)
    assert len(content(tmp_path / "one")) == 8
    assert content(tmp_path / "two") == content(tmp_path / "one")


def test_a_warm_start_keeps_sequences_whole(infer, clips, tmp_path):
    assert main(*infer([clips], tmp_path / "one", "--warm-start", "--shard", "1/1")) == 0
    for index, there in ((2, "short"), (1, "long")):
        assert main(*infer([clips], tmp_path / "two", "--warm-start", "--shard", f"{index}/2")) == 0
        assert (tmp_path / "two" / there).exists()
    assert content(tmp_path / "two") == content(tmp_path / "one")
    plain = infer([clips], tmp_path / "plain", "--warm-start")
    assert main(*plain) == 0
    first, second = (np.fromfile(tmp_path / kind / "long" / "frame_8.flo", "<f4") for kind in ("one", "plain"))
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_two_machines_at_once_one_killed_and_then_a_worker_killed(infer, clips, tmp_path):
    pairs = tmp_path / "pairs.tsv"
    frames = [clips / "long" / f"frame_{index}.png" for index in range(10)]
    pairs.write_text("".join(f"{a}\t{b}\n" for a, b in itertools.product(frames, frames)))
    out = tmp_path / "two"
    commands = [
        infer(["--pairs", pairs], out, "--shard", f"{index}/2", "--workers", 1, "--iterations", 6) for index in (1, 2)
    ]
    first, second = (start(*command) for command in commands)
    done = out / ".ffplug-job" / "done"
    wait_for((done / "0").exists, first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert "parts remain" in finish(second)
    kept = len(list(done.iterdir()))
    assert not (out / "INFERENCE.json").exists() and 26 <= kept < 50
    again = start(*commands[0])
    wait_for(lambda: len(list(done.iterdir())) > kept, again)
    (worker,) = children(again.pid, "spawn_main")
    os.kill(worker, signal.SIGKILL)
    text = finish(again)
    assert "were done before" in text and "killed by SIGKILL" in text and "complete, 100 pairs" in text
    assert main(*infer(["--pairs", pairs], tmp_path / "one", "--iterations", 6)) == 0
    assert content(out) == content(tmp_path / "one")


def test_other_settings_are_refused_until_the_job_is_done_and_after(infer, clips, tmp_path, capsys, weights):
    out = tmp_path / "out"
    assert main(*infer([clips], out, "--dtype", "flot16", "--shard", "1/2")) == 2
    assert main(*infer([clips], out, "--shard", "1/2")) == 0, "a mistake leaves no job behind"
    for options in (("--iterations", 2), ("--format", "png"), ("--chunk", 3), ("--threads", 2)):
        assert main(*infer([clips], out, "--shard", "2/2", *options)) == 2
        assert "other settings" in capsys.readouterr().err
    other = tmp_path / "other.safetensors"
    torch.manual_seed(1)
    save_weights(other, ffplug.build_model("raft_small").state_dict())
    assert main(*infer([clips], out, "--shard", "2/2", "--checkpoint", other)) == 2
    assert "weights: " in capsys.readouterr().err
    moved = shutil.copy(weights, tmp_path / "same.safetensors")
    assert main(*infer([clips], out, "--shard", "2/2", "--checkpoint", moved)) == 0, "the same bytes elsewhere"
    capsys.readouterr()
    assert main(*infer([clips], out, "--shard", "2/2", "--iterations", 2)) == 2
    assert "iterations: 1 there, 2 here" in capsys.readouterr().err
    record = json.loads((out / "INFERENCE.json").read_text())
    assert record["pairs"] == 12 and record["model"] == "raft_small" and len(record["weights"]) == 64


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_picture_costs_its_pairs_alone(infer, tmp_path, capsys, workers):
    write_clip(tmp_path / "clip", 10)
    whole = (tmp_path / "clip" / "frame_4.png").read_bytes()
    (tmp_path / "clip" / "frame_4.png").write_bytes(whole[:100])
    command = infer([tmp_path / "clip"], tmp_path / "out", "--workers", workers, "--shard", "1/1")
    assert main(*command) == 1
    error = capsys.readouterr().err
    assert "2 failed" in error and re.search(r"frame_3: .*frame_4\.png.*damaged", error)
    names = {path.stem for path in (tmp_path / "out").glob("*.flo")}
    assert names == {f"frame_{index}" for index in (0, 1, 2, 5, 6, 7, 8)}
    (tmp_path / "clip" / "frame_4.png").write_bytes(whole)
    assert main(*command) == 0
    again = infer([tmp_path / "clip"], tmp_path / "again", "--shard", "1/1")
    assert main(*again) == 0
    assert content(tmp_path / "out") == content(tmp_path / "again")


def test_failing_fast(infer, tmp_path, capsys):
    write_clip(tmp_path / "clip", 10)
    (tmp_path / "clip" / "frame_0.png").write_bytes(b"")
    assert main(*infer([tmp_path / "clip"], tmp_path / "out", "--shard", "1/1", "--fail-fast")) == 1
    assert "frame_0: " in capsys.readouterr().err
    assert [path.stem for path in (tmp_path / "out").glob("*.flo")] == ["frame_1"]


def test_random_weights_are_those_of_the_seed(clips, tmp_path):
    command = ["infer", clips / "short", "--model", "raft_small", "--random-weights", "--iterations", 1]
    for out, options in (("one", ()), ("two", ("--workers", 2)), ("three", ("--seed", 1))):
        assert main(*command, "--device", "cpu", "--shard", "1/1", "--chunk", 1, "--out", tmp_path / out, *options) == 0
    one, two, three = ((tmp_path / out / "frame_0.flo").read_bytes() for out in ("one", "two", "three"))
    assert one == two != three


# Lists of pairs


LISTS = {
    "plain.csv": "a.png,b.png,x/y\n\nb.png,a.png,z\n",
    "header.csv": 'note,name,IMAGE2,image1\n"1, or\n2",x/y,b.png,a.png\n,z,a.png,b.png\n',
    "bom.tsv": "\ufeffimage1\timage2\tname\r\na.png\tb.png\tx/y\r\nb.png\ta.png\tz\r\n",
    "objects.jsonl": '{"image1": "a.png", "image2": "b.png", "name": "x/y"}\n'
    '{"name": "z", "image2": "a.png", "image1": "b.png"}',
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_lists_of_every_kind(tmp_path, name, chunk):
    (tmp_path / name).write_bytes(LISTS[name].encode())
    pairs = PairList(tmp_path / name, chunk)
    read = [pair for stretch in range(len(pairs.offsets)) for pair in pairs.read(stretch)]
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    assert read == [(a, b, "x/y"), (b, a, "z")] and pairs.count == 2


def test_pairs_without_a_name_are_numbered(tmp_path):
    (tmp_path / "list.csv").write_text("a.png,b.png\n" * 2345)
    pairs = PairList(tmp_path / "list.csv", 100)
    assert [name for _, _, name in pairs.read(23)][-1] == "000002/pair_000002344"
    assert len(pairs.offsets) == 24 and sum(1 for _ in pairs.read(23)) == 45


@pytest.mark.parametrize(
    "rows, message",
    [
        ("a.png,b.png,../out\n", "is no name of a result"),
        ("a.png,b.png,/etc/out\n", "is no name of a result"),
        ("a.png,b.png,x/../../out\n", "is no name of a result"),
        ("a.png,b.png,x//y\n", "is no name of a result"),
        ("a.png,b.png,..\\out\n", "is no name of a result"),
        ("a.png,b.png,.ffplug-job/done/1\n", "is no name of a result"),
        ("a.png,b.png,x\na.png,a.png,y\nb.png,b.png,x\n", "pairs 1 and 3 have the same name 'x'"),
        ("a.png,b.png,000000/pair_000000001\na.png,b.png\n", "pairs 1 and 2 have the same name"),
        ("a.png\n", "expected image1,image2"),
        ("a.png,b.png,c,d\n", "expected image1,image2"),
        ("image1,image2\n", "holds no pair"),
        ("", "holds no pair"),
        ('a.png,"b.png\n', "at byte 0"),
    ],
)
def test_wrong_lists_are_refused_before_anything_runs(infer, tmp_path, capsys, rows, message):
    (tmp_path / "list.csv").write_text(rows)
    assert main(*infer(["--pairs", tmp_path / "list.csv"], tmp_path / "out")) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["list.csv"]


def test_lists_of_the_wrong_type(tmp_path):
    (tmp_path / "list.xml").write_text("a")
    with pytest.raises(ConfigError, match=r"\.csv \.tsv \.jsonl"):
        PairList(tmp_path / "list.xml", 1)
    for row in ("[1, 2]", "{", '{"image1": "a.png"}', '{"image1": 1, "image2": 2}'):
        (tmp_path / "list.jsonl").write_text(row)
        with pytest.raises(DataError, match=r"list\.jsonl"):
            PairList(tmp_path / "list.jsonl", 1)
    with pytest.raises(DataError, match="cannot be read"):
        PairList(tmp_path / "none.csv", 1)


def test_missing_pictures_and_mixed_sizes_in_a_list(infer, clips, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((40, 50, 3), np.uint8))
    a, b = (clips / "long" / f"frame_{index}.png" for index in range(2))
    rows = [(a, b, "good/1"), (a, "none.png", "bad/missing"), ("small.png", b, "bad/size"), (b, a, "good/2")]
    rows.append(("small.png", "small.png", "good/small"))
    (tmp_path / "list.csv").write_text("".join(f"{one},{two},{name}\n" for one, two, name in rows))
    assert main(*infer(["--pairs", tmp_path / "list.csv"], tmp_path / "out", "--batch-size", 2)) == 1
    error = capsys.readouterr().err
    assert "2 failed" in error and "bad/missing: " in error and "bad/size: " in error and "one size" in error
    assert sorted(path.stem for path in (tmp_path / "out").rglob("*.flo")) == ["1", "2", "small"]


# Small parts


def test_names_of_the_folders_above_are_no_way_out(infer, clips, tmp_path, monkeypatch):
    shutil.copytree(clips, tmp_path / "clips")
    (tmp_path / "clips" / "long" / "work").mkdir()
    monkeypatch.chdir(tmp_path / "clips" / "long" / "work")
    for bulk in ((), ("--shard", "1/1")):
        assert main(*infer(["..", "../../short"], tmp_path / "out", *bulk)) == 0
        assert {path.parent.name for path in tmp_path.rglob("*.flo")} == {"long", "short"}
        shutil.rmtree(tmp_path / "out")


def test_shards_divide_the_units():
    for total, count in itertools.product((0, 1, 7, 8), (1, 3, 8)):
        parts = [Shard(index, count).units(total) for index in range(1, count + 1)]
        assert sorted(itertools.chain(*parts)) == list(range(total))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["0/8", "9/8", "1/0", "8", "a/b", "1/-2", "1.5/2", ""])
def test_wrong_shards(text):
    with pytest.raises(ConfigError, match="--shard"):
        Shard.parse(text)


def test_frame_reader_goes_on_and_back():
    class Frames:
        started = 0

        def __iter__(self):
            self.started += 1
            yield from range(10)
            raise DataError("cut off")

    frames = Frames()
    reader = FrameReader(frames)
    assert list(reader.read(0, 2)) == [0, 1, 2] and list(reader.read(2, 4)) == [2, 3, 4]
    assert list(reader.read(7, 9)) == [7, 8, 9] and frames.started == 1
    assert list(reader.read(1, 1)) == [1] and frames.started == 2
    for _ in range(2):
        with pytest.raises(DataError):
            list(reader.read(9, 12))
    assert frames.started == 2


def test_wrong_combinations(infer, clips, tmp_path, capsys):
    out = tmp_path / "out"
    cases = {
        ("--shard", "1/2", "--video", tmp_path / "film.mp4"): "in order",
        ("--shard", "1/2", "--pairs", "list.csv"): "either INPUTS",
        ("--shard", "1/2", "--chunk", "0"): "--chunk 0",
        ("--shard", "1/2", "--show", out, "--format", "png"): "overwrite each other",
        ("--ray-address", "auto"): "needs --engine ray",
        ("--workers", "-1"): "workers=-1",
    }
    for options, message in cases.items():
        assert main(*infer([clips], out, *options)) == 2
        assert message in capsys.readouterr().err
    assert main(*infer([clips], tmp_path / "one.flo", "--shard", "1/2")) == 2
    assert "into a folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# Ray


def test_without_ray_its_install_line(infer, clips, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(*infer([clips], tmp_path / "out", "--engine", "ray")) == 2
    assert "pip install 'ffplug[ray]'" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.flo"))


@needs_ray
def test_ray_gives_the_same_and_a_killed_actor_costs_nothing(infer, clips, tmp_path):
    pairs = tmp_path / "pairs.csv"
    frames = [clips / "long" / f"frame_{index}.png" for index in range(8)]
    pairs.write_text("".join(f"{a},{b}\n" for a, b in itertools.product(frames, frames)))
    process = start(*infer(["--pairs", pairs], tmp_path / "ray", "--engine", "ray", "--workers", 2))
    wait_for(lambda: list((tmp_path / "ray").rglob("*.flo")), process)
    actors = children(process.pid, r"ray::RayActor")
    assert len(actors) == 2
    os.kill(actors[0], signal.SIGKILL)
    text = finish(process)
    assert "a worker died" in text and "complete, 64 pairs" in text
    assert main(*infer(["--pairs", pairs], tmp_path / "one")) == 0
    assert content(tmp_path / "ray") == content(tmp_path / "one")


@needs_ray
@pytest.mark.parametrize("unsplit", ["chairs"], indirect=True)
def test_ray_writes_a_set(unsplit, tmp_path):
    layout, expected = unsplit
    finish(start(*synth(layout, tmp_path / "set", "--engine", "ray", "--workers", 1)))
    assert content(tmp_path / "set") == expected

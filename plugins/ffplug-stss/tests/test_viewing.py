"""The viewer through the real command line, and what it refuses with nothing left behind."""

import csv

import av
import numpy as np
import pytest
from ffplug_stss.viewing import produce, write_view

import ffplug
from ffplug.cli import cli, run
from ffplug.errors import DataError


def view(*arguments):
    return run(cli, ["stss", "view", *map(str, arguments)], "ffplug")


def test_a_video_a_table_and_a_plot(tmp_path, capsys):
    assert view(tmp_path / "clip.mp4", "--size", "16x24", "--frames", 3) == 0
    assert "clip.mp4: 3 frames, PSNR " in capsys.readouterr().out
    with av.open(str(tmp_path / "clip.mp4")) as video:
        shown = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(shown) == 3 and shown[0].shape == (108, 144, 3)
    rows = list(csv.DictReader((tmp_path / "clip.csv").open()))
    assert [row["kind"] for row in rows] == ["SF", "EF", "SF"]
    assert not rows[0]["hole_psnr_stss"] and float(rows[1]["hole_psnr_stss"]) > 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.csv", "clip.mp4", "clip.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("clip.txt", "--size", "16x24", "--frames", 1), "not a video suffix"),
        (("clip.mp4", "--frames", 0), "expected at least 1"),
        (("clip.mp4", "--data", "nowhere"), "nowhere"),
    ],
)
def test_refused(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert view(*arguments) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_clip_without_frames_or_without_truth(tmp_path):
    with pytest.raises(DataError, match="there are no frames to view"):
        write_view([], tmp_path / "clip.mp4")
    frame = dict(record=np.zeros((8, 8, 33), np.float16), sample_id="scene/0006", frame=6, kind="SF")
    with pytest.raises(DataError, match="scene/0006: there is no true frame to compare with"):
        write_view(produce(ffplug.build_model("stss"), [frame]), tmp_path / "clip.mp4")
    assert not list(tmp_path.iterdir())

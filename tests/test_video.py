"""Videos: what is written comes back, and a damaged file gives its good frames, then one clear error."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from ffplug.apis.video import VideoFrames, VideoWriter
from ffplug.errors import DataError


def pictures(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """A bright square that moves one pixel to the right per frame."""
    frames = np.full((count, height, width, 3), 40, np.uint8)
    for index, frame in enumerate(frames):
        frame[10:30, index + 5 : index + 25] = (200, 120, 60)
    return list(frames)


def noise(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Pictures that compress badly, so that a file cut off loses frames."""
    return list(np.random.RandomState(0).randint(0, 255, (count, height, width, 3), np.uint8))


def write(path: Path, frames: list[np.ndarray], codec: str = "mpeg4", rotation: int = 0, **options: str) -> Path:
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for picture in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".webm"])
@pytest.mark.parametrize("size", [(48, 64), (35, 51)])
def test_what_is_written_comes_back(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    expected = pictures(9, *size)
    with VideoWriter(tmp_path / "new" / f"video{suffix}", rate=10) as writer:
        for picture in expected:
            writer.write(picture)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [f"video{suffix}"]
    video = VideoFrames(writer.path)
    frames = list(video)
    assert (len(frames), video.rate) == (9, 10)
    for frame, picture in zip(frames, expected, strict=True):
        assert frame.dtype == np.uint8
        assert np.abs(frame[: size[0], : size[1]].astype(int) - picture).mean() < 6


def test_a_rotated_video_stands_upright(tmp_path: Path) -> None:
    frames = pictures(2)
    plain = list(VideoFrames(write(tmp_path / "plain.mp4", frames)))
    turned = list(VideoFrames(write(tmp_path / "turned.mp4", frames, rotation=90)))
    assert turned[0].shape == (64, 48, 3)
    assert np.array_equal(np.rot90(plain[0]), turned[0])


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"movflags": "faststart"}),
        ("b.mp4", "mpeg4", {"movflags": "faststart"}),
        ("c.avi", "mpeg4", {}),
        ("d.mkv", "ffv1", {}),
    ],
)
def test_a_cut_off_video_gives_its_frames_then_an_error(tmp_path: Path, name: str, codec: str, options: dict) -> None:
    path = cut(write(tmp_path / name, noise(20), codec, **options), 0.6)
    frames, error = [], ""
    try:
        for frame in VideoFrames(path):
            frames.append(frame)
    except DataError as caught:
        error = str(caught)
    assert 3 < len(frames) < 20
    assert str(path) in error
    assert f"{len(frames)} frames read" in error


def test_a_video_whose_index_is_cut_off_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.mp4.*0 frames read"):
        VideoFrames(cut(write(tmp_path / "a.mp4", noise(5)), 0.5))


@pytest.mark.parametrize("content", [b"", b"this is no video" * 50])
def test_no_video_at_all(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.mp4: (cannot be opened|holds no)"):
        list(VideoFrames(path))
    with pytest.raises(DataError, match="no such video"):
        VideoFrames(tmp_path / "missing.mp4")


def test_the_writer_keeps_what_came_before_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with pytest.raises(DataError, match="two sizes"), VideoWriter(path) as writer:
        for picture in [*pictures(3), *pictures(1, 20, 20)]:
            writer.write(picture)
    assert len(list(VideoFrames(path))) == 3
    with pytest.raises(DataError, match="not a video suffix"):
        VideoWriter(tmp_path / "a.flo")

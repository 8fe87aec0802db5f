"""Motion vectors out of videos: golden clips to the bit, every codec that has them, distances, and bad files."""

from __future__ import annotations

import logging
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from av.bitstream import BitStreamFilterContext
from ffplug_mvflow.bitstream import h264_parameters
from ffplug_mvflow.fields import INPUTS, MotionField, flow_from_previous, flow_to_previous, spread, turn
from ffplug_mvflow.video import MotionVectorVideo

from ffplug.errors import DataError

GOLDEN = Path(__file__).parent / "golden"
HEIGHT, WIDTH = 72, 104
STEP = (3, 2)
"""Pixels by which what is seen moves to the left and up from frame to frame."""


def moving(count: int = 8, height: int = HEIGHT, width: int = WIDTH, step: tuple[int, int] = STEP) -> list[np.ndarray]:
    """Frames whose flow to the frame before is ``step`` everywhere, x and y."""
    coarse = np.random.RandomState(0).randint(20, 235, (30, 40, 3), np.uint8)
    whole = cv2.resize(coarse, (400, 300), interpolation=cv2.INTER_CUBIC)
    corners = [(20 + step[1] * index, 20 + step[0] * index) for index in range(count)]
    return [np.ascontiguousarray(whole[y : y + height, x : x + width]) for y, x in corners]


def write(path: Path, frames: list[np.ndarray], codec: str = "libx264", times: list[int] | None = None, **options: str):
    """Encode frames; ``times`` are their time stamps in 1/25 s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = (times or range(len(frames)))[index]
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def x264(**changes: int) -> dict[str, str]:
    """Options of libx264: one reference, no B frames, unless told otherwise."""
    settings = dict(bframes=0, ref=1, scenecut=0, keyint=250, weightp=0) | changes
    detail = ":".join(f"{key.replace('_', '-')}={value}" for key, value in settings.items())
    return {"crf": "18", "x264-params": detail}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Eight frames of H.264: one key frame, seven P frames."""
    return write(tmp_path_factory.mktemp("clips") / "clip.mp4", moving(), **x264())


@pytest.mark.parametrize("name", ["p_only", "b_frames"])
def test_golden_clips(name):
    wanted = np.load(GOLDEN / f"{name}_dense.npz")
    video = MotionVectorVideo(GOLDEN / f"{name}.mp4")
    assert not video.search
    frames = list(video.coded_frames())
    assert [frame.position for frame in frames] == list(range(12))
    for index, frame in enumerate(frames):
        valid = wanted["valid"][index]
        if frame.field is None:
            assert frame.kind == "I" and not valid.any()
            continue
        field = frame.field
        assert np.array_equal(field.flow.numpy(), wanted["flow"][index])
        assert np.array_equal(field.valid.numpy(), valid)
        distance = np.where(valid, wanted["dist"][index][:, None, None], 0)
        assert np.array_equal(field.distance.numpy(), distance)
        np.testing.assert_allclose(field.span.numpy(), np.abs(distance), rtol=1e-6)
        back = flow_to_previous(field)
        np.testing.assert_allclose(back.flow.numpy(), wanted["unit_back"][index], rtol=0, atol=1e-5)
        assert np.array_equal(back.valid.numpy(), wanted["unit_back_valid"][index])
        if name == "p_only":
            thrown = flow_from_previous(field)
            np.testing.assert_allclose(thrown.flow.numpy(), wanted["splat_fwd"][index], rtol=0, atol=1e-5)
            assert np.array_equal(thrown.valid.numpy(), wanted["splat_fwd_valid"][index])


def inner(values):
    """Cells away from the border, where what is seen is there in the reference too."""
    return values[..., 2:-2, 2:-2]


CODECS = {
    "libx264": ("mp4", x264()),
    "mpeg4": ("mp4", dict(qmin="2", qmax="2", b="9000000")),
    "mpeg2video": ("mpg", dict(qmin="2", qmax="2", b="9000000")),
    "mpeg1video": ("mpg", dict(qmin="2", qmax="2", b="9000000")),
    "flv": ("flv", dict(qmin="2", qmax="2", b="9000000")),
    "h263p": ("avi", dict(qmin="2", qmax="2", b="9000000")),
    "wmv2": ("avi", dict(qmin="2", qmax="2", b="9000000")),
    "msmpeg4v2": ("avi", dict(qmin="2", qmax="2", b="9000000")),
    "snow": ("avi", dict(qmin="2", qmax="2", b="9000000", strict="-2")),
}


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_tells_the_motion(tmp_path, codec):
    suffix, options = CODECS[codec]
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    path = write(tmp_path / f"clip.{suffix}", moving(5), codec, **options)
    frames = list(MotionVectorVideo(path).coded_frames())
    assert len(frames) == 5
    with_vectors = [frame for frame in frames[1:] if frame.field is not None]
    assert len(with_vectors) >= 3  # MPEG-1 and 2 give none for the stream's last frame
    for frame in with_vectors:
        flow = flow_to_previous(frame.field)
        assert inner(flow.valid).float().mean() > 0.8
        middle = inner(flow.flow)[:, inner(flow.valid)].median(dim=1).values
        assert middle.tolist() == pytest.approx(STEP, abs=0.26)


def test_b_frames_count_both_ways(tmp_path):
    path = write(tmp_path / "b.mp4", moving(9), **x264(bframes=2, b_adapt=0, b_pyramid="none"))
    frames = list(MotionVectorVideo(path).coded_frames())
    assert "".join(frame.kind for frame in frames).count("B") >= 4
    lists = set()
    for frame in frames[1:]:
        field = frame.field
        for side, sign in ((0, -1), (1, 1)):
            known = inner(field.valid[side])
            if known.any():
                distance = inner(field.distance[side])[known]
                lists.add((frame.kind, int(distance[0])))
                assert bool((distance * sign > 0).all())
                per_frame = inner(field.flow[side])[:, known] / -distance
                assert per_frame.median(dim=1).values.tolist() == pytest.approx(STEP, abs=0.26)
        flow = flow_to_previous(field)
        assert inner(flow.flow).flatten(1).median(dim=1).values.tolist() == pytest.approx(STEP, abs=0.26)
    assert lists >= {("P", -3), ("B", -1), ("B", -2), ("B", 1), ("B", 2)}


def flashing(count: int) -> list[np.ndarray]:
    """Two scenes in turn, both moving: the frame before last is the one to predict from."""
    return [255 - frame if index % 2 else frame for index, frame in enumerate(moving(count))]


def test_distant_references_are_found(tmp_path):
    path = write(tmp_path / "refs.mp4", flashing(9), **x264(ref=3))
    assert MotionVectorVideo(path).search
    far, near = [], []
    for search, found in ((True, far), (False, near)):
        for frame in list(MotionVectorVideo(path, search=search).coded_frames())[3:]:
            assert frame.field is not None
            flow = flow_to_previous(frame.field)
            error = (inner(flow.flow) - torch.tensor(STEP).view(2, 1, 1)).norm(dim=0)
            found.append(float(error[inner(flow.valid)].mean()))
    assert np.mean(far) < 0.3 and np.mean(near) > 1.5
    distance = frame.field.distance[0]
    assert (inner(distance) == -1).float().mean() > 0.9  # without the search


def test_number_of_references(tmp_path):
    for count in (1, 3, 5):
        path = write(tmp_path / f"{count}.mp4", moving(2), **x264(ref=count))
        with av.open(str(path)) as container:
            found = h264_parameters(container.streams.video[0].codec_context.extradata)
            assert (found.references, found.left, found.top) == (count, 0, 0)
    assert h264_parameters(b"") is None and h264_parameters(b"\x01" + bytes(20)) is None


def test_intra_blocks_have_no_vector(tmp_path):
    frames = moving(2)
    frames[1][24:56, 40:80] = np.random.RandomState(1).randint(0, 255, (32, 40, 3))
    path = write(tmp_path / "intra.mp4", frames, **x264())
    _, second = MotionVectorVideo(path).coded_frames()
    assert not second.field.valid[0, 3:7, 5:10].all() and second.field.valid[0, :, :4].all()
    inputs = spread(flow_to_previous(second.field), HEIGHT, WIDTH)
    known = inputs["motion_valid"]
    assert 0 < known.mean() < 1 and not any(inputs[name][..., known == 0].any() for name in INPUTS)
    assert set(np.unique(inputs["motion_size"])) <= {0, 6, 7, 8} and set(np.unique(inputs["motion_gap"])) == {0, 1}


def test_frames_come_with_the_flow_from_the_frame_before(clip):
    video = MotionVectorVideo(clip)
    frames = list(video)
    assert len(frames) == 8 and frames[0].image.shape == (HEIGHT, WIDTH, 3)
    assert not frames[0].inputs["motion_valid"].any()
    for frame in frames[1:]:
        flow, valid = frame.inputs["motion_flow"], frame.inputs["motion_valid"] > 0
        assert flow.shape == (2, HEIGHT, WIDTH) and valid[16:-16, 16:-16].all()
        assert np.median(flow[:, valid], axis=1).tolist() == pytest.approx([-STEP[0], -STEP[1]], abs=0.26)
    assert video.seconds["decode"] > 0 and video.seconds["vectors"] > 0


def test_throwing_by_hand():
    flow, valid = torch.zeros(2, 2, 4, 6), torch.zeros(2, 4, 6, dtype=torch.bool)
    flow[0, 0, 1, 4] = -24.0  # in two frames: one and a half cells to the left in one
    valid[0, 1, 4] = True
    thrown = flow_from_previous(MotionField("P", flow, valid, -2 * valid, 2.0 * valid, 256.0 * valid))
    assert thrown.valid.nonzero().tolist() == [[1, 2], [1, 3]]
    assert thrown.flow[:, 1, 2].tolist() == [12, 0] and thrown.gap[1, 3] == 0.5 and thrown.size[1, 2] == 8


def test_turning_by_hand():
    grid = np.zeros((2, 3), np.float32)
    grid[0, 2] = 1
    flow = np.stack((5 * grid, 7 * grid))
    turned = turn(dict(zip(INPUTS, (flow, grid, grid, grid), strict=True)), 1)
    assert turned["motion_valid"].shape == (3, 2) and turned["motion_valid"][0, 0] == 1
    assert turned["motion_flow"][:, 0, 0].tolist() == [7, -5]  # to the right and down, now down... and up
    thrice = turn(turned, 3)
    assert np.array_equal(thrice["motion_flow"], flow)


def bad_codec(folder):
    return write(folder / "clip.mkv", moving(3), "ffv1"), "coded as ffv1.*no motion vectors.*ffplug mvflow transcode"


def intra_only(folder):
    return write(folder / "clip.mp4", moving(4), **x264(keyint=1)), "all of 4 frames are key frames.*transcode"


def cut_off(folder):
    path = write(folder / "clip.mp4", moving(8), **x264(), movflags="+faststart")
    data = path.read_bytes()
    at = data.find(b"mdat") - 4
    moved = folder / "cut.mp4"
    with av.open(str(path)) as source, av.open(str(moved), "w", options={"movflags": "+faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    data = moved.read_bytes()
    assert at > 0
    moved.write_bytes(data[: len(data) * 2 // 3])
    return moved, "cut off|cannot be opened"


def no_frame(folder):
    path = write(folder / "clip.mp4", moving(3), **x264())
    data = bytearray(path.read_bytes())
    start, size = data.find(b"mdat") + 4, len(data)
    data[start:size] = bytes(size - start)
    path.write_bytes(data)
    return path, "0 frames read|holds no|cannot be opened"


def other_size(folder):
    path = folder / "clip.h264"
    parts = [
        write(folder / f"part{height}.h264", moving(3, height), **x264(repeat_headers=1)).read_bytes()
        for height in (HEIGHT, 48)
    ]
    path.write_bytes(b"".join(parts))
    return path, rf"changes its size from {WIDTH}×{HEIGHT} to {WIDTH}×48 \(W×H\) at 0\.\d+ s.*Split"


def interlaced(folder):
    return write(folder / "clip.mp4", moving(4), **x264(interlaced=1)), "interlaced.*bwdif"


@pytest.mark.parametrize("make", [bad_codec, intra_only, cut_off, no_frame, other_size, interlaced])
def test_bad_video(tmp_path, make):
    path, message = make(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        list(MotionVectorVideo(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_b_frames_can_be_forbidden(tmp_path):
    path = write(tmp_path / "b.mp4", moving(6), **x264(bframes=2, b_adapt=0))
    with pytest.raises(DataError, match=r"the frame at 0\.\d+ s is a B frame.*b_frames=False"):
        list(MotionVectorVideo(path, b_frames=False))


def test_variable_rate_scales_by_time(tmp_path, caplog):
    times = [0, 1, 2, 3, 6, 7]
    path = write(tmp_path / "vfr.mp4", moving(6), times=times, **x264(bframes=2, b_adapt=0, b_pyramid="none"))
    with caplog.at_level(logging.WARNING):
        frames = list(MotionVectorVideo(path).coded_frames())
    assert len([r for r in caplog.records if "variable frame rate" in r.message and "0.240 s" in r.message]) == 1
    spans = {frame.position: frame.field.span for frame in frames if frame.field is not None}
    references = {int(frame.field.distance[0].min()) for frame in frames if frame.field is not None}
    assert min(references) < -1
    for frame in frames[1:]:
        for side in (0, 1):
            known = frame.field.valid[side]
            for distance in frame.field.distance[side][known].unique().tolist():
                apart = abs(times[frame.position + distance] - times[frame.position])
                step = times[frame.position] - times[frame.position - 1]
                found = spans[frame.position][side][known & (frame.field.distance[side] == distance)]
                assert found.unique().tolist() == pytest.approx([apart / step], rel=1e-3)


def same_field(one, other):
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("flow", "valid", "distance", "span"))


@pytest.mark.parametrize("b_frames", [0, 2])
def test_reading_on_from_any_frame(tmp_path, b_frames):
    path = write(tmp_path / "clip.mp4", moving(30), **x264(keyint=6, bframes=b_frames, b_adapt=0))
    whole = list(MotionVectorVideo(path).coded_frames())
    for start in (0, 1, 6, 13, 17, 24, 29):
        video = MotionVectorVideo(path)
        frames = list(video.coded_frames(start))
        assert [frame.position for frame in frames] == list(range(start, 30))
        for frame, wanted in zip(frames, whole[start:], strict=True):
            assert frame.kind == wanted.kind and np.array_equal(frame.image(), wanted.image())
            assert (frame.field is None) == (wanted.field is None)
            assert frame.field is None or same_field(frame.field, wanted.field)
    decoded = []
    video = MotionVectorVideo(path)
    video._picture = lambda *given, make=video._picture: decoded.append(given) or make(*given)
    next(video.coded_frames(24))
    assert len(decoded) < 16  # not from the beginning


@pytest.mark.parametrize("name", ["p_only", "b_frames"])
def test_threads_change_nothing(name):
    one, several = (list(MotionVectorVideo(GOLDEN / f"{name}.mp4", threads=count).coded_frames()) for count in (1, 3))
    for frame, wanted in zip(several, one, strict=True):
        assert np.array_equal(frame.image(), wanted.image()) and frame.time == wanted.time
        assert frame.field is None or same_field(frame.field, wanted.field)


@pytest.mark.parametrize(("number", "bframes"), [(3, 0), (8, 0), (9, 0), (8, 2)])
def test_threads_lose_no_more_than_the_damaged_frame(tmp_path, number, bframes):
    """At the end of a stream a decoder with threads gives up all that it has in hand."""
    path = damage(write(tmp_path / "clip.mp4", moving(10), **x264(bframes=bframes, b_adapt=0, keyint=5)), number)
    one, several = ([frame.problem for frame in MotionVectorVideo(path, threads=count)] for count in (1, 4))
    assert several == one and len(one) == 10 and sum(problem is not None for problem in one) == 1


@pytest.mark.parametrize("crop", [(16, 8), (0, 32), (6, 0)])
def test_pictures_that_are_cropped_at_the_left_and_top(tmp_path, crop):
    """Vectors lie on the picture as it is coded."""
    left, top = crop
    frames = moving(3)
    frames[1][24:56, 40:80] = np.random.RandomState(1).randint(0, 255, (32, 40, 3))  # intra blocks
    path, cropped = write(tmp_path / "clip.mp4", frames, **x264()), tmp_path / "cropped.mp4"
    with av.open(str(path)) as source, av.open(str(cropped), "w") as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        metadata = BitStreamFilterContext(f"h264_metadata=crop_left={left}:crop_top={top}", stream, copy)
        packets = [packet for packet in source.demux(stream) if packet.size]
        for packet in [cut for given in (*packets, None) for cut in metadata.filter(given)]:
            packet.stream = copy
            target.mux(packet)
    for found, wanted in zip(
        MotionVectorVideo(cropped).coded_frames(), MotionVectorVideo(path).coded_frames(), strict=True
    ):
        assert (found.height, found.width) == (HEIGHT - top, WIDTH - left)
        assert np.abs(found.image().astype(int) - wanted.image()[top:, left:]).mean() < 1
        if found.field is None:
            continue
        rows, columns = (slice((side + 4) // 8, None) for side in (top, left))
        near = wanted.field.valid[..., rows, columns]
        assert torch.equal(found.field.valid[..., : near.shape[1], : near.shape[2]], near)
        assert not near.all() or found.position == 2


def damage(path: Path, number: int) -> Path:
    """Overwrite the picture data of one packet."""
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    position, size = packets[number]
    data = bytearray(path.read_bytes())
    data[position + 4 : position + size] = np.random.RandomState(0).bytes(size - 4)
    broken = path.with_name("broken.mp4")
    broken.write_bytes(data)
    return broken


@pytest.mark.parametrize("bframes", [0, 2])
def test_a_damaged_frame_is_told_by_its_time_and_the_rest_is_done(tmp_path, bframes):
    path = write(tmp_path / "clip.mp4", moving(10), **x264(bframes=bframes, b_adapt=0, keyint=5))
    frames = list(MotionVectorVideo(damage(path, 3)))
    lost = [index for index, frame in enumerate(frames) if frame.problem]
    assert len(frames) == 10 and len(lost) == 1
    assert f"the frame at {lost[0] / 25:.3f} s (number {lost[0]}) is damaged" in frames[lost[0]].problem
    assert all(frame.image.shape == (HEIGHT, WIDTH, 3) for frame in frames if not frame.problem)


def test_frames_that_the_decoder_withholds_are_told_too(tmp_path):
    """Without their key frame, B frames round it never come out."""
    path = write(tmp_path / "clip.mp4", moving(10), **x264(bframes=1, b_adapt=0, keyint=5, b_pyramid="none"))
    frames = list(MotionVectorVideo(damage(path, 5)))
    lost = [index for index, frame in enumerate(frames) if frame.problem]
    assert len(frames) == 10 and len(lost) >= 1
    assert all(f"the frame at {index / 25:.3f} s (number {index})" in frames[index].problem for index in lost)

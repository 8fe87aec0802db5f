"""Videos with more frames: when each is shown, what it shows, what is copied, and what is refused."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from ffplug_ugsp.video import Encoding, SourceVideo, Timeline, interpolate_video
from ffplug_ugsp.video.interpolators import (
    Blend,
    FlowInterpolator,
    Interpolator,
    ModelInterpolator,
    ScaledFlow,
    Tiled,
    build_interpolator,
)
from ffplug_ugsp.video.pictures import Pictures
from ffplug_ugsp.video.scan import Scan, Scanner
from ffplug_ugsp.video.source import exact
from ffplug_ugsp.video.threads import prefetch

from ffplug.cli import cli, run
from ffplug.errors import CheckpointError, ConfigError, DataError

FILM = Fraction(24000, 1001)
SIZE = (32, 64)
LOSSLESS = Encoding("ffv1")


def bar(left, dark=30, bright=200):
    """A bar of eight columns."""
    picture = np.full((*SIZE, 3), dark, np.uint8)
    picture[:, left : left + 8] = bright
    return picture


def write(
    path, pictures, rate=Fraction(25), codec="ffv1", pixels="gray", times=None, sound=False, prepare=None, **options
):
    """Encode pictures as a video, its times in units of the rate; with a tone beside it if wanted."""
    head_first = {"movflags": "faststart"} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=head_first) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = 1 / rate
        if prepare:
            prepare(container, stream)
        if sound:
            tone = container.add_stream("aac", rate=48000)
            tone.layout = "mono"
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = (times[number] if times else number), 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound:
            samples = np.sin(np.arange(int(len(pictures) / rate * 48000)) / 20).astype(np.float32) / 3
            for start in range(0, len(samples), 1024):
                block = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
                block.sample_rate, block.pts = 48000, start
                container.mux(tone.encode(block))
            container.mux(tone.encode(None))
    return path


def read(path):
    """Times in seconds, and pictures, of a video."""
    with av.open(str(path)) as container:
        frames = list(container.decode(container.streams.video[0]))
    return [frame.pts * frame.time_base for frame in frames], [frame.to_ndarray(format="gray") for frame in frames]


def packets(path, kind):
    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        found = [packet for packet in container.demux(stream) if packet.size]
        return [(packet.pts * packet.time_base, packet.duration * packet.time_base, bytes(packet)) for packet in found]


def left(picture):
    """Where the bar begins."""
    return int(np.flatnonzero(picture[0] > 100)[0])


class MoveBar(Interpolator):
    """Knows what moves in the test's videos, and draws it exactly."""

    def __call__(self, frame0, frame1, times):
        ends = [left(255 * frame[0, 0].numpy()) for frame in (frame0, frame1)]
        drawn = [bar(round(ends[0] + float(way) * (ends[1] - ends[0]))) for way in times]
        return [torch.from_numpy(picture).permute(2, 0, 1)[None] / 255 for picture in drawn]


def test_the_command_survives_kill_and_copies_sound(tmp_path, capsys):
    """A real encoded clip with sound: killed at work, gone on with, and the same as without that."""
    clip = write(tmp_path / "in.mp4", [bar(n % 50) for n in range(72)], FILM / 2, "libx264", "yuv420p", sound=True)
    out = tmp_path / "out.mp4"
    # Unlike x264, this encoder gives the same bytes every time.
    arguments = ["interpolate", clip, out, "--x", 4, "--model", "dis", "--codec", "mpeg4", "--part", 12]
    arguments = [str(argument) for argument in arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "ffplug.cli", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    done = tmp_path / ".out.mp4.parts" / "done"
    while process.poll() is None and not (done.is_dir() and len(list(done.iterdir())) >= 2):
        time.sleep(0.002)
    assert process.poll() is None, process.stdout.read().decode()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not out.exists()
    before = len(list(done.iterdir()))
    assert 2 <= before < 24

    assert run(cli, arguments, "ffplug") == 0
    told = capsys.readouterr()
    assert "72 frames at 11.988 (12000/1001) per second" in told.out
    assert "288 frames at 47.952 (48000/1001)" in told.out and "complete, 288 frames" in told.out
    assert f"{12 * before} of 288 frames were done before" in told.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]

    times, _ = read(out)
    assert times == [n / (2 * FILM) for n in range(288)]
    assert packets(out, "audio") == packets(clip, "audio")
    assert sum(length for _, length, _ in packets(out, "video")) == 144 / FILM
    whole = tmp_path / "whole.mp4"
    interpolate_video(clip, whole, 4, model="dis", part=12, encoding=Encoding("mpeg4"))
    assert packets(whole, "video") == packets(out, "video")


@pytest.mark.parametrize("factor", [2, 4])
def test_constant_motion_comes_out_exact(tmp_path, factor):
    clip = write(tmp_path / "in.mkv", [bar(4 * n) for n in range(10)])
    interpolate_video(clip, tmp_path / "out.mkv", factor, model=MoveBar(), encoding=LOSSLESS, part=7)
    times, pictures = read(tmp_path / "out.mkv")
    last = 9 * factor
    assert times == [Fraction(40 * n, 1000 * factor) for n in range(10 * factor)]
    for number, picture in enumerate(pictures):
        assert left(picture) == 4 * min(number, last) // factor
    _, given = read(clip)
    assert all(np.array_equal(one, other) for one, other in zip(given, pictures[::factor], strict=True))


def test_threads_keep_the_order_and_are_bounded():
    made, closed = [], []

    def count():
        try:
            for number in range(50):
                made.append(number)
                yield number
        finally:
            closed.append(threading.current_thread())

    alive = threading.active_count()
    taken = []
    for number in prefetch(count(), 3):
        taken.append(number)
        time.sleep(0.001)
        assert len(made) - len(taken) <= 4
    assert taken == list(range(50)) and closed[0] is not threading.current_thread()
    stopped = prefetch(count(), 3)
    assert next(stopped) == 0
    stopped.close()
    assert len(closed) == 2 and len(made) < 60 and threading.active_count() == alive

    def fail():
        yield 1
        raise DataError("no third one")

    failing = prefetch(fail(), 3)
    assert next(failing) == 1
    with pytest.raises(DataError, match="no third one"):
        next(failing)
    assert threading.active_count() == alive


class FailsLater(Blend):
    """Works for a few pairs."""

    calls = 0

    def __call__(self, frame0, frame1, times):
        self.calls += 1
        return [torch.full_like(frame0, torch.nan)] if self.calls > 3 else super().__call__(frame0, frame1, times)


def test_threads_give_what_one_gives_and_pass_errors_on(tmp_path):
    clip = write(tmp_path / "in.mkv", [bar(4 * n) for n in range(10)])
    alive = threading.active_count()
    for depth in (0, 1, 5):
        out = tmp_path / f"{depth}.mkv"
        interpolate_video(clip, out, 4, model=MoveBar(), encoding=LOSSLESS, part=7, ahead=depth)
    assert packets(tmp_path / "0.mkv", "video") == packets(tmp_path / "1.mkv", "video")
    assert packets(tmp_path / "0.mkv", "video") == packets(tmp_path / "5.mkv", "video")
    with pytest.raises(DataError, match="the model gives NaN"):
        interpolate_video(clip, tmp_path / "out.mkv", 2, model=FailsLater(), encoding=LOSSLESS)
    assert not (tmp_path / "out.mkv").exists() and threading.active_count() == alive
    with pytest.raises(ConfigError, match="ahead=-1"):
        interpolate_video(clip, tmp_path / "out.mkv", 2, model="blend", ahead=-1)


def test_another_rate_takes_frames_at_their_own_times(tmp_path):
    clip = write(tmp_path / "in.mp4", [bar(5 * n) for n in range(9)], Fraction(24), "libx264", "yuv420p", qp="0")
    interpolate_video(clip, tmp_path / "out.mp4", rate=Fraction(60), model=MoveBar(), encoding=Encoding(quality=0))
    times, pictures = read(tmp_path / "out.mp4")
    assert times == [Fraction(n, 60) for n in range(23)]
    # 24 frames become 60 a second: two steps of 5 px are five of 2 px.
    assert [left(picture) for picture in pictures] == [min(2 * n, 40) for n in range(23)]


def test_a_variable_rate_stays_variable(tmp_path):
    stamps = [0, 1, 2, 4, 5, 8, 9]
    clip = write(tmp_path / "in.mp4", [bar(4 * n) for n in stamps], Fraction(24), "libx264", "yuv420p", stamps)
    interpolate_video(clip, tmp_path / "out.mp4", 2, model=MoveBar())
    halves = [0, 1, 2, 3, 4, 6, 8, 9, 10, 13, 16, 17, 18]  # and one that holds the last as long as its file says
    times, pictures = read(tmp_path / "out.mp4")
    assert times[:-1] == [Fraction(n, 48) for n in halves] and len(times) == 14
    assert [left(picture) for picture in pictures] == [2 * n for n in halves] + [36]


def test_rounded_times_of_a_constant_rate_become_exact(tmp_path):
    clip = write(tmp_path / "in.mkv", [bar(n) for n in range(30)], FILM)
    assert read(clip)[0][1] == Fraction(42, 1000)
    interpolate_video(clip, tmp_path / "out.mp4", 2, model="blend", encoding=Encoding("libx264"))
    assert read(tmp_path / "out.mp4")[0] == [n / (2 * FILM) for n in range(60)]


def test_nothing_is_interpolated_over_a_cut(tmp_path):
    """The brightness tells the scene; blending over the cut would give what neither scene has."""
    pictures = [bar(2 * n) for n in range(6)] + [bar(40 - 2 * n, 120, 250) for n in range(6)]
    clip = write(tmp_path / "in.mkv", pictures)
    timeline = interpolate_video(clip, tmp_path / "out.mkv", 4, model="blend", encoding=LOSSLESS)
    assert timeline.is_cut.nonzero()[0].tolist() == [6]
    darkest = [int(picture.min()) for picture in read(tmp_path / "out.mkv")[1]]
    # Of the three frames between the scenes the first two are the old one, the third is the new one.
    assert darkest == [30] * 23 + [120] * 25
    blended = Timeline(timeline.scan, 4, at_cut="blend")
    assert (blended.shown(22).mixed, blended.shown(22).time) == (True, Fraction(1, 2))
    held = Timeline(timeline.scan, 4, at_cut="hold")
    assert [held.shown(number).first for number in range(20, 25)] == [5, 5, 5, 5, 6]
    listed = Timeline(timeline.scan, 4, cuts=[3])
    assert listed.is_cut.nonzero()[0].tolist() == [3]


def test_duplicates_are_replaced_and_stills_stay(tmp_path):
    seen = [0, 4, 4, 12, 16, 16, 16, 16, 16, 20, 24]
    clip = write(tmp_path / "in.mkv", [bar(position) for position in seen])
    timeline = interpolate_video(clip, tmp_path / "out.mkv", 1, model=MoveBar(), encoding=LOSSLESS)
    assert timeline.replaced.nonzero()[0].tolist() == [2]
    _, pictures = read(tmp_path / "out.mkv")
    assert [left(picture) for picture in pictures] == [0, 4, 8, 12, 16, 16, 16, 16, 16, 20, 24]
    kept = Timeline(timeline.scan, 1, duplicates=False)
    assert [kept.shown(number).first for number in range(11)] == list(range(11))


def test_fast_motion_is_no_cut_and_slow_change_no_duplicate():
    scanner = Scanner()
    for number in range(12):
        scanner.add(np.roll(np.repeat(np.arange(0, 256, 4, dtype=np.uint8), 8)[None].repeat(32, 0), 24 * number, 1))
    assert max(scanner.change[2:]) == 0
    fading = Scanner()
    for number in range(9):
        fading.add(np.full((8, 8), 100 + number, np.uint8))
    assert fading.duplicate == [False, True, True] * 3


def test_light_is_no_cut_and_a_cut_in_a_pan_is():
    """Only the eighth frame of the last clip begins a scene."""
    draw = np.random.RandomState(3)
    scenes = [np.kron(draw.randint(low, high, (8, 40)), np.ones((4, 4))) for low, high in ((20, 110), (150, 250))]
    pan = [np.roll(scenes[0], 20 * number, 1) for number in range(8)]
    fade = [scenes[0] * way for way in (1, 1, 0.8, 0.6, 0.4, 0.2, 0, 0, 0.3, 0.6, 0.9)]
    flicker = [scenes[0] + 40 * (number % 3 == 0) for number in range(8)]
    for clip, cuts in ((fade, []), (flicker, []), (pan, []), ([*pan, scenes[1], scenes[1]], [8])):
        scanner = Scanner()
        for picture in clip:
            scanner.add(np.clip(picture, 0, 255).astype(np.uint8))
        assert [number for number, change in enumerate(scanner.change) if change > 0.07 and number > 1] == cuts


def test_long_gaps_are_still_pictures():
    still = np.zeros(3, bool)
    scan = Scan(np.array([0, 1, 31, 32]), Fraction(1, 30), Fraction(30), np.zeros(3), still)
    shown = Timeline(scan, rate=Fraction(60))
    assert [shown.shown(number).second for number in (1, 2, 3, 30, 61, 62)] == [1, 1, 1, 1, 1, 2]


def test_rates_are_exact():
    written = {
        "60": 60,
        "23.976": FILM,
        "59.94": Fraction(60000, 1001),
        "30000/1001": Fraction(30000, 1001),
        "12.5": 12.5,
    }
    assert {text: exact(text) for text in written} == written
    for wrong in ("0", "-3", "fast", "1/0"):
        with pytest.raises(DataError, match="expected a positive number"):
            exact(wrong)


def test_rotation_chapters_subtitles_and_shape_are_kept(tmp_path):
    def prepare(container, stream):
        stream.set_display_rotation(90)
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        container.metadata["title"] = "A bar"

    clip = write(tmp_path / "in.mkv", [bar(n) for n in range(6)], codec="libx264", pixels="yuv420p", prepare=prepare)
    with_text = tmp_path / "text.mkv"
    with av.open(str(clip)) as source, av.open(str(with_text), "w") as container:
        video = container.add_stream_from_template(source.streams.video[0], opaque=True)
        video.set_display_rotation(90)
        text = container.add_mux_stream("subrip", time_base=Fraction(1, 1000))
        container.metadata.update(source.metadata)
        container.set_chapters([dict(id=1, start=0, end=100, time_base=Fraction(1, 1000), metadata={"title": "One"})])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = video
                container.mux(packet)
        line = av.Packet(b"a line")
        line.pts = line.dts = 40
        line.duration, line.time_base, line.stream = 80, Fraction(1, 1000), text
        container.mux(line)
    interpolate_video(with_text, tmp_path / "out.mkv", 2, model="blend")
    assert packets(tmp_path / "out.mkv", "subtitle") == packets(with_text, "subtitle")
    with av.open(str(tmp_path / "out.mkv")) as container:
        stream = container.streams.video[0]
        assert next(container.decode(stream)).rotation == 90 and stream.sample_aspect_ratio == Fraction(4, 3)
        assert container.metadata["title"] == "A bar" and container.chapters()[0]["metadata"]["title"] == "One"
    assert (
        run(cli, ["interpolate", str(with_text), str(tmp_path / "out.mp4"), "--x", "2", "--model", "blend"], "ffplug")
        == 0
    )
    assert len(read(tmp_path / "out.mp4")[0]) == 12  # the text does not fit into .mp4, which was said


def test_hdr_keeps_its_depth_curve_and_metadata(tmp_path):
    def prepare(container, stream):
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, 16, 9, 1

    display = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400"
    clip = write(
        tmp_path / "in.mp4",
        [bar(n) for n in range(4)],
        codec="libx265",
        pixels="yuv420p10le",
        prepare=prepare,
        **{"x265-params": f"log-level=error:{display}"},
    )
    interpolate_video(clip, tmp_path / "out.mp4", 2, model="blend")
    told = []
    for path in (clip, tmp_path / "out.mp4"):
        with av.open(str(path)) as container:
            frame = next(container.decode(container.streams.video[0]))
            kinds = ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL")
            data = [bytes(frame.side_data.get(av.sidedata.sidedata.Type[kind])) for kind in kinds]
            told.append((frame.format.name, frame.color_primaries, frame.color_trc, frame.colorspace, data))
    assert told[0] == told[1]
    with pytest.raises(ConfigError, match="HDR metadata cannot be kept with libx264"):
        interpolate_video(clip, tmp_path / "other.mp4", 2, model="blend", encoding=Encoding("libx264"))


@pytest.mark.parametrize(("pixels", "most"), [("yuv420p", 1), ("yuv444p", 1), ("yuv420p10le", 2), ("gbrp", 0)])
@pytest.mark.parametrize("full", [False, True])
def test_pictures_go_to_rgb_and_back(pixels, most, full):
    ramp = np.add.outer(np.arange(64), np.arange(64))[..., None] + np.array([40, 70, 60])
    frame = av.VideoFrame.from_ndarray(ramp.astype(np.uint8), format="rgb24").reformat(format=pixels)
    frame.colorspace, frame.color_range = 1, 2 if full else 1
    pictures = Pictures(frame)
    again = pictures.frame(pictures.tensor(frame))
    size = np.uint16 if pictures.deep else np.uint8
    for one, other in zip(frame.planes, again.planes, strict=True):
        levels = [np.frombuffer(bytes(plane), size).astype(int) for plane in (one, other)]
        assert np.abs(levels[0] - levels[1]).max() <= most


def test_the_matrix_of_the_video_is_taken():
    """Y'CbCr of a saturated red by the two standards."""
    for matrix, triple in ((1, (63, 102, 240)), (5, (81, 90, 240))):
        frame = av.VideoFrame(16, 16, "yuv444p")
        for plane, value in zip(frame.planes, triple, strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.colorspace, frame.color_range = matrix, 1
        rgb = 255 * Pictures(frame).tensor(frame)[0, :, 8, 8]
        assert torch.allclose(rgb, torch.tensor([255.0, 0, 0]), atol=2)


class Middle(torch.nn.Module):
    """Only the middle of two frames, and how often it was asked."""

    any_timestep = False
    asked = 0

    def interpolate(self, frame0, frame1, timestep):
        assert timestep == 0.5
        self.asked += 1
        return (frame0 + frame1) / 2


def test_models_of_the_middle_reach_other_times_by_halving():
    model = Middle()
    black, white = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
    eighths = [Fraction(n, 8) for n in range(1, 8)]
    levels = [float(frame.mean()) for frame in ModelInterpolator(model)(black, white, eighths)]
    assert levels == [float(time) for time in eighths] and model.asked == 7
    assert float(ModelInterpolator(model)(black, white, [Fraction(2, 5)])[0].mean()) == 0.375


def test_tiles_give_what_whole_frames_give():
    frames = torch.rand(2, 1, 3, 70, 90, generator=torch.Generator().manual_seed(0))
    times = [Fraction(1, 3), Fraction(1, 2)]
    for one, other in zip(Blend()(*frames, times), Tiled(Blend(), (32, 40), 12)(*frames, times), strict=True):
        torch.testing.assert_close(one, other)
    with pytest.raises(ConfigError, match="expected 0 to 31 pixels"):
        Tiled(Blend(), (32, 40), 32)


def test_splatting_along_true_flow_is_exact_inside():
    texture = torch.rand(1, 3, 40, 72, generator=torch.Generator().manual_seed(1))
    first, second, middle = (texture[..., place : place + 56] for place in (8, 0, 4))
    flow = torch.zeros(1, 2, 40, 56)
    flow[:, 0] = 8
    produced = FlowInterpolator(lambda one, other: (flow, -flow))(first, second, [Fraction(1, 2)])[0]
    torch.testing.assert_close(produced[..., 8:-8], middle[..., 8:-8], atol=2e-3, rtol=0)


def test_optical_flow_beats_mixing(tmp_path):
    texture = np.kron(np.random.RandomState(0).randint(0, 255, (10, 20)), np.ones((8, 8)))
    texture = (
        torch.nn.functional.avg_pool2d(torch.tensor(texture)[None, None].float(), 5, 1, 2).expand(1, 3, 80, 160) / 255
    )
    first, second, middle = (texture[..., place : place + 128] for place in (12, 0, 6))
    errors = {}
    for model in ("dis", "blend"):
        produced = build_interpolator(model)(first, second, [Fraction(1, 2)])[0]
        errors[model] = float((produced - middle)[..., 16:-16].abs().mean())
    assert errors["dis"] < 0.2 * errors["blend"]


def test_flow_is_found_in_smaller_frames():
    texture = torch.rand(1, 3, 20, 40, generator=torch.Generator().manual_seed(0))
    texture = torch.nn.functional.interpolate(texture, scale_factor=4, mode="bicubic").clamp(0, 1)
    first, second, middle = (texture[..., place : place + 128] for place in (12, 0, 6))
    sizes = []

    def flow(one, other):
        sizes.append(tuple(one.shape[2:]))
        return tuple(sign * torch.tensor([6.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, *one.shape[2:]) for sign in (1, -1))

    produced = FlowInterpolator(ScaledFlow(flow, 0.5))(first, second, [Fraction(1, 2)])[0]
    assert sizes == [(40, 64)]
    torch.testing.assert_close(produced[..., 16:-16], middle[..., 16:-16], atol=2e-3, rtol=0)
    network = build_interpolator("ifrnet_s", random_weights=True, flow_scale=0.5).model.network
    assert (network.scale, network.multiple) == (0.5, 32)
    halved = build_interpolator("rife", random_weights=True, flow_scale=0.5)
    assert halved.model.network.scales == (8, 4, 2) and halved.model.network.multiple == 64
    assert halved(first, second, [Fraction(1, 2)])[0].shape == first.shape
    for model, scale, message in (
        ("ugsp", 0.5, "UGSPNet finds flow at the frames' own size only"),
        ("blend", 0.5, "finds no flow"),
        ("dis", 0, "expected more than 0"),
        ("ifrnet_s", 0.6, "expected 1, or less such as 0.5"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_interpolator(model, random_weights=model not in ("blend", "dis"), flow_scale=scale)


@pytest.mark.parametrize(
    ("suffix", "damage", "message"),
    [
        ("mkv", lambda content: content[: len(content) // 2], "is cut off: declares"),
        ("mkv", lambda content: content[:100], "0 frames read"),
        ("mkv", lambda content: b"no video at all", "cannot be opened as a video"),
        ("mp4", lambda content: content[: 3 * len(content) // 4], "is cut off|cannot be decoded further"),
        ("mp4", lambda content: content[:100], "holds no video stream, or is cut off before its first frame"),
        ("h264", lambda content: content[: len(content) // 8], "is damaged|cannot be"),
    ],
)
def test_damaged_videos_are_named_and_nothing_is_left(tmp_path, suffix, damage, message):
    options = dict(codec="ffv1") if suffix == "mkv" else dict(codec="libx264", pixels="yuv420p")
    clip = write(tmp_path / f"in.{suffix}", [bar(n) for n in range(40)], **options)
    clip.write_bytes(damage(clip.read_bytes()))
    with pytest.raises(DataError, match=message):
        interpolate_video(clip, tmp_path / "out.mkv", 2, model="blend")
    assert [path.name for path in tmp_path.iterdir()] == [clip.name]


def test_videos_without_frames_are_refused(tmp_path):
    """Sound alone, sound with a cover picture, a stream that never begins, and a size that changes on the way."""
    sound, empty = tmp_path / "sound.mp4", tmp_path / "empty.mp4"
    loud = write(tmp_path / "loud.mp4", [bar(n) for n in range(3)], codec="libx264", pixels="yuv420p", sound=True)
    with av.open(str(loud)) as source, av.open(str(sound), "w") as container:
        stream = container.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    with av.open(str(empty), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        container.start_encoding()
    changing = tmp_path / "changing.h264"
    halves = [
        write(
            tmp_path / f"{size}.h264",
            [picture[:size] for picture in map(bar, range(3))],
            codec="libx264",
            pixels="yuv420p",
        )
        for size in (32, 16)
    ]
    changing.write_bytes(b"".join(half.read_bytes() for half in halves))
    before = sorted(tmp_path.iterdir())
    for clip, message in (
        (sound, "holds no video stream"),
        (empty, "0 frames|no frame"),
        (changing, "frame 3 is 64×16 yuv420p, the first one 64×32 yuv420p; cut the video where it changes"),
    ):
        for arguments in (dict(factor=2), dict(rate=Fraction(60))):
            with pytest.raises(DataError, match=message):
                interpolate_video(clip, tmp_path / "out.mkv", model="blend", **arguments)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("room", [40_000, 100_000])  # for less than a part, and for each part but not for the whole
def test_a_full_disk_is_told_and_gone_on_with(tmp_path, room):
    noise = np.random.RandomState(0).randint(0, 255, (6, 128, 128, 3), np.uint8)
    clip = write(tmp_path / "in.mkv", list(noise))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    alive = threading.active_count()
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(DataError, match="cannot be written: the file may not grow further; make room"):
            interpolate_video(clip, tmp_path / "out.mkv", 2, model="blend", encoding=Encoding("ffv1"), part=4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "out.mkv").exists() and threading.active_count() == alive
    interpolate_video(clip, tmp_path / "out.mkv", 2, model="blend", encoding=LOSSLESS, part=4)
    assert len(read(tmp_path / "out.mkv")[0]) == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "out.mkv"]


def test_what_cannot_be_done_is_refused(tmp_path):
    pictures = [bar(n) for n in range(3)]
    woven = write(
        tmp_path / "woven.mp4",
        pictures,
        codec="libx264",
        pixels="yuv420p",
        **{"x264-params": "interlaced=1", "flags": "+ilme+ildct"},
    )
    loud = write(tmp_path / "loud.mp4", pictures, codec="libx264", pixels="yuv420p", sound=True)
    plain = write(tmp_path / "plain.mkv", pictures)
    odd = write(tmp_path / "odd.mkv", [picture[:31, :63] for picture in pictures], pixels="yuv420p")
    for source, target, error, message in (
        (woven, "out.mp4", DataError, "frame 0 is interlaced"),
        (loud, "out.webm", DataError, "cannot hold the sound"),
        (odd, "out.mp4", ConfigError, "an odd side"),
        (plain, "out.txt", DataError, "expected a name that ends in one of .mp4"),
        (plain, "out.avi", DataError, ".avi keeps no times"),
        (plain, "plain.mkv", DataError, "is the video itself"),
        (tmp_path / "none.mkv", "out.mkv", DataError, "no such video file"),
    ):
        with pytest.raises(error, match=message):
            interpolate_video(source, tmp_path / target, 2, model="blend")
    for arguments, error, message in (
        (dict(model=None), ConfigError, "give --model and its --checkpoint"),
        (dict(model="ifrnet"), CheckpointError, "no checkpoint"),
        (dict(model="blend", checkpoint="x"), ConfigError, "takes no checkpoint"),
        (dict(model="blend", encoding=Encoding("libx246")), ConfigError, "did you mean .*'libx264'"),
        (dict(model="blend", encoding=Encoding("libx264", options={"preset": "hasty"})), DataError, "refuses"),
        (dict(model="blend", timing=dict(cuts=[9])), ConfigError, "cut at frame 9: expected 1 to 2"),
    ):
        with pytest.raises(error, match=message):
            interpolate_video(plain, tmp_path / "out.mkv", 2, **arguments)
    assert not list(tmp_path.glob("out.*"))


def test_frames_are_found_again_after_a_leap(tmp_path):
    clip = write(
        tmp_path / "in.mp4", [bar(n % 50) for n in range(90)], Fraction(25), "libx264", "yuv420p", g="12", crf="1"
    )
    video = SourceVideo(clip)
    reader = video.reader(video.scan())
    for number in (70, 71, 3, 40):
        assert left(reader.read(number, number + 1)[0].to_ndarray(format="gray")) == number % 50

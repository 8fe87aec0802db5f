"""The command line on real files: training, inference from a video, and the plugin's own subcommands."""

from __future__ import annotations

import re

import av
import cv2
import numpy as np
import pytest
from ffplug_mvflow.encoding import Encoding, encode_clip
from ffplug_mvflow.video import MotionVectorVideo

from ffplug.cli import cli, run
from ffplug.datasets import SintelDataset, read_flow

STEP = (3, 2)


def moving(count, height=72, width=104):
    """Frames whose flow to the next is ``-STEP``, for what was seen to the left and above comes in."""
    coarse = np.random.RandomState(0).randint(20, 235, (30, 40, 3), np.uint8)
    whole = cv2.resize(coarse, (400, 300), interpolation=cv2.INTER_CUBIC)
    return [whole[20 + STEP[1] * n :, 20 + STEP[0] * n :][:height, :width] for n in range(count)]


def command(*arguments, status=0):
    assert run(cli, [str(argument) for argument in arguments], "ffplug") == status


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    encode_clip(moving(8), Encoding(quality=18, gop=5, b_frames=1), path)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A work folder of the small recipe after two steps."""
    folder = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        options = ("prepare_data.scenes=2", "prepare_data.frames=2", "prepare_data.workers=0", "model.iterations=2")
        steps = ("train_cfg.max_iters=2", "train_cfg.val_interval=2", "default_hooks.checkpoint.interval=2")
        command("train", "mvflow_small", "--cfg-options", *options, *steps, "train_dataloader.batch_size=2")
    return folder / "work_dirs" / "mvflow_small"


def test_training_logs_its_terms(trained):
    log = next(trained.glob("*/*.log")).read_text()
    assert "procedural, not Sintel/clean: 2 frame pairs" in log
    assert re.search(r"EPE: \d", log) and (trained / "weights.safetensors").is_file()


def test_inference_from_a_video(trained, clip, tmp_path, capsys):
    command("infer", clip, "--model", trained, "--out", tmp_path / "flow", "--iterations", 1)
    told = capsys.readouterr().out
    spent = r"\d+\.\d\d s"
    assert re.search(rf"time: network {spent}, reading frames {spent} \(decode {spent}, vectors {spent}\)", told)
    files = sorted((tmp_path / "flow").glob("*.flo"))
    assert len(files) == 7
    flows = [read_flow(file)[0] for file in files]
    # After two steps of training one iteration adds little that means anything: it is the vectors that show.
    middle = [np.median(flow[16:-16, 16:-16].reshape(-1, 2), axis=0) for flow in flows]
    with_vectors = [values for n, values in enumerate(middle) if kinds(clip)[n + 1] != "I"]
    assert np.allclose(np.median(with_vectors, axis=0), [-STEP[0], -STEP[1]], atol=1.0)
    bulk = ("--shard", "1/1", "--chunk", 3)
    command("infer", clip, "--model", trained, "--out", tmp_path / "bulk", "--iterations", 1, *bulk)
    for file, flow in zip(files, flows, strict=True):
        np.testing.assert_allclose(read_flow(tmp_path / "bulk" / file.name)[0], flow, rtol=0, atol=1e-3)


def kinds(path):
    return [frame.kind for frame in MotionVectorVideo(path).coded_frames()]


def test_a_damaged_frame_costs_its_pairs_and_no_more(trained, tmp_path, capsys):
    clip = tmp_path / "clip.mp4"
    encode_clip(moving(8), Encoding(quality=18), clip)
    with av.open(str(clip)) as container:
        position, size = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size][3]
    data = bytearray(clip.read_bytes())
    data[position + 4 : position + size] = np.random.RandomState(0).bytes(size - 4)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(data)
    command("infer", broken, "--model", trained, "--out", tmp_path / "flow", "--iterations", 1, status=1)
    told = capsys.readouterr()
    lost = re.findall(r"frame_00000(\d): .*the frame at (0\.\d{3}) s \(number (\d)\) is damaged", told.err)
    assert len(lost) == 2 and lost[0][1:] == lost[1][1:] and int(lost[0][2]) / 25 == pytest.approx(float(lost[0][1]))
    assert len(list((tmp_path / "flow").glob("*.flo"))) == 5 and "5 pair(s)" in told.out


def test_a_video_without_vectors_is_one_line(trained, tmp_path, capsys):
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 104, 72, "yuv420p"
        for picture in moving(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
    command("infer", path, "--model", trained, "--out", tmp_path / "flow", status=2)
    told = capsys.readouterr().err.strip().splitlines()
    assert "no motion vectors" in told[-1] and "ffplug mvflow transcode" in told[-1]
    command("mvflow", "transcode", path, tmp_path / "new.mp4", "--quality", 20)
    assert kinds(tmp_path / "new.mp4") == ["I", "P"]


def test_extract(clip, tmp_path, capsys):
    command("mvflow", "extract", clip, "--out", tmp_path / "mv.npz", "--show", tmp_path / "pictures")
    assert re.search(r"8 frames \(2 I, \d P, \d B\), \d\d\.\d% of the cells", capsys.readouterr().out)
    archive = np.load(tmp_path / "mv.npz")
    assert archive["size"].tolist() == [72, 104] and archive["times"][1] == pytest.approx(0.04)
    for index, frame in enumerate(MotionVectorVideo(clip).coded_frames()):
        assert archive["kinds"][index] == frame.kind
        if frame.field is None:
            assert not archive["valid"][index].any()
            continue
        assert np.array_equal(archive["vectors"][index] / 8, frame.field.flow.numpy())
        assert np.array_equal(archive["valid"][index], frame.field.valid.numpy())
        assert np.array_equal(archive["distance"][index], frame.field.distance.numpy())
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 6


def test_encode(tmp_path, capsys):
    SintelDataset.write_example(tmp_path / "Sintel")
    options = ("--set", "render=clean", "--quality", 20, "--quality", 35, "--preset", "veryfast")
    command(
        "mvflow", "encode", "ffplug.SintelDataset", "--root", tmp_path / "Sintel", "--out", tmp_path / "mv", *options
    )
    told = capsys.readouterr().out
    sizes = re.findall(r"h264_veryfast_crf(\d\d): 4 pairs in 4 clips, (\d\.\d) MB", told)
    assert [quality for quality, _ in sizes] == ["20", "35"]
    volumes = [sum(p.stat().st_size for p in (tmp_path / "mv").glob(f"*crf{q}/**/*.mp4")) for q, _ in sizes]
    assert volumes[0] > 1.3 * volumes[1] > 0

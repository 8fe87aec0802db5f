"""The recipe through the real command line, and the released weights on a clip."""

import json
import re

import numpy as np
from ffplug_stss.datasets import RenderedDataset

import ffplug
from ffplug.cli import cli, run
from ffplug.evaluation import FrameMetric


def command(*arguments):
    assert run(cli, [str(argument) for argument in arguments], "ffplug") == 0


def test_draw_check_train_and_test(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command("synth", "stss", "--root", "data/STSS-small", "--scenes", 1, "--frames", 2, "--size", "24x40")
    command("data", "check", "data/STSS-small")
    damaged = next(tmp_path.glob("data/STSS-small/*/test001/HR/*.npy"))
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-8])
    capsys.readouterr()
    assert run(cli, ["data", "check", "data/STSS-small"], "ffplug") == 2
    assert f"{damaged.name}" in capsys.readouterr().out
    damaged.write_bytes(whole)
    options = ("model.network.history=False", "train_dataloader.batch_size=2")
    steps = ("train_cfg.max_iters=2", "train_cfg.val_interval=2", "default_hooks.checkpoint.interval=2")
    command("train", "stss_procedural", "--cfg-options", *options, *steps)
    work_dir = tmp_path / "work_dirs" / "stss_procedural"
    log = next(work_dir.glob("*/*.log")).read_text()
    assert "procedural, not STSS/train: 2 frames" in log
    assert re.search(r"loss_l1: \d.*loss_hole: \d", log)
    assert re.search(r"stss_procedural/EF/PSNR_hole: \d.*paper/SF/PSNR: \d", log)
    command("test", "stss_procedural", work_dir / "weights.safetensors", "--cfg-options", options[0])
    assert (work_dir / "report.html").is_file()
    recorded = [json.loads(path.read_text()) for path in work_dir.glob("*/run.json")]
    assert any(run["procedural"] == ["procedural, not STSS/train"] for run in recorded)


def test_released_weights_beat_bilinear_on_extrapolated_frames(released):
    model = ffplug.get_model("stss", pretrained=released("stss_arena"))
    metric = FrameMetric()
    clip = RenderedDataset(scenes=1, frames=8, size=(72, 128), seed=1, options=dict(samples=1))
    for place in range(1, 8, 2):
        item = clip[place]
        data = model.data_preprocessor(dict(inputs=[item["inputs"]], data_samples=[item["data_samples"]]))
        metric.process(None, model(**data, mode="predict"))
    figures = {key.rpartition("/")[2]: value for key, value in metric.evaluate(4).items()}
    assert figures["PSNR"] > figures["PSNR_base"]
    assert figures["PSNR_hole"] > figures["PSNR_hole_base"] + 2
    assert np.isfinite(figures["SSIM_hole"])

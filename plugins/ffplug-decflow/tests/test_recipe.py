"""The recipe through the real command line: draw, train, test, infer."""

import json
import re

import numpy as np

from ffplug.cli import cli, run
from ffplug.datasets import read_flow


def command(*arguments):
    assert run(cli, [str(argument) for argument in arguments], "ffplug") == 0


def test_draw_train_test_and_infer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("prepare_data.scenes=1", "prepare_data.frames=3", "model.iterations=2", "model.test_iterations=2")
    steps = ("train_cfg.max_iters=2", "train_cfg.val_interval=2", "default_hooks.checkpoint.interval=2")
    command("train", "decflow_small", "--cfg-options", *options, *steps)
    work_dir = tmp_path / "work_dirs" / "decflow_small"
    log = next(work_dir.glob("*/*.log")).read_text()
    assert "procedural, not FacialFlowNet: 2 frame pairs" in log
    for flow in ("facial", "head", "expression"):
        assert re.search(rf"facialflownet/{flow}/EPE: \d.*facialflownet/{flow}/ffn_epe: \d", log)
    command("test", "decflow_small", work_dir / "weights.safetensors", "--cfg-options", *options)
    evaluations = json.loads((work_dir / "metrics.json").read_text())["evaluations"]
    assert evaluations["test"]["facialflownet"]["source"] == "procedural, not FacialFlowNet"
    frames = sorted((tmp_path / "data").glob("*/image/facial/val/*/*/*.jpg"))
    command("infer", *frames[:2], "--model", work_dir, "--out", "out/f.flo", "--show", "out/f.png")
    names = ("f", "f_head_flow", "f_expression_flow")
    facial, head, expression = (read_flow(f"out/{name}.flo")[0] for name in names)
    assert facial.shape == (96, 96, 2)
    np.testing.assert_array_equal(expression, facial - head)
    assert all((tmp_path / "out" / f"{name}.png").stat().st_size > 100 for name in names)

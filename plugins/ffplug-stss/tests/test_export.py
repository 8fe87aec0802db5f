"""The network as ONNX through the real command line, against PyTorch, and its description."""

import json

import pytest
import torch
from ffplug_stss.channels import NAMES, unpack

import ffplug
from ffplug.apis.checkpoints import save_weights
from ffplug.apis.export import run_onnx
from ffplug.cli import cli, run

pytest.importorskip("onnx")


def test_export_and_run(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    model = ffplug.build_model("stss").eval()
    save_weights(tmp_path / "stss.safetensors", model.state_dict(), {})
    out = tmp_path / "stss.onnx"
    arguments = ["export", "stss", str(out), "--checkpoint", str(tmp_path / "stss.safetensors")]
    assert run(cli, [*arguments, "--size", "40x72", "--any-size"], "ffplug") == 0
    assert "differs from PyTorch by at most" in capsys.readouterr().out
    told = json.loads(out.with_suffix(".json").read_text())
    assert [channel["name"] for entry in told["inputs"] for channel in entry["channels"]] == list(NAMES)
    assert [entry["name"] for entry in told["inputs"]] == ["x", "feature", "mask", "history"]
    assert told["outputs"][0]["shape"] == [1, 3, "2·height", "2·width"]
    assert told["checked"]["greatest_difference"] < 1e-5 and told["weights"].endswith("stss.safetensors")

    packed = model.data_preprocessor(model.example_batch(1))["inputs"]  # another size than that of the export
    x, feature, mask, history = unpack(packed)
    found = run_onnx(out, dict(x=x, feature=feature, mask=mask, history=history.flatten(1, 2)))["frame"]
    torch.testing.assert_close(found, model(packed).detach(), rtol=1e-4, atol=1e-5)


def test_a_size_that_does_not_fit_is_refused(tmp_path, capsys):
    assert run(cli, ["export", "stss", str(tmp_path / "stss.onnx"), "--size", "44x72"], "ffplug") == 2
    assert "expected sides in multiples of 8" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

"""Models as ONNX: what is written, what the JSON says, and what is refused with nothing left behind."""

import hashlib
import json

import pytest
import torch

import ffplug
from ffplug.apis.export import export_onnx, run_onnx
from ffplug.errors import ConfigError, DataError
from ffplug.models.export import Channel, ExportCase

pytest.importorskip("onnx")


class Scale(torch.nn.Module):
    """The smallest model that can be exported."""

    def __init__(self, function=lambda x: 3 * x, channels=1, resizable=False):
        super().__init__()
        self.function, self.described, self.resizable = function, channels, resizable

    def forward(self, x):
        return self.function(x)

    def export_case(self, height, width):
        return ExportCase(
            module=self,
            inputs={"x": torch.rand(1, 1, height, width)},
            outputs=("y",),
            channels={"x": [Channel("light", 0, 1, "linear")] * self.described, "y": [Channel("more", 0, 3, "linear")]},
            conventions={"light": "linear"},
            resizable=self.resizable,
        )


def test_what_is_written(tmp_path):
    done = export_onnx(Scale(), tmp_path / "scale.onnx", 4, 6, name="scale", weights="none")
    told = json.loads(done.sidecar.read_text())
    assert told["file"] == "scale.onnx" and told["sha256"] == hashlib.sha256(done.model.read_bytes()).hexdigest()
    assert told["inputs"] == [
        {
            "name": "x",
            "layout": "NCHW",
            "shape": [1, 1, 4, 6],
            "channels": [{"name": "light", "low": 0, "high": 1, "meaning": "linear"}],
        }
    ]
    assert told["outputs"][0]["scale"] == [1, 1] and told["size"]["fixed"]
    assert told["conventions"] == {"light": "linear"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scale.json", "scale.onnx"]


def test_results_in_onnx_runtime(tmp_path):
    pytest.importorskip("onnxruntime")
    done = export_onnx(Scale(resizable=True), tmp_path / "scale.onnx", 4, 6, any_size=True)
    assert done.difference == 0
    x = torch.rand(1, 1, 3, 9)
    torch.testing.assert_close(run_onnx(done.model, {"x": x})["y"], 3 * x)
    with pytest.raises(DataError, match="ONNX Runtime refuses it"):
        run_onnx(done.model, {"z": x})


def test_half_precision_leaves_the_model_as_it_was(tmp_path):
    model = Scale(torch.nn.Conv2d(1, 1, 1))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    done = export_onnx(model, tmp_path / "half.onnx", 4, 6, dtype="float16")
    assert json.loads(done.sidecar.read_text())["dtype"] == "float16"
    for key, value in model.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, before[key])


def test_another_result_is_refused(tmp_path):
    pytest.importorskip("onnxruntime")
    calls = []

    def drifting(x):
        calls.append(x)
        return len(calls) * x

    with pytest.raises(DataError, match="differs from PyTorch's"):
        export_onnx(Scale(drifting), tmp_path / "drift.onnx", 4, 6)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (Scale(), dict(path="scale.pt"), "ends in .onnx"),
        (Scale(), dict(dtype="int8"), "expected one of float32, float16"),
        (Scale(), dict(any_size=True), "one file takes one size"),
        (Scale(channels=2), {}, "x has 1 channels, and 2 are described"),
        (Scale(lambda x: torch.linalg.qr(x)[0]), {}, r"can't be exported as ONNX at 4×6, float32: .*qr"),
        (torch.nn.Conv2d(1, 1, 3), {}, "Conv2d can't be exported: it has no export_case"),
    ],
)
def test_refused_and_nothing_is_left(tmp_path, model, options, message):
    path = tmp_path / options.pop("path", "scale.onnx")
    with pytest.raises(ConfigError, match=message):
        export_onnx(model, path, 4, 6, **options)
    assert not list(tmp_path.iterdir())


def test_a_flow_model(tmp_path):
    pytest.importorskip("onnxruntime")
    model = ffplug.build_model("raft_small")
    model.test_iterations = 1
    done = export_onnx(model, tmp_path / "raft.onnx", 128, 136)
    frames = torch.rand(2, 1, 3, 128, 136) * 255
    found = run_onnx(done.model, dict(image1=frames[0], image2=frames[1]))["flow"]
    torch.testing.assert_close(found, model.predict_flow(*frames)["flow"], rtol=1e-3, atol=1e-3)
    with pytest.raises(ConfigError, match="expected sides in multiples of 8"):
        export_onnx(model, tmp_path / "odd.onnx", 128, 132)

"""Models as ONNX files, with a JSON beside each that names every channel, range and convention."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib.util
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ffplug.apis.weights import sha256
from ffplug.errors import ConfigError, DataError
from ffplug.files import atomic_path
from ffplug.models.export import Exportable, ExportCase
from ffplug.ops import use_backend
from ffplug.version import __version__

OPSET = 18
DTYPES = {"float32": torch.float32, "float16": torch.float16}
_TOLERANCE = {"float32": 1e-3, "float16": 5e-2}
"""Greatest difference to PyTorch, as a share of the result's greatest value."""
_AXES = {2: "height", 3: "width"}


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        model: the ONNX file.
        sidecar: the JSON.
        difference: the greatest difference to PyTorch in ONNX Runtime, or None where that is not installed.
    """

    model: Path
    sidecar: Path
    difference: float | None


def export_onnx(
    model: nn.Module,
    path: str | os.PathLike,
    height: int,
    width: int,
    *,
    dtype: str = "float32",
    any_size: bool = False,
    name: str = "",
    weights: str = "",
) -> Exported:
    """Write a model as ONNX, and beside it ``STEM.json``; where ONNX Runtime is installed both are compared first.

    Any model with a method ``export_case`` can be exported, see :class:`ffplug.models.export.Exportable`. The ops'
    PyTorch definitions go into the file, so it needs none of FFPlug's.

    Args:
        model: with its weights, on the CPU; it is left in evaluation mode, its weights as they are.
        path: of the file, ``.onnx``.
        height: of the inputs, in pixels; those that the file takes, unless ``any_size``.
        width: likewise.
        dtype: of weights, inputs and outputs: ``float32`` or ``float16``.
        any_size: let the file take other sizes, too, in the model's multiples.
        name: of the model, for the JSON.
        weights: where they are from, for the JSON.

    Raises:
        ConfigError: an argument is out of its range, or the model can't be exported; the message says why.
        DataError: ONNX Runtime refuses the file, or its results differ; nothing is written.
    """
    path = Path(path)
    kind = type(model).__name__
    if path.suffix != ".onnx":
        raise ConfigError(f"{path}: expected a name that ends in .onnx")
    if dtype not in DTYPES:
        raise ConfigError(f"dtype={dtype!r}: expected one of {', '.join(DTYPES)}")
    if importlib.util.find_spec("onnx") is None:
        raise ConfigError("writing ONNX needs the package onnx: pip install 'ffplug[onnx]'")
    if not isinstance(model, Exportable):
        raise ConfigError(f"{kind} can't be exported: it has no export_case (see ffplug.models.export)")
    model.eval()
    case = model.export_case(height, width)
    if any_size and not case.resizable:
        raise ConfigError(f"{kind}: one file takes one size; leave any_size out and export each size")
    # A copy: the caller's weights keep their type.
    module = copy.deepcopy(case.module).to(DTYPES[dtype])
    inputs = [value.to(DTYPES[dtype]) for value in case.inputs.values()]
    with atomic_path(path) as temporary:
        with torch.no_grad(), use_backend("torch"):
            expected = _outputs(module(*inputs))
            try:
                with _quiet():
                    torch.onnx.export(
                        module,
                        tuple(inputs),
                        str(temporary),
                        dynamo=False,  # the newer exporter takes a minute for what this one does in seconds
                        opset_version=OPSET,
                        input_names=list(case.inputs),
                        output_names=list(case.outputs),
                        dynamic_axes={key: _AXES for key in case.inputs} if any_size else None,
                    )
            except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
                # torch.onnx's own errors are RuntimeErrors; the first line tells the operator.
                reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                raise ConfigError(f"{kind} can't be exported as ONNX at {height}×{width}, {dtype}: {reason}") from error
        found = run_onnx(temporary, dict(zip(case.inputs, inputs, strict=True)))
        difference = None if found is None else _compare(kind, dict(zip(case.outputs, expected, strict=True)), found)
        if difference is not None and difference[0] > _TOLERANCE[dtype] * max(difference[1], 1e-6):
            raise DataError(f"{kind}: ONNX Runtime's result differs from PyTorch's by {difference[0]:.2g}")
        digest = sha256(temporary)
        described = _describe(case, dict(zip(case.outputs, expected, strict=True)), any_size)
        document = {
            "file": path.name,
            "sha256": digest,
            "model": name or kind,
            "weights": weights or "as initialised",
            "written_by": {"ffplug": __version__, "torch": torch.__version__, "opset": OPSET},
            "dtype": dtype,
            "size": {"height": height, "width": width, "fixed": not any_size, "multiple": case.multiple},
            **described,
            "conventions": dict(case.conventions),
            "checked": None if difference is None else {"with": "onnxruntime", "greatest_difference": difference[0]},
        }
        sidecar = path.with_suffix(".json")
        with atomic_path(sidecar) as text:
            text.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return Exported(path, sidecar, None if difference is None else difference[0])


def run_onnx(path: str | os.PathLike, inputs: dict[str, Tensor]) -> dict[str, Tensor] | None:
    """Run a file in ONNX Runtime on the CPU: outputs by name, or None where it is not installed.

    Raises:
        DataError: it refuses the file or the inputs.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        results = session.run(None, {key: value.numpy() for key, value in inputs.items()})
    except Exception as error:  # onnxruntime's errors share no class of their own
        raise DataError(f"{path}: ONNX Runtime refuses it: {error}") from None
    return {output.name: torch.from_numpy(value) for output, value in zip(session.get_outputs(), results, strict=True)}


def _outputs(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _compare(kind: str, expected: dict[str, Tensor], found: dict[str, Tensor]) -> tuple[float, float]:
    """The greatest difference over all outputs, and their greatest value."""
    difference = scale = 0.0
    for key, value in expected.items():
        other = found[key]
        if other.shape != value.shape or not bool(other.isfinite().all()):
            raise DataError(f"{kind}: ONNX Runtime gives {key} {tuple(other.shape)} with NaN, or of another shape")
        difference = max(difference, float((other.float() - value.float()).abs().max()))
        scale = max(scale, float(value.float().abs().max()))
    return difference, scale


def _describe(case: ExportCase, outputs: dict[str, Tensor], any_size: bool) -> dict[str, list[dict[str, Any]]]:
    """Inputs and outputs as the JSON lists them."""

    def describe(name: str, value: Tensor, free: bool) -> dict[str, Any]:
        channels = case.channels.get(name, ())
        if len(channels) != value.shape[1]:
            raise ConfigError(f"export: {name} has {value.shape[1]} channels, and {len(channels)} are described")
        shape = [_AXES.get(axis, side) if free else side for axis, side in enumerate(value.shape)]
        listed = [dataclasses.asdict(channel) for channel in channels]
        return {"name": name, "layout": "NCHW", "shape": shape, "channels": listed}

    sides = next(iter(case.inputs.values())).shape[2:]
    listed = {"inputs": [describe(*item, any_size) for item in case.inputs.items()], "outputs": []}
    for name, value in outputs.items():
        entry = describe(name, value, False)
        entry["scale"] = [round(side / other, 6) for side, other in zip(value.shape[2:], sides, strict=True)]
        if any_size:
            entry["shape"][2:] = [f"{entry['scale'][i]:g}·{axis}" for i, axis in enumerate(_AXES.values())]
        listed["outputs"].append(entry)
    return listed


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the tracer's warnings of checks on shapes, which hold for the size that is exported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield

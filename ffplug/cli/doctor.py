"""``ffplug doctor``: what this machine has, and what to install."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import sys
from typing import Any

import click

PACKAGES = {
    "torch": "pip install torch",
    "onedl-mmengine": "pip install onedl-mmengine",
    "mmengine": None,
    "numpy": "pip install numpy",
    "opencv-python-headless": "pip install opencv-python-headless",
    "av": "pip install av",
    "h5py": "pip install h5py",
    "safetensors": "pip install safetensors",
    "tensorboard": "pip install tensorboard",
    "torchvision": "pip install torchvision",
    "onedl-mmcv": None,
    "onedl-mmpretrain": None,
    "timm": "pip install timm",
    "scikit-image": "pip install scikit-image",
    "scikit-learn": "pip install scikit-learn",
}
"""Distributions that matter, and how to get those that make something possible."""

REQUIRED = ("torch", "numpy", "opencv-python-headless", "av", "h5py", "safetensors")


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--build", is_flag=True, help="Compile the ops' kernels for this machine now, not at first use.")
def command(as_json: bool, build: bool) -> None:
    """Report versions, plugins, op backends and devices; made to be pasted into a bug report."""
    report = collect()
    if build:
        report["kernels"] = _build()
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    for title, rows in report.items():
        click.echo(f"{title}:")
        for key, value in rows.items():
            click.echo(f"  {key}: {value}")


def collect() -> dict[str, dict[str, Any]]:
    """Gather the report as nested dicts of plain values."""
    from ffplug.version import __version__

    versions = {name: _version(name) for name in PACKAGES}
    report: dict[str, dict[str, Any]] = {
        "system": {
            "ffplug": __version__,
            "python": f"{platform.python_version()} ({sys.executable})",
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "memory": _memory(),
            "C++ compiler": shutil.which("c++") or shutil.which("g++") or "none",
        },
        "packages": {name: version for name, version in versions.items() if version},
        "devices": _devices(),
        "plugins": _plugins(),
        "op toolchains": _toolchains(),
        "op backends": _ops(),
    }
    missing = {name: line for name, line in PACKAGES.items() if line and not versions[name]}
    if versions["mmengine"]:
        missing.pop("onedl-mmengine", None)
    needed = {
        name: f"{line}  (required)" if name in REQUIRED else f"{line}  (optional)" for name, line in missing.items()
    }
    report["to install"] = needed or {"nothing": "all is here"}
    return report


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    except (ValueError, OSError, AttributeError):
        return "unknown"


def _devices() -> dict[str, str]:
    try:
        import torch
    except ImportError as error:
        return {"torch": f"fails to import: {error}"}
    devices = {"cpu": f"{torch.get_num_threads()} threads"}
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            devices[f"cuda:{index}"] = f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB"
    else:
        devices["cuda"] = (
            f"not available (torch built for CUDA {torch.version.cuda})" if torch.version.cuda else "not built in"
        )
    return devices


def _plugins() -> dict[str, str]:
    from ffplug.cli.list import check_imports
    from ffplug.plugin import discover

    failures = check_imports([plugin.package for plugin in discover() if plugin.error is None])
    return {
        f"{plugin.name} {plugin.version}": f"BROKEN: {error}" if error else "ok"
        for plugin in discover()
        for error in [plugin.error or failures[plugin.package]]
    }


def _toolchains() -> dict[str, str]:
    from ffplug.ops import cuda, native
    from ffplug.ops.build import cache_folder
    from ffplug.ops.contract import requested_backend, toolchain_problem

    ready = {"cpp": f"{native.compiler()} for {native.instruction_set()}", "cuda": "NVRTC", "triton": "ready"}
    rows = {name: f"no: {reason}" if (reason := toolchain_problem(name)) else text for name, text in ready.items()}
    if cuda.compiler_problem() is None and toolchain_problem("cuda"):
        rows["cuda"] += " (NVRTC is there, so kernels compile)"
    return {**rows, "kept in": str(cache_folder()), "FFPLUG_OPS": requested_backend()}


def _ops() -> dict[str, str]:
    from ffplug.plugin import plugins
    from ffplug.registry import OPS

    rows = {}
    for plugin in plugins():
        for name in plugin.components.get("ops", ()):
            op = OPS.get(f"{plugin.package}.{name}")()
            missing = op.missing()
            rows[f"{plugin.package}.{name}"] = ", ".join(op.backends()) + (
                f"; not here: {', '.join(missing)}" if missing else ""
            )
    return rows


def _build() -> dict[str, str]:
    """Compile every kernel that this machine can run; the result of each."""
    import torch

    from ffplug.ops import cuda, native
    from ffplug.ops.build import BuildError

    rows = {}
    for source in native.SOURCES:
        try:
            rows[source.path.name] = str(source.build())
        except BuildError as error:
            rows[source.path.name] = f"FAILED: {error}"
    if cuda.problem() is None:
        major, minor = torch.cuda.get_device_capability()
        for source in cuda.SOURCES:
            try:
                rows[source.path.name] = str(cuda.compile_cubin(source.path, torch.float32, f"sm_{major}{minor}"))
            except BuildError as error:
                rows[source.path.name] = f"FAILED: {error}"
    return rows

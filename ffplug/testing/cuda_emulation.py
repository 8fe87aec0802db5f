"""Running CUDA kernels on the host: slow, but every index and every sum is the kernel's own."""

from __future__ import annotations

import ctypes
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ffplug.ops import native
from ffplug.ops.build import CSRC, BuildError, cached, source_text

HEADER = Path(__file__).with_name("cuda_emulation.h")
KERNEL = re.compile(r"FFPLUG_KERNEL\s+(\w+)\s*\(([^)]*)\)")


def _launcher(name: str, parameters: str) -> str:
    """The exported function that runs one kernel over a grid."""
    names = ", ".join(re.sub(r"[*&\[\]]", " ", part).split()[-1] for part in parameters.split(",") if part.strip())
    return (
        f'extern "C" void launch_{name}(const int64_t* grid, const int64_t* block, {parameters}) '
        f"{{ emulation::launch(grid, block, [=] {{ {name}({names}); }}); }}\n"
    )


@cache
def _library(source: Path, dtype: torch.dtype) -> ctypes.CDLL:
    reason = native.problem()
    if reason is not None:
        raise BuildError(f"{source.name} can't be emulated: {reason}")
    folders = (source.parent, CSRC)
    text = source.read_text()
    code = f'#include "{HEADER}"\n#include "{source}"\n' + "".join(_launcher(*found) for found in KERNEL.findall(text))
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-w", f"-DFFPLUG_SCALAR={native.SCALARS[dtype]}"]

    def build(target: Path) -> str:
        command = [
            native.compiler(),
            *flags,
            *(f"-I{folder}" for folder in folders),
            "-x",
            "c++",
            "-",
            "-o",
            str(target),
        ]
        done = subprocess.run(command, input=code, capture_output=True, text=True, check=False)
        if done.returncode:
            last = "\n".join(done.stderr.strip().splitlines()[:12])
            raise BuildError(f"{source.name} does not compile under emulation:\n{last}")
        return "the host's compiler, emulated"

    key = [source_text(source, folders), HEADER.read_text(), code, *flags]
    return ctypes.CDLL(str(cached(f"{source.stem}-emulated-{native.SCALARS[dtype]}", key, ".so", build)))


def emulate(
    source: Path, name: str, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], dtype: torch.dtype
) -> None:
    """Run kernel ``name`` of ``source`` over a grid, on CPU tensors; see :class:`ffplug.ops.cuda.CudaSource`."""
    shape = ctypes.c_int64 * 3
    getattr(_library(source, dtype), f"launch_{name}")(shape(*grid), shape(*block), *map(native._argument, args))

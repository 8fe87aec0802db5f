"""C++ kernels behind a plain C interface: compiled with the system's compiler at first use, called through ctypes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ffplug.errors import ConfigError
from ffplug.ops.build import CSRC, BuildError, cached, source_text

SCALARS = {torch.float32: "float", torch.float64: "double"}
# What each instruction set is called by the compiler, and the width of its vector registers in bytes.
INSTRUCTION_SETS = {
    "avx512": (("-march=x86-64-v4", "-mprefer-vector-width=512"), 64),
    "avx2": (("-march=x86-64-v3",), 32),
    "portable": ((), 16),
}
# Contraction gives fused multiply-adds; no other reordering, so that a sum keeps the order the source gives it.
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-fopenmp", "-fno-math-errno", "-ffp-contract=fast", "-w")


SOURCES: list[NativeSource] = []
"""Every source of the modules that are loaded."""


@cache
def compiler() -> str | None:
    """Path of the C++ compiler: ``CXX`` if set, else the first of c++, g++ and clang++ on the path."""
    asked = os.environ.get("CXX")
    names = [asked.split()[0]] if asked else ["c++", "g++", "clang++"]
    return next((path for path in map(shutil.which, names) if path), None)


def problem() -> str | None:
    """Why C++ kernels can't be built here, or None."""
    if compiler() is None:
        asked = os.environ.get("CXX")
        return f"CXX={asked} is not on the path" if asked else "no C++ compiler (c++, g++ or clang++) on the path"
    return None


def instruction_set() -> str:
    """The instruction set to build for: ``FFPLUG_CPU`` if set, else the best that torch sees on this machine."""
    asked = os.environ.get("FFPLUG_CPU")
    if asked is not None:
        if asked not in INSTRUCTION_SETS:
            raise ConfigError(f"FFPLUG_CPU={asked!r}: expected one of {', '.join(INSTRUCTION_SETS)}")
        return asked
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return "portable"
    return {"AVX512": "avx512", "AVX2": "avx2"}.get(torch.backends.cpu.get_cpu_capability(), "portable")


def vector_lanes(dtype: torch.dtype) -> int:
    """Elements of a vector register, for layouts that depend on it."""
    return INSTRUCTION_SETS[instruction_set()][1] // dtype.itemsize


def _argument(value: Any) -> Any:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if value is None:
        return ctypes.c_void_p(None)
    if isinstance(value, float):
        return ctypes.c_double(value)
    return ctypes.c_int64(int(value))


class NativeSource:
    """One C++ source file and the libraries built from it, one for each scalar type and instruction set in use.

    The source is written over the type ``scalar`` (see ``csrc/ffplug.h``) and exports ``extern "C"`` functions that
    take pointers, ``int64_t`` and ``double`` and return nothing.

    Args:
        path: the source; headers are looked up beside it and among the core's.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._libraries: dict[tuple[str, str], ctypes.CDLL] = {}
        self._failed: dict[tuple[str, str], BuildError] = {}
        SOURCES.append(self)

    def build(self, dtype: torch.dtype = torch.float32) -> Path:
        """Compile for ``dtype`` and this machine unless the cache has it; return the library's path.

        Raises:
            BuildError: no compiler, or it failed.
        """
        simd = instruction_set()
        options, width = INSTRUCTION_SETS[simd]
        scalar = SCALARS[dtype]
        folders = (self.path.parent, CSRC)
        defines = [f"-DFFPLUG_SCALAR={scalar}", f"-DFFPLUG_SCALAR_BYTES={dtype.itemsize}"]
        command = [*FLAGS, *options, *defines, f"-DFFPLUG_VECTOR_BYTES={width}"]

        def run(target: Path) -> str:
            reason = problem()
            if reason is not None:
                raise BuildError(f"{self.path.name} can't be compiled: {reason}")
            include = [f"-I{folder}" for folder in folders]
            # Without -fopenmp at linking, OpenMP's functions come from the copy that torch has loaded: one pool of
            # threads in the process in place of two that get in each other's way.
            objects = target.with_suffix(".o")
            try:
                self._run(
                    [
                        compiler(),
                        *(f for f in command if f != "-shared"),
                        *include,
                        "-c",
                        str(self.path),
                        "-o",
                        str(objects),
                    ]
                )
                self._run([compiler(), "-shared", str(objects), "-o", str(target)])
                try:
                    ctypes.CDLL(str(target))
                except OSError:
                    self._run([compiler(), "-shared", "-fopenmp", str(objects), "-o", str(target)])
            finally:
                objects.unlink(missing_ok=True)
            return f"{Path(compiler()).name} for {simd}, {scalar}"

        key = [source_text(self.path, folders), *command, platform.system(), platform.machine()]
        return cached(f"{self.path.stem}-{simd}-{scalar}", key, ".so", run)

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = "\n".join(done.stderr.strip().splitlines()[-12:])
            raise BuildError(f"{self.path.name} did not compile; {command[0]} said:\n{last}")

    def library(self, dtype: torch.dtype) -> ctypes.CDLL:
        """The loaded library for ``dtype`` (float32 or float64); a failure is remembered, not tried again."""
        key = (SCALARS[dtype], instruction_set())
        if key in self._failed:
            raise self._failed[key]
        if key not in self._libraries:
            try:
                self._libraries[key] = ctypes.CDLL(str(self.build(dtype)))
            except BuildError as error:
                self._failed[key] = error
                raise
            except OSError as error:
                self._failed[key] = BuildError(f"{self.path.name} was compiled but can't be loaded: {error}")
                raise self._failed[key] from error
        return self._libraries[key]

    def call(self, name: str, *args: Any, dtype: torch.dtype | None = None) -> None:
        """Call the exported function ``name``.

        Args:
            name: of the function.
            *args: tensors (their data pointers; the caller sees to device and layout), None (a null pointer), ints
                and bools (``int64_t``), floats (``double``).
            dtype: scalar type; by default that of the first floating tensor among the arguments.
        """
        if dtype is None:
            dtype = next(value.dtype for value in args if isinstance(value, Tensor) and value.is_floating_point())
        library = self.library(dtype)
        library.ffplug_set_threads(ctypes.c_int(torch.get_num_threads()))
        getattr(library, name)(*map(_argument, args))


@contextlib.contextmanager
def use_instruction_set(name: str) -> Iterator[None]:
    """Build and run for ``avx512``, ``avx2`` or ``portable`` within the context, as ``FFPLUG_CPU`` does."""
    before = os.environ.get("FFPLUG_CPU")
    os.environ["FFPLUG_CPU"] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ["FFPLUG_CPU"]
        else:
            os.environ["FFPLUG_CPU"] = before

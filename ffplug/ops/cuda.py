"""CUDA C++ kernels: compiled through NVRTC at first use and launched on torch's stream; no nvcc on the user's machine.

NVRTC and the driver are called through ``cuda.bindings``, NVIDIA's own Python package, which torch's CUDA builds bring
along.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ffplug.ops.build import CSRC, BuildError, cached, source_text

SCALARS = {torch.float32: "float", torch.float64: "double"}
ARCHITECTURES = ("sm_80", "sm_90")  # what CI compiles for
THREADS = 256  # of a block, where a kernel numbers its threads throughout the grid

SOURCES: list[CudaSource] = []
"""Every source of the modules that are loaded."""


@cache
def problem() -> str | None:
    """Why CUDA kernels can't run here, or None."""
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    return compiler_problem()


@cache
def compiler_problem() -> str | None:
    """Why CUDA kernels can't be compiled here, or None; compiling needs no device."""
    try:
        from cuda.bindings import nvrtc

        status, *_ = nvrtc.nvrtcVersion()
    except ImportError:
        return "cuda.bindings is not installed (pip install 'ffplug[cuda]')"
    except RuntimeError as error:  # cuda.bindings found no NVRTC library
        return f"NVRTC can't be loaded: {error}"
    return None if status == nvrtc.nvrtcResult.NVRTC_SUCCESS else f"NVRTC does not answer: {status}"


def _checked(result: tuple, call: str) -> Any:
    status, *values = result
    if int(status) != 0:
        raise BuildError(f"{call} failed: {status}")
    return values[0] if len(values) == 1 else values


def compile_cubin(source: Path, dtype: torch.dtype, architecture: str) -> Path:
    """Compile a CUDA source for one scalar type and one architecture (``sm_90``); return the cubin's path.

    Raises:
        BuildError: NVRTC is missing or rejects the source; the message ends with its last lines.
    """
    folders = (source.parent, CSRC)
    options = [
        "--std=c++17",
        f"--gpu-architecture={architecture}",
        "--extra-device-vectorization",
        f"-DFFPLUG_SCALAR={SCALARS[dtype]}",
        *(f"-I{folder}" for folder in folders),
    ]

    def run(target: Path) -> str:
        reason = compiler_problem()
        if reason is not None:
            raise BuildError(f"{source.name} can't be compiled: {reason}")
        from cuda.bindings import nvrtc

        code = source.read_bytes()
        program = _checked(nvrtc.nvrtcCreateProgram(code, source.name.encode(), 0, [], []), "nvrtcCreateProgram")
        try:
            (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
            if int(status) != 0:
                text = b" " * _checked(nvrtc.nvrtcGetProgramLogSize(program), "nvrtcGetProgramLogSize")
                _checked(nvrtc.nvrtcGetProgramLog(program, text), "nvrtcGetProgramLog")
                last = "\n".join(text.decode(errors="replace").rstrip("\0 \n").splitlines()[-12:])
                raise BuildError(f"{source.name} did not compile for {architecture}; NVRTC said:\n{last}")
            cubin = b" " * _checked(nvrtc.nvrtcGetCUBINSize(program), "nvrtcGetCUBINSize")
            _checked(nvrtc.nvrtcGetCUBIN(program, cubin), "nvrtcGetCUBIN")
        finally:
            nvrtc.nvrtcDestroyProgram(program)
        target.write_bytes(cubin)
        return f"NVRTC for {architecture}, {SCALARS[dtype]}"

    key = [source_text(source, folders), *options[:4], architecture]
    return cached(f"{source.stem}-{architecture}-{SCALARS[dtype]}", key, ".cubin", run)


def _argument(value: Any) -> tuple[Any, Any]:
    if isinstance(value, Tensor):
        return value.data_ptr(), ctypes.c_void_p
    if value is None:
        return 0, ctypes.c_void_p
    if isinstance(value, float):
        return value, ctypes.c_double
    return int(value), ctypes.c_int64


class CudaSource:
    """One CUDA source file: kernels over the type ``scalar`` (see ``csrc/ffplug_cuda.h``), launched by name.

    A kernel is written ``extern "C" __global__ void name(...)`` and takes pointers, ``int64_t`` and ``double``.

    Args:
        path: the source; headers are looked up beside it and among the core's.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._kernels: dict[tuple[str, torch.dtype, int], Any] = {}
        self._failed: dict[tuple[torch.dtype, int], BuildError] = {}
        SOURCES.append(self)

    def _kernel(self, name: str, dtype: torch.dtype, device: int) -> Any:
        if (dtype, device) in self._failed:
            raise self._failed[dtype, device]
        if (name, dtype, device) not in self._kernels:
            from cuda.bindings import driver

            major, minor = torch.cuda.get_device_capability(device)
            try:
                path = compile_cubin(self.path, dtype, f"sm_{major}{minor}")
            except BuildError as error:
                self._failed[dtype, device] = error
                raise
            module = _checked(driver.cuModuleLoadData(path.read_bytes()), "cuModuleLoadData")
            function = _checked(driver.cuModuleGetFunction(module, name.encode()), f"cuModuleGetFunction({name})")
            self._kernels[name, dtype, device] = (module, function)
        return self._kernels[name, dtype, device][1]

    def launch(
        self,
        name: str,
        grid: int | tuple[int, ...],
        block: int | tuple[int, ...],
        *args: Any,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Launch a kernel on the current stream of its tensors' device.

        Args:
            name: of the kernel.
            grid: blocks in x, y and z; a grid with no block launches nothing.
            block: threads of a block in x, y and z.
            *args: tensors, None, ints and bools (``int64_t``), floats (``double``).
            dtype: scalar type; by default that of the first floating tensor among the arguments.
        """
        shape = [(*((size,) if isinstance(size, int) else size), 1, 1)[:3] for size in (grid, block)]
        if 0 in shape[0]:
            return
        tensors = [value for value in args if isinstance(value, Tensor)]
        if dtype is None:
            dtype = next(value.dtype for value in tensors if value.is_floating_point())
        device = tensors[0].device
        if device.type == "cpu":
            from ffplug.testing.cuda_emulation import emulate

            emulate(self.path, name, *shape, args, dtype)
            return
        from cuda.bindings import driver

        with torch.cuda.device(device):
            function = self._kernel(name, dtype, device.index)
            stream = torch.cuda.current_stream(device).cuda_stream
            values, types = zip(*map(_argument, args), strict=True)
            _checked(
                driver.cuLaunchKernel(function, *shape[0], *shape[1], 0, stream, (values, types), 0),
                f"launch of {name}",
            )

    def launch_threads(self, name: str, threads: int, *args: Any, dtype: torch.dtype | None = None) -> None:
        """Launch a kernel with so many threads, or a few more, numbered throughout the grid; else as :meth:`launch`."""
        self.launch(name, -(-threads // THREADS), THREADS, *args, dtype=dtype)

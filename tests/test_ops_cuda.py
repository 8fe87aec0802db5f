"""Every CUDA source of the core and of the plugins compiles for the architectures in use; no device is needed."""

from pathlib import Path

import pytest
import torch

from ffplug.ops import cuda

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("ffplug/ops/csrc/*.cu"), *ROOT.glob("plugins/*/*/ops/csrc/*.cu")])


@pytest.mark.skipif(cuda.compiler_problem() is not None, reason=str(cuda.compiler_problem()))
@pytest.mark.parametrize("architecture", cuda.ARCHITECTURES)
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_compiles(source, architecture):
    assert cuda.compile_cubin(source, torch.float32, architecture).stat().st_size > 1000


def test_sources_are_found():
    assert len(SOURCES) >= 2

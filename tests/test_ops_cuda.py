"""Every CUDA source of the core, template and plugins compiles for each architecture in use; no device is needed."""

from pathlib import Path

import pytest
import torch

from ffplug.ops import cuda

ROOT = Path(__file__).parents[1]
FOLDERS = ("ffplug/ops/csrc", "ffplug/template/project/*/ops/csrc", "plugins/*/*/ops/csrc")
SOURCES = sorted(path for folder in FOLDERS for path in ROOT.glob(f"{folder}/*.cu"))


@pytest.mark.skipif(cuda.compiler_problem() is not None, reason=str(cuda.compiler_problem()))
@pytest.mark.parametrize("architecture", cuda.ARCHITECTURES)
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_compiles(source, architecture):
    assert cuda.compile_cubin(source, torch.float32, architecture).stat().st_size > 1000


def test_sources_are_found():
    assert len(SOURCES) >= 2

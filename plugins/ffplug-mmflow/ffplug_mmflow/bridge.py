"""Importing MMFlow's 1.x branch beside today's mmcv: its version gate and its need of compiled ops are got round here.

Nothing of the user's is changed: no file, and of mmcv nothing once the import is done. MMFlow then runs as it is, but
for one function that is mended (see :func:`unpack_targets`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ffplug.errors import PluginError
from ffplug_mmflow.ops import Correlation, DeformConv2d

INSTALL = "`pip install 'ffplug-mmflow[baselines]'`"
ACCEPTED_MMCV = "2.0.1"
"""A version of mmcv that MMFlow's gate lets through; what it uses of mmcv has not changed since."""

TARGETS = ("gt_flow_fw", "gt_flow_bw", "gt_occ_fw", "gt_occ_bw", "gt_valid_fw", "gt_valid_bw")


def find_mmflow() -> Path:
    """The folder of the installed ``mmflow``, without importing it.

    Raises:
        PluginError: it is not installed, or is of the 0.x branch; says what to install.
    """
    spec = importlib.util.find_spec("mmflow")
    if spec is None or not spec.submodule_search_locations:
        raise PluginError(f"MMFlow's networks need the package mmflow, which is not installed: {INSTALL}")
    folder = Path(next(iter(spec.submodule_search_locations)))
    if not (folder / "registry.py").is_file():
        raise PluginError(
            f"the mmflow in {folder} is of the 0.x branch, which can't be imported today; "
            f"its networks are the same in the 1.x branch: {INSTALL}"
        )
    return folder


@functools.cache
def import_mmflow() -> types.ModuleType:
    """Import ``mmflow.models`` and return it.

    Raises:
        PluginError: ``mmflow`` or ``mmcv`` is not there; says what to install.
    """
    find_mmflow()
    try:
        import mmcv
    except ImportError as error:
        raise PluginError(f"MMFlow's networks need mmcv: {INSTALL}") from error
    with _replaced(mmcv, "__version__", ACCEPTED_MMCV), _stand_in_for_ops():
        models = importlib.import_module("mmflow.models")
    _replace_everywhere(models.unpack_flow_data_samples, unpack_targets)
    return models


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an attribute another value while the block runs."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def _stand_in_for_ops() -> Iterator[None]:
    """While the block runs, importing ``mmcv.ops`` gives our ops, unless there are compiled ones and a GPU for them.

    (mmcv's Correlation has no CPU kernel.)
    """
    if torch.cuda.is_available() and importlib.util.find_spec("mmcv._ext") is not None:
        yield
        return
    before = sys.modules.pop("mmcv.ops", None)
    module = types.ModuleType("mmcv.ops", "FFPlug's stand-in for mmcv's compiled ops.")
    module.Correlation, module.DeformConv2d = Correlation, DeformConv2d
    sys.modules["mmcv.ops"] = module
    try:
        yield
    finally:
        del sys.modules["mmcv.ops"]
        if before is not None:
            sys.modules["mmcv.ops"] = before


def _replace_everywhere(original: Callable, function: Callable) -> None:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "mmflow" and vars(module).get(original.__name__) is original:
            setattr(module, original.__name__, function)


def unpack_targets(data_samples: Sequence[Any]) -> tuple[Tensor | None, ...]:
    """Ground truth of a batch of MMFlow's samples, in the order of :data:`TARGETS`; None for what they do not have.

    MMFlow 1.0.0rc0 has this function too, but takes the mask of known pixels for that of the backward flow, so that its
    losses count unknown pixels as pixels that do not move.
    """
    batches = []
    for name in TARGETS:
        values = [sample.get(name).data for sample in data_samples if name in sample]
        join = torch.cat if "valid" in name else torch.stack
        batches.append(join(values) if values else None)
    return tuple(batches)

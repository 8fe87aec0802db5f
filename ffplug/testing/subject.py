"""A plugin under test: its components, models and examples, and the words for what is wrong with it."""

from __future__ import annotations

import contextlib
import gc
import importlib
import inspect
import os
import re
import tempfile
import textwrap
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.registry import Registry
from torch import nn

from ffplug.config import load_config
from ffplug.errors import FFPlugError, PluginError
from ffplug.plugin import KINDS, Plugin, load

LARGE = 150_000_000
"""Models with more parameters are left out unless asked for: they need gigabytes and minutes."""


class Finding(AssertionError):
    """What a check found wrong, as advice.

    Args:
        where: file, type, config or model.
        what: what is wrong there, and what was expected.
        do: what to do about it.
    """

    def __init__(self, where: str, what: str, do: str) -> None:
        super().__init__(f"{where}: {what}\n  -> {do}")
        self.where, self.what, self.do = where, what, do


class LeftOut(Exception):
    """A case can't be checked here; its text says why."""


class Subject:
    """A plugin under test, with what several checks need of it.

    Args:
        plugin: what discovery found.
        large: check models of more than :data:`LARGE` parameters too.
    """

    def __init__(self, plugin: Plugin, large: bool = False) -> None:
        self.plugin = plugin
        self.package = plugin.package
        self.large = large
        self._folder = tempfile.TemporaryDirectory(prefix="ffplug-check-")
        self._models: dict[str, nn.Module] = {}

    @property
    def folder(self) -> Path:
        """A temporary folder, of this subject alone."""
        return Path(self._folder.name)

    @property
    def source(self) -> Path | None:
        """The folder of ``pyproject.toml`` where the package lies in its source tree, else None."""
        project = self.plugin.folder.parent
        return project if (project / "pyproject.toml").is_file() else None

    def close(self) -> None:
        """Remove the folder and forget the models."""
        self._models.clear()
        gc.collect()
        self._folder.cleanup()

    def registry(self, kind: str) -> Registry | None:
        """The plugin's registry of a kind of component, filled, or None where it has none."""
        load(self.plugin)
        registry = getattr(importlib.import_module(f"{self.package}.registry"), KINDS[kind], None)
        if registry is not None:
            registry.import_from_location()
        return registry

    def components(self, *kinds: str) -> list[str]:
        """``kind:name`` of the manifest's components of these kinds (all by default)."""
        return [
            f"{kind}:{name}"
            for kind, names in self.plugin.components.items()
            if kind in (kinds or KINDS)
            for name in names
        ]

    def component(self, case: str) -> Any:
        """What is registered as ``kind:name``."""
        kind, _, name = case.partition(":")
        registry = self.registry(kind)
        if registry is None or name not in registry.module_dict:
            raise LeftOut("it is not registered; see the check `manifest`")
        return registry.module_dict[name]

    def example(self, case: str) -> dict[str, Any]:
        """The documented minimal config of ``kind:name``."""
        name = f"{self.package}.{case.partition(':')[2]}"
        cls = self.component(case)
        where = self.where(cls)
        text = example_text(cls)
        if text is None:
            return {"type": name}
        try:
            config = eval(text, {"__builtins__": {}, "dict": dict, "list": list, "range": range})
        except Exception as error:
            raise Finding(
                where, f"its Example is no config: {error}", f'write it as one dict(type="{name}", ...) of plain values'
            ) from error
        if not isinstance(config, dict) or config.get("type") != name:
            raise Finding(where, f"its Example is not a dict with type={name!r}", f'begin it with dict(type="{name}"')
        return config

    def where(self, cls: Any) -> str:
        """Name a registered object by its class and module."""
        cls = cls if isinstance(cls, type) else type(cls)
        return f"{cls.__module__}.{cls.__qualname__}"

    def model(self, name: str) -> nn.Module:
        """Build the model of this name, with two iterations where it has a number of them; built once.

        Raises:
            LeftOut: it is large, or needs an optional dependency that is not installed.
        """
        if name not in self._models:
            config = load_config(name)["model"].to_dict()
            config |= {key: 2 for key in ("iterations", "test_iterations") if config.get(key)}
            with torch.device("meta"):
                count = sum(parameter.numel() for parameter in build("models", config, name).parameters())
            if count > LARGE and not self.large:
                raise LeftOut(f"{count / 1e6:.0f} M parameters: checked with --large (FFPLUG_CHECK_LARGE=1)")
            torch.manual_seed(0)
            self._models[name] = build("models", config, name).eval()
        return self._models[name]

    def explain(self, where: str, what: str, error: Exception, do: str | None = None) -> Finding:
        """Make advice of an error: its text, and the line of the plugin that it comes from."""
        own, kit = str(self.plugin.folder), str(Path(__file__).parent)
        trace = traceback.extract_tb(error.__traceback__)
        frames = [frame for frame in trace if own in frame.filename and kit not in frame.filename]
        at = f" at {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
        text = " ".join(str(error).split())
        text = text if isinstance(error, FFPlugError) else f"{type(error).__name__}: {text[:600]}"
        return Finding(
            where, f"{what} {text}{at}", do or "mend the cause; the traceback is in `pytest` or with --debug"
        )


def example_text(cls: Any) -> str | None:
    """The block under ``Example:`` of a type's own docstring, without prompt signs, or None."""
    found = re.search(r"^Example:\n((?: {2,}.*\n?|\n)+)", inspect.cleandoc(cls.__doc__ or ""), re.M)
    return re.sub(r"^(>>>|\.\.\.) ?", "", textwrap.dedent(found[1]).strip(), flags=re.M) if found else None


def build(kind: str, config: Mapping[str, Any], where: str, **more: Any) -> Any:
    """Build a component, or leave the case out where an optional dependency is missing."""
    from ffplug import registry

    try:
        return getattr(registry, KINDS[kind]).build({**config, **more})
    except FFPlugError as error:
        if isinstance(error, PluginError) and "pip install" in str(error):
            raise LeftOut(str(error)) from error
        raise


@contextlib.contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    """Work in another folder."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)

"""Layouts: what data sets look like on disk, so that a wrong folder gets an answer that helps.

A layout is also what writes procedural scenes; those of the public data sets are in
:mod:`ffplug.datasets.public_layouts`, a plugin registers its own in the same way.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mmengine import fileio
from mmengine.logging import print_log

from ffplug.errors import ConfigError, DataError, PluginError, did_you_mean
from ffplug.plugin import component_owners

if TYPE_CHECKING:
    from ffplug.datasets.procedural.writers import Recipe

MARKER = "PROCEDURAL.json"
"""The file at a data root that tells that its content was made by ``ffplug synth``."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of a data set that is checked on its own.

    Attributes:
        folder: the folder below the root without which the part is not there.
        dataset: the type that reads it, with its package; ``options``: its arguments.
        needed: whether its absence is a problem, or only worth a note (further passes, cameras, test frames).
    """

    folder: str
    dataset: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    needed: bool = False


class Layout:
    """How one data set lies on disk: how to recognise it, what to check, how to write procedural scenes in it.

    A layout is a subclass, registered in :data:`ffplug.registry.LAYOUTS` (or a plugin's child of it) under the name
    that ``ffplug synth``, ``ffplug data check`` and :class:`ffplug.ProceduralStandIn
    <ffplug.datasets.procedural.ProceduralStandIn>` take, and listed in the manifest under ``layouts``.

    Attributes:
        title: the set's name as people know it.
        datasets: the types that read it, with their package.
        markers: any of these files or folders below the root gives it away.
        expected: the folders that its reader needs, for messages.
        parts: what ``ffplug data check`` looks at.
        has_test: whether a procedural set has a second part, for testing or validation.
    """

    title: ClassVar[str]
    datasets: ClassVar[tuple[str, ...]]
    markers: ClassVar[tuple[str, ...]]
    expected: ClassVar[str]
    parts: ClassVar[tuple[Part, ...]]
    has_test: ClassVar[bool] = True

    def lies_in(self, root: str) -> bool:
        """Whether ``root`` looks like the root folder of this data set."""
        return any(fileio.exists(join(root, marker)) for marker in self.markers)

    def inspect(self, path: str, full: bool) -> tuple[int, int] | None:
        """Look at a file of this data set for ``ffplug data check``, in a form that the core can't read.

        Args:
            path: of a file that the reader's entries name.
            full: decode all of it; else its header will do.

        Returns:
            Width and height, or None for the core's own forms.

        Raises:
            DataError: the file is damaged.
        """
        return None

    def options(self, difficulty: str, changes: dict[str, Any]) -> Any:
        """Return what scenes are drawn from; a layout whose scenes are no layered shapes has options of its own.

        Args:
            difficulty: of the recipe.
            changes: values by name, as ``ffplug synth --set`` takes them.

        Raises:
            ConfigError: a name is unknown, or a value out of its range.
        """
        from ffplug.datasets.procedural.options import SceneOptions

        return SceneOptions.preset(difficulty, **changes)

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """Write one procedural scene.

        Args:
            folder: empty folder in place of the set's root; what is written there is moved into the set.
            recipe: the set's :class:`~ffplug.datasets.procedural.writers.Recipe`; ``recipe.scene(subset, index)`` is
                the scene.
            subset: 0 for the training part, 1 for the test or validation part.
            index: of the scene in its part; scenes are written in any order, several at a time.
        """
        raise NotImplementedError

    def finish(self, folder: Path, recipe: Recipe) -> None:
        """Write what lies beside the scenes, if anything (lists, calibration).

        It follows from the recipe alone: the scenes are written by other processes, perhaps later.
        """


def layout_names() -> list[str]:
    """Names of the layouts of the core and of all plugins, the core's first."""
    return [*component_owners("layouts")]


def get_layout(name: str) -> Layout:
    """Return the layout of this name, from the core or whichever installed plugin has it.

    Raises:
        ConfigError: there is none; near names are given.
    """
    owners = component_owners("layouts")
    if name not in owners:
        known = ", ".join(layout_names())
        raise ConfigError(f"layout={name!r}: expected one of {known}{did_you_mean(name, owners)}")
    return _make(f"{owners[name]}.{name}")


@functools.cache
def _make(qualified: str) -> Layout:
    from ffplug.registry import LAYOUTS

    layout = LAYOUTS.get(qualified)
    if layout is None:
        package, _, name = qualified.partition(".")
        raise PluginError(
            f"the manifest of {package} lists the layout {name}, but {package} registers none of that name"
        )
    return layout()


def join(*parts: str) -> str:
    """Join path parts with slashes, which every back-end understands."""
    return "/".join(part.rstrip("/") or "/" for part in parts if part)


def list_folder(path: str) -> tuple[list[str], list[str]]:
    """Return the sorted names of the folders and of the files in a folder; none where it does not exist.

    Hidden entries are left out.
    """
    if not fileio.isdir(path):
        return [], []
    return (
        sorted(fileio.list_dir_or_file(path, list_file=False)),
        sorted(fileio.list_dir_or_file(path, list_dir=False)),
    )


def detect_layout(root: str) -> str | None:
    """Return the name of the layout that lies at ``root``, or None."""
    return next((name for name in layout_names() if has_layout(root, name)), None)


def has_layout(root: str, name: str) -> bool:
    """Whether what lies at ``root`` is of the layout ``name``; layouts of several plugins may look alike."""
    marked = (read_marker(root) or {}).get("layout")
    return marked == name if marked in layout_names() else _lies_in(name, root)


def _lies_in(name: str, root: str) -> bool:
    """Whether a layout lies at ``root``; one whose plugin fails to import is passed over with a warning."""
    try:
        layout = get_layout(name)
    except Exception as error:
        print_log(f"layout {name} is passed over: its plugin fails to import: {error}", "current", logging.WARNING)
        return False
    return layout.lies_in(root)


def read_marker(root: str) -> dict | None:
    """Return what ``PROCEDURAL.json`` at a data root says, or None where there is none.

    Raises:
        DataError: the file is not a JSON object.
    """
    return read_json_object(join(root, MARKER), "; write the data set again with `ffplug synth`")


def read_json_object(path: str, advice: str = "") -> dict | None:
    """Return the JSON object in a file, or None where there is no file.

    Args:
        path: the file, on any back-end.
        advice: what to do about a broken one, for the message.

    Raises:
        DataError: the file is not a JSON object.
    """
    if not fileio.exists(path):
        return None
    try:
        content = json.loads(fileio.get_text(path))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}){advice}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def explain_root(root: str, key: str, missing: str) -> str:
    """Say why ``root`` can't be read as the layout ``key``: what is there instead, and the likely mistake.

    Args:
        root: the folder that the user gave.
        key: name of the layout that was asked for.
        missing: the folder below the root that the reader did not find.
    """
    layout = get_layout(key)
    if not fileio.exists(root):
        return f"{root}: no such folder; expected {layout.title} with {layout.expected}{_elsewhere(root, key)}"
    if not fileio.isdir(root):
        return f"{root}: expected the root folder of {layout.title}, found a file"
    folders, files = list_folder(root)
    if not folders and not files:
        return f"{root}: the folder is empty; expected {layout.title} with {layout.expected}"
    found = ", ".join([f"{name}/" for name in folders] + files[:4]) if len(folders) < 9 else f"{len(folders)} folders"
    there = key if has_layout(root, key) else detect_layout(root)
    if there == key:
        return (
            f"{root}: {missing} is missing, so {layout.title} is incomplete (found {found}): a download or an "
            f"extraction stopped half-way? `ffplug data check {root}` names all that is missing"
        )
    if there:
        other = get_layout(there)
        types = " or ".join(f"type='{name}'" for name in other.datasets)
        return f"{root}: expected {layout.title}, found {other.title}: another data set's folder? Use {types}"
    return f"{root}: expected {layout.title} with {layout.expected}, found {found}{_elsewhere(root, key)}"


def _elsewhere(root: str, key: str) -> str:
    """Say where the data set lies, if it does one or two levels below or above ``root``."""
    below, parents = [], []
    for folder in list_folder(root)[0][:20]:
        child = join(root, folder)
        below.append(child)
        below.extend(join(child, name) for name in list_folder(child)[0][:20])
    parent = os.path.dirname(os.path.abspath(root)) if "://" not in root else ""
    if parent:
        parents = [parent, os.path.dirname(parent)]
    for candidate in (*below, *parents):
        if has_layout(candidate, key):
            return f"; it lies in {candidate}: set data_root to that"
    return ""

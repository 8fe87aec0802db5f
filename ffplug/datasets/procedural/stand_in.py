"""A procedural set in the place of a data set that is not on this machine."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from ffplug.datasets.layouts import Layout, explain_root, get_layout, has_layout, read_marker
from ffplug.datasets.procedural.writers import Recipe, write_procedural
from ffplug.errors import ConfigError, DataError
from ffplug.registry import PREPARERS

_WAIT = 1800
_REPORT_EVERY = 5


@PREPARERS.register_module()
class ProceduralStandIn:
    """When a data set is missing, write procedural scenes in its layout and let the config read them, with a warning.

    Call it with the config before anything is built. Real data at ``data_root`` is used as it is. A ``data_root`` that
    holds something else (a half-finished download, say) is an error: it is never passed over.

    Args:
        layout: name of the layout, as :func:`~ffplug.datasets.layouts.layout_names` lists them.
        data_root: where the real data set is expected, as in the config's datasets.
        stand_in: folder for the procedural set; by default ``data_root`` with ``-procedural`` added.
        workers: processes that render; 0 renders in this one.
        scenes: number of training scenes (of pairs, for FlyingChairs and KITTI).
        frames: frames per scene.
        size: height and width in pixels.
        seed: seed of the set.
        difficulty: ``'demo'``, ``'standard'`` or ``'hard'``.
        textures: ``'analytic'``, ``'pictures'``, ``'mixed'`` or a folder with pictures.
        options: what differs from the difficulty: fields of
            :class:`~ffplug.datasets.procedural.options.SceneOptions`, or of what the layout draws from.
    """

    def __init__(
        self,
        layout: str = "sintel",
        data_root: str = "data/Sintel",
        stand_in: str | None = None,
        workers: int = 0,
        scenes: int = 48,
        frames: int = 6,
        size: Sequence[int] = (128, 160),
        seed: int = 0,
        difficulty: str = "demo",
        textures: str = "mixed",
        options: dict[str, Any] | None = None,
    ) -> None:
        self.recipe = Recipe(
            layout=layout,
            scenes=scenes,
            frames=frames,
            size=tuple(size),
            seed=seed,
            difficulty=difficulty,
            textures=textures,
            options=dict(options or {}),
        )
        self.data_root = data_root
        self.stand_in = stand_in or f"{data_root.rstrip('/')}-procedural"
        self.workers = workers

    def __call__(self, cfg: Config) -> bool:
        """Make sure that the config's data are there; returns whether the stand-in takes their place.

        Raises:
            DataError: ``data_root`` holds something that is not the data set, or the stand-in's folder is taken.
            ConfigError: no dataset of the config reads ``data_root``.
        """
        layout, root = self.recipe.layout, os.path.expanduser(self.data_root)
        if has_layout(root, layout):
            return False
        if os.path.exists(root) and (not os.path.isdir(root) or any(os.scandir(root))):
            raise DataError(
                f"{explain_root(root, layout, 'the data')}. Mend it, or move it away to train on procedural scenes"
            )
        if not replace_data_root(cfg, self.data_root, self.stand_in):
            raise ConfigError(
                f"prepare_data: no dataset of the config has data_root={self.data_root!r}, so a stand-in would not be "
                "read; give both the same data_root"
            )
        start = time.monotonic()
        written = self._write()
        _announce(get_layout(layout), self.data_root, self.stand_in, time.monotonic() - start if written else None)
        return True

    def _write(self) -> bool:
        """Write the set; on a machine with several ranks the first one does and the others wait."""
        if int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))) == 0:
            return write_procedural(
                self.recipe, self.stand_in, self.workers, overwrite=True, progress=_Progress(self.stand_in)
            )
        marker, deadline = self.recipe.marker(), time.monotonic() + _WAIT
        while read_marker(self.stand_in) != marker:
            if time.monotonic() > deadline:
                raise DataError(f"{self.stand_in}: the first process has not written it within {_WAIT // 60} minutes")
            time.sleep(0.5)
        return False


class _Progress:
    """Logs how far the writing is, every few seconds."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.start = self.last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done == 0:
            print_log(f"writing {total} procedural scenes to {self.folder}", logger="current")
        elif now - self.last > _REPORT_EVERY:
            self.last = now
            left = (now - self.start) / done * (total - done)
            print_log(f"procedural scenes: {done} of {total} written, about {left:.0f} s left", logger="current")


def replace_data_root(node: Any, old: str, new: str) -> int:
    """Replace every ``data_root`` that is ``old`` in a config, in place; the key ``prepare_data`` is left alone.

    Returns:
        How many places read ``new`` now, those that did before included.
    """
    count = 0
    if isinstance(node, (Config, dict)):
        for key in list(node.keys()):
            value = node[key]
            if key == "data_root" and isinstance(value, str):
                if _same_path(value, old):
                    node[key] = value = new
                count += _same_path(value, new)
            elif key != "prepare_data":
                count += replace_data_root(value, old, new)
    elif isinstance(node, (list, tuple)):
        count = sum(replace_data_root(value, old, new) for value in node)
    return count


def _same_path(one: str, other: str) -> bool:
    return Path(one).expanduser() == Path(other).expanduser()


def _announce(layout: Layout, data_root: str, stand_in: str, seconds: float | None) -> None:
    """Log a framed warning that the data are not the real ones."""
    title = layout.title
    made = "was there already" if seconds is None else f"written in {seconds:.1f} s"
    lines = [
        f"THIS IS NOT {title.upper()}: training and testing on PROCEDURAL scenes",
        "",
        f"There is no {data_root}, so the config reads",
        f"    {stand_in} ({made}):",
        f"random textured shapes with exact flow in {title}'s layout. Their figures say nothing",
        f"about {title}; logs, tables and captions call them procedural.",
        "",
        f"To use the real data set, put it at {data_root}, which must then hold",
        f"    {layout.expected},",
        "and start again.",
    ]
    width = max(map(len, lines))
    framed = [f"#  {line:<{width}}  #" for line in lines]
    bar = "#" * (width + 6)
    print_log("\n" + "\n".join([bar, *framed, bar]), logger="current", level=logging.WARNING)

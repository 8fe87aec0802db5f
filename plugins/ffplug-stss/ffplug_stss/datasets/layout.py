"""The released data's layout, and procedural scenes in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ffplug.datasets.layouts import Layout, Part, join, list_folder
from ffplug.datasets.procedural import Recipe
from ffplug_stss.registry import LAYOUTS
from ffplug_stss.rendering import Renderer
from ffplug_stss.scenes import SceneOptions, draw_scene
from ffplug_stss.sequences import EXTRAPOLATED, Sequence, save_array

FIRST = 6
"""Number of a written sequence's first frame; even, so a shaded one."""

SCENE = "Procedural"

_READER = "ffplug_stss.STSSDataset"


@LAYOUTS.register_module(name="stss")
class STSSLayout(Layout):
    """STSS's released data; a procedural scene is one sequence, rendered with exact vectors.

    The recipe's ``size`` is that of the low resolution. The options are those of
    :class:`~ffplug_stss.scenes.SceneOptions`.
    """

    title = "STSS"
    datasets = (_READER,)
    markers = ()
    expected = "SCENE/SEQUENCE/NPY/compressed.%04d.{Warp,NoWarp}.npy and SCENE/SEQUENCE/HR/compressedHR.%04d.npy"
    parts = (Part("", _READER, dict(split="train")), Part("", _READER, dict(split="test")))

    def lies_in(self, root: str) -> bool:
        """Whether a folder two levels below holds records."""
        for scene in list_folder(root)[0][:16]:
            for sequence in list_folder(join(root, scene))[0][:4]:
                if list_folder(join(root, scene, sequence, "NPY"))[1]:
                    return True
        return False

    def options(self, difficulty: str, changes: dict[str, Any]) -> SceneOptions:
        """What scenes are drawn from."""
        return SceneOptions.preset(difficulty, **changes)

    def sequence(self, recipe: Recipe, subset: int, index: int) -> Sequence:
        """The scene that is written for ``index`` of a part; it follows from the recipe alone."""
        options = self.options(recipe.difficulty, recipe.options)
        return Sequence(Renderer(draw_scene(recipe.seed, 2 * index + subset, options), recipe.size))

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """Write a sequence's records and true frames."""
        sequence = self.sequence(recipe, subset, index)
        target = folder / SCENE / f"{('train', 'test')[subset]}{index + 1:03d}"
        for frame in range(FIRST, FIRST + recipe.frames):
            kind = "Warp" if sequence.kind(frame) == EXTRAPOLATED else "NoWarp"
            save_array(target / "NPY" / f"compressed.{frame:04d}.{kind}.npy", sequence.record(frame))
            save_array(target / "HR" / f"compressedHR.{frame:04d}.npy", sequence.target(frame))

"""FacialFlowNet (ACM MM 2024) as it was released."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from ffplug.datasets.base import FlowDataset, Problem, choose
from ffplug.datasets.folder import natural_order
from ffplug.datasets.formats import FLOW_SUFFIXES, IMAGE_SUFFIXES
from ffplug.datasets.layouts import join
from ffplug_decflow.registry import DATASETS

SPLITS = ("train", "val", "test")
KINDS = ("facial", "head")
MASK_SUFFIXES = (".npy",)


@DATASETS.register_module()
class FacialFlowNetDataset(FlowDataset):
    """FacialFlowNet: successive frames of a talking or moving face with facial flow, head flow and the head's mask.

    Below the root, for a split S: ``image/facial/S/EMOTION/SUBJECT/`` holds n frames (.jpg, .png ...),
    ``flow/facial/S/...`` and ``flow/head/S/...`` n - 1 flows each (.flo, .npz ...), and ``mask/S/...`` a ``.npy`` of 0
    and 1 for each frame or each but the last. Masks may be absent, for a sequence or for all; so may
    ``occlusion/S/...``, pictures that are not 0 where frame 1's point is not seen in frame 2, which procedural sets
    have. Files belong together by their names without suffix where those agree with the frames', else by their order.

    Args:
        data_root: folder that holds ``image``, ``flow`` and ``mask``.
        pipeline: transforms; None loads the pair and packs it.
        split: ``'train'``, ``'val'`` or ``'test'``.
        flows: ``'both'``, facial flow with the head flow beside it; or ``'facial'`` or ``'head'``, that one alone as a
            sample's only true flow, for networks that are not decomposed.
        **kwargs: see :class:`ffplug.datasets.FlowDataset`.

    Raises:
        DataError: the folder is missing, or a sequence's files do not match; the message names the folder and counts.

    Example:
        dict(type="ffplug_decflow.FacialFlowNetDataset", data_root="data/FacialFlowNet", split="train")
    """

    layout = "ffn"
    title = "FacialFlowNet"

    def __init__(
        self,
        data_root: str,
        pipeline: Sequence[Any] | None = None,
        *,
        split: str = "train",
        flows: str = "both",
        **kwargs: Any,
    ) -> None:
        self.split = choose("split", split, SPLITS)
        self.flows = choose("flows", flows, ("both", *KINDS))
        if pipeline is None:
            pipeline = [dict(type="ffplug_decflow.LoadFaceFlow"), dict(type="ffplug_decflow.PackFaceInputs")]
        super().__init__(data_root, pipeline, **kwargs)

    @classmethod
    def write_example(cls, folder: str | os.PathLike) -> None:
        """Write a small procedural set in this layout to a new folder, for tests and examples."""
        from ffplug.datasets.procedural.writers import Recipe, write_procedural

        write_procedural(Recipe(cls.layout, scenes=1, frames=3, size=(64, 72), textures="analytic"), folder)

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the pairs, sequence by sequence."""
        root = self.require(f"image/facial/{self.split}")
        for emotion in self.folders(root):
            for subject in self.folders(join(root, emotion)):
                yield from self._sequence(join(emotion, subject), problems)

    def _sequence(self, name: str, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        below = join(self.split, name)
        folder = join("image/facial", below)
        frames = self._listed(folder, IMAGE_SUFFIXES)
        if len(frames) < 2:
            problems.append(Problem(folder, f"expected two or more frames, found {len(frames)}", name))
            return
        before = len(problems)
        kinds = KINDS if self.flows == "both" else (self.flows,)
        flows = [self._matched(f"flow/{kind}/{below}", FLOW_SUFFIXES, frames, problems) for kind in kinds]
        masks, occlusions = (
            self._matched(f"{kind}/{below}", suffixes, frames, problems, optional=True)
            for kind, suffixes in (("mask", MASK_SUFFIXES), ("occlusion", IMAGE_SUFFIXES))
        )
        if len(problems) > before:
            return
        for index, (first, second) in enumerate(pairwise(frames)):
            entry = self.pair(
                join(folder, first),
                join(folder, second),
                flows[0][index],
                sequence=name,
                frame=index,
                sample_id=join(below, os.path.splitext(first)[0]),
                masks={"occlusion": occlusions[index]} if occlusions else None,
            )
            head = flows[1][index] if self.flows == "both" else None
            yield {**entry, "head_flow_path": head, "head_mask_path": masks[index] if masks else None}

    def _listed(self, folder: str, suffixes: Sequence[str]) -> list[str]:
        return sorted((f for f in self.files(folder) if f.lower().endswith(tuple(suffixes))), key=natural_order)

    def _matched(
        self,
        folder: str,
        suffixes: Sequence[str],
        frames: Sequence[str],
        problems: list[Problem],
        optional: bool = False,
    ) -> list[str]:
        """Files of a folder for all frames but the last: by name where the names are the frames', else by order."""
        found = self._listed(folder, suffixes)
        if optional and not found:
            return []
        wanted = [os.path.splitext(frame)[0] for frame in frames]
        stems = {os.path.splitext(file)[0]: join(folder, file) for file in found}
        if found and set(stems) <= set(wanted):
            missing = [stem for stem in wanted[:-1] if stem not in stems]
            problems.extend(
                Problem(join(folder, stem + suffixes[0]), "this file is missing", folder) for stem in missing
            )
            return [] if missing else [stems[stem] for stem in wanted[:-1]]
        pairs = len(frames) - 1
        if len(found) == pairs or (optional and len(found) > pairs):
            return [join(folder, file) for file in found[:pairs]]
        kinds = ", ".join(suffixes)
        expected = f"{pairs} files ({kinds}) for {len(frames)} frames"
        problems.append(Problem(folder, f"expected {expected}, found {len(found)}", folder))
        return []

    def resolve(self, info: dict[str, Any]) -> dict[str, Any]:
        """Put ``data_root`` before the paths of an entry."""
        info = super().resolve(info)
        for key in ("head_flow_path", "head_mask_path"):
            if info[key] is not None:
                info[key] = join(self.data_root, info[key])
        return info

"""Micro-expression clips of a manifest as features with labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.utils.data import Dataset

from ffplug.datasets.layouts import read_marker
from ffplug.errors import DataError
from ffplug.structures import Field
from ffplug_face.micro_expression.features import FlowFeature
from ffplug_face.micro_expression.manifest import read_manifest
from ffplug_face.micro_expression.procedural import write_example
from ffplug_face.registry import DATASETS, TRANSFORMS


class MicroExpressionSample(BaseDataElement):
    """What is known of a clip: ``gt_label`` and, as metainfo, the fields of its manifest line."""

    FIELDS: ClassVar[dict[str, Field]] = {
        "inputs": Field("C S S", torch.float32),
        "gt_label": Field("1", torch.int64, low=0),
    }


@DATASETS.register_module()
class MicroExpressionDataset(Dataset):
    """The clips of a manifest; an item is ``dict(inputs=feature, data_samples=MicroExpressionSample)``.

    Args:
        data_root: folder that the manifest's frame paths start from.
        manifest: its file, relative to ``data_root``.
        feature: config of :class:`FlowFeature`.
        datasets: names of the data sets to keep; None keeps all.
        classes: number of classes.

    Raises:
        DataError: the manifest is wrong, or holds no clip of these data sets.

    Example:
        dict(
            type="ffplug_face.MicroExpressionDataset",
            data_root="data/micro",
            feature=dict(type="ffplug_face.FlowFeature", flow_root="flow"),
        )
    """

    def __init__(
        self,
        data_root: str | os.PathLike[str],
        feature: Mapping[str, Any],
        manifest: str = "manifest.csv",
        datasets: Sequence[str] | None = None,
        classes: int = 3,
    ) -> None:
        self.root = Path(data_root).expanduser()
        self.classes = classes
        self.feature: FlowFeature = TRANSFORMS.build(dict(feature))
        self.manifest = self.root / manifest
        clips = read_manifest(self.manifest, self.root, classes, check_files=self.feature.flow_root is None)
        self.clips = [clip for clip in clips if datasets is None or clip.dataset in datasets]
        if not self.clips:
            held = ", ".join(sorted({clip.dataset for clip in clips}))
            raise DataError(f"{self.manifest}: holds {held}, and nothing of {', '.join(datasets or ())}")
        self.procedural = read_marker(str(self.root)) is not None

    @classmethod
    def write_example(cls, folder: str | os.PathLike[str]) -> None:
        """Write a small procedural set."""
        write_example(folder, subjects=2, clips=3, size=48)

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip = self.clips[index]
        sample = MicroExpressionSample(metainfo={**vars(clip), "procedural": self.procedural})
        sample.gt_label = torch.tensor([clip.label])
        return {"inputs": self.features(index), "data_samples": sample}

    def features(self, index: int) -> Tensor:
        """The feature of one clip, C×size×size."""
        return self.feature(self.clips[index], self.root)

"""Pairs of faces, as lists of verification name them."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ffplug.errors import DataError
from ffplug.files import atomic_path
from ffplug_latentface.datasets.lfw import LFWDataset
from ffplug_latentface.evaluation.verification import cosines

_BATCH = 64


@torch.no_grad()
def pair_similarities(
    model: nn.Module, faces: LFWDataset, pairs: Sequence[tuple[str, str, bool]], embedding: str = "identity"
) -> Tensor:
    """How alike the faces of each pair are.

    Args:
        model: both stages.
        faces: the crops.
        pairs: from :func:`~ffplug_latentface.datasets.lfw.read_pairs`.
        embedding: see :meth:`~ffplug_latentface.models.RepresentationDiffusion.embed`.

    Returns:
        N, the cosines of the embeddings of picture and mirrored twin, one after the other.

    Raises:
        DataError: the list names pictures that are not there.
    """
    places = {faces.get_data_info(index)["stem"]: index for index in range(len(faces))}
    wanted = sorted({stem for pair in pairs for stem in pair[:2]})
    missing = [stem for stem in wanted if stem not in places]
    if missing:
        shown = ", ".join(missing[:3]) + (" ..." if len(missing) > 3 else "")
        raise DataError(f"{faces.data_root}: {len(missing)} of {len(wanted)} pictures of the list are missing: {shown}")
    rows = []
    for first in range(0, len(wanted), _BATCH):
        items = [faces[places[stem]]["inputs"] for stem in wanted[first : first + _BATCH]]
        images = torch.stack(items).float() / 127.5 - 1
        rows.append(torch.cat([model.embed(part, embedding) for part in (images, images.flip(-1))], 1))
    codes = torch.cat(rows)
    numbers = {stem: row for row, stem in enumerate(wanted)}
    left, right = (codes[[numbers[pair[side]] for pair in pairs]] for side in range(2))
    return cosines(left, right)


def write_roc(path: str | os.PathLike, false: Tensor, true: Tensor, title: str) -> None:
    """Write a ROC curve as a table (``.csv``), or draw it.

    Args:
        path: file to write; its suffix tells the form.
        false: N, share of pairs of two persons that pass.
        true: N, share of pairs of one person that pass.
        title: of the picture.
    """
    with atomic_path(path) as target:
        if str(path).lower().endswith(".csv"):
            with open(target, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(("false_accept_rate", "true_accept_rate"))
                writer.writerows((f"{x:.6f}", f"{y:.6f}") for x, y in zip(false.tolist(), true.tolist(), strict=True))
            return
        from matplotlib.figure import Figure

        figure = Figure(figsize=(4, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(false, true)
        axes.plot((0, 1), (0, 1), "k:", linewidth=0.8)
        axes.set(xlabel="pairs of two persons that pass", ylabel="pairs of one person that pass", title=title)
        axes.set_aspect("equal")
        figure.savefig(target, dpi=120, format=os.path.splitext(path)[1][1:].lower())

"""What a network makes of a clip, for the eye: a video of panels, and its figures over time."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ffplug.apis.video import VideoWriter
from ffplug.datasets.base import choose
from ffplug.errors import DataError
from ffplug.evaluation.frame_metrics import as_levels, psnr, squared_error, ssim_map
from ffplug.files import atomic_path
from ffplug.visualization.panel import text_image
from ffplug_stss.channels import OUTSIDES, SCALE
from ffplug_stss.datasets.records import decode
from ffplug_stss.models.network import enlarge
from ffplug_stss.models.stss import STSS, pad_to_multiple

_BAR = 22
_DIFFERENCE = 4
_FIGURES = ("psnr_stss", "psnr_bilinear", "ssim_stss", "ssim_bilinear", "hole_psnr_stss", "hole_psnr_bilinear")


@dataclass(frozen=True)
class Shown:
    """One frame of a clip and what becomes of it; pictures are 3×2H×2W in 0..1.

    Attributes:
        name: of the frame.
        kind: ``SF`` or ``EF``.
        bilinear: the warped frame enlarged, its border repeated outside.
        produced: by the network.
        reference: the true frame.
        hole: 2H×2W, how much of each pixel lies in a hole, 0..1.
    """

    name: str
    kind: str
    bilinear: Tensor
    produced: Tensor
    reference: Tensor
    hole: Tensor

    def figures(self) -> dict[str, float | None]:
        """PSNR and SSIM, whole and in holes; None where there is no hole."""
        truth = as_levels(self.reference)
        found: dict[str, float | None] = {}
        for name, picture in (("stss", self.produced), ("bilinear", self.bilinear)):
            levels = as_levels(picture)
            inside = squared_error(levels, truth, self.hole)
            found[f"psnr_{name}"] = psnr(squared_error(levels, truth))
            found[f"ssim_{name}"] = float(ssim_map(levels, truth).mean())
            found[f"hole_psnr_{name}"] = None if inside is None else psnr(inside)
        return found

    def panels(self, figures: Mapping[str, float | None]) -> np.ndarray:
        """Six panels in two rows with captions, uint8 RGB."""
        tiles = [
            (self.bilinear, f"bilinear  {figures['psnr_bilinear']:.2f} dB"),
            (self.produced, f"STSS  {figures['psnr_stss']:.2f} dB"),
            (self.reference, f"reference  {self.name}  {self.kind}"),
            (_DIFFERENCE * (self.bilinear - self.reference).abs(), f"bilinear: error ×{_DIFFERENCE}"),
            (_DIFFERENCE * (self.produced - self.reference).abs(), f"STSS: error ×{_DIFFERENCE}"),
            (self.hole.expand(3, -1, -1), f"holes  {100 * float(self.hole.mean()):.1f} %"),
        ]
        drawn = [_tile(picture, caption) for picture, caption in tiles]
        return np.concatenate([np.concatenate(drawn[:3], axis=1), np.concatenate(drawn[3:], axis=1)])


def _tile(picture: Tensor, caption: str) -> np.ndarray:
    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    bar = np.full((_BAR, pixels.shape[1], 3), 255, np.uint8)
    label = text_image(caption, 13)[: _BAR - 3, : pixels.shape[1] - 4]
    ink = label[..., 3:] / 255
    area = bar[3 : 3 + label.shape[0], 4 : 4 + label.shape[1]]
    area[:] = np.round(ink * label[..., :3] + (1 - ink) * area)
    return np.concatenate([bar, pixels])


def produce(model: STSS, frames: Iterable[Mapping[str, Any]], outside: str = "black") -> Iterator[Shown]:
    """Run a network over a clip.

    Args:
        model: with its weights.
        frames: items of :class:`ffplug_stss.datasets.STSSDataset` or :class:`~ffplug_stss.datasets.RenderedDataset`
            whose pipeline is ``LoadRecord`` alone.
        outside: what the network gets outside of the frame, ``black`` or ``repeat``.

    Raises:
        DataError: a frame has no true one.
    """
    choose("outside", outside, OUTSIDES)
    model.eval()
    for item in frames:
        name = str(item.get("sample_id") or item.get("record_path"))
        if "target" not in item:
            raise DataError(f"{name}: there is no true frame to compare with")
        packed, base = (decode(item["record"], item.get("depth_range"), name, mode)[0] for mode in (outside, "repeat"))
        height, width = (SCALE * side for side in packed.mask.shape[-2:])
        whole = type(packed)(*(part[None] for part in packed)).pack()
        with torch.inference_mode():
            produced = model(pad_to_multiple(whole), mode="tensor")[0, :, :height, :width]
        reference = np.ascontiguousarray(item["target"][..., ::-1].transpose(2, 0, 1), dtype=np.float32)
        yield Shown(
            name=f"{item['frame']}",
            kind=item["kind"],
            bilinear=enlarge(base.x[None, :3])[0],
            produced=produced.float(),
            reference=torch.from_numpy(reference),
            hole=enlarge(1 - base.mask[None])[0, 0].clamp(0, 1),
        )


def write_view(shown: Iterable[Shown], out: str | os.PathLike, fps: float = 10.0) -> list[dict[str, Any]]:
    """Write the video ``out``, and beside it ``STEM.csv`` and ``STEM.png`` with the figures over time.

    Each appears when it is whole; on an error none does.

    Args:
        shown: the frames of a clip, see :func:`produce`; one at a time is held.
        out: ``.mp4``, ``.mkv`` or another video.
        fps: frames per second.

    Returns:
        A row of figures for each frame, as in the CSV.

    Raises:
        DataError: there is no frame, or the video can't be written.
    """
    out = Path(out)
    rows: list[dict[str, Any]] = []
    staged = out.with_name(f".{out.stem}.{os.getpid()}{out.suffix}")
    try:
        with VideoWriter(staged, round(fps)) as writer:
            for one in shown:
                figures = one.figures()
                rows.append({"frame": one.name, "kind": one.kind, **figures})
                writer.write(one.panels(figures))
        if not rows:
            raise DataError("there are no frames to view")
        with atomic_path(out.with_suffix(".csv")) as path, open(path, "w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, ["frame", "kind", *_FIGURES])
            table.writeheader()
            table.writerows(rows)
        with atomic_path(out.with_suffix(".png")) as path:
            _plot(rows, path)
        os.replace(staged, out)
    finally:
        staged.unlink(missing_ok=True)
    return rows


def _plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 4.2), layout="constrained")
    places = range(len(rows))
    for axis, start, title in zip(figure.subplots(1, 2), ("psnr", "hole_psnr"), ("all pixels", "holes"), strict=True):
        for name, colour in (("stss", "#26406f"), ("bilinear", "#c8553d")):
            values = [row[f"{start}_{name}"] for row in rows]
            axis.plot(places, [np.nan if v is None else v for v in values], "-", color=colour, linewidth=0.8)
            for kind, marker in (("SF", "o"), ("EF", "^")):
                of_kind = [(i, v) for i, (row, v) in enumerate(zip(rows, values, strict=True)) if row["kind"] == kind]
                points = [(i, v) for i, v in of_kind if v is not None]
                if points:
                    axis.plot(*zip(*points, strict=True), marker, color=colour, markersize=4, label=f"{name}, {kind}")
        axis.set_title(title)
        axis.set_xlabel("frame of the clip")
        axis.set_xlim(-0.5, len(rows) - 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.set_ylabel("PSNR, dB")
        axis.spines[["top", "right"]].set_visible(False)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110, format="png")

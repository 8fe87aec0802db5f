"""Pictures and pages of a leave-one-subject-out run: confusion matrices, flow of clips, scores."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ffplug.datasets.formats import write_bytes, write_image
from ffplug.errors import DataError
from ffplug.visualization import flow_to_image, text_image
from ffplug_face.micro_expression.loso import oracle_epochs, read_run
from ffplug_face.micro_expression.manifest import CLASSES, Clip
from ffplug_face.micro_expression.metrics import NAMES, paired_bootstrap, summary

SCORES, PAGE, CONFUSION, FLOWS = "scores.json", "report.html", "confusion.png", "flows.png"
ORACLE = "ORACLE (best TEST epoch of each fold: a diagnostic, no result)"
_PROCEDURAL = "PROCEDURAL DATA: drawn faces, not people"


def score_run(
    folder: str | os.PathLike[str],
    against: str | os.PathLike[str] | None = None,
    oracle: bool = False,
    resamples: int = 2000,
) -> dict[str, Any]:
    """Score a finished run, and write ``scores.json``, ``report.html`` and its pictures beside it.

    Args:
        folder: of the run.
        against: another run on the same clips, to which this one is compared.
        oracle: add the diagnostic of :func:`~ffplug_face.micro_expression.loso.oracle_epochs`.
        resamples: of the bootstrap over subjects.

    Returns:
        What ``scores.json`` holds: ``scores`` (see :func:`~ffplug_face.micro_expression.metrics.summary`), ``ensemble``
        (averaged probabilities of the seeds) where there are several, ``difference`` with ``against``, ``oracle``,
        ``procedural`` and ``notes``.

    Raises:
        DataError: a run is not finished, or the two are of different clips.
    """
    folder = Path(folder)
    predictions, about = read_run(folder)
    result: dict[str, Any] = {
        "procedural": about["procedural"],
        "notes": about["notes"],
        "scores": summary(predictions, resamples),
    }
    if len(predictions.probabilities) > 1:
        result["ensemble"] = summary(predictions.ensemble(), resamples)
    if against is not None:
        other, _ = read_run(against)
        if not np.array_equal(_by_clip(other), _by_clip(predictions)):
            raise DataError(f"{against}: its clips or their labels are others than those of {folder}")
        result["against"] = str(against)
        result["difference"] = paired_bootstrap(other, predictions, resamples)
    if oracle:
        result["oracle"] = {"label": ORACLE, "scores": summary(oracle_epochs(folder), resamples)}
    write_bytes(folder / SCORES, (json.dumps(result, indent=1) + "\n").encode())
    names = [CLASSES[i] if predictions.classes == len(CLASSES) else str(i) for i in range(predictions.classes)]
    write_image(folder / CONFUSION, confusion_picture(result["scores"], names))
    page = _page(folder, result, names)
    write_bytes(folder / PAGE, page.encode())
    return result


def _by_clip(predictions: Any) -> np.ndarray:
    return np.array(sorted(zip(predictions.clips, predictions.truth.tolist(), strict=True)))


def confusion_picture(scores: Mapping[str, Mapping[str, Any]], names: Sequence[str], cell: int = 64) -> np.ndarray:
    """The confusion matrices of all sets beside each other, rows the truth, shaded by the row's share; uint8 RGB."""
    parts = []
    for title, found in scores.items():
        counts = np.array(found["confusion"])
        size = len(counts) * cell
        canvas = np.full((size + 64, size + 104, 3), 255, np.uint8)
        _write(canvas, f"{title}: UF1 {found['UF1']['mean']:.3f}", 8, 4, 15)
        shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        for row, column in np.ndindex(*counts.shape):
            top, left = 50 + row * cell, 96 + column * cell
            share = shares[row, column]
            shade = np.array([255, 255, 255]) * (1 - share) + np.array([33, 102, 172]) * share
            canvas[top : top + cell - 2, left : left + cell - 2] = shade
            ink = 255 if share > 0.6 else 0
            _write(canvas, f"{counts[row, column]}", left + 6, top + 8, 16, ink)
            _write(canvas, f"{100 * share:.0f} %", left + 6, top + 32, 12, ink)
        for index, name in enumerate(names):
            _write(canvas, name, 8, 50 + index * cell + cell // 3, 13)
            _write(canvas, name, 98 + index * cell, 30, 12)
        parts.append(canvas)
    return np.concatenate(parts, axis=1)


def _write(canvas: np.ndarray, text: str, x: int, y: int, size: int, colour: int = 0) -> None:
    label = text_image(text, size, colour)[: canvas.shape[0] - y, : canvas.shape[1] - x]
    place = canvas[y : y + label.shape[0], x : x + label.shape[1]]
    alpha = label[..., 3:] / 255
    place[:] = (place * (1 - alpha) + label[..., :3] * alpha).round()


def flow_picture(features: np.ndarray, titles: Sequence[str], side: int = 140) -> np.ndarray:
    """Features of clips in a row: flow in the colours of the Middlebury wheel above, the third channel below.

    Both are scaled for all clips alike, by what 90 % of their values stay below; a line below the pictures tells it.

    Args:
        features: N×3×S×S: flow in pixels of a face 128 pixels wide, and strain or length.
        titles: one for each.
        side: of each picture.

    Returns:
        uint8 RGB.
    """
    lengths = np.linalg.norm(features[:, :2], axis=1)
    full, white = (max(float(np.quantile(np.abs(part), 0.9)), 1e-6) for part in (lengths, features[:, 2]))
    columns = []
    for feature, title in zip(features, titles, strict=True):
        colour = flow_to_image(feature[:2].transpose(1, 2, 0), full)
        third = np.repeat(np.clip(255 * feature[2, :, :, None] / white, 0, 255).astype(np.uint8), 3, axis=2)
        column = [cv2.resize(part, (side, side), interpolation=cv2.INTER_NEAREST) for part in (colour, third)]
        head = np.full((22, side, 3), 255, np.uint8)
        _write(head, title, 3, 2, 13)
        columns.append(np.pad(np.concatenate([head, *column]), ((0, 0), (0, 6), (0, 0)), constant_values=255))
    rows = np.concatenate(columns, axis=1)
    foot = np.full((24, rows.shape[1], 3), 255, np.uint8)
    _write(foot, f"full colour: {full:.2g} px of a face 128 px wide; white: {white:.2g}", 3, 4, 13)
    return np.concatenate([rows, foot])


def write_flow_picture(folder: Path, features: np.ndarray, clips: Sequence[Clip], each: int = 3) -> None:
    """Write ``flows.png`` of some clips of each class, of different people where there are, into a run's folder."""
    chosen: list[int] = []
    for label in sorted({clip.label for clip in clips}):
        seen: set[str] = set()
        own = [index for index, clip in enumerate(clips) if clip.label == label]
        first = [index for index in own if clips[index].person not in seen and not seen.add(clips[index].person)]
        chosen += [*first, *(index for index in own if index not in first)][:each]
    names = [CLASSES[clips[i].label] if clips[i].label < len(CLASSES) else str(clips[i].label) for i in chosen]
    titles = [f"{name}, {clips[i].subject}" for i, name in zip(chosen, names, strict=True)]
    write_image(folder / FLOWS, flow_picture(features[chosen], titles))


def table(scores: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Rows of text: the header, then one for each set."""
    rows = [["set", "subjects", "clips", *NAMES]]
    for name, found in scores.items():
        cells = []
        for key in NAMES:
            low, high = found[key]["interval"]
            cells.append(f"{found[key]['mean']:.4f} ± {found[key]['deviation']:.4f} [{low:.3f}, {high:.3f}]")
        rows.append([name, str(found["subjects"]), str(found["clips"]), *cells])
    return rows


def difference_lines(result: Mapping[str, Any]) -> list[str]:
    """How a run differs from the one it was compared with, one line for each score."""
    lines = []
    for key, found in result.get("difference", {}).items():
        low, high = found["interval"]
        lines.append(f"{key}: {found['difference']:+.4f} [{low:+.3f}, {high:+.3f}], p = {found['p']:.3f}")
    return lines


def _page(folder: Path, result: Mapping[str, Any], names: Sequence[str]) -> str:
    parts = [f"<h1>{escape(folder.name)}</h1>"]
    if result["procedural"]:
        parts.append(f"<p class=warn>{_PROCEDURAL}</p>")
    parts.append("<h2>Scores</h2>" + _html(table(result["scores"])))
    parts.append(
        "<p>Pooled over the folds; mean ± deviation over seeds, and in brackets the 95 % interval of a bootstrap over "
        "subjects. The last epoch counts.</p>"
    )
    if "ensemble" in result:
        parts.append("<h2>Seeds averaged</h2>" + _html(table(result["ensemble"])))
    if "difference" in result:
        lines = "".join(f"<li>{escape(line)}</li>" for line in difference_lines(result))
        parts.append(f"<h2>Against {escape(result['against'])}</h2><ul>{lines}</ul>")
    if "oracle" in result:
        parts.append(
            f"<h2 class=warn>{escape(result['oracle']['label'])}</h2>" + _html(table(result["oracle"]["scores"]))
        )
    for title, name in (("Confusion (rows: truth; all seeds)", CONFUSION), ("Flow, and strain or length", FLOWS)):
        if (folder / name).is_file():
            data = base64.b64encode((folder / name).read_bytes()).decode()
            parts.append(f'<h2>{title}</h2><img alt="{title}" src="data:image/png;base64,{data}">')
    if result["notes"]:
        parts.append("<h2>Noticed</h2><ul>" + "".join(f"<li>{escape(note)}</li>" for note in result["notes"]) + "</ul>")
    style = (
        "body{font:15px sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}td,th{padding:.3rem .7rem;"
        "text-align:left;border-bottom:1px solid #ccc}.warn{color:#a30}img{max-width:100%}"
    )
    head = f'<meta charset="utf-8"><title>{escape(folder.name)}</title><style>{style}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _html(rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(rows[0], "th") + "".join(line(row, "td") for row in rows[1:]) + "</table>"

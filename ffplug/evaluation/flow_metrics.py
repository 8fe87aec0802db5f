"""The optical-flow metric of a validation or test run: log lines, tables and a JSON with every figure."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmengine.dist import get_world_size
from mmengine.logging import print_log

from ffplug.errors import DataError
from ffplug.evaluation.flow_statistics import SPLITS, PixelSums, add_sums, figures, flow_sums
from ffplug.evaluation.gathered import GatheredMetric
from ffplug.registry import METRICS
from ffplug.structures import shown_name

JSON_FORMAT = "ffplug-flow-metrics/1"

_TABLE = ("EPE", "EPE_zero", "EPE_ratio", "1px", "3px", "5px", "Fl", "WAUC", "pixels")

_REGION_FL = ("noc", "bg", "fg")


@dataclass(frozen=True)
class PairRecord:
    """What one pair contributes: where it comes from and its sums per region."""

    dataset: str
    sample_id: str
    sequence: str
    frame: int | None
    procedural: bool
    paths: tuple[str | None, str | None]
    sums: dict[str, PixelSums] = field(compare=False)

    @property
    def key(self) -> tuple[str, str]:
        """What makes a pair unique over all data sets of the run."""
        return self.dataset, self.sample_id


@METRICS.register_module()
class FlowMetric(GatheredMetric):
    """End-point error, outliers, WAUC and their splits, with exact definitions and the same figures on any ranks.

    Logged per data set, under a prefix such as ``sintel_clean/``:

    * ``EPE``, ``EPE_zero``, ``EPE_ratio``, ``1px``, ``3px``, ``5px``, ``Fl_all`` (percent), ``WAUC``, ``pixels``: over
      all valid pixels of all pairs, as :func:`ffplug.evaluation.figures` defines them.
    * ``EPE_image``: mean over the pairs of each pair's mean error (KITTI in the RAFT line of papers); ``pairs``.
    * ``EPE_REGION`` for each region of :func:`ffplug.evaluation.flow_sums` for which the samples have masks
      (``EPE_matched``, ``EPE_s40+``, ``EPE_noc``...), and ``Fl_noc``, ``Fl_bg``, ``Fl_fg``.

    What is undefined, for no pixel is in it, is left out of the log and null in the JSON. A prediction that is not
    finite counts as an infinite error. Each pair's sums are collected from all ranks, those that a sampler repeated
    to fill the last batch are dropped, and the rest is added in the order of the sample ids.

    Samples need ``pred_flow`` and ``gt_flow`` (2×H×W, pixels), and are split by what they have of ``gt_valid``,
    ``gt_occlusion``, ``gt_valid_noc``, ``gt_foreground``, ``gt_detail``, ``gt_nonrigid``, ``gt_sky`` (H×W) and
    ``gt_flow_double`` (2×2H×2W; Spring's rule of the best of 2×2 true values).

    Args:
        prefix: start of the names, ``prefix/EPE``, with everything pooled. Default: each data set by itself, with its
            own name in lower case (``Sintel/clean`` gives ``sintel_clean``).
        out_file: JSON to write (see :func:`write_metrics`); default none, but :class:`ffplug.engine.ReportHook` sets it
            to ``metrics.json`` in the work dir.
        per_sequence: log the table per sequence.
        collect_device: kept for MMEngine's interface; the sums are small and travel as objects.

    Raises:
        DataError: a sample has no ground truth, no prediction, no name, or its shapes do not agree.
    """

    def __init__(
        self,
        prefix: str | None = None,
        out_file: str | os.PathLike | None = None,
        per_sequence: bool = True,
        collect_device: str = "cpu",
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix or "flow")
        self.prefix = prefix
        self.out_file = out_file
        self.per_sequence = per_sequence
        self.context: dict[str, Any] = {"mode": "test"}
        """What the JSON says about the run: at least ``mode`` (``val`` or ``test``), maybe ``iteration``."""

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Measure a batch.

        Args:
            data_batch: not used.
            data_samples: the model's predictions with the ground truth, as dicts.
        """
        self.results.extend(measure_pair(sample) for sample in data_samples)

    def compute_metrics(self, results: list[PairRecord]) -> dict[str, float]:
        """Return the figures of these pairs in any order; also log the tables and write the JSON."""
        unique: dict[tuple[str, str], PairRecord] = {}
        for record in results:
            unique.setdefault(record.key, record)
        repeated = len(results) - len(unique)
        if repeated >= get_world_size():
            print_log(
                f"{repeated} of {len(results)} pairs share data set and sample_id with another one and were left out",
                logger="current",
                level=logging.WARNING,
            )
        if not unique:
            print_log("FlowMetric measured no pair", logger="current", level=logging.WARNING)

        groups: dict[str, list[PairRecord]] = {}
        for key in sorted(unique):
            groups.setdefault(self.prefix or metric_prefix(key[0]), []).append(unique[key])
        logged: dict[str, float] = {}
        for name, records in groups.items():
            evaluation = summarise(records)
            logged |= {
                f"{name}/{figure}": value for figure, value in evaluation["summary"].items() if value is not None
            }
            self._log(evaluation)
            if self.out_file is not None:
                write_metrics(self.out_file, name, evaluation | self.context)
        return logged

    def _log(self, evaluation: Mapping[str, Any]) -> None:
        lines = [f"{evaluation['source']}: {evaluation['pairs']} pairs"]
        if self.per_sequence:
            rows = [(name, row["pairs"], row) for name, row in evaluation["sequences"].items()]
            rows.append(("all", evaluation["pairs"], evaluation["regions"]["all"]))
            lines.append(
                _text_table(["sequence", "pairs", *_TABLE], [[n, p, *(f[k] for k in _TABLE)] for n, p, f in rows])
            )
        print_log("\n".join(lines), logger="current")
        if bad := evaluation["regions"]["all"]["nonfinite_pixels"]:
            print_log(f"{bad} predicted pixels are not finite", logger="current", level=logging.WARNING)


def measure_pair(sample: Mapping[str, Any]) -> PairRecord:
    """Return what one predicted pair contributes to the figures.

    Args:
        sample: a :class:`~ffplug.structures.FlowDataSample` or its dict.

    Raises:
        DataError: it has no ground truth, prediction or name, or its shapes do not agree.
    """
    sample_id = sample.get("sample_id") or sample.get("img1_path")
    if not sample_id:
        raise DataError("a sample has neither sample_id nor img1_path, so that repeated pairs could not be told apart")
    if sample.get("pred_flow") is None:
        raise DataError(f"{sample_id}: the sample has no pred_flow; call the model with mode='predict'")
    if sample.get("gt_flow") is None:
        raise DataError(
            f"{sample_id}: no true flow to compare with (a test split?); evaluate a split that has it, or write a "
            "submission with `ffplug submit`"
        )
    try:
        sums = flow_sums(
            sample.get("pred_flow"),
            sample.get("gt_flow"),
            sample.get("gt_valid"),
            sample.get("gt_occlusion"),
            gt_double=sample.get("gt_flow_double"),
            noc=sample.get("gt_valid_noc"),
            **{name: sample.get(f"gt_{name}") for name in SPLITS if name != "noc"},
        )
    except DataError as error:
        raise DataError(f"{sample_id}: {error}") from error
    return PairRecord(
        dataset=sample.get("dataset") or "flow",
        sample_id=str(sample_id),
        sequence=str(sample.get("sequence") or ""),
        frame=sample.get("frame"),
        procedural=bool(sample.get("procedural")),
        paths=(sample.get("img1_path"), sample.get("img2_path")),
        sums=sums,
    )


def metric_prefix(dataset: str) -> str:
    """Return the log prefix of a data set's name: ``'Sintel/clean'`` gives ``'sintel_clean'``."""
    return re.sub(r"[^a-z0-9]+", "_", dataset.lower()).strip("_") or "flow"


def summarise(records: Sequence[PairRecord]) -> dict[str, Any]:
    """Return every figure of these pairs: ``summary`` (what is logged), ``regions``, ``sequences``, ``samples``."""
    regions = {name: figures(sums) for name, sums in add_sums(record.sums for record in records).items()}
    pair_means = [r.sums["all"].error / r.sums["all"].pixels for r in records if r.sums["all"].pixels]
    datasets = sorted({record.dataset for record in records})
    procedural = any(record.procedural for record in records)

    summary = {("Fl_all" if name == "Fl" else name): regions["all"][name] for name in _TABLE}
    summary |= {"EPE_image": math.fsum(pair_means) / len(pair_means) if pair_means else None, "pairs": len(records)}
    summary |= {f"EPE_{name}": values["EPE"] for name, values in regions.items() if name != "all"}
    summary |= {f"Fl_{name}": regions[name]["Fl"] for name in _REGION_FL if name in regions}

    sequences: dict[str, list[PairRecord]] = {}
    for record in records:
        sequences.setdefault(record.sequence, []).append(record)
    return {
        "dataset": " + ".join(datasets),
        "procedural": procedural,
        "source": shown_name(" + ".join(datasets), procedural),
        "pairs": len(records),
        "summary": summary,
        "regions": regions,
        "sequences": {
            name: {"pairs": len(members), **figures(add_sums(m.sums for m in members)["all"])}
            for name, members in sorted(sequences.items())
        },
        "samples": [
            {
                "sample_id": record.sample_id,
                "dataset": record.dataset,
                "procedural": record.procedural,
                "sequence": record.sequence,
                "frame": record.frame,
                "img1_path": record.paths[0],
                "img2_path": record.paths[1],
                **figures(record.sums["all"]),
                "regions": {name: figures(sums) for name, sums in record.sums.items() if name != "all"},
            }
            for record in records
        ],
    }


def write_metrics(path: str | os.PathLike, name: str, evaluation: Mapping[str, Any]) -> None:
    """Put one evaluation into a metrics JSON, beside those of other data sets and modes that it holds.

    The file is ``{"format": ..., "evaluations": {"val": {"sintel_clean": {...}}, "test": {...}}}``. It is replaced
    in one step. A file that is no such JSON is overwritten.

    Args:
        path: the JSON file.
        name: the log prefix.
        evaluation: what :func:`summarise` returns, and ``mode``.
    """
    path = Path(path)
    evaluations = read_metrics(path) if path.is_file() else {}
    evaluations.setdefault(evaluation.get("mode", "test"), {})[name] = dict(evaluation)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    content = _without_infinities({"format": JSON_FORMAT, "evaluations": evaluations})
    partial.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
    partial.replace(path)


def read_metrics(path: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """Return the evaluations of a metrics JSON by mode and log prefix; empty if the file is no such JSON."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content.get("evaluations", {}) if isinstance(content, dict) and content.get("format") == JSON_FORMAT else {}


def _without_infinities(value: Any) -> Any:
    """JSON knows no infinity: an error that is infinite (see ``nonfinite_pixels``) becomes null."""
    if isinstance(value, Mapping):
        return {key: _without_infinities(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_infinities(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def format_figure(value: Any) -> str:
    """Write a figure for a table: counts whole, values with three decimals, a dash for what is undefined."""
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _text_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [list(head), *([format_figure(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )

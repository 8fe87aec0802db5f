"""The metric of a validation or test run: ABAW2's figures over everything, on any number of ranks."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ffplug_face.affect import CLASSES, LOGIT, MODEL, THRESHOLDS, ccc, expression_scores, unit_scores
from mmengine.logging import print_log

from ffplug.errors import ConfigError, DataError
from ffplug.evaluation import GatheredMetric
from ffplug.evaluation.flow_metrics import metric_prefix
from ffplug.files import atomic_path
from ffplug.structures import shown_name
from ffplug_fpnmaa.labels import ACTION_UNITS, TASKS, check_tasks, class_names
from ffplug_fpnmaa.registry import METRICS


@dataclass(frozen=True)
class AffectRecord:
    """What one sample contributes: where it comes from, and prediction and truth by task, where it has both."""

    dataset: str
    sample_id: str
    procedural: bool
    pairs: dict[str, tuple[np.ndarray, np.ndarray]]
    classes: int

    @property
    def key(self) -> tuple[str, str]:
        """What makes a sample unique over all data sets of the run."""
        return self.dataset, self.sample_id


@METRICS.register_module()
class AffectMetric(GatheredMetric):
    """CCC, F1 and accuracy as ABAW2 defines them, over all samples whose label is known.

    Logged per data set: ``CCC_V``, ``CCC_A`` and their mean ``VA``; ``EXPR_F1``, ``EXPR_accuracy`` and ``EXPR`` (.67 F1
    + .33 accuracy), ``F1_CLASS`` for each class; ``AU_F1``, ``AU_accuracy`` and ``AU`` (their mean), ``F1_AUn`` for
    each unit; ``score``, the mean of those of VA, EXPR and AU that there are; and ``VA_samples`` and so on. Samples
    that a sampler repeated count once.

    Args:
        tasks: which to score; None takes all that have predictions and labels.
        prefix: start of the names, with everything pooled. Default: each data set under its own name.
        classes: ``all`` or ``present``, see :func:`~ffplug_fpnmaa.evaluation.expression_scores`.
        threshold: of action units: the ``model``'s own (.5 unless its config has others); ``probability`` above .5;
            ``logit`` above .5 as published, which is a probability of .622; or a number, a probability.
        eps: added to the denominators of CCC; the public code adds 1e-5.
        details: also log each class's and unit's F1.
        out_file: JSON to write, with all figures and the table of confusions; None writes none.
        collect_device: kept for MMEngine's interface.

    Raises:
        ConfigError: an argument is none of the above.
        DataError: a sample has no name, or no task has both predictions and labels.
    """

    def __init__(
        self,
        tasks: str | Sequence[str] | None = None,
        prefix: str | None = None,
        classes: str = "all",
        threshold: str | float = MODEL,
        eps: float = 0.0,
        details: bool = False,
        out_file: str | os.PathLike | None = None,
        collect_device: str = "cpu",
    ) -> None:
        known = (MODEL, *THRESHOLDS)
        if classes not in CLASSES or (isinstance(threshold, str) and threshold not in known):
            raise ConfigError(
                f"classes={classes!r}, threshold={threshold!r}: expected one of {', '.join(CLASSES)}, and of "
                f"{', '.join(known)} or a number"
            )
        super().__init__(collect_device=collect_device, prefix=prefix or "affect")
        self.prefix = prefix
        self.tasks = TASKS if tasks is None else check_tasks("tasks", tasks)
        self.classes, self.eps, self.details, self.out_file = classes, eps, details, out_file
        self.by_model = threshold == MODEL
        self.threshold = {MODEL: 0.5, "probability": 0.5, "logit": LOGIT}.get(threshold, threshold)

    def process(self, data_batch: Any, data_samples: Sequence[Mapping[str, Any]]) -> None:
        """Take over a batch of predictions with what is known, samples or their dicts."""
        for sample in data_samples:
            name = sample.get("sample_id")
            if not name:
                raise DataError("a sample has no sample_id, so that repeated samples could not be told apart")
            pairs = {}
            for task in self.tasks:
                found, true = sample.get(f"pred_{task}"), sample.get(f"gt_{task}")
                if task == "au" and self.by_model and sample.get("pred_au_present") is not None:
                    found = sample.get("pred_au_present")
                if found is not None and true is not None:
                    pairs[task] = (found.detach().cpu().float().numpy(), true.detach().cpu().float().numpy())
            odds = sample.get("pred_expr_probability")
            self.results.append(
                AffectRecord(
                    sample.get("dataset") or "affect",
                    str(name),
                    bool(sample.get("procedural")),
                    pairs,
                    0 if odds is None else len(odds),
                )
            )

    def compute_metrics(self, results: list[AffectRecord]) -> dict[str, float]:
        """Return the figures of these samples in any order; also log which data they are of, and write the JSON."""
        unique = {record.key: record for record in results}
        groups: dict[str, list[AffectRecord]] = {}
        for key in sorted(unique):
            groups.setdefault(self.prefix or metric_prefix(key[0]), []).append(unique[key])
        logged: dict[str, float] = {}
        written: dict[str, Any] = {}
        for name, records in groups.items():
            source = shown_name(records[0].dataset, any(record.procedural for record in records))
            print_log(f"{source}: {len(records)} faces", logger="current")
            figures, more = self._figures(records)
            logged |= {f"{name}/{key}": value for key, value in figures.items()}
            written[name] = {"source": source, **figures, **more}
        if self.out_file is not None:
            with atomic_path(self.out_file) as path:
                Path(path).write_text(json.dumps(written, indent=1), encoding="utf-8")
        return logged

    def _figures(self, records: Sequence[AffectRecord]) -> tuple[dict[str, float], dict[str, Any]]:
        figures: dict[str, float] = {}
        more: dict[str, Any] = {}
        tables = {}
        for task in self.tasks:
            pairs = [record.pairs[task] for record in records if task in record.pairs]
            if pairs:
                tables[task] = tuple(np.stack(side) for side in zip(*pairs, strict=True))
        if not tables:
            raise DataError(f"{records[0].dataset}: no sample has both a prediction and a label of {self.tasks}")
        if "va" in tables:
            found, true = tables["va"]
            values = [ccc(found[:, column], true[:, column], self.eps) for column in range(2)]
            figures |= {"CCC_V": values[0], "CCC_A": values[1], "VA": sum(values) / 2}
        if "expr" in tables:
            count = max(record.classes for record in records)
            scores = expression_scores(*tables["expr"], count, self.classes)
            figures |= {"EXPR_F1": scores.macro_f1, "EXPR_accuracy": scores.accuracy, "EXPR": scores.score}
            more["confusion_rows_predicted"] = scores.confusion.tolist()
            names = class_names(count)
            (figures if self.details else more).update(
                {f"F1_{name}": float(f1) for name, f1 in zip(names, scores.f1, strict=True)}
            )
        if "au" in tables:
            units = unit_scores(*tables["au"], self.threshold)
            figures |= {"AU_F1": units.mean_f1, "AU_accuracy": units.accuracy, "AU": units.score}
            usual = len(units.f1) == len(ACTION_UNITS)
            names = [f"AU{unit}" for unit in (ACTION_UNITS if usual else range(len(units.f1)))]
            (figures if self.details else more).update(
                {f"F1_{name}": float(f1) for name, f1 in zip(names, units.f1, strict=True)}
            )
        scored = [figures[name] for name in ("VA", "EXPR", "AU") if name in figures]
        figures["score"] = sum(scored) / len(scored)
        figures |= {f"{task.upper()}_samples": len(table[0]) for task, table in tables.items()}
        return figures, more

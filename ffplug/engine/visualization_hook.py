"""Pictures of the worst, the best and every n-th pair of a validation or test run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, barrier, get_rank, is_main_process
from mmengine.hooks import Hook

from ffplug.errors import ConfigError
from ffplug.evaluation import epe_map
from ffplug.registry import HOOKS
from ffplug.structures import FlowDataSample
from ffplug.visualization import FlowVisualizer

PAIRS_FILE = "pairs.json"


@dataclass
class _Pair:
    images: Any
    sample: FlowDataSample
    epe: float | None

    @property
    def key(self) -> tuple[str, str]:
        return str(self.sample.get("dataset")), str(self.sample.get("sample_id"))


@HOOKS.register_module()
class FlowVisualizationHook(Hook):
    """Saves panels to ``work_dir/vis/val`` and ``work_dir/vis/test`` and shows them in the visualizer's back-ends.

    The worst and best pairs (by the pair's mean end-point error) are those of all ranks. Each run replaces the
    pictures of the one before; ``pairs.json`` beside them says what each one shows, for the report.

    Args:
        worst: how many of the worst pairs to draw.
        best: how many of the best pairs.
        every: draw each pair whose position in its rank's order is a multiple of it; 0 = none.
        val: draw in validation.
        test: draw in testing.

    Raises:
        ConfigError: a count is negative.
    """

    priority = "LOW"

    def __init__(self, worst: int = 4, best: int = 2, every: int = 0, val: bool = True, test: bool = True) -> None:
        for name, value in (("worst", worst), ("best", best), ("every", every)):
            if value < 0:
                raise ConfigError(f"FlowVisualizationHook: {name}={value}: expected 0 or more")
        self.worst, self.best, self.every = worst, best, every
        self.modes = {mode for mode, wanted in (("val", val), ("test", test)) if wanted}
        self._kept: dict[str, list[_Pair]] = {}
        self._seen = 0

    def _before_epoch(self, runner: Any, mode: str = "train") -> None:
        self._kept = {"worst": [], "best": [], "every": []}
        self._seen = 0

    def after_val_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Look at a validation batch."""
        self._look("val", data_batch, outputs)

    def after_test_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Look at a test batch."""
        self._look("test", data_batch, outputs)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Draw the chosen validation pairs."""
        self._draw(runner, "val")

    def after_test_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Draw the chosen test pairs."""
        self._draw(runner, "test")

    def _look(self, mode: str, data_batch: dict, outputs: Sequence[FlowDataSample] | None) -> None:
        if mode not in self.modes or not outputs:
            return
        for images, sample in zip(data_batch["inputs"], outputs, strict=True):
            pair = _Pair(images, sample, _mean_error(sample))
            if self.every and self._seen % self.every == 0:
                self._kept["every"].append(_on_cpu(pair))
            self._seen += 1
            if pair.epe is not None:
                self._keep("worst", self.worst, pair, -pair.epe)
                self._keep("best", self.best, pair, pair.epe)

    def _keep(self, kind: str, limit: int, pair: _Pair, order: float) -> None:
        """Keep the first ``limit`` pairs in the order of a kind; only those are copied and held."""
        kept, sign = self._kept[kind], -1 if kind == "worst" else 1
        if limit and (len(kept) < limit or order < sign * kept[-1].epe) and pair.key not in {p.key for p in kept}:
            kept.append(_on_cpu(pair))
            kept.sort(key=lambda p: (sign * p.epe, p.key))
            del kept[limit:]

    def _chosen(self, kind: str, limit: int) -> list[tuple[int, _Pair]]:
        """Return the pairs of this rank that belong to the chosen ones of all ranks, with their places."""
        sign = -1 if kind == "worst" else 1
        offers = [(sign * pair.epe, pair.key, get_rank()) for pair in self._kept.get(kind, []) if pair.epe is not None]
        merged = sorted(offer for part in all_gather_object(offers) for offer in part)
        first: dict[tuple[str, str], tuple[float, tuple[str, str], int]] = {}
        for offer in merged:
            first.setdefault(offer[1], offer)
        places = {key: (place, rank) for place, (_, key, rank) in enumerate(list(first.values())[:limit], start=1)}
        mine = {pair.key: pair for pair in self._kept.get(kind, [])}
        return [(place, mine[key]) for key, (place, rank) in places.items() if rank == get_rank()]

    def _draw(self, runner: Any, mode: str) -> None:
        if mode not in self.modes:
            return
        folder = Path(runner.work_dir) / "vis" / mode
        if is_main_process():
            _remove_old(folder)
        barrier()
        chosen = [
            (kind, *item) for kind, n in (("worst", self.worst), ("best", self.best)) for item in self._chosen(kind, n)
        ]
        chosen += [("every", place * self.every, pair) for place, pair in enumerate(self._kept.get("every", []))]
        visualizer = runner.visualizer
        if not isinstance(visualizer, FlowVisualizer):
            visualizer = FlowVisualizer(name=f"flow_{mode}")
        step = (
            runner.iter
            if mode == "val" and runner._train_loop is not None and not isinstance(runner._train_loop, dict)
            else 0
        )
        written = []
        for kind, place, pair in chosen:
            rank = f"_rank{get_rank()}" if kind == "every" and get_rank() else ""
            file = f"{kind}_{place:04d}{rank}_{_file_name(pair.key[1])}.png"
            visualizer.add_datasample(
                f"{mode}/{kind}_{place}", pair.images, pair.sample, out_file=folder / file, step=step
            )
            written.append(
                dict(
                    kind=kind,
                    place=place,
                    file=file,
                    epe=pair.epe,
                    sample_id=pair.key[1],
                    source=pair.sample.source,
                    procedural=bool(pair.sample.get("procedural")),
                    iteration=step,
                )
            )
        everything = [entry for part in all_gather_object(written) for entry in part]
        if is_main_process() and everything:
            everything.sort(key=lambda entry: (entry["kind"], entry["place"], entry["file"]))
            (folder / PAIRS_FILE).write_text(json.dumps(everything, indent=1), encoding="utf-8")
        self._kept = {}


def _mean_error(sample: FlowDataSample) -> float | None:
    """The pair's mean end-point error; None without ground truth. An infinite one is made finite for sorting."""
    gt, pred, valid = sample.get("gt_flow"), sample.get("pred_flow"), sample.get("gt_valid")
    if gt is None or pred is None:
        return None
    error = epe_map(pred, gt)
    if valid is not None:
        error = error[valid.detach().cpu().numpy() > 0]
    known = error[error == error]
    return min(float(known.mean()), 1e30) if known.size else None


def _on_cpu(pair: _Pair) -> _Pair:
    """Copy what is drawn off the device, so that kept pairs hold no graph and no accelerator memory."""
    images = pair.images.detach().cpu() if hasattr(pair.images, "detach") else pair.images
    return _Pair(images, pair.sample.detach().cpu(), pair.epe)


def _file_name(sample_id: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", sample_id).strip("_.")[-80:] or "pair"


def _remove_old(folder: Path) -> None:
    """Remove the pictures that the last run listed, and nothing else."""
    listing = folder / PAIRS_FILE
    if not listing.is_file():
        return
    for entry in json.loads(listing.read_text(encoding="utf-8")):
        (folder / Path(entry["file"]).name).unlink(missing_ok=True)
    listing.unlink()

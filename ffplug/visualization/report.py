"""A self-contained HTML report of a work directory: curves, tables, pictures, config and environment."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import cv2

from ffplug.errors import DataError
from ffplug.evaluation import format_figure, read_metrics
from ffplug.version import __version__
from ffplug.visualization.curves import line_chart

METRICS_FILE, RUN_FILE, REPORT_FILE = "metrics.json", "run.json", "report.html"
_FIGURES = ("EPE", "EPE_zero", "EPE_ratio", "1px", "3px", "5px", "Fl", "WAUC", "pixels")
_HEADS = {
    "EPE": "EPE [px]",
    "EPE_zero": "zero flow [px]",
    "EPE_ratio": "EPE / zero flow",
    "1px": "< 1 px",
    "3px": "< 3 px",
    "5px": "< 5 px",
    "Fl": "Fl [%]",
}
_MODES = {"test": "Test", "val": "Validation"}


@dataclass
class _WorkDir:
    """What a work directory holds; any part may be missing."""

    path: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    pairs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    config: str = ""

    @property
    def procedural(self) -> list[str]:
        """The names, as they must be shown, of all data that were procedural."""
        found = [e["source"] for group in self.evaluations.values() for e in group.values() if e.get("procedural")]
        found += [p["source"] for group in self.pairs.values() for p in group if p.get("procedural")]
        found += [source for run in self.runs for source in run.get("procedural", [])]
        return sorted(set(found))


def write_report(work_dir: str | Path) -> Path:
    """Write ``report.html`` into a work directory of a training or test run; nothing is loaded from elsewhere.

    It shows what there is: a run that is not finished has no test table yet.

    Args:
        work_dir: MMEngine's work directory, with the folders of its runs.

    Returns:
        The path of the report.

    Raises:
        DataError: the folder is missing or no work directory.
    """
    work = _read(Path(work_dir))
    target = work.path / REPORT_FILE
    partial = target.with_name(target.name + ".partial")
    partial.write_text(_page(work), encoding="utf-8")
    partial.replace(target)
    return target


def _read(path: Path) -> _WorkDir:
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; give the work directory of a training or test run")
    work = _WorkDir(path, evaluations=read_metrics(path / METRICS_FILE))
    runs = sorted({p.parent for p in path.glob("*/vis_data")} | {p.parent for p in path.glob(f"*/{RUN_FILE}")})
    for run in runs:
        rows = _read_rows(run / "vis_data" / "scalars.json")
        for row in rows:
            row["_val"] = any("/" in key for key in row)
        for kind in (True, False):
            # A resumed run repeats what came after its checkpoint: the later one counts.
            steps = [row["step"] for row in rows if row["_val"] == kind]
            if steps:
                work.rows = [row for row in work.rows if row["_val"] != kind or row["step"] < min(steps)]
        work.rows += rows
        if (content := _read_json(run / RUN_FILE)) is not None:
            work.runs.append(content)
        if (config := run / "vis_data" / "config.py").is_file():
            work.config = config.read_text(encoding="utf-8", errors="replace")
    for mode in _MODES:
        listed = _read_json(path / "vis" / mode / "pairs.json")
        if listed:
            work.pairs[mode] = [entry for entry in listed if (path / "vis" / mode / entry["file"]).is_file()]
    if not (runs or work.evaluations or work.pairs):
        raise DataError(
            f"{path}: not a work directory: expected {METRICS_FILE}, vis/ or TIMESTAMP/vis_data/ as `ffplug train` and "
            "`ffplug test` leave them"
        )
    return work


def _read_json(path: Path) -> Any:
    """Return the content of a JSON file; None if it is missing or was cut by a killed run."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _read_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # the last line of a killed run
            if isinstance(row, dict) and isinstance(row.get("step"), int | float):
                rows.append(row)
    return rows


def _page(work: _WorkDir) -> str:
    body = [
        f"<h1>{escape(work.path.resolve().name)}</h1>",
        _banner(work.procedural),
        _headline(work),
        _section("Training", _curves(work.rows)),
        *(_evaluation(mode, name, work) for mode in _MODES for name in sorted(work.evaluations.get(mode, {}))),
        *(_section(f"{title}: pairs", _pictures(work, mode)) for mode, title in _MODES.items()),
        _section("Run", _runs(work.runs)),
        _section(
            "Config", f"<details><summary>show</summary><pre>{escape(work.config)}</pre></details>" * bool(work.config)
        ),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(work.path.resolve().name)} - FFPlug report</title><style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + f"\n<footer>FFPlug {escape(__version__)}</footer>\n</body></html>\n"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def _banner(procedural: Sequence[str]) -> str:
    if not procedural:
        return ""
    names = "; ".join(escape(name) for name in procedural)
    return (
        f'<p class="banner"><strong>{names}.</strong> The data were rendered as a stand-in, with exact truth. '
        "The figures below say nothing about the real data set and must not be compared with published ones.</p>"
    )


def _headline(work: _WorkDir) -> str:
    cards = []
    for mode, title in _MODES.items():
        for evaluation in work.evaluations.get(mode, {}).values():
            summary = evaluation["summary"]
            ratio = summary.get("EPE_ratio")
            note = f"zero flow {format_figure(summary['EPE_zero'])} px"
            note += f", ratio {ratio:.3f}" if ratio is not None else ""
            cards.append((f"{title} EPE, {evaluation['source']}", f"{format_figure(summary['EPE'])} px", note))
    steps = [row["step"] for row in work.rows if not row["_val"]]
    if steps:
        cards.append(("Training", f"{max(steps):g} iterations", ""))
    seconds = sum(run.get("wall_seconds") or 0 for run in work.runs if run.get("mode") == "train")
    if seconds:
        cards.append(("Wall time of training", _duration(seconds), str(work.runs[-1].get("device", ""))))
    content = "".join(
        f"<div><span>{escape(a)}</span><b>{escape(b)}</b><small>{escape(c)}</small></div>" for a, b, c in cards
    )
    return f'<div class="cards">{content}</div>' if cards else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else (f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s")


def _curves(rows: Iterable[Mapping[str, Any]]) -> str:
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for key, value in row.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                series.setdefault(key, []).append((row["step"], value))

    def chosen(*patterns: str) -> dict[str, list[tuple[float, float]]]:
        return {key: series[key] for pattern in patterns for key in sorted(series) if key.endswith(pattern)}

    losses = {key: points for key, points in series.items() if "loss" in key.lower() and "/" not in key}
    errors, references = chosen("/EPE"), chosen("/EPE_zero")
    charts = [
        line_chart("Training loss", losses),
        line_chart("Training EPE [px]", {key: points for key, points in series.items() if key == "epe"}),
        line_chart("Validation EPE [px]", errors | references, dashed=list(references)),
        line_chart("Learning rate", {key: points for key, points in series.items() if key in ("lr", "learning_rate")}),
        line_chart("Gradient norm", {key: points for key, points in series.items() if key == "grad_norm"}),
    ]
    content = "".join(charts)
    return f'<div class="curves">{content}</div>' if content else ""


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(format_figure(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _evaluation(mode: str, name: str, work: _WorkDir) -> str:
    evaluation = work.evaluations[mode][name]
    heads = [_HEADS.get(key, key) for key in _FIGURES]
    summary = evaluation["summary"]
    facts = [f"{evaluation['pairs']} pairs", f"mean of the pairs' EPE {format_figure(summary.get('EPE_image'))} px"]
    if evaluation.get("iteration") is not None:
        facts.append(f"iteration {evaluation['iteration']}")
    if evaluation.get("checkpoint"):
        facts.append(f"checkpoint {evaluation['checkpoint']}")
    if bad := evaluation["regions"].get("all", {}).get("nonfinite_pixels"):
        facts.append(f"{bad} predicted pixels are not finite: the EPE is infinite")
    regions = [(region, *(values[key] for key in _FIGURES)) for region, values in evaluation["regions"].items()]
    sequences = [
        (sequence, row["pairs"], *(row[key] for key in _FIGURES)) for sequence, row in evaluation["sequences"].items()
    ]
    samples = sorted(evaluation["samples"], key=lambda s: -math.inf if s["EPE"] is None else s["EPE"], reverse=True)
    pairs = _table(["pair", *heads], [(s["sample_id"], *(s[key] for key in _FIGURES)) for s in samples])
    return _section(
        f"{_MODES[mode]}: {evaluation['source']}",
        f"<p>{escape(', '.join(facts))}.</p>"
        + _table(["region", *heads], regions)
        + "<h3>Sequences</h3>"
        + _table(["sequence", "pairs", *heads], sequences)
        + f"<details><summary>All {len(samples)} pairs, worst first</summary>{pairs}</details>",
    )


def _pictures(work: _WorkDir, mode: str) -> str:
    parts = []
    for kind, title in (("worst", "Worst"), ("best", "Best"), ("every", "Others")):
        entries = [entry for entry in work.pairs.get(mode, []) if entry["kind"] == kind]
        if entries:
            parts.append(f"<h3>{title}</h3>")
        for entry in entries:
            epe = f", EPE {entry['epe']:.3f} px" if entry.get("epe") is not None else ""
            caption = f"{entry['sample_id']} ({entry['source']}){epe}"
            picture = _embedded(work.path / "vis" / mode / entry["file"])
            parts.append(
                f'<figure><img loading="lazy" alt="{escape(caption)}" src="{picture}">'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )
    return "".join(parts)


def _embedded(path: Path) -> str:
    """Return a picture as a data URI, as WebP where OpenCV can write it (a fifth of the PNG's size)."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is not None and max(picture.shape) < 16384:  # WebP's limit
        done, data = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, 90])
        if done:
            return "data:image/webp;base64," + base64.b64encode(data.tobytes()).decode()
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _runs(runs: Sequence[Mapping[str, Any]]) -> str:
    if not runs:
        return ""
    rows = [
        (
            run.get("mode"),
            run.get("started"),
            _duration(run["wall_seconds"]) if run.get("wall_seconds") is not None else "not finished",
            run.get("device"),
            ", ".join(run.get("data", [])),
        )
        for run in runs
    ]
    environment = _table(["", "version"], runs[-1].get("environment", {}).items())
    return (
        _table(["run", "started (UTC)", "wall time", "device", "training data"], rows)
        + f"<details><summary>Environment</summary>{environment}</details>"
    )


_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #667085; --line: #d9dee7; --paper: #fff; --card: #f5f7fa }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ef; --soft: #9aa4b5; --line: #39414f; --paper: #14181f; --card: #1e242e } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1200px;
  margin: 0 auto; padding: 24px }
h1 { margin: 0 0 12px } h2 { border-bottom: 1px solid var(--line); padding-bottom: 4px; margin-top: 36px }
.banner { background: #b3261e; color: #fff; padding: 12px 16px; border-radius: 6px; font-size: 16px }
.cards { display: flex; flex-wrap: wrap; gap: 12px }
.cards div { background: var(--card); border-radius: 8px; padding: 12px 16px; min-width: 170px }
.cards span, .cards small { display: block; color: var(--soft); font-size: 13px } .cards b { font-size: 24px }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 16px }
figure { margin: 0 0 18px } figure img { max-width: 100%; border: 1px solid var(--line); border-radius: 4px }
figcaption { color: var(--soft); font-size: 13px } .curve span { margin-right: 14px; white-space: nowrap }
.curve i { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 5px }
svg.chart { width: 100%; height: auto } svg text { fill: var(--ink); font: 12px system-ui, sans-serif }
svg .title { font-size: 14px; font-weight: 600 } svg .tick { fill: var(--soft) } svg .grid { stroke: var(--line) }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px }
th, td { padding: 4px 10px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left } pre { background: var(--card); padding: 12px; overflow-x: auto }
summary { cursor: pointer; margin: 8px 0 } footer { color: var(--soft); font-size: 13px; margin-top: 40px }
"""

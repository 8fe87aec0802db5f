"""A method's headline effect in miniature: trained small on procedural data, against its own ablation, over seeds.

    python benchmarks/claims.py decflow                        # everything of one claim; again: what is missing
    python benchmarks/claims.py decflow --seeds 1 --jobs 2     # a first look
    python benchmarks/claims.py decflow --publish              # also into the documentation

What is done is kept in ``work_dirs/claims/NAME``; an interrupted run goes on where it was. Each seed is a training of
its own, and comparisons are paired by seed. The figures say what so small a network does on made data, and nothing of
the published figures.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

from claim_cases import Claim, Comparison  # noqa: E402

from ffplug.files import atomic_path  # noqa: E402

Results = Mapping[str, Mapping[int, Mapping[str, float]]]  # by variant, seed and metric


def load(name: str) -> ModuleType:
    """The module of a claim."""
    return importlib.import_module(f"claim_cases.{name}")


def run_one(name: str, variant: str, seed: int, folder: Path, shared: Path) -> None:
    """Train and measure one variant with one seed; leaves ``result.json`` in its folder."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder.mkdir(parents=True, exist_ok=True)
    module = load(name)
    begun = time.perf_counter()
    numbers = module.measure(variant, seed, folder, shared)
    if missing := sorted(module.CLAIM.metrics.keys() ^ numbers.keys()):
        raise ValueError(f"claim {name}: metrics {missing} are declared or measured, but not both")
    record = {"metrics": {key: float(value) for key, value in numbers.items()}, "seconds": time.perf_counter() - begun}
    with atomic_path(folder / "result.json") as path:
        Path(path).write_text(json.dumps(record, indent=1))


def run(name: str, seeds: int, jobs: int, out: Path) -> Results:
    """Do the runs that are missing, and return all results."""
    module = load(name)
    shared = out / "shared"
    if hasattr(module, "prepare") and not (shared / ".done").exists():
        shared.mkdir(parents=True, exist_ok=True)
        module.prepare(shared)
        (shared / ".done").touch()
    runs = [
        (variant, seed, out / variant / f"seed{seed}") for seed in range(seeds) for variant in module.CLAIM.variants
    ]
    todo = [entry for entry in runs if not (entry[2] / "result.json").exists()]
    print(f"{name}: {len(runs) - len(todo)} of {len(runs)} runs are done")
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        pending = {pool.submit(run_one, name, *entry, shared): entry for entry in todo}
        try:
            for done in as_completed(pending):
                done.result()
                variant, seed, folder = pending[done]
                print(f"{variant}, seed {seed}: {(folder / 'result.json').read_text()}", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    results: dict[str, dict[int, dict[str, float]]] = {}
    for variant, seed, folder in runs:
        results.setdefault(variant, {})[seed] = json.loads((folder / "result.json").read_text())["metrics"]
    return results


def spread(values: list[float], digits: int) -> str:
    """Mean and standard deviation over the seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def verdict(gains: list[float]) -> str:
    """What the paired differences say; ``gains`` are above zero where the claim holds."""
    held = sum(gain > 0 for gain in gains)
    mean, deviation = statistics.mean(gains), statistics.stdev(gains) if len(gains) > 1 else float("inf")
    if abs(mean) <= deviation:
        return f"within the spread ({held} of {len(gains)} seeds)"
    return f"{'holds' if mean > 0 else 'does not hold'} ({held} of {len(gains)} seeds)"


def compared(claim: Claim, comparison: Comparison, results: Results) -> str:
    """A row of the table of comparisons."""
    metric = claim.metrics[comparison.metric]
    first, second = (
        [numbers[comparison.metric] for _, numbers in sorted(results[key].items())]
        for key in (comparison.variant, comparison.than)
    )
    sign = 1 if metric.better == "higher" else -1
    differences = [a - b for a, b in zip(first, second, strict=True)]
    base = statistics.mean(second)
    relative = f"{100 * statistics.mean(differences) / base:+.1f} %" if base else ""
    return (
        f"| {metric.label} | {comparison.variant} | {comparison.than} | {spread(differences, metric.digits)} | "
        f"{relative} | {verdict([sign * value for value in differences])} | {comparison.published} |"
    )


def page(name: str, claim: Claim, results: Results, seconds: float) -> str:
    """The claim's page, in Markdown."""
    from torch import __version__ as version

    seeds = len(next(iter(results.values())))
    lines = [f"# {claim.title}", "", f"Published in: {claim.source}.", "", claim.setup, ""]
    lines += ["| variant | | " + " | ".join(metric.label for metric in claim.metrics.values()) + " |"]
    lines += ["| --- | --- |" + " --- |" * len(claim.metrics)]
    for variant, description in claim.variants.items():
        cells = [
            spread([numbers[key] for numbers in results[variant].values()], metric.digits)
            for key, metric in claim.metrics.items()
        ]
        lines.append(f"| `{variant}` | {description} | {' | '.join(cells)} |")
    lines += ["", f"Mean and standard deviation over {seeds} seeds. Paired by seed, first less second:", ""]
    lines += ["| metric | claimed to be better | than | difference | relative | here | published |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- |"]
    lines += [compared(claim, comparison, results) for comparison in claim.comparisons]
    lines += ["", f"![{claim.title}](../images/claims/{name}.png)", ""]
    lines += [
        f"`python benchmarks/claims.py {name}`: torch {version.split('+')[0]}, {platform.machine()}, one thread a run, "
        f"{seconds / 60:.0f} minutes of trainings and tests in all on a busy machine. A difference counts as "
        "within the spread where its mean is no larger than its standard deviation over the seeds."
    ]
    return "\n".join(lines) + "\n"


def draw(claim: Claim, results: Results, path: Path) -> None:
    """A panel for each metric: every seed a point, the mean a bar, or a line where bars from 0 would all look alike."""
    from matplotlib.figure import Figure

    columns = min(4, len(claim.metrics))
    rows = -(-len(claim.metrics) // columns)
    figure = Figure(figsize=(1.5 + 3.2 * columns, (0.9 + 0.42 * len(results)) * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axis, (key, metric) in zip(axes, claim.metrics.items(), strict=False):
        every = [numbers[key] for runs in results.values() for numbers in runs.values()]
        alike = min(every) > 0.7 * max(every)
        for row, runs in enumerate(results.values()):
            values = [numbers[key] for numbers in runs.values()]
            if alike:
                axis.plot(statistics.mean(values), row, "|", color="#9fb4d8", markersize=16, markeredgewidth=4)
            else:
                axis.barh(row, statistics.mean(values), height=0.6, color="#9fb4d8")
            axis.plot(values, [row] * len(values), "o", color="#26406f", markersize=4)
        axis.set_yticks(range(len(results)), list(results))
        axis.set_title(metric.label, fontsize=9)
        axis.set_xlabel(f"{metric.better} is better", fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[len(claim.metrics) :]:
        axis.axis("off")
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Run claims, and write their tables and pictures."""
    names = sorted(path.stem for path in (Path(__file__).parent / "claim_cases").glob("[!_]*.py"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--seeds", type=int, default=3, help="how many (3)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (1)")
    parser.add_argument("--out", type=Path, default=Path("work_dirs/claims"))
    parser.add_argument("--publish", action="store_true", help="write page and picture into docs/, too")
    options = parser.parse_args()
    if options.seeds < 1 or options.jobs < 1:
        parser.error("--seeds and --jobs are at least 1")
    for name in options.names:
        module, out = load(name), (options.out / name).resolve()
        results = run(name, options.seeds, options.jobs, out)
        seconds = sum(
            json.loads((out / variant / f"seed{seed}" / "result.json").read_text())["seconds"]
            for variant, runs in results.items()
            for seed in runs
        )
        getattr(module, "plot", lambda found, path, claim=module.CLAIM: draw(claim, found, path))(
            results, out / "plot.png"
        )
        (out / "results.json").write_text(json.dumps(results, indent=1))
        text = page(name, module.CLAIM, results, seconds)
        (out / "page.md").write_text(text)
        print(text, f"written to {out}", sep="\n")
        if options.publish:
            picture = ROOT / "docs/images/claims" / f"{name}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            (ROOT / "docs/claims").mkdir(exist_ok=True)
            shutil.copyfile(out / "plot.png", picture)
            (ROOT / "docs/claims" / f"{name}.md").write_text(text)


if __name__ == "__main__":
    main()

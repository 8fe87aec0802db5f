"""``ffplug policy``: what an iteration policy saves, and the preference that meets a budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

_SHARED = (
    click.argument("config"),
    click.argument("weights"),
    click.option("--pairs", default=100, show_default=True, help="How many of the config's validation pairs."),
    click.option("--batch", default=1, show_default=True, help="Pairs at a time."),
    click.option("--iterations", type=int, help="Number to choose from; by default the model's of inference."),
    click.option("--cfg-options", multiple=True, metavar="KEY=VALUE", help="Replace a value of the config."),
)


def _shared(function: Any) -> Any:
    for option in reversed(_SHARED):
        function = option(function)
    return function


@click.group("policy")
def command() -> None:
    """Measure iteration policies, and choose the preference that meets a budget."""


@command.command()
@_shared
@click.option("--gflops", type=float, help="Operations for a pair, in 10⁹, 2 for each multiply-accumulate.")
@click.option("--ms", type=float, help="Time for a pair on this machine, in milliseconds.")
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="Weights to write, .safetensors.")
def calibrate(
    config: str,
    weights: str,
    pairs: int,
    batch: int,
    iterations: int | None,
    cfg_options: tuple[str, ...],
    gflops: float | None,
    ms: float | None,
    out: str,
) -> None:
    """Find the preference at which the policy of CONFIG with WEIGHTS meets a budget, and keep it with the weights."""
    from ffplug.errors import ConfigError
    from ffplug_iterpolicy import budget

    if (gflops is None) == (ms is None):
        raise ConfigError("give the budget as --gflops or as --ms, one of them")
    model, chosen, costs, iterations = _load(config, weights, pairs, iterations, cfg_options, learned=True)
    target, unit = (gflops, "gflops") if ms is None else (ms, "ms")
    found = budget.calibrate(model, chosen, target, unit, iterations, costs, batch)
    path = budget.save_calibrated(weights, model, found, out)
    click.echo(
        f"{path}: preference {found.preference:.3f} gives {found.value:.4g} {unit}, {found.steps:.2f} of {iterations} "
        f"iterations, EPE {found.epe:.3f} px on {found.pairs} pairs"
    )


@command.command()
@_shared
@click.option("--out", required=True, type=click.Path(file_okay=False), help="Folder for table and picture.")
@click.option("--time/--no-time", "timed", default=True, show_default=True, help="Take the time of each, too.")
def curve(
    config: str,
    weights: str,
    pairs: int,
    batch: int,
    iterations: int | None,
    cfg_options: tuple[str, ...],
    out: str,
    timed: bool,
) -> None:
    """Error against operations and time, for the policy of CONFIG with WEIGHTS and the simple ones."""
    import dataclasses
    import json

    from ffplug_iterpolicy import curves

    model, chosen, costs, iterations = _load(config, weights, pairs, iterations, cfg_options, learned=False)
    points = curves.pareto(model, chosen, iterations, costs, timed=timed, batch_size=batch)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "curve.md").write_text(curves.table(points))
    (folder / "curve.json").write_text(json.dumps([dataclasses.asdict(point) for point in points], indent=1))
    source = chosen[0]["data_samples"].source
    curves.draw(points, folder / "curve.png", f"{Path(config).stem}, {len(chosen)} pairs: {source}")
    click.echo(curves.table(points))
    click.echo(f"written to {folder}")


def _load(
    config: str, weights: str, count: int, iterations: int | None, cfg_options: tuple[str, ...], learned: bool
) -> tuple[Any, list[Any], Any, int]:
    """Model with weights, pairs of one size, costs of an iteration at that size, and the number of iterations."""
    from ffplug.apis.models import build_model
    from ffplug.config import load_config, parse_cfg_options
    from ffplug.errors import ConfigError
    from ffplug.registry import DATASETS
    from ffplug_iterpolicy.budget import learned_policy
    from ffplug_iterpolicy.costs import step_costs

    if count < 1:
        raise ConfigError(f"--pairs {count}: expected 1 or more")
    loaded = load_config(config, parse_cfg_options(cfg_options))
    if "val_dataloader" not in loaded:
        raise ConfigError(f"{config} has no val_dataloader, whose pairs are measured: take a recipe, not a model alone")
    model = build_model(loaded, weights)
    if learned:
        learned_policy(model)
    dataset = DATASETS.build(loaded.val_dataloader.dataset)
    items = [dataset[index] for index in range(min(count, len(dataset)))]
    sizes = {tuple(item["inputs"].shape[-2:]) for item in items}
    multiple = model.size_multiple
    if len(sizes) > 1 or any(side % multiple for size in sizes for side in size):
        raise ConfigError(
            f"the pairs are of {len(sizes)} sizes ({', '.join('×'.join(map(str, size)) for size in sorted(sizes))}): "
            f"expected one, a multiple of {multiple} on both sides; crop them in val_dataloader.dataset.pipeline"
        )
    return model, items, step_costs(model, *sizes.pop()), iterations or model.test_iterations

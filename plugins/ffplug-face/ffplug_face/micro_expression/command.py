"""``ffplug micro``: micro-expression recognition from optical flow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

_CONFIG = click.argument("config")
_OPTIONS = click.option("--cfg-options", multiple=True, metavar="KEY=VALUE", help="Replace a value of the config.")


@click.group("micro")
def command() -> None:
    """Recognise micro-expressions from the flow between onset and apex, leaving one subject out at a time."""


@command.command()
@click.option("--root", required=True, type=click.Path(file_okay=False), help="Folder to make.")
@click.option("--subjects", default=8, show_default=True, help="People.")
@click.option("--clips", default=12, show_default=True, help="Clips of each.")
@click.option("--size", default=96, show_default=True, help="Side of the frames in pixels.")
@click.option("--seed", default=0, show_default=True, help="Seed of the set.")
@click.option("--noise", default=2.0, show_default=True, help="Deviation of the camera's noise in grey levels.")
@click.option("--head-motion", default=0.4, show_default=True, help="Deviation of the head's turn in a clip, degrees.")
@click.option("--frames", default=9, show_default=True, help="Frames of a clip.")
def synth(
    root: str, subjects: int, clips: int, size: int, seed: int, noise: float, head_motion: float, frames: int
) -> None:
    """Render heads with micro-expressions and exact flow, to try everything without a licence."""
    from ffplug_face.micro_expression.procedural import write_example

    written = write_example(root, subjects, clips, size, seed, noise, head_motion=head_motion, frames=frames)
    click.echo(f"{root}: {len(written)} clips of {subjects} rendered people, PROCEDURAL")


@command.command()
@click.argument("dataset", type=click.Choice(["casme2", "casme3", "samm", "smic"]))
@click.argument("root", type=click.Path(file_okay=False))
@click.option("--sheet", type=click.Path(dir_okay=False), help="Code sheet, .xlsx or .csv; SMIC has none.")
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="Manifest to write.")
@click.option("--append", is_flag=True, help="Add to a manifest that is there.")
def convert(dataset: str, root: str, sheet: str | None, out: str, append: bool) -> None:
    """List the clips of DATASET below ROOT in a manifest; frames stay where they are.

    Clips that can't be used are left out, and counted by reason. Several sets go into one manifest with --append.
    """
    from collections import Counter

    from ffplug.errors import DataError
    from ffplug_face.micro_expression import converters
    from ffplug_face.micro_expression.manifest import count, read_manifest, write_manifest

    target = Path(out)
    if target.exists() and not append:
        raise DataError(f"{out} is there already: --append adds to it, or name another file")
    before = read_manifest(target) if target.exists() else []
    if any(clip.dataset == dataset for clip in before):
        raise DataError(f"{out} holds clips of {dataset} already")
    found = converters.convert(dataset, root, target.resolve().parent, sheet)
    clips = [*before, *found.clips]
    write_manifest(target, clips)
    for name, numbers in count(clips).items():
        click.echo(f"{name}: " + ", ".join(f"{value} {key}" for key, value in numbers.items()))
    for reason, number in Counter(found.left_out.values()).most_common():
        click.echo(f"left out {number}: {reason}")
    for clip, note in found.notes.items():
        click.echo(f"{clip}: {note}")
    for line in converters.differences(clips):
        click.echo(f"not the counts of the MEGC 2019 composite: {line}")


@command.command()
@_CONFIG
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="Manifest to write, in the data's folder.")
@_OPTIONS
def apex(config: str, out: str, cfg_options: tuple[str, ...]) -> None:
    """Find the apex of each clip as the peak of its motion, with the flow model of CONFIG.

    For sets without apex, such as SMIC, whose converter takes the middle frame.
    """
    import dataclasses

    from ffplug_face.crops import NoFaceError
    from ffplug_face.micro_expression.features import search_apex
    from ffplug_face.micro_expression.manifest import write_manifest

    dataset = _dataset(config, cfg_options)[0]
    found, moved, left_out = [], 0, {}
    for clip in dataset.clips:
        try:
            number, path = search_apex(clip, dataset.root, dataset.feature)
        except NoFaceError as error:
            left_out[clip.key] = str(error)
            continue
        moved += number != clip.apex
        found.append(dataclasses.replace(clip, apex=number, apex_path=path))
    write_manifest(out, found)
    click.echo(f"{out}: {len(found)} clips, {moved} with another apex than before")
    _list(left_out)


@command.command()
@_CONFIG
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="File to write (.npz).")
@_OPTIONS
def features(config: str, out: str, cfg_options: tuple[str, ...]) -> None:
    """Write what the classifiers see: arrays `clips` (names), `labels` and `features` (clips x 3 x S x S)."""
    import numpy as np

    from ffplug.errors import DataError
    from ffplug.files import atomic_path
    from ffplug_face.micro_expression.loso import collect_features

    dataset = _dataset(config, cfg_options)[0]
    found, left_out = collect_features(dataset)
    if not found:
        raise DataError(f"no face in any of {len(dataset)} clips: {next(iter(left_out.values()))}")
    clips, values = [dataset.clips[index] for index in found], np.stack([*found.values()])
    with atomic_path(out) as temporary, open(temporary, "wb") as file:
        labels = np.array([clip.label for clip in clips])
        np.savez(file, clips=np.array([clip.key for clip in clips]), labels=labels, features=values)
    click.echo(f"{out}: {' x '.join(map(str, values.shape))}")
    _list(left_out)


@command.command()
@_CONFIG
@click.option("--work-dir", type=click.Path(file_okay=False), help="Folder of the run; work_dirs/CONFIG by default.")
@click.option("--seeds", default=1, show_default=True, help="Seeds 0, 1, ...; five are usual.")
@click.option("--workers", default=0, show_default=True, help="Processes for the folds; 0 runs them in this one.")
@click.option("--oracle-epoch", is_flag=True, help="Also report the best TEST epoch, a diagnostic of leakage.")
@_OPTIONS
def run(
    config: str,
    work_dir: str | None,
    seeds: int,
    workers: int,
    oracle_epoch: bool,
    cfg_options: tuple[str, ...],
) -> None:
    """Train and predict every fold of CONFIG, then score them. A run that was stopped goes on.

    CONFIG is a recipe such as micro_grid or micro_ststnet, or a file.
    """
    from ffplug.errors import ConfigError
    from ffplug_face.micro_expression.loso import LeaveOneSubjectOut, counts
    from ffplug_face.micro_expression.report import write_flow_picture

    if seeds < 1 or workers < 0:
        raise ConfigError("expected --seeds 1 or more and --workers 0 or more")
    dataset, loaded = _dataset(config, cfg_options)
    folder = Path(work_dir or f"work_dirs/{Path(config).stem.replace('-', '_')}")
    about = loaded["train_dataloader"]["dataset"]
    loso = LeaveOneSubjectOut(dataset, loaded["model"], folder, range(seeds), oracle_epoch, about)
    shown = "PROCEDURAL clips" if dataset.procedural else "clips"
    click.echo(f"{len(dataset)} {shown} ({counts(dataset.clips)}), {len(loso.folds)} folds into {folder}")

    last = [-1]

    def progress(done: int, total: int) -> None:
        if 10 * done // total > last[0]:
            last[0] = 10 * done // total
            click.echo(f"{done} of {total} folds")

    for note in loso.run(workers, progress):
        click.echo(note)
    used = [index for index, clip in enumerate(dataset.clips) if clip.key not in loso.left_out]
    write_flow_picture(folder, loso.features().numpy()[used], [dataset.clips[index] for index in used])
    _score(folder, None, oracle_epoch, 2000)


@command.command()
@click.argument("run", type=click.Path(file_okay=False))
@click.option("--against", type=click.Path(file_okay=False), help="Another run on the same clips, to compare with.")
@click.option("--oracle-epoch", is_flag=True, help="Add the best TEST epoch, if the run stored its epochs.")
@click.option("--resamples", default=2000, show_default=True, help="Of the bootstrap over subjects.")
def score(run: str, against: str | None, oracle_epoch: bool, resamples: int) -> None:
    """Score the run in the folder RUN, and write scores.json, report.html and pictures there."""
    _score(Path(run), against, oracle_epoch, resamples)


def _list(left_out: Mapping[str, str]) -> None:
    """Say which clips were left out, and why."""
    if left_out:
        click.echo(f"{len(left_out)} clips left out")
    for clip, reason in left_out.items():
        click.echo(f"left out {clip}: {reason}")


def _dataset(config: str, cfg_options: tuple[str, ...]) -> tuple:
    """The dataset of a config, and the config as plain dicts."""
    from ffplug.config import load_config, parse_cfg_options, validate_config
    from ffplug.errors import ConfigError
    from ffplug.registry import DATASETS

    loaded = load_config(config, parse_cfg_options(cfg_options))
    validate_config(loaded)
    plain = loaded.to_dict()
    for key in ("model", "train_dataloader"):
        if key not in plain:
            raise ConfigError(f"{config}: no `{key}`; see the recipe micro_grid")
    return DATASETS.build(dict(plain["train_dataloader"]["dataset"])), plain


def _score(folder: Path, against: str | None, oracle: bool, resamples: int) -> None:
    from rich.console import Console
    from rich.table import Table

    from ffplug_face.micro_expression.report import PAGE, difference_lines, score_run, table

    result = score_run(folder, against, oracle, resamples)
    parts = [("PROCEDURAL DATA" if result["procedural"] else None, result["scores"])]
    if "ensemble" in result:
        parts.append(("seeds averaged", result["ensemble"]))
    if oracle:
        parts.append((result["oracle"]["label"], result["oracle"]["scores"]))
    console = Console(width=None if Console().is_terminal else 200)
    for title, scores in parts:
        header, *rows = table(scores)
        shown = Table(*header, title=title)
        for row in rows:
            shown.add_row(*(cell.replace("[", "\\[") for cell in row))
        console.print(shown)
    for line in difference_lines(result):
        click.echo(f"against {against}: {line}")
    click.echo(f"report: {folder / PAGE}")

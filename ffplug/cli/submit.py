"""``ffplug submit``: write the archive of a benchmark submission, and check it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click


@click.group()
def command() -> None:
    """Write and check benchmark submissions: Sintel, KITTI 2012 and 2015, Spring."""


def _writer(name: str, title: str, archive: str) -> click.Command:
    """Make the command that writes one benchmark's submission."""

    def write(**options: Any) -> None:
        _write(name, **options)

    parameters: list[Callable] = [
        click.option("--config", "-c", "config", required=True, help="Model name, recipe name or config file."),
        click.option("--checkpoint", help="Weights, ours or published."),
        click.option("--root", required=True, help="The benchmark's data."),
        click.option("--out", required=True, help=archive),
        click.option("--iterations", type=click.IntRange(min=1), help="Iterations; the model's own by default."),
        click.option("--warm-start", is_flag=True, help="Start each pair from the flow of the one before."),
        click.option("--device", help="cpu, cuda, cuda:1 …; a GPU when there is one by default."),
        click.option("--workers", default=2, show_default=True, type=click.IntRange(min=0), help="Reading processes."),
        click.option("--partial", is_flag=True, help="Accept another number or size of frames (the server won't)."),
    ]
    if name == "sintel":
        parameters.append(click.option("--bundler", help="The data set's bundler program; --out is then an .lzma."))
    for parameter in reversed(parameters):
        write = parameter(write)
    return click.command(name, help=f"Predict the test frames of {title} and write the submission.")(write)


for _name, _title, _archive in (
    ("sintel", "Sintel", ".zip of clean/ and final/, or .lzma with --bundler."),
    ("kitti2012", "KITTI 2012", ".zip to upload."),
    ("kitti2015", "KITTI 2015", ".zip to upload."),
    ("spring", "Spring", "Folder (or .zip) for the benchmark's subsampling tool."),
):
    command.add_command(_writer(_name, _title, _archive))


def _write(name: str, **options: Any) -> None:
    import torch
    from rich.console import Console
    from rich.progress import Progress

    from ffplug import build_model
    from ffplug.datasets.submission import submission_type, write_submission

    device = options["device"] or ("cuda" if torch.cuda.is_available() else "cpu")
    extra = {"bundler": options["bundler"]} if options.get("bundler") else {}
    submission = submission_type(name)(options["out"], options["partial"], **extra)
    console = Console(stderr=True, highlight=False)
    try:
        model = build_model(options["config"], options["checkpoint"]).to(device)
        with Progress(console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("predicting", total=None)
            pairs = write_submission(
                model,
                submission,
                options["root"],
                options["iterations"],
                options["warm_start"],
                options["workers"],
                lambda done, total: bar.update(task, completed=done, total=total),
            )
    finally:
        submission.discard()
    click.echo(f"{options['out']}: {pairs} flow fields of {submission.title}")
    if name == "sintel" and "bundler" not in extra:
        click.echo("unpack it and run the data set's own program: bundler clean final out.lzma, then upload out.lzma")
    if name == "spring":
        click.echo("run the benchmark's subsampling tool on it, then upload the .hdf5 that it writes")


@command.command()
@click.argument("file")
@click.option("--benchmark", help="sintel, kitti2012, kitti2015 or spring; told by the content by default.")
@click.option("--root", help="The benchmark's data, to compare KITTI's sizes with its frames.")
@click.option("--partial", is_flag=True, help="Accept another number or size of frames.")
@click.option("--limit", default=20, show_default=True, help="Problems to print; 0 for all.")
def check(file: str, benchmark: str | None, root: str | None, partial: bool, limit: int) -> None:
    """Check number, names, types, sizes and values in the submission FILE (zip or folder); exit code 2 on problems."""
    from ffplug.datasets.submission import check_submission, submission_type
    from ffplug.errors import DataError

    name, problems = check_submission(file, benchmark, root, partial)
    for problem in problems[: limit or len(problems)]:
        click.echo(f"{problem.path}: {problem.message}")
    if problems:
        raise DataError(f"{file}: {len(problems)} problem(s) for {submission_type(name).title}")
    click.echo(f"{file}: a sound {submission_type(name).title} submission")

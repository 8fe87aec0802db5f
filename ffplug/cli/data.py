"""``ffplug data``: look a data set over before a training starts."""

from __future__ import annotations

import click


@click.group()
def command() -> None:
    """Check data sets on disk."""


@command.command()
@click.argument("root")
@click.option("--layout", default="auto", show_default=True, help="sintel, kitti2015, chairs, … or folder.")
@click.option("--full", is_flag=True, help="Decode every file, not only its header and end.")
@click.option("--json", "json_file", metavar="FILE", help="Write everything found as JSON; - for standard output.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads; one per core by default.")
@click.option("--limit", default=20, show_default=True, help="Problems to print; 0 for all.")
def check(root: str, layout: str, full: bool, json_file: str | None, workers: int | None, limit: int) -> None:
    """Name what is missing or damaged in the data set at ROOT; exit code 2 when something is."""
    import json

    from rich.console import Console
    from rich.progress import Progress

    from ffplug.datasets.checker import check_dataset
    from ffplug.datasets.formats import write_bytes
    from ffplug.errors import DataError

    messages = Console(stderr=True, highlight=False)
    with Progress(console=messages, transient=True, disable=not messages.is_terminal) as bar:
        task = bar.add_task("reading files" if full else "reading headers", total=None)
        report = check_dataset(
            root, layout, full, lambda done, total: bar.update(task, completed=done, total=total), workers
        )
    if json_file:
        text = json.dumps(report.to_json(), indent=2) + "\n"
        if json_file == "-":
            click.echo(text, nl=False)
        else:
            write_bytes(json_file, text.encode())
    if json_file != "-":
        _show(Console(highlight=False, soft_wrap=True), report, limit or len(report.problems))
    if not report.ok:
        raise DataError(f"{root}: {len(report.problems)} problem(s) in {report.title}")


def _show(console, report, limit: int) -> None:
    """Print the table of sequences, then problems and notes."""
    from collections import Counter

    from rich.markup import escape
    from rich.table import Table

    name = f"procedural, not {report.title}" if report.procedural else report.title
    table = Table(title=escape(f"{name} in {report.root}"))
    table.add_column("part")
    table.add_column("sequence")
    table.add_column(report.noun.removeprefix("frame "), justify="right")
    table.add_column("problems", justify="right")
    parts = Counter(part for part, _ in report.pairs)

    def troubles(part: str, sequence: str) -> int:
        """Problems of a sequence in this part, and those of files that its parts share."""
        others = tuple(f"/{other}/" for other in parts if other != part)
        return sum(p.sequence == sequence and not any(other in p.path for other in others) for p in report.problems)

    for part, count in parts.items():
        rows = {sequence: pairs for (where, sequence), pairs in report.pairs.items() if where == part}
        if count > 40:
            bad = sum(troubles(part, sequence) for sequence in rows)
            table.add_row(escape(part), f"{count} sequences", str(sum(rows.values())), str(bad or ""))
        else:
            for sequence, pairs in rows.items():
                table.add_row(escape(part), escape(sequence), str(pairs), str(troubles(part, sequence) or ""))
    console.print(table)
    for problem in report.problems[:limit]:
        console.print(f"[red]{escape(problem.path)}[/]: {escape(problem.message)}")
    if len(report.problems) > limit:
        console.print(f"… and {len(report.problems) - limit} more (--limit 0 prints all)")
    for note in report.notes:
        console.print(f"[dim]note: {escape(note)}[/]")
    depth = "decoded" if report.full else "header and end read"
    console.print(
        f"{sum(report.pairs.values())} {report.noun}, {report.files} files ({depth})"
        + (": nothing is wrong" if report.ok else "")
    )

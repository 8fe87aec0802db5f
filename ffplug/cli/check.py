"""``ffplug check``: the conformance checks of the installed plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ffplug.plugin import Plugin
    from ffplug.testing.checks import Check


@click.command("check")
@click.argument("names", nargs=-1, metavar="[PLUGIN]...")
@click.option("--only", multiple=True, metavar="CHECK", help="Run this check alone; may be given several times.")
@click.option("--large", is_flag=True, help="Check models of more than 150 million parameters too.")
def command(names: tuple[str, ...], only: tuple[str, ...], large: bool) -> int:
    """Check PLUGINs (all installed ones by default) as their own tests do, and print a table.

    What is wrong is told below it as advice, and makes the exit status 1. It takes minutes where there are many models.
    """
    import logging

    from mmengine.logging import MMLogger
    from rich.console import Console
    from rich.table import Table

    from ffplug.errors import ConfigError, did_you_mean
    from ffplug.plugin import discover, find
    from ffplug.testing.checks import CHECKS

    known = [check.name for check in CHECKS]
    for name in only:
        if name not in known:
            raise ConfigError(f"--only {name}: expected among {', '.join(known)}{did_you_mean(name, known)}")
    plugins = [find(name) for name in names] if names else list(discover())
    checks = [check for check in CHECKS if not only or check.name in only]
    MMLogger.get_current_instance().setLevel(logging.ERROR)

    table = Table("check", *(plugin.name.removeprefix("ffplug-") for plugin in plugins), title="conformance")
    results = {plugin.name: _check_plugin(plugin, checks, large) for plugin in plugins}
    for check in checks:
        table.add_row(check.name, *(_cell(results[plugin.name][check.name]) for plugin in plugins))
    console = Console()
    console.print(table)
    console.print("passed, [yellow]~ left out[/], [red]x failed[/]", highlight=False)
    told: dict[str, dict[str, list[str]]] = {"left out": {}, "failed": {}}
    for name, outcomes in results.items():
        for check, cases in outcomes.items():
            for case, kind, text in cases:
                if kind in told:
                    told[kind].setdefault(text, []).append(f"{name} {check}[{case}]")
    for kind, reasons in told.items():
        if reasons:
            click.echo(f"\n{kind}:")
        for text, cases in reasons.items():
            click.echo(f"{', '.join(cases)}\n  {text}")
    return 1 if told["failed"] else 0


def _check_plugin(plugin: Plugin, checks: list[Check], large: bool) -> dict[str, list[tuple[str, str, str]]]:
    """Case, outcome and text by check."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from ffplug.testing.subject import Finding, LeftOut, Subject

    if plugin.error is not None:
        return {check.name: [("plugin", "failed", plugin.error)] for check in checks}
    subject = Subject(plugin, large)
    outcomes: dict[str, list[tuple[str, str, str]]] = {check.name: [] for check in checks}
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    try:
        jobs = [(check, case) for check in checks for case in check.cases(subject)]
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(plugin.name, total=len(jobs))
            for check, case in jobs:
                bar.update(task, description=f"{plugin.name} {check.name}[{case}]")
                try:
                    check(subject, case)
                    outcomes[check.name].append((case, "passed", ""))
                except LeftOut as reason:
                    outcomes[check.name].append((case, "left out", str(reason)))
                except Finding as finding:
                    outcomes[check.name].append((case, "failed", str(finding)))
                bar.advance(task)
    finally:
        subject.close()
    return outcomes


def _cell(cases: list[tuple[str, str, str]]) -> str:
    counts = {kind: sum(outcome == kind for _, outcome, _ in cases) for kind in ("passed", "left out", "failed")}
    parts = [f"[green]{counts['passed']}[/]"] if counts["passed"] else []
    parts += [f"[yellow]~{counts['left out']}[/]"] if counts["left out"] else []
    parts += [f"[bold red]x{counts['failed']}[/]"] if counts["failed"] else []
    return " ".join(parts) or "-"

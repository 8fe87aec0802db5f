"""``ffplug report``: the HTML report of a training or test run."""

from __future__ import annotations

import click


@click.command(help="Write report.html into WORK_DIR, the work directory of a training or test run.")
@click.argument("work_dir", type=click.Path())
def command(work_dir: str) -> None:
    """Write the report and print where it lies."""
    from ffplug.visualization.report import write_report

    click.echo(write_report(work_dir))

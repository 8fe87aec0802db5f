"""``ffplug migrate``: configs of other systems to FFPlug's."""

from __future__ import annotations

import click


@click.command("migrate")
@click.argument("system")
@click.argument("config", type=click.Path(dir_okay=False))
@click.option("--out", type=click.Path(dir_okay=False), help="File to write; without it the config is printed.")
def command(system: str, config: str, out: str | None) -> None:
    """Translate CONFIG of another SYSTEM (mmflow) to a config of FFPlug, and list what has no counterpart.

    CONFIG is read as data and not run. Give the result to `ffplug config` and `ffplug train`; weights are converted by
    `ffplug convert`.
    """
    from pathlib import Path

    from ffplug.apis.migration import migrate_config
    from ffplug.files import atomic_path

    result = migrate_config(system, config)
    if out is None:
        click.echo(result.text, nl=False)
    else:
        with atomic_path(Path(out)) as temporary:
            temporary.write_text(result.text, encoding="utf-8")
        click.echo(f"{out}: written")
    if result.notes:
        click.echo(f"{len(result.notes)} settings have no counterpart or mean something else:", err=True)
    for note in result.notes:
        click.echo(f"- {note}", err=True)

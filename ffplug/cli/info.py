"""``ffplug info``: one plugin in full."""

from __future__ import annotations

import click


@click.command("info")
@click.argument("name")
def command(name: str) -> None:
    """Show everything about the plugin NAME: its components, models, recipes and weights."""
    from ffplug.plugin import find

    plugin = find(name)
    click.echo(f"{plugin.name} {plugin.version}\n{plugin.summary}")
    click.echo(f"package: {plugin.package} in {plugin.folder}\nplugin API: {plugin.api}")
    if plugin.error:
        click.echo(f"BROKEN: {plugin.error}")
    for kind, names in plugin.components.items():
        click.echo(f"\n{kind}:")
        for component in names:
            click.echo(f"  {plugin.package}.{component}")
    for title, table in (("models", plugin.models), ("recipes", plugin.configs)):
        if table:
            click.echo(f"\n{title}:")
            for key, module in table.items():
                click.echo(f"  {key}  ({module})")
    for key, weights in plugin.weights.items():
        click.echo(f"\nweights {key}:")
        for field, value in weights.items():
            click.echo(f"  {field}: {value}")

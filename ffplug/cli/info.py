"""``ffplug info``: one plugin in full."""

from __future__ import annotations

import click


@click.command("info")
@click.argument("name")
def command(name: str) -> None:
    """Show everything about the plugin NAME: its components, models, recipes and weights."""
    from ffplug.apis.weights import known_weights, weights_folder
    from ffplug.cli.weights import describe
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
    if plugin.commands:
        click.echo("\ncommands:")
        for key, entry in plugin.commands.items():
            click.echo(f"  ffplug {key}  {entry['help']}")
    weights = [item for item in known_weights().values() if item.plugin == plugin.name]
    if weights:
        click.echo(f"\nweights in {weights_folder()}:")
        for item in weights:
            click.echo(describe(item))

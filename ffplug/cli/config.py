"""``ffplug config``: what a config resolves to."""

from __future__ import annotations

import click


@click.command("config")
@click.argument("config")
@click.option("--origin", is_flag=True, help="Print every value with the file that it comes from.")
@click.option("--cfg-options", multiple=True, metavar="KEY=VALUE", help="Replace a value; may be given several times.")
def command(config: str, origin: bool, cfg_options: tuple[str, ...]) -> None:
    """Print the resolved CONFIG (a file, or the name of a model or recipe), after checking it."""
    from ffplug.config import config_origin, load_config, parse_cfg_options, validate_config

    options = parse_cfg_options(cfg_options)
    loaded = load_config(config, options)
    validate_config(loaded)
    if not origin:
        click.echo(loaded.pretty_text)
        return
    from ffplug.config import leaves

    origins = config_origin(config, options)
    for key, value in leaves(loaded.to_dict()):
        click.echo(f"{key} = {value!r}  # {origins[key]}")

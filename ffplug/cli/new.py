"""``ffplug new``: a complete plugin to start from."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import keyword
import re
from pathlib import Path

import click

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
TEMPLATE = Path(__file__).parents[1] / "template"


@click.command("new")
@click.argument("name")
@click.argument("folder", required=False, type=click.Path(file_okay=False))
@click.option("--title", help="The method's name as people write it; NAME with capitals by default.")
@click.option("--author", help="Who holds the copyright.")
@click.option("--summary", help="What it is, in one line.")
def command(name: str, folder: str | None, title: str | None, author: str | None, summary: str | None) -> None:
    """Make a complete plugin of the method NAME (`mymethod`, or `ffplug-mymethod`) in FOLDER.

    FOLDER is `ffplug-NAME` by default, and must be new or empty. The plugin installs, passes its tests and trains as
    it stands: a part of the network, a data set, a loss, a metric and an op to replace by your own, with packaging,
    README, licence and CI workflow. Nothing is asked, downloaded or run.
    """
    import shlex

    from ffplug.errors import ConfigError, PluginError
    from ffplug.version import __version__

    name = plugin_name(name)
    given = {"title": title, "author": author, "summary": summary}
    answers = {key: check_text(key, value) for key, value in given.items() if value is not None}
    target = Path(folder or distribution_name(name))
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target}: exists and is not empty; name another folder, or move it away first")
    try:
        from copier import run_copy
    except ImportError as error:
        raise PluginError(f"ffplug new needs copier ({error}): pip install 'ffplug[author]'") from None
    data = {"name": name, "ffplug_version": ".".join(__version__.split(".")[:2]), **answers}
    run_copy(str(TEMPLATE), target, data=data, defaults=True, quiet=True, skip_tasks=True)
    click.echo(
        f"{target}: the plugin {distribution_name(name)}. Next:\n\n"
        f"  cd {shlex.quote(str(target))}\n"
        '  pip install -e ".[test]"\n'
        "  pytest\n"
        f"  ffplug train {name}_pairs\n\n"
        f"Then put your method in the place of the example: README.md says what is where."
    )


def plugin_name(text: str) -> str:
    """The short name of a plugin to make, from the name of its method or distribution.

    Raises:
        ConfigError: it is no identifier in lower case, or something that is installed has it.
    """
    from ffplug.errors import ConfigError
    from ffplug.plugin import component_owners, config_names, discover

    name = re.sub(r"^ffplug[-_]", "", text).replace("-", "_")
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        near = re.sub(r"[^a-z0-9]+", "_", re.sub(r"^\W*\d*|^ffplug[-_]", "", text.lower())).strip("_")
        hint = f"; did you mean {near!r}?" if NAME.fullmatch(near) and not keyword.iskeyword(near) else ""
        raise ConfigError(
            f"NAME {text!r}: expected an identifier in lower case, letters, digits and single _, such as mymethod{hint}"
        )
    package, distribution = f"ffplug_{name}", distribution_name(name)
    known = {plugin.name for plugin in discover()} | {found.name for found in importlib.metadata.distributions()}
    if distribution in known or importlib.util.find_spec(package) is not None:
        raise ConfigError(f"NAME {text!r}: {distribution} is installed already; choose another name")
    clash = {name, f"{name}_pairs"} & {*config_names()}
    clash |= {f"{name.replace('_', '-')}-pairs"} & {*component_owners("layouts")}
    if clash:
        raise ConfigError(
            f"NAME {text!r}: an installed plugin has a model, recipe or layout {min(clash)!r}; choose another name"
        )
    return name


def distribution_name(name: str) -> str:
    """Name of the distribution of the plugin ``name``."""
    return f"ffplug-{name.replace('_', '-')}"


def check_text(option: str, text: str) -> str:
    """A text that may stand in TOML, Python and Markdown as it is.

    Raises:
        ConfigError: it can't.
    """
    from ffplug.errors import ConfigError

    if not text.strip() or not text.isprintable() or set(text) & set('"\\'):
        raise ConfigError(f'--{option} {text!r}: expected one line of text without " and \\')
    return text.strip()

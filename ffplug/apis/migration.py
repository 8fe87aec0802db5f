"""Configs of other systems, translated to FFPlug's.

A migration is a function that a plugin registers in its ``MIGRATIONS`` under the other system's name: it takes the
path of a config file and gives a :class:`Migration`. It reads the file as data and never runs it.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from ffplug.errors import ConfigError, did_you_mean


@dataclasses.dataclass(frozen=True)
class Migration:
    """What became of a config.

    Attributes:
        text: the FFPlug config, Python source that inherits from installed packages.
        notes: what had no counterpart or means something else now, and what that comes to; one line each.
    """

    text: str
    notes: tuple[str, ...] = ()


def migrate_config(system: str, path: str | os.PathLike) -> Migration:
    """Translate a config file of another system.

    Args:
        system: its name, such as ``mmflow``; ``ffplug list`` shows those of the installed plugins.
        path: its config file.

    Raises:
        ConfigError: unknown system; a file that is missing, or is more than data; a model that FFPlug does not have.
    """
    from ffplug.plugin import component_owners, install_line
    from ffplug.registry import MIGRATIONS

    owners = component_owners("migrations")
    name = system.replace("-", "_")
    if name not in owners:
        known = f"expected one of {', '.join(sorted(owners))}" if owners else "no installed plugin translates any"
        hint = did_you_mean(name, owners) or f" (`{install_line('ffplug_' + name)}` would bring it, if there is one)"
        raise ConfigError(f"unknown system {system!r}: {known}{hint}")
    path = Path(path).expanduser()
    if not path.is_file():
        raise ConfigError(f"config {path} does not exist")
    return MIGRATIONS.get(f"{owners[name]}.{name}")(path)

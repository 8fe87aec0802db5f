"""Plugins: finding them, reading their manifests, and saying what to do about one that is missing or broken.

A plugin is a Python package whose distribution has an entry point in the group ``ffplug.plugins`` that names the
package, and beside whose ``__init__.py`` lies a manifest ``ffplug.toml``. Discovery reads manifests and imports
nothing: a module of a plugin loads when a type of it is first built. The core describes itself in the same way.
"""

from __future__ import annotations

import ast
import dataclasses
import fnmatch
import functools
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ffplug.errors import ConfigError, PluginError, did_you_mean
from ffplug.version import PLUGIN_API

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

GROUP = "ffplug.plugins"
MANIFEST = "ffplug.toml"

KINDS = {
    "models": "MODELS",
    "datasets": "DATASETS",
    "layouts": "LAYOUTS",
    "samplers": "DATA_SAMPLERS",
    "transforms": "TRANSFORMS",
    "metrics": "METRICS",
    "hooks": "HOOKS",
    "loops": "LOOPS",
    "optim_wrappers": "OPTIM_WRAPPERS",
    "visualizers": "VISUALIZERS",
    "preparers": "PREPARERS",
    "ops": "OPS",
    "converters": "CONVERTERS",
    "migrations": "MIGRATIONS",
}
"""Kinds of component that a manifest may list, and the registry of ``PACKAGE.registry`` that holds each."""

WEIGHTS = {
    "file": str,
    "origin": str,
    "licence": str,
    "urls": list,
    "size": int,
    "sha256": str,
    "models": list,
    "source": str,
}
"""Keys of a manifest's ``[weights.NAME]`` (see :class:`ffplug.apis.weights.Weights`) and their types."""


@dataclasses.dataclass(frozen=True)
class Plugin:
    """What a manifest says of one plugin.

    Attributes:
        name: of the distribution (``ffplug-samflow``).
        package: importable package, also the scope of its types (``ffplug_samflow``).
        version: of the installed distribution, or ``"not installed"`` for one found through ``FFPLUG_PLUGINS``.
        folder: where the package lies.
        summary: one line.
        api: range of plugin-API versions that it works with.
        components: registered names by kind (see :data:`KINDS`).
        models: config module of each public model name.
        configs: config module of each recipe.
        weights: what is known of released weights, by name.
        commands: what it adds to the command line, by name: ``module``, which has a click ``command``, and ``help``.
        error: why it can't be used, or None.
    """

    name: str
    package: str
    version: str
    folder: Path | None
    summary: str = ""
    api: str = ""
    components: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    models: Mapping[str, str] = dataclasses.field(default_factory=dict)
    configs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    weights: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    commands: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    error: str | None = None


def plugins() -> tuple[Plugin, ...]:
    """All usable plugins, the core first, then by name."""
    return tuple(plugin for plugin in discover() if plugin.error is None)


@functools.cache
def discover() -> tuple[Plugin, ...]:
    """All plugins that are there, with the reason for those that can't be used; nothing is imported."""
    disabled = {_normal(name) for name in os.environ.get("FFPLUG_DISABLE", "").split(",") if name.strip()}
    found: dict[str, Plugin] = {}
    for package, version, name in [*_installed(), *_from_environment()]:
        plugin = _read(package, version, name)
        if {_normal(plugin.name), _normal(package)} & disabled:
            continue
        found.setdefault(package, plugin)
    return tuple(sorted(found.values(), key=lambda plugin: (plugin.package != "ffplug", plugin.name)))


def _normal(name: str) -> str:
    name = name.strip().lower().replace("-", "_")
    return name if name.startswith("ffplug") else f"ffplug_{name}"


def _installed() -> Iterator[tuple[str, str, str]]:
    for entry in entry_points(group=GROUP):
        yield entry.value, entry.dist.version, entry.dist.name


def _from_environment() -> Iterator[tuple[str, str, str]]:
    for folder in filter(None, os.environ.get("FFPLUG_PLUGINS", "").split(os.pathsep)):
        root = Path(folder).expanduser().resolve()
        packages = [root] if (root / MANIFEST).is_file() else sorted(path.parent for path in root.glob(f"*/{MANIFEST}"))
        if not packages:
            yield str(root), "not installed", root.name
        for package in packages:
            if str(package.parent) not in sys.path:
                sys.path.append(str(package.parent))
            yield package.name, "not installed", package.name.replace("_", "-")


def _read(package: str, version: str, name: str) -> Plugin:
    """Read one manifest; whatever is wrong with it becomes the plugin's ``error``."""
    broken = functools.partial(Plugin, name=name, package=package, version=version)
    try:
        spec = None if os.sep in package else importlib.util.find_spec(package)
    except (ImportError, ValueError) as error:
        return broken(folder=None, error=f"package {package!r} can't be found: {error}")
    if spec is None or not spec.submodule_search_locations:
        return broken(folder=None, error=f"package {package!r} can't be found, or holds no {MANIFEST}")
    folder = Path(next(iter(spec.submodule_search_locations)))
    path = folder / MANIFEST
    try:
        manifest = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return broken(folder=folder, error=f"{path} is missing")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        return broken(folder=folder, error=f"{path} is not TOML: {error}")
    complaint = _complaint(manifest, package)
    if complaint:
        return broken(folder=folder, error=f"{path}: {complaint}")
    head = manifest["plugin"]
    components = {kind: tuple(names) for kind, names in manifest.get("components", {}).items()}
    plugin = Plugin(
        name=head["name"],
        package=package,
        version=version,
        folder=folder,
        summary=head.get("summary", ""),
        api=head["api"],
        components=components,
        models=manifest.get("models", {}),
        configs=manifest.get("configs", {}),
        weights=manifest.get("weights", {}),
        commands=manifest.get("commands", {}),
    )
    if not _in_range(PLUGIN_API, plugin.api):
        error = f"it asks for plugin API {plugin.api}, this ffplug has {PLUGIN_API}: upgrade whichever is older"
        return dataclasses.replace(plugin, error=error)
    return plugin


def _complaint(manifest: Mapping[str, Any], package: str) -> str | None:
    head = manifest.get("plugin")
    if not isinstance(head, dict):
        return "the table [plugin] is missing"
    for key in ("name", "package", "api"):
        if not isinstance(head.get(key), str):
            return f"plugin.{key} is missing or no string"
    if head["package"] != package:
        return f"plugin.package is {head['package']!r}, but the package is {package!r}"
    for kind, names in manifest.get("components", {}).items():
        if kind not in KINDS:
            return f"unknown kind of component {kind!r}{did_you_mean(kind, KINDS)}"
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return f"components.{kind} must be a list of names"
    for table in ("models", "configs"):
        if not all(isinstance(value, str) for value in manifest.get(table, {}).values()):
            return f"[{table}] must map names to config modules"
    for name, command in manifest.get("commands", {}).items():
        if not (isinstance(command, dict) and set(command) == {"module", "help"}) or not all(
            isinstance(value, str) for value in command.values()
        ):
            return f'commands.{name} must be {{ module = "{package}.MODULE", help = "What it does." }}'
    weights = manifest.get("weights", {})
    if not isinstance(weights, dict):
        return "[weights.NAME] must be tables"
    return next(filter(None, (_weights_complaint(name, table) for name, table in weights.items())), None)


def _weights_complaint(name: str, table: Any) -> str | None:
    """What is wrong with the table of released weights ``name``; see docs/plugins.md."""
    where = f"weights.{name}"
    if not re.fullmatch(r"[a-z0-9_]+", name):
        return f"{where}: a name of weights has lower-case letters, digits and _ alone"
    if not isinstance(table, dict):
        return f"{where} must be a table"
    for key, value in table.items():
        if key not in WEIGHTS:
            return f"{where}: unknown key {key!r}{did_you_mean(key, WEIGHTS)}; known are {', '.join(WEIGHTS)}"
        kind = WEIGHTS[key]
        if kind is list and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            return f"{where}.{key} must be a list of strings"
        if type(value) is not kind:
            return f"{where}.{key} must be {'an integer' if kind is int else 'a string'}, got {value!r}"
    for key in ("file", "origin", "licence"):
        if not table.get(key):
            return f"{where}.{key} is missing"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", table["file"]) or table["file"] == "index.json":
        return f"{where}.file must be a plain file name without folders, got {table['file']!r}"
    if table.get("size", 1) <= 0:
        return f"{where}.size must be the number of bytes, got {table['size']}"
    if not re.fullmatch(r"[0-9A-Fa-f]{8,64}", table.get("sha256", "0" * 8)):
        return f"{where}.sha256 must be 64 hexadecimal digits, or at least the first 8 of them, got {table['sha256']!r}"
    for url in table.get("urls", ()):
        if not re.match(r"(https?://[^/\s]+/|file:///)\S+$", url):
            return f"{where}.urls: expected http://, https:// or file:// addresses of a file, got {url!r}"
    if table.get("urls") and "sha256" not in table:
        return f"{where}.sha256 is missing: what is downloaded has to be checked; leave out urls where no sum is known"
    return None


def _in_range(version: int, specifier: str) -> bool:
    """Whether an API version is in a range such as ``>=1,<3``."""
    compare = {
        ">=": int.__ge__,
        "<=": int.__le__,
        "==": int.__eq__,
        "!=": int.__ne__,
        ">": int.__gt__,
        "<": int.__lt__,
    }
    for part in specifier.split(","):
        part = part.strip()
        operator = next((symbol for symbol in compare if part.startswith(symbol)), None)
        number = part.removeprefix(operator or "").strip()
        if operator is None or not number.isdigit() or not compare[operator](version, int(number)):
            return False
    return True


def find(name: str) -> Plugin:
    """Return the plugin of this distribution, package or short name (``ffplug-x``, ``ffplug_x``, ``x``).

    Raises:
        PluginError: there is none; the message lists near names.
    """
    found = {
        key: plugin
        for plugin in discover()
        for key in (plugin.name, plugin.package, plugin.name.removeprefix("ffplug-"))
    }
    if name not in found:
        raise PluginError(f"no plugin {name!r}{did_you_mean(name, found)}; `ffplug list` shows the installed ones")
    return found[name]


def load(plugin: Plugin) -> None:
    """Import everything that a plugin registers.

    Raises:
        PluginError: it can't be used, or fails to import; names the plugin and the cause.
    """
    if plugin.error is not None:
        raise PluginError(f"plugin {plugin.name}: {plugin.error}")
    try:
        registry = importlib.import_module(f"{plugin.package}.registry")
        for kind in plugin.components:
            getattr(registry, KINDS[kind]).import_from_location()
    except Exception as error:
        raise PluginError(f"plugin {plugin.name} fails to import: {type(error).__name__}: {error}") from error


def foresee_failure(plugin: Plugin) -> str | None:
    """Why importing a plugin will fail, as far as its files tell without running them, or None.

    Every module is parsed; a syntax error, or an import at its top of a package that is not installed, is told.
    """
    for path in sorted(plugin.folder.rglob("*.py")) if plugin.folder else ():
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        except (SyntaxError, UnicodeDecodeError) as error:
            return f"{path}: {error}"
        for node in tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in names:
                package = name.partition(".")[0]
                if package not in sys.modules and importlib.util.find_spec(package) is None:
                    return f"{path}, line {node.lineno}: imports {package!r}, which is not installed"
    return None


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models of all installed plugins that match a shell pattern (``'*sam*'``), sorted."""
    names = {name for plugin in plugins() for name in plugin.models}
    return sorted(name for name in names if fnmatch.fnmatch(name, pattern.replace("-", "_")))


def component_owners(kind: str) -> dict[str, str]:
    """The package that provides each component of a kind (see :data:`KINDS`), by name, the core's first."""
    owners: dict[str, str] = {}
    for plugin in plugins():
        for name in plugin.components.get(kind, ()):
            owners.setdefault(name, plugin.package)
    return owners


def find_config(name: str) -> Path | None:
    """Return the file of the model or recipe ``name`` (``-`` and ``_`` alike), or None where no plugin has it."""
    wanted = name.replace("-", "_")
    for plugin in plugins():
        module = {**plugin.models, **plugin.configs}.get(wanted)
        if module is not None:
            parts = module.split(".")
            path = plugin.folder.joinpath(*parts[1:]).with_suffix(".py")
            if not path.is_file():
                raise PluginError(
                    f"plugin {plugin.name}: its manifest gives {module} for {wanted!r}, which is not there"
                )
            return path
    return None


def config_names() -> list[str]:
    """Names of all models and recipes of the installed plugins, sorted."""
    return sorted({name for plugin in plugins() for name in (*plugin.models, *plugin.configs)})


def install_line(package: str) -> str:
    """The command that installs the distribution of an FFPlug package."""
    return f"pip install {package.replace('_', '-')}"


IMPORT_ADVICE = {
    "mmpretrain": "pip install onedl-mmpretrain onedl-mmcv torchvision (which it needs and does not ask for); where "
    "pycocotools and transformers 5 are both installed, it can't be imported at all: pip uninstall pycocotools",
}
"""What to do about packages that configs name types of, where they can't be imported."""


def import_advice(package: str) -> str:
    """``"; ADVICE"`` about a package that can't be imported, or an empty string."""
    return f"; {IMPORT_ADVICE[package]}" if package in IMPORT_ADVICE else ""


def missing_package(package: str, where: str) -> ConfigError:
    """The error for a type or base config whose package can't be used, with what to do about it."""
    for plugin in discover():
        if plugin.package == package and plugin.error is not None:
            return ConfigError(f"{where}: plugin {plugin.name} can't be used: {plugin.error}")
    guess = did_you_mean(package, [plugin.package for plugin in plugins()])
    if package.startswith("ffplug_"):
        name = package.replace("_", "-")
        return ConfigError(f"{where}: plugin {name} is not installed: `{install_line(package)}`{guess}")
    return ConfigError(f"{where}: package {package!r} is not installed{guess or import_advice(package)}")

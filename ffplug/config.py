"""Configs: finding and loading them, checking them before anything is built, and telling where a value comes from."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine import registry as roots
from mmengine.config import Config
from mmengine.config.utils import ConfigParsingError
from mmengine.logging import print_log
from mmengine.registry import Registry
from mmengine.runner import Runner

from ffplug import plugin as plugin_module
from ffplug.errors import ConfigError, did_you_mean

EXTRA_KEYS = {
    "custom_imports": "modules that MMEngine imports first",
    "on_cpu": "module of the config fragment that is merged on a machine without a GPU",
    "prepare_data": "what makes sure that the data are there, run before anything is built",
    "env_cfg": "MMEngine's environment",
    "strategy": "MMEngine's strategy",
    "runner_type": "which runner of MMEngine",
    "tta_model": "model of test-time augmentation",
    "tta_pipeline": "pipeline of test-time augmentation",
    "model_wrapper_cfg": "wrapper of the model for distributed training",
    "find_unused_parameters": "DistributedDataParallel's option of that name",
    "sync_bn": "how batch norm is synchronised in distributed training: 'torch'",
    "compile": "options of torch.compile, or True",
    "activation_checkpointing": "names of modules whose activations are computed again in the backward pass",
}
"""Top-level keys that a config may hold beside the arguments of MMEngine's ``Runner``."""

SPECIAL_KEYS = {"type", "_scope_", "_delete_", "init_cfg", "priority", "name", "_deprecation_"}
"""Keys that MMEngine takes out of a dict before it builds the type."""

SPECIAL_KEYS_OF = {
    "param_scheduler": {"convert_to_iter_based"},
    "optim_wrapper": {"optimizer", "constructor", "paramwise_cfg"},
    "train_cfg": {"by_epoch"},
    "visualizer": {"vis_backends", "save_dir"},
}
"""More of them, by the top-level key that the dict stands under."""

SPECIAL_KEYS_AT = {"norm_cfg": {"requires_grad"}}
"""More of them, by the key of the dict itself: those of mmcv's layers."""


def load_config(path_or_name: str | os.PathLike, cfg_options: Mapping[str, Any] | None = None) -> Config:
    """Load a config file, or the model or recipe of that name from an installed plugin.

    Args:
        path_or_name: path of a ``.py``, ``.yaml`` or ``.json`` file, or a name (``-`` and ``_`` alike).
        cfg_options: values by dotted key that replace those of the file.

    Raises:
        ConfigError: no such file or name, wrong syntax, a base config that is not there, an option for a key that can't
            be.
    """
    plugin_module.discover()  # so that the bases of plugins from FFPLUG_PLUGINS can be imported
    path = find_config_file(path_or_name)
    try:
        config = Config.fromfile(str(path))
    except SyntaxError as error:
        file = path if error.filename in (None, "<unknown>") else error.filename
        raise ConfigError(f"{file}, line {error.lineno}: {error.msg}") from error
    except (ConfigParsingError, FileNotFoundError, ModuleNotFoundError) as error:
        raise _explain_base(path, error) from error
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"{path}: {type(error).__name__}: {error}") from error
    for name in getattr(config, "_imported_names", ()):
        config._cfg_dict.pop(name, None)  # what the file imports (`read_base`) is no setting
    if cfg_options:
        try:
            config.merge_from_dict(dict(cfg_options))
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise ConfigError(f"--cfg-options {' '.join(cfg_options)}: {error}") from error
    return config


def find_config_file(path_or_name: str | os.PathLike) -> Path:
    """Return the path of a config file that is given by path or by name."""
    path = Path(path_or_name).expanduser()
    for candidate in (path, path.with_name(path.name.replace("-", "_"))):
        if candidate.is_file():
            return candidate
    if path.suffix in (".py", ".yaml", ".yml", ".json"):
        folder = path.parent
        siblings = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        reason = f"{did_you_mean(path.name, siblings)}" if folder.is_dir() else f": folder {folder} does not exist"
        raise ConfigError(f"config {path} does not exist{reason}")
    found = plugin_module.find_config(str(path_or_name))
    if found is None:
        names = plugin_module.config_names()
        near = did_you_mean(str(path_or_name).replace("-", "_"), names) or "; `ffplug list --models` shows them"
        raise ConfigError(f"no config file and no model or recipe named {str(path_or_name)!r}{near}")
    return found


def base_modules(path: Path) -> list[str]:
    """The modules that a config file inherits from by ``with read_base():``, as written."""
    modules = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        is_base = isinstance(node, ast.With) and any(
            isinstance(item.context_expr, ast.Call) and getattr(item.context_expr.func, "id", "") == "read_base"
            for item in node.items
        )
        if is_base:
            for statement in node.body:
                if isinstance(statement, ast.ImportFrom):
                    modules.append("." * statement.level + (statement.module or ""))
    return modules


def base_file(path: Path, module: str) -> Path:
    """The file of a base module, given relative to ``path`` or absolutely; it need not exist."""
    level = len(module) - len(module.lstrip("."))
    parts = module.lstrip(".").split(".")
    if level:
        return path.parents[level - 1].joinpath(*parts).with_suffix(".py")
    spec = importlib.util.find_spec(parts[0])
    if spec is None or not spec.submodule_search_locations:
        raise plugin_module.missing_package(parts[0], f"{path}: base config {module}")
    return Path(next(iter(spec.submodule_search_locations))).joinpath(*parts[1:]).with_suffix(".py")


def base_chain(path: Path) -> Iterator[Path]:
    """All files that make up a config, bases before those that inherit from them."""
    for module in base_modules(path):
        yield from base_chain(base_file(path, module))
    yield path


def _explain_base(path: Path, error: Exception) -> ConfigError:
    """Name the base that is not there and the file that asks for it."""
    pending = [path]
    while pending:
        current = pending.pop()
        for module in base_modules(current):
            try:
                file = base_file(current, module)
            except ConfigError as missing:
                return missing
            if not file.is_file():
                siblings = [entry.stem for entry in file.parent.glob("*.py")]
                near = did_you_mean(file.stem, siblings)
                return ConfigError(f"{current}: base config {module} does not exist ({file}){near}")
            pending.append(file)
    return ConfigError(f"{path}: {error}")


def config_origin(path_or_name: str | os.PathLike, cfg_options: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Tell for every value of the resolved config which file it comes from.

    Args:
        path_or_name: as for :func:`load_config`.
        cfg_options: as for :func:`load_config`.

    Returns:
        File (or ``--cfg-options``) by dotted key, in the order of the config.
    """
    path = find_config_file(path_or_name)
    load_config(path)
    origin: dict[str, tuple[str, Any]] = {}
    for file in dict.fromkeys(base_chain(path)):
        values = dict(leaves(Config.fromfile(str(file)).to_dict()))
        for key, value in values.items():
            # Bases come first: a value that an earlier file gave already, unchanged, is that file's.
            if key not in origin or origin[key][1] != value:
                origin[key] = (str(file), value)
    config = load_config(path, cfg_options)
    result = {}
    for key, value in leaves(config.to_dict()):
        file, known = origin.get(key, ("--cfg-options", None))
        result[key] = file if known == value else "--cfg-options"
    return result


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a nest of dicts, by dotted key."""
    children: Any
    if isinstance(value, Mapping) and value:
        children = value.items()
    elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
        children = enumerate(value)
    else:
        yield prefix, value
        return
    for key, item in children:
        yield from leaves(item, f"{prefix}.{key}" if prefix else str(key))


def apply_device_fragment(config: Config) -> None:
    """On a machine without a GPU, merge the fragment that the config names in ``on_cpu``, and say so in the log."""
    fragment_module = config.get("on_cpu")
    if not fragment_module or torch.cuda.is_available():
        return
    file = base_file(Path("on_cpu"), fragment_module)
    if not file.is_file():
        raise ConfigError(f"on_cpu: config fragment {fragment_module} does not exist ({file})")
    before = dict(leaves(config.to_dict()))
    config.merge_from_dict(Config.fromfile(str(file)).to_dict())
    after = dict(leaves(config.to_dict()))
    changed = [key for key in after if key not in before or before[key] != after[key]]
    print_log(
        f"No GPU here: using the reduced settings of {fragment_module} ({file}). "
        f"{len(changed)} values differ: {', '.join(changed)}",
        logger="current",
    )


def parse_cfg_options(options: Sequence[str]) -> dict[str, Any]:
    """Turn ``key.sub=value`` strings of the command line into a dict; values are Python literals or plain words.

    Raises:
        ConfigError: an option without ``=``.
    """
    parsed = {}
    for option in options:
        key, separator, text = option.partition("=")
        if not separator or not key:
            raise ConfigError(f"--cfg-options {option!r}: expected KEY=VALUE")
        try:
            parsed[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            parsed[key] = {"true": True, "false": False, "none": None}.get(text.lower(), text)
    return parsed


def validate_config(config: Mapping[str, Any]) -> None:
    """Check a merged config before anything is built: keys, types, packages and arguments.

    Raises:
        ConfigError: the first thing that is wrong, with its dotted key, near names, and what to install.
    """
    known = {*inspect.signature(Runner.__init__).parameters, *EXTRA_KEYS, "default_scope"} - {"self"}
    for key in config:
        if key not in known and not key.startswith("_"):
            raise ConfigError(
                f"unknown key {key!r} in the config{did_you_mean(key, known)} "
                "(a helper variable's name starts with an underscore)"
            )
    for key, value in config.items():
        if not key.startswith("_"):
            _validate(value, key, key)


def _validate(value: Any, path: str, section: str) -> None:
    if isinstance(value, Mapping):
        unchecked: Sequence[str] = ()
        if isinstance(value.get("type"), str):
            # Arguments that hold another system's config, whose types that system looks up.
            unchecked = getattr(_validate_type(value, path, section), "unchecked_arguments", ())
        for key, item in value.items():
            if key not in unchecked:
                _validate(item, f"{path}.{key}", section)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _validate(item, f"{path}.{index}", section)


def _validate_type(config: Mapping[str, Any], path: str, section: str) -> Any:
    """Check the arguments that a dict with ``type`` gives; returns the type."""
    cls = resolve_type(config["type"], path)
    accepted = None if cls is None else _accepted_arguments(cls)
    if accepted is None:
        return cls
    special = SPECIAL_KEYS | SPECIAL_KEYS_OF.get(section, set()) | SPECIAL_KEYS_AT.get(path.rpartition(".")[2], set())
    for key in config:
        if key not in accepted and key not in special:
            near = did_you_mean(str(key), accepted)
            known = near or f": expected among {', '.join(sorted(accepted)) or 'none'}"
            raise ConfigError(f"{path}.{key}: {config['type']} has no such argument{known}")
    return cls


def _registries() -> list[Registry]:
    from ffplug import registry

    found = [value for value in vars(roots).values() if isinstance(value, Registry)]
    return [
        *found,
        *(value for value in vars(registry).values() if isinstance(value, Registry) and value.parent is None),
    ]


def resolve_type(name: str, path: str) -> Any:
    """Return what a config's ``type`` names.

    Args:
        name: qualified (``ffplug.SintelDataset``) or MMEngine's own (``AdamW``).
        path: dotted key of the dict, for the error.

    Raises:
        ConfigError: the package is not installed, or has no such type.
    """
    scope, _, short = name.rpartition(".")
    if scope and "." not in scope:
        return _resolve_qualified(scope, short, path)
    if scope:
        return _resolve_import(name, scope, path)
    for registry in _registries():
        registry.import_from_location()
        if name in registry.module_dict:
            return registry.module_dict[name]
    known = [key for registry in _registries() for key in registry.module_dict]
    known += [
        f"{plugin.package}.{key}"
        for plugin in plugin_module.plugins()
        for kind in plugin.components.values()
        for key in kind
    ]
    by_short_name = [key for key in known if key.rpartition(".")[2] == name]
    near = f"; did you mean {by_short_name[0]!r}?" if by_short_name else did_you_mean(name, known)
    raise ConfigError(f"{path}.type: unknown type {name!r}{near}")


def _resolve_qualified(scope: str, short: str, path: str) -> Any:
    plugin_module.discover()  # so that plugins from FFPLUG_PLUGINS can be imported
    if importlib.util.find_spec(scope) is None:
        raise plugin_module.missing_package(scope, f"{path}.type={scope}.{short}")
    try:
        module = importlib.import_module(f"{scope}.registry")
    except ModuleNotFoundError as error:
        if error.name == f"{scope}.registry":
            return _resolve_import(f"{scope}.{short}", scope, path)
        advice = plugin_module.import_advice(scope)
        raise ConfigError(f"{path}.type={scope}.{short}: {scope} fails to import: {error}{advice}") from error
    except Exception as error:
        raise ConfigError(
            f"{path}.type={scope}.{short}: {scope} fails to import: {type(error).__name__}: {error}"
            f"{plugin_module.import_advice(scope)}"
        ) from error
    registries = [value for value in vars(module).values() if isinstance(value, Registry) and value.scope == scope]
    failure: Exception | None = None
    for registry in registries:
        try:
            registry.import_from_location()
        except Exception as error:
            failure = error  # it matters only where the type is in no other registry
        if short in registry.module_dict:
            return registry.module_dict[short]
    if failure is not None:
        raise ConfigError(
            f"{path}.type={scope}.{short}: {scope} fails to import: {type(failure).__name__}: {failure}"
            f"{plugin_module.import_advice(scope)}"
        ) from failure
    known = [key for registry in registries for key in registry.module_dict]
    near = did_you_mean(short, known) or "; `ffplug info` lists its types"
    raise ConfigError(f"{path}.type: {scope} has no type {short!r}{near}")


def _resolve_import(name: str, module: str, path: str) -> Any:
    """A type that is written as the import path of a class, as a dumped lazy config has it."""
    try:
        return getattr(importlib.import_module(module), name.rpartition(".")[2])
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{path}.type={name}: {error}") from error


@functools.cache
def _accepted_arguments(cls: Any) -> frozenset[str] | None:
    """Names of the arguments that a type takes, or None where it takes any."""
    if not inspect.isclass(cls):
        parameters = inspect.signature(cls).parameters.values()
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return None
        return frozenset(parameter.name for parameter in parameters)
    names: set[str] = set()
    for base in cls.__mro__:
        constructor = vars(base).get("__init__")
        if constructor is None:
            continue
        try:
            parameters = list(inspect.signature(constructor).parameters.values())[1:]
        except (TypeError, ValueError):
            return None
        names |= {
            parameter.name
            for parameter in parameters
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        }
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return frozenset(names)
    return None

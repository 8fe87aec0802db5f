"""MMFlow's config files, read as data.

Such a file is Python. It is parsed here and never run: assignments of numbers, strings, lists and dicts, of sums and
quotients of them, and of names that the file assigned before, are evaluated; anything else (imports, calls, conditions)
is refused with its line. All files that MMFlow ships are of this kind.
"""

from __future__ import annotations

import ast
import importlib.util
import math
import operator
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ffplug.errors import ConfigError

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_SIGNS: dict[type, Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg, ast.Not: operator.not_}
_CONTAINERS: dict[str, Callable[..., Any]] = {"dict": dict, "list": list, "tuple": tuple}
_REPLACE = "_delete_"
_BASE = "_base_"
_LARGE = 10_000_000


def read_config(path: Path | str) -> dict[str, Any]:
    """Read a text config of MMFlow (0.x or 1.x) and the files that it inherits from.

    Args:
        path: file, or ``mmflow::FILE`` for one of those that the installed ``mmflow`` ships.

    Returns:
        All that the files assign, merged; helper variables among it.

    Raises:
        ConfigError: a file is missing, is no Python, or holds more than data; the message names file and line.
    """
    return _read(_locate(str(path), Path(), None), ())


def _locate(name: str, folder: Path, asked_by: Path | None) -> Path:
    package, separator, inner = name.partition("::")
    where = f"{asked_by}: base config " if asked_by else "config "
    if not separator:
        path = (folder / name).expanduser()
    else:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError(f"{where}{name}: package {package!r} is not installed")
        path = Path(next(iter(spec.submodule_search_locations))) / ".mim" / "configs" / inner
    if not path.is_file():
        raise ConfigError(f"{where}{name} does not exist ({path})")
    return path


def _read(path: Path, children: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in children:
        raise ConfigError(f"{path}: inherits from itself")
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except (SyntaxError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{path}: not a config in Python: {error}") from error
    own = _Evaluator(path)
    for node in sorted(tree.body, key=lambda node: not _assigns_base(node)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        own.run(node)
        if _assigns_base(node):
            names = own.values.pop(_BASE)
            for name in [names] if isinstance(names, str) else names:
                base = _locate(name, path.parent, path)
                own.base.update(_read(base, (*children, path.resolve())))
    return _merge(own.base, own.values)


def _assigns_base(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(getattr(target, "id", None) == _BASE for target in node.targets)


def _merge(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A file's values over those of its bases: dicts are merged key by key, unless they say ``_delete_=True``."""
    merged = dict(base)
    for key, value in own.items():
        if isinstance(value, dict):
            below = merged.get(key) if not value.get(_REPLACE) else None
            value = _merge(below if isinstance(below, dict) else {}, value)
            value.pop(_REPLACE, None)
        merged[key] = value
    return merged


def _size(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else math.ceil(abs(value))


class _Evaluator:
    """Evaluates the assignments of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.base: dict[str, Any] = {}
        self.values: dict[str, Any] = {}

    def run(self, node: ast.stmt) -> None:
        if not isinstance(node, ast.Assign) or any(not isinstance(target, ast.Name) for target in node.targets):
            raise self._refuse(node)
        try:
            value = self._evaluate(node.value)
        except (TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
            raise self._refuse(node, f"can't be evaluated ({type(error).__name__}: {error})") from error
        for target in node.targets:
            self.values[target.id] = value

    def _refuse(self, node: ast.AST, why: str = "is code, and a config is read here as data") -> ConfigError:
        text = " ".join(ast.unparse(node).split())
        return ConfigError(f"{self.path}, line {node.lineno}: `{text[:60]}` {why}; write the value itself in its place")

    def _evaluate(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant():
                return node.value
            case ast.Name() if node.id in self.values:
                return self.values[node.id]
            case ast.Name():
                raise self._refuse(node, "is not assigned above")
            case ast.List() | ast.Tuple():
                items: list[Any] = []
                for item in node.elts:
                    if isinstance(item, ast.Starred):
                        items.extend(self._evaluate(item.value))
                    else:
                        items.append(self._evaluate(item))
                return items if isinstance(node, ast.List) else tuple(items)
            case ast.Dict():
                return self._dict([(self._evaluate(key) if key else None, value) for key, value in self._items(node)])
            case ast.Call(func=ast.Name(id=name), args=arguments) if name in _CONTAINERS:
                if name == "dict":
                    return self._mapping(node, arguments)
                if not node.keywords:
                    return _CONTAINERS[name](*(self._evaluate(argument) for argument in arguments))
            case ast.UnaryOp(op=sign) if type(sign) in _SIGNS:
                return _SIGNS[type(sign)](self._evaluate(node.operand))
            case ast.BinOp(op=sign) if type(sign) in _OPERATORS:
                left, right = self._evaluate(node.left), self._evaluate(node.right)
                if isinstance(sign, ast.Mult) and _size(left) * _size(right) > _LARGE:
                    raise self._refuse(node, "is beyond what a config needs")
                return _OPERATORS[type(sign)](left, right)
            case ast.Subscript():
                return self._evaluate(node.value)[self._evaluate(node.slice)]
            case ast.Attribute(value=ast.Name(id="_base_"), attr=name) if name in self.base:
                return self.base[name]
            case ast.Attribute(value=ast.Attribute() as outer, attr=name):
                return self._evaluate(outer)[name]
            case ast.Set(elts=[ast.Set(elts=[ast.Attribute() as inner])]):  # {{_base_.name}}
                return self._evaluate(inner)
        raise self._refuse(node)

    @staticmethod
    def _items(node: ast.Dict) -> list[tuple[ast.expr | None, ast.expr]]:
        return list(zip(node.keys, node.values, strict=True))

    def _mapping(self, node: ast.Call, arguments: list[ast.expr]) -> dict[str, Any]:
        pairs = [(None, argument) for argument in arguments]
        return self._dict([*pairs, *((keyword.arg, keyword.value) for keyword in node.keywords)])

    def _dict(self, items: list[tuple[Any, ast.expr]]) -> dict[Any, Any]:
        """A dict of keys and expressions; without a key, the expression is itself a dict."""
        result: dict[Any, Any] = {}
        for key, expression in items:
            value = self._evaluate(expression)
            if key is not None:
                result[key] = value
            elif isinstance(value, dict):
                result.update(value)
            else:
                raise self._refuse(expression, "is no dict")
        return result

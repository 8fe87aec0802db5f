"""What reading the sources leaves to be done: roles become links, examples become code, ops become functions."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc|obj):`(~?)([\w.]+)`")
EXAMPLE = re.compile(r"^( *)Example:\n((?:\1 +\S.*\n?|\s*\n)+)", re.M)


class Docstrings(griffe.Extension):
    """Rewrites every docstring as it is read, and the callable instances of ops once all is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of one module, class, function or attribute."""
        if obj.docstring is not None:
            text = ROLE.sub(lambda role: _link(obj, role), obj.docstring.value)
            obj.docstring.value = EXAMPLE.sub(_fence, text)

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Show ``name = SomeOp()`` as the function that it is called as, with the docstring of its class."""
        ops = pkg.members.get("ops", pkg)
        for module in ops.modules.values():
            for attribute in list(module.attributes.values()):
                value = attribute.value
                made = str(value.function) if isinstance(value, griffe.ExprCall) else ""
                if made in module.classes and "reference" in module.classes[made].members:
                    module.set_member(attribute.name, _function(attribute, module.classes[made]))
                    ops.exports = [name for name in ops.exports if name != made]
                    if made in ops.members:
                        ops.del_member(made)


def _function(attribute: griffe.Attribute, op: griffe.Class) -> griffe.Function:
    """The function of a call: arguments of ``prepare``, or else of the definition, and the definition's result."""
    called = op.members.get("prepare", op.members["reference"])
    function = griffe.Function(
        attribute.name,
        lineno=op.lineno,
        endlineno=op.endlineno,
        parameters=griffe.Parameters(*list(called.parameters)[1:]),
        returns=op.members["reference"].returns,
        parent=attribute.parent,
    )
    text = op.docstring.value.replace("Args (of the call):", "Args:").rstrip()
    text += f"\n\nAn instance of the class `{op.name}`. [](){{ #ffplug.ops.{op.name} }}"
    options = {"parser": op.docstring.parser, "parser_options": op.docstring.parser_options}
    function.docstring = griffe.Docstring(text, parent=function, **options)
    return function


def _link(obj: griffe.Object, role: re.Match[str]) -> str:
    """A link to what a role names, which stays plain where the site does not show it."""
    short, name = role.groups()
    shown = name.rpartition(".")[2] if short else name
    return f'<autoref identifier="{_resolve(obj, name)}" optional><code>{shown}</code></autoref>'


def _resolve(obj: griffe.Object, name: str) -> str:
    """The full path of a name that is written inside the docstring of ``obj``."""
    first, dot, rest = name.partition(".")
    scope: griffe.Object | griffe.Alias | None = obj
    while scope is not None:
        if first in scope.members:
            member = scope.members[first]
            path = member.target_path if isinstance(member, griffe.Alias) else member.path
            return f"{path}{dot}{rest}"
        scope = scope.parent
    return name


def _fence(example: re.Match[str]) -> str:
    indent, body = example.groups()
    lines = body.rstrip().splitlines()
    language = "pycon" if ">>>" in body else "python"
    inner = indent + "    "
    return "\n".join((f"{indent}Example:", f"{inner}```{language}", *lines, f"{inner}```", "", ""))

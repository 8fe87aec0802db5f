"""The conformance kit: what every plugin must do, checked on the plugin itself.

A plugin's own tests turn it on in three lines:

    from ffplug.testing import PluginConformance

    class TestPlugin(PluginConformance):
        package = "ffplug_mymethod"

and ``ffplug check`` prints the same checks of all installed plugins as a table. What a check finds reads as advice:
where, what is wrong, what to do. The checks are in :mod:`ffplug.testing.checks`; they rely on

- ``Example:`` in the docstring of a registered type: an indented ``dict(type="PACKAGE.Type", ...)``, its minimal
  config. A type without one must build from its name alone;
- ``example_batch(batch_size)`` of a model: what a data loader would give it, small and seeded;
- ``write_example(folder)`` of a data set's class: a small procedural set in its layout;
- ``FIELDS`` of a sample's class: what its tensors promise (:class:`ffplug.structures.Field`);
- ``example(make)`` of an op: small arguments, with odd sizes.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar

from ffplug.plugin import find
from ffplug.testing.checks import CHECKS, Check
from ffplug.testing.subject import Finding, LeftOut, Subject

if TYPE_CHECKING:
    import pytest


class PluginConformance:
    """Base of a plugin's conformance test; see the module's text.

    Attributes:
        package: the plugin's package.
        left_out: reasons by ``check`` or ``check[case]`` for what is not to be checked; each shows as a skip.
    """

    package: ClassVar[str]
    left_out: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def _subject(cls) -> Subject:
        return _subject_of(cls.package)

    @classmethod
    def pytest_generate_tests(cls, metafunc: pytest.Metafunc) -> None:
        """Give each check its cases."""
        subject = metafunc.cls._subject()
        if subject.plugin.error is not None:
            metafunc.parametrize("case", ["plugin"])
            return
        metafunc.parametrize("case", list(metafunc.function.check.cases(subject)))

    @classmethod
    def teardown_class(cls) -> None:
        """Let go of models and data."""
        cls._subject().close()
        _subject_of.cache_clear()

    def _run(self, check: Check, case: str) -> None:
        import pytest

        subject = self._subject()
        if subject.plugin.error is not None:
            pytest.fail(f"{self.package}: {subject.plugin.error}", pytrace=False)
        reason = self.left_out.get(check.name) or self.left_out.get(f"{check.name}[{case}]")
        if reason:
            pytest.skip(reason)
        try:
            check(subject, case)
        except LeftOut as reason:
            pytest.skip(str(reason))
        except Finding as finding:
            if finding.__cause__ is not None:
                raise
            pytest.fail(str(finding), pytrace=False)


@functools.cache
def _subject_of(package: str) -> Subject:
    return Subject(find(package), large=os.environ.get("FFPLUG_CHECK_LARGE") == "1")


def _test(check: Check) -> Callable[[PluginConformance, str], None]:
    def test(self: PluginConformance, case: str) -> None:
        self._run(check, case)

    test.__name__ = test.__qualname__ = f"test_{check.name}"
    test.__doc__ = check.promise
    test.check = check
    return test


for _check in CHECKS:
    setattr(PluginConformance, f"test_{_check.name}", _test(_check))

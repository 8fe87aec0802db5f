"""The op contract: one definition in PyTorch, and as many faster backends as a machine can run."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ffplug.errors import ConfigError, did_you_mean
from ffplug.registry import OPS

CHOICES = ("auto", "torch", "cpp", "cuda", "triton")


def requested_backend() -> str:
    """Return the backend that the environment variable ``FFPLUG_OPS`` asks for (``auto`` by default)."""
    choice = os.environ.get("FFPLUG_OPS", "auto")
    if choice not in CHOICES:
        raise ConfigError(f"FFPLUG_OPS={choice!r}: expected one of {', '.join(CHOICES)}{did_you_mean(choice, CHOICES)}")
    return choice


class Op:
    """An operator: its PyTorch reference is its definition, other backends must give the same numbers.

    A subclass implements :meth:`reference` and may add backends; calling the op runs the fastest backend that can
    take the arguments, or the one that ``FFPLUG_OPS`` asks for.
    """

    name: str

    def reference(self, *args: Any, **kwargs: Any) -> Tensor:
        """The definition, in PyTorch operations with their own gradients."""
        raise NotImplementedError

    def backends(self) -> dict[str, Callable[..., Tensor]]:
        """Backends that run on this machine, fastest first; the reference comes last and is always there."""
        return {"torch": self.reference}

    def missing(self) -> dict[str, str]:
        """Backends that do not run on this machine, each with the reason."""
        return {}

    def supports(self, backend: str, *args: Any, **kwargs: Any) -> bool:
        """Whether ``backend`` can take these arguments (device, dtype, size)."""
        return True

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Run the op on the backend that is chosen; arguments and result are those of :meth:`reference`."""
        available = self.backends()
        choice = requested_backend()
        candidates = available if choice == "auto" else [choice] if choice in available else []
        for backend in candidates:
            if self.supports(backend, *args, **kwargs):
                return available[backend](*args, **kwargs)
        return self.reference(*args, **kwargs)


def register_op(cls: type[Op]) -> type[Op]:
    """Class decorator: put an op into :data:`ffplug.registry.OPS` under its ``name``."""
    OPS.register_module(name=cls.name, module=cls)
    return cls

"""Randomness that depends on the sample alone, so that a run can be cut, resumed and spread over workers exactly.

The sampler numbers its stream of samples: the *draw* is the position in the whole run. Everything random about a
sample follows from (seed, draw), never from the worker, the rank or what was loaded before:

    def __getitem__(self, index):
        with index_rng(index):          # does nothing for a plain int
            return self.load_and_augment(index)
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch


class SeededIndex(int):
    """A dataset index that knows its place in the sample stream.

    It is an int wherever one is wanted. Adding, subtracting and modulo keep ``draw`` and ``seed``, for that is how
    dataset wrappers (concatenation, repetition) turn an index into that of the dataset they wrap.

    Args:
        value: Index in the dataset, >= 0.
        draw: Position of the sample in the stream of the whole run, the same on every rank, >= 0.
        seed: Seed of the stream.
    """

    draw: int
    seed: int

    def __new__(cls, value: int, draw: int, seed: int = 0) -> SeededIndex:  # noqa: D102 (see the class)
        self = super().__new__(cls, value)
        self.draw = int(draw)
        self.seed = int(seed)
        return self

    def __getnewargs__(self) -> tuple[int, int, int]:
        return int(self), self.draw, self.seed

    def __add__(self, other: int) -> SeededIndex:
        return SeededIndex(int(self) + int(other), self.draw, self.seed)

    __radd__ = __add__

    def __sub__(self, other: int) -> SeededIndex:
        return SeededIndex(int(self) - int(other), self.draw, self.seed)

    def __mod__(self, other: int) -> SeededIndex:
        return SeededIndex(int(self) % int(other), self.draw, self.seed)


def derive_seed(*parts: int | str) -> int:
    """Mix integers and names into one seed in [0, 2^63), the same on every machine, process and Python version.

    Args:
        parts: For example ``(seed, "iteration", 1200, rank)``; each order and each type gives another seed.
    """
    text = "\x1f".join(f"{'s' if isinstance(part, str) else 'i'}{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (every device) with a 63-bit seed."""
    random.seed(seed)
    np.random.seed([seed & 0xFFFFFFFF, seed >> 32])
    torch.manual_seed(seed)


@contextmanager
def sample_rng(seed: int, draw: int) -> Iterator[None]:
    """Seed the CPU generators of Python, NumPy and torch from (seed, draw), and restore their states afterwards.

    Generators on accelerators are left alone: samples are made on the CPU.

    Args:
        seed: Seed of the run.
        draw: Position of the sample in the stream.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    derived = derive_seed(seed, "sample", draw)
    random.seed(derived)
    np.random.seed([derived & 0xFFFFFFFF, derived >> 32])
    torch.default_generator.manual_seed(derived)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def index_rng(index: int) -> Any:
    """Return :func:`sample_rng` for a :class:`SeededIndex`, and a context that does nothing for any other index."""
    return sample_rng(index.seed, index.draw) if isinstance(index, SeededIndex) else nullcontext()

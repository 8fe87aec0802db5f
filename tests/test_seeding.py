"""The numbered sample stream: the same samples for any number of workers, any number of ranks and any start."""

from __future__ import annotations

import itertools
import pickle
import random

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from ffplug.datasets.samplers import FlowSampler
from ffplug.datasets.seeding import SeededIndex, derive_seed, index_rng, sample_rng, seed_everything
from ffplug.errors import ConfigError


class Numbers(Dataset):
    """Gives (name, index, draw, a random number of each generator)."""

    def __init__(self, length: int, name: int = 0) -> None:
        self.length, self.name = length, name

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple:
        with index_rng(index):
            noise = (random.random(), float(np.random.rand()), float(torch.rand(())))
        return self.name, int(index), getattr(index, "draw", None), *noise


def collate(batch: list) -> list:
    return batch


def stream(dataset: Dataset, count: int, workers: int = 0, start: int = 0, rank: int = 0, world: int = 1) -> list:
    sampler = FlowSampler(dataset, seed=5)
    sampler.rank, sampler.world_size = rank, world
    sampler.set_start(start)
    loader = DataLoader(dataset, batch_size=2, sampler=sampler, num_workers=workers, collate_fn=collate)
    return list(itertools.islice(itertools.chain.from_iterable(loader), count))


def test_index_is_an_int_that_keeps_its_draw():
    index = SeededIndex(17, draw=123, seed=9)
    for value, derived in ((17, index), (10, index - 7), (2, index % 5), (20, index + 3), (27, 10 + index)):
        assert derived == value and isinstance(derived, SeededIndex)
        assert (derived.draw, derived.seed) == (123, 9)
    copied = pickle.loads(pickle.dumps(index))
    assert (copied, copied.draw, copied.seed) == (17, 123, 9)
    assert list(range(30))[index] == 17


def test_index_survives_dataset_wrappers():
    joined = ConcatDataset([Numbers(4, name=1), Numbers(15, name=2)])
    sampler = FlowSampler(joined, seed=1)
    for index in itertools.islice(sampler, 40):
        name, _, draw, *_ = joined[index]
        assert draw == index.draw
        assert name == (1 if index < 4 else 2)


def test_derived_seeds_are_stable_and_distinct():
    assert derive_seed(0, "sample", 1) == 6324878691772858354
    seeds = {derive_seed(seed, kind, i) for seed in range(5) for kind in ("sample", "order") for i in range(200)}
    assert len(seeds) == 2000
    assert derive_seed(1, 23) != derive_seed(12, 3)
    assert derive_seed("1") != derive_seed(1)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_sample_rng_decides_and_restores_every_generator():
    seed_everything(derive_seed(4))
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    draws = []
    for draw in (3, 4, 3):
        with sample_rng(1, draw):
            draws.append((random.random(), np.random.rand(), torch.rand(()).item()))
    assert draws[0] == draws[2]
    assert not set(draws[0]) & set(draws[1])
    with pytest.raises(ValueError, match="inside"), sample_rng(1, 1):
        raise ValueError("inside")
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])


def test_stream_is_independent_of_workers():
    expected = stream(Numbers(7), 20)
    assert stream(Numbers(7), 20, workers=2) == expected
    assert len({sample[3:] for sample in expected}) == 20


def test_stream_can_start_anywhere():
    expected = stream(Numbers(7), 30)
    for start in (2, 7, 16):
        assert stream(Numbers(7), 10, start=start) == expected[start : start + 10]


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_one_stream(world: int):
    expected = stream(Numbers(7), 30)
    for rank in range(world):
        assert stream(Numbers(7), 10, rank=rank, world=world) == expected[rank::world][:10]


def test_every_pass_visits_everything_in_another_order():
    indices = [sample[1] for sample in stream(Numbers(50), 150)]
    passes = [indices[start : start + 50] for start in (0, 50, 100)]
    assert all(sorted(one) == list(range(50)) for one in passes)
    assert passes[0] != passes[1] != passes[2]
    other = list(itertools.islice(FlowSampler(Numbers(50), seed=6), 50))
    assert other != passes[0]


@pytest.mark.parametrize(("length", "world"), [(5, 2), (4, 2), (2, 3), (7, 1)])
def test_one_pass_gives_each_rank_as_many(length: int, world: int):
    parts = []
    for rank in range(world):
        sampler = FlowSampler(Numbers(length), shuffle=False, infinite=False, seed=0)
        sampler.rank, sampler.world_size = rank, world
        parts.append([int(index) for index in sampler])
        assert len(parts[-1]) == len(sampler) == -(-length // world)
    interleaved = [index for row in zip(*parts, strict=True) for index in row]
    assert interleaved[:length] == list(range(length))  # how results are collected: the surplus is cut


def test_epochs_of_a_finite_sampler_differ():
    sampler = FlowSampler(Numbers(20), infinite=False, seed=0)
    orders = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        orders.append([int(index) for index in sampler])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(20))
    assert orders[0] != orders[1]


def test_empty_dataset_is_refused():
    with pytest.raises(ConfigError, match="Numbers has no samples"):
        FlowSampler(Numbers(0))

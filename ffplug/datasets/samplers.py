"""The sampler that makes training resumable: a numbered stream of samples that can start anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import numpy as np
from mmengine.dist import get_dist_info, sync_random_seed
from torch.utils.data import Sampler

from ffplug.datasets.seeding import SeededIndex, derive_seed
from ffplug.errors import ConfigError
from ffplug.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class FlowSampler(Sampler[int]):
    """One stream of samples for all ranks, shuffled anew in every pass; rank r takes positions r, r + world, ...

    The union of the ranks' batches at an iteration is therefore what a single process with the same global batch
    takes. Each index is a :class:`~ffplug.datasets.seeding.SeededIndex` that carries its position in the stream.

    Args:
        dataset: Anything with a length > 0.
        shuffle: Whether to visit each pass in an order drawn from the seed and the number of the pass.
        infinite: Whether to go on for ever (training by iterations) or to stop after one pass (testing).
        seed: Seed of the order and of the samples; None draws one that all ranks share.
        round_up: Whether a single pass is filled up with its first samples until every rank has the same number,
            which collecting results over ranks asks for. The surplus is cut there.

    Raises:
        ConfigError: The dataset is empty.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        infinite: bool = True,
        seed: int | None = None,
        round_up: bool = True,
    ) -> None:
        if len(dataset) == 0:
            raise ConfigError(f"{type(dataset).__name__} has no samples to draw from: check its data_root and split")
        self.rank, self.world_size = get_dist_info()
        self.length = len(dataset)
        self.shuffle = shuffle
        self.infinite = infinite
        self.seed = sync_random_seed() if seed is None else int(seed)
        self.round_up = round_up
        self.start = 0
        self._order: tuple[tuple[int, int], np.ndarray] | None = None

    def set_start(self, draw: int) -> None:
        """Let the next iteration begin at this position of the stream (counted over all ranks)."""
        self.start = int(draw)

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be this pass; an infinite stream runs through its passes by itself."""
        if not self.infinite:
            self.start = epoch * self.length

    def index(self, draw: int) -> SeededIndex:
        """Return the sample at a position of the stream."""
        epoch, offset = divmod(draw, self.length)
        if self.shuffle:
            key = (self.seed, epoch)
            if self._order is None or self._order[0] != key:
                order = np.random.default_rng(derive_seed(self.seed, "order", epoch)).permutation(self.length)
                self._order = (key, order)
            offset = int(self._order[1][offset])
        return SeededIndex(offset, draw, self.seed)

    def __iter__(self) -> Iterator[SeededIndex]:
        if self.infinite:
            draw = self.start + self.rank
            while True:
                yield self.index(draw)
                draw += self.world_size
        for position in range(self.rank, self._total(), self.world_size):
            yield self.index(self.start + position % self.length)

    def _total(self) -> int:
        if not self.round_up:
            return self.length
        return -(-self.length // self.world_size) * self.world_size

    def __len__(self) -> int:
        return len(range(self.rank, self._total(), self.world_size))

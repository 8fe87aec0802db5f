"""What several tests of the plugin start from."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def open_head_states() -> tuple[np.ndarray, ...]:
    """Identity, two expressions, two poses and a translation: the states of ``golden/open_head.npz``."""
    rng = [np.random.RandomState(50 + k) for k in range(6)]
    shape, first, second = rng[0].randn(60), rng[1].uniform(0, 0.4, 52), rng[2].uniform(0, 0.4, 52)
    pose = 0.15 * rng[3].randn(15)
    return shape, first, second, pose, pose + 0.06 * rng[4].randn(15), 0.01 * rng[5].randn(3)

"""Warping against the published pipeline's figures, and against what can be worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ffplug_stss.warping import (
    compose,
    corner_values,
    distance,
    from_engine,
    inside,
    occlusion_motion,
    same_depth,
    same_surface,
    warp,
)

from ffplug.errors import ConfigError
from ffplug.testing.golden import image

GOLDEN = Path(__file__).parent / "golden" / "stss" / "warp.npz"


def blocks(seed, channels, low, high, size=8):
    array = image(seed, (48 // size, 64 // size, channels), low, high)
    return torch.from_numpy(np.kron(array, np.ones((size, size, 1), np.float32))).permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def published():
    return {
        name: torch.from_numpy(array if array.ndim == 3 else array[..., None]).permute(2, 0, 1)[None].float()
        for name, array in np.load(GOLDEN).items()
    }


@pytest.fixture(scope="module")
def motions():
    """Oldest first."""
    return [from_engine(blocks(700 + number, 2, -3, 3)) for number in range(3)]


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_published_composition(published, motions):
    close(from_engine(compose(motions[::-1], "published")), published["composed_mv"][:, :2])


def test_published_warp(published, motions):
    close(warp(blocks(710, 3, 0, 1, 4), motions[2]), published["warp_no_hole"])


def test_published_distance(published, motions):
    before = blocks(712, 3, -60, 60)
    close(distance(before + blocks(713, 3, -30, 30), before, motions[2]), published["world_dist"])


def test_published_occlusion_motion(published, motions):
    found = occlusion_motion(motions[2], blocks(711, 1, 0.1, 1))
    close(from_engine(found), published["occ_mv"][:, :2])
    again = occlusion_motion(motions[2], blocks(711, 1, 0.1, 1))
    assert torch.equal(found, again)


def test_exact_composition_follows_a_pixel():
    """A vector field that is linear in place: the path of a pixel is a formula."""
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    motion = torch.stack([0.02 * (x - 15) + 0.5, 0.03 * (y - 10) - 0.25])[None]
    at_x, at_y = x.clone(), y.clone()
    for _ in range(3):
        at_x, at_y = at_x + 0.02 * (at_x - 15) + 0.5, at_y + 0.03 * (at_y - 10) - 0.25
    found = compose([motion] * 3)
    kept = (inside(motion) & inside(compose([motion] * 2)) & inside(found))[0, 0]
    assert kept.float().mean() > 0.7
    torch.testing.assert_close(found[0, 0][kept], (at_x - x)[kept], rtol=0, atol=1e-4)
    torch.testing.assert_close(found[0, 1][kept], (at_y - y)[kept], rtol=0, atol=1e-4)


def test_places_outside_and_edges_of_objects():
    motion = torch.zeros(1, 2, 6, 8)
    motion[:, 0, :, 0] = -0.5
    motion[:, 0, :, 4] = 0.5
    assert inside(motion)[0, 0].sum() == 6 * 7
    label = torch.zeros(1, 1, 6, 8, dtype=torch.int64)
    label[..., 5:] = 1
    same = same_surface(label, label, motion)[0, 0]
    assert not same[:, 4].any() and not same[:, 4].any() and same[:, 2].all() and same[:, 6].all()
    earlier = 0.1 + label.float()
    near = same_depth(torch.full_like(earlier, 0.102), earlier, motion, 0.05)[0, 0]
    assert near[:, :5].all() and not near[:, 5:].any()
    assert warp(torch.ones(1, 1, 6, 8), motion)[0, 0, 0].tolist()[:2] == [-1.0, 1.0]


def test_the_nearer_of_two_covers():
    """Two pixels land on one place: the nearer one's motion is found there."""
    motion, depth = torch.zeros(1, 2, 3, 9), torch.full((1, 1, 3, 9), 0.9)
    motion[0, 0, 1, 6], depth[0, 0, 1, 6] = -3, 0.2
    found = occlusion_motion(motion, depth)
    assert found[0, :, 1, 3].tolist() == [-3, 0]
    assert found[0, :, 1, 5].tolist() == [0, 0]


def test_four_corners():
    values = torch.arange(12.0).view(1, 1, 3, 4)
    motion = torch.full((1, 2, 3, 4), 0.5)
    corners = [corner[0, 0, 1, 1].item() for corner in corner_values(values, motion)]
    assert corners == [5, 6, 9, 10]
    assert [corner[0, 0, 2, 3].item() for corner in corner_values(values, motion, outside=-7)] == [11, -7, -7, -7]


def test_an_unknown_rule_is_refused():
    with pytest.raises(ConfigError, match="'exact', 'published'"):
        compose([torch.zeros(1, 2, 4, 4)], "newest")

"""The ops on every backend of this machine against their definitions, and what they refuse."""

import pytest
import torch
from ffplug_stss.ops import SplatMotion, WarpPack, splat_motion, warp_pack

from ffplug.testing.ops import OpConformance


def frames(make, size, steps, labels=True, batch=1, **options):
    """Arguments of warp_pack: a history and what leads to it."""
    shape = (batch, 1, *size)
    surfaces = [make.integers(*shape, high=2) if labels else make.uniform(*shape) for _ in range(len(steps) + 1)]
    return dict(
        images=[make.uniform(batch, 3, *size) for _ in steps],
        depths=[] if labels else surfaces[1:],
        labels=surfaces[1:] if labels else [],
        motions=[make(batch, 2, *size, scale=1.5) for _ in range(steps[-1])],
        feature=make.uniform(batch, 9, *size),
        label=surfaces[0] if labels else None,
        steps=steps,
        **options,
    )


def prepared(*args, **options):
    return lambda make: warp_pack.prepare(**frames(make, *args, **options))


class TestWarpPack(OpConformance):
    op = WarpPack()
    cases = {
        "shaded, by depth": prepared((8, 16), [0, 2, 4], labels=False, tolerance=0.6),
        "two frames, border repeated": lambda make: warp_pack.prepare(
            **frames(make, (9, 5), [1, 3, 5], batch=2, repeat=True, multiple=4), fetch=make(2, 2, 9, 5, scale=3)
        ),
        "motions that are whole": prepared((3, 6), [1, 2], chained=False),
        "one pixel": prepared((1, 1), [1]),
        "nothing": prepared((8, 8), [1], batch=0),
    }


class TestSplatMotion(OpConformance):
    op = SplatMotion()
    cases = {
        "flat": lambda make: splat_motion.prepare(make(1, 2, 1, 40, scale=3), make.uniform(1, 1, 1, 40)),
        "all equally near": lambda make: splat_motion.prepare(make(1, 2, 9, 9, scale=4), make.uniform(1, 1, 9, 9) * 0),
        "far": lambda make: splat_motion.prepare(make(1, 2, 3, 3), 10 + make.uniform(1, 1, 3, 3)),
        "behind": lambda make: splat_motion.prepare(make(1, 2, 6, 5), make(1, 1, 6, 5)),
        "nothing": lambda make: splat_motion.prepare(make(0, 2, 4, 4), make(0, 1, 4, 4)),
    }


def test_what_is_not_finite_is_a_hole():
    """Vectors that nobody has checked must not be turned into places."""
    for value in (float("nan"), float("inf"), -1e30):
        motion = torch.full((1, 2, 4, 8), value)
        image, depth, feature = (torch.ones(1, channels, 4, 8) for channels in (3, 1, 9))
        packed = warp_pack([image], [depth], [], [motion], feature, steps=[1])
        assert packed[0, 15].max() == 0
        splat_motion(motion, torch.zeros(1, 1, 4, 8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(images=[]), "0 images"),
        (dict(steps=[2, 1]), r"steps \[2, 1\]: expected one for each of 2 images, rising"),
        (dict(labels=[]), "0 labels: expected labels of the present and of all 2 images"),
        (dict(feature=torch.zeros(1, 8, 4, 4)), r"feature \(1, 8, 4, 4\): expected N×9×H×W"),
        (dict(fetch=torch.zeros(1, 2, 4, 5)), r"\(1, 2, 4, 5\): expected \(1, 2, 4, 4\)"),
        (dict(multiple=0), "multiple 0"),
    ],
)
def test_wrong_arguments(changes, message):
    image, one = torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    good = dict(
        images=[image, image],
        depths=[],
        labels=[one, one],
        motions=[torch.zeros(1, 2, 4, 4)] * 3,
        feature=torch.zeros(1, 9, 4, 4),
        label=one,
        steps=[1, 3],
    )
    warp_pack(**good)
    with pytest.raises(ValueError, match=message):
        warp_pack(**{**good, **changes})
    with pytest.raises(ValueError, match="expected N×2×H×W and N×1×H×W"):
        splat_motion(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 5))

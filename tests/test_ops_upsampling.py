"""Conformance of the upsampling ops."""

from ffplug.ops import convex_upsample
from ffplug.testing.ops import OpConformance


class TestConvexUpsample(OpConformance):
    op = convex_upsample
    cases = {
        "wide": lambda make: (make(1, 2, 4, 6), make(1, 576, 4, 6, scale=4), 8),
        "one_cell": lambda make: (make(1, 2, 1, 1), make(1, 36, 1, 1), 2),
        "empty": lambda make: (make(0, 2, 4, 5), make(0, 36, 4, 5), 2),
    }

"""SKFlow (NeurIPS 2022), one head, attention on content: 6,273,149 parameters.

The published count holds two relative position tables that this variant never reads; they are not built here.
"""

from mmengine.config import read_base

with read_base():
    from .raft_large import *

model.update(
    dict(
        update=dict(
            type="ffplug.SKUpdate", cost_channels=324, kernel_sizes=(1, 15), update_kernel_sizes=(1, 7), heads=1
        ),
        test_iterations=15,
    )
)

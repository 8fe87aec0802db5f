"""GMA (ICCV 2021): RAFT with global motion aggregation, one head, attention on content: 5,879,873 parameters.

The published count holds two relative position tables that this variant never reads; they are not built here.
"""

from mmengine.config import read_base

with read_base():
    from .raft_large import *

model.update(dict(update=dict(type="ffplug.GMAUpdate", cost_channels=324, heads=1, content=True, position=False)))

"""How any flow data set becomes compressed video while it is read.

Training encodes each pair behind the augmentation, at a quality of its own; validation at CRF 23.
"""

_encode = [
    dict(type="ffplug_mvflow.EncodePair", quality=(18, 38), presets=("veryfast", "medium")),
    dict(type="ffplug_mvflow.DropMotionVectors"),
    dict(type="ffplug_mvflow.PackMotionInputs"),
]
_validate = [
    dict(type="ffplug.LoadFlowPair"),
    dict(type="ffplug_mvflow.EncodePair", quality=(23, 23), presets=("medium",)),
    dict(type="ffplug_mvflow.PackMotionInputs"),
]

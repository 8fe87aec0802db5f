"""The network and its parts."""

from ffplug_stss.models.network import STSSNet
from ffplug_stss.models.reshading import EfficientReshading
from ffplug_stss.models.stss import STSS, SupersampleDataPreprocessor

__all__ = ["STSS", "EfficientReshading", "STSSNet", "SupersampleDataPreprocessor"]

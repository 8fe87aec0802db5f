"""The networks and the model round them."""

from ffplug_ugsp.models.ifrnet import IFRNet
from ffplug_ugsp.models.interpolator import FrameInterpolator, FramePairPreprocessor, InterpolationNetwork
from ffplug_ugsp.models.rife import IFNet
from ffplug_ugsp.models.ugsp import UGSPNet
from ffplug_ugsp.models.uncertainty import UncertaintyNet

__all__ = [
    "FrameInterpolator",
    "FramePairPreprocessor",
    "IFNet",
    "IFRNet",
    "InterpolationNetwork",
    "UGSPNet",
    "UncertaintyNet",
]

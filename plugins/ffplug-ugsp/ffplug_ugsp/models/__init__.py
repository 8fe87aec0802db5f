"""The networks and the model round them."""

from ffplug_ugsp.models.ifrnet import IFRNet
from ffplug_ugsp.models.interpolator import FrameInterpolator, FramePairPreprocessor, InterpolationNetwork
from ffplug_ugsp.models.ugsp import UGSPNet

__all__ = ["FrameInterpolator", "FramePairPreprocessor", "IFRNet", "InterpolationNetwork", "UGSPNet"]

"""Videos with more frames."""

from ffplug_ugsp.video.encoding import Encoding
from ffplug_ugsp.video.interpolators import Interpolator, build_interpolator
from ffplug_ugsp.video.source import SourceVideo
from ffplug_ugsp.video.timeline import Timeline
from ffplug_ugsp.video.work import InterpolationWork, interpolate_video

__all__ = [
    "Encoding",
    "InterpolationWork",
    "Interpolator",
    "SourceVideo",
    "Timeline",
    "build_interpolator",
    "interpolate_video",
]

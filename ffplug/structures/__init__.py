"""What a sample is."""

from ffplug.structures.fields import Field, broken_promises
from ffplug.structures.flow_sample import FlowDataSample, shown_name
from ffplug.structures.frame_sample import FrameDataSample

__all__ = ["Field", "FlowDataSample", "FrameDataSample", "broken_promises", "shown_name"]

"""What a sample is."""

from ffplug.structures.flow_sample import FlowDataSample, shown_name

__all__ = ["FlowDataSample", "shown_name"]

"""What a sample is."""

from ffplug.structures.fields import Field, broken_promises
from ffplug.structures.flow_sample import FlowDataSample, shown_name

__all__ = ["Field", "FlowDataSample", "broken_promises", "shown_name"]

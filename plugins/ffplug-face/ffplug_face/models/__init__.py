"""Head models with one interface."""

from ffplug_face.models.flame import FLAMEHead
from ffplug_face.models.head import HeadData, HeadModel
from ffplug_face.models.open_head import OpenHead
from ffplug_face.models.procedural import ProceduralHead

__all__ = ["FLAMEHead", "HeadData", "HeadModel", "OpenHead", "ProceduralHead"]

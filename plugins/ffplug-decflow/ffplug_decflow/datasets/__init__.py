"""FacialFlowNet: its reader, its transforms, and the generator of sets in its layout."""

from ffplug_decflow.datasets.facial_flow_net import FacialFlowNetDataset
from ffplug_decflow.datasets.layout import FacialFlowNetLayout
from ffplug_decflow.datasets.transforms import LoadFaceFlow, PackFaceInputs

__all__ = ["FacialFlowNetDataset", "FacialFlowNetLayout", "LoadFaceFlow", "PackFaceInputs"]

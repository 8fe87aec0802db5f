"""The recurrent flow estimator, its parts, RAFT and GMA, losses and preprocessing."""

from ffplug.models.cost import AllPairsCorrelation
from ffplug.models.data_preprocessor import FlowDataPreprocessor
from ffplug.models.encoders import ResidualEncoder
from ffplug.models.estimator import RecurrentFlowEstimator
from ffplug.models.losses import SequenceLoss
from ffplug.models.parts import (
    Cost,
    DecoderState,
    Encoded,
    FlowLoss,
    FrameEncoder,
    Policy,
    Prior,
    Start,
    Step,
    Update,
    Upsampler,
)
from ffplug.models.super_kernel import SKUpdate
from ffplug.models.tiling import TiledFlowInference
from ffplug.models.update import GMAUpdate, RAFTUpdate
from ffplug.models.upsampling import BilinearUpsampler, ConvexUpsampler

__all__ = [
    "AllPairsCorrelation",
    "BilinearUpsampler",
    "ConvexUpsampler",
    "Cost",
    "DecoderState",
    "Encoded",
    "FlowDataPreprocessor",
    "FlowLoss",
    "FrameEncoder",
    "GMAUpdate",
    "Policy",
    "Prior",
    "RAFTUpdate",
    "RecurrentFlowEstimator",
    "ResidualEncoder",
    "SKUpdate",
    "SequenceLoss",
    "Start",
    "Step",
    "TiledFlowInference",
    "Update",
    "Upsampler",
]

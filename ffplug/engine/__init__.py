"""Training: loops, hooks and optimiser wrappers."""

from ffplug.engine.checkpoint_hook import CheckpointHook, find_resumable, publish
from ffplug.engine.ema_hook import EMAHook
from ffplug.engine.loops import IterBasedTrainLoop
from ffplug.engine.nan_guard import NaNGuardHook
from ffplug.engine.optim import AmpOptimWrapper
from ffplug.engine.progress_hook import ProgressHook
from ffplug.engine.report_hook import ReportHook
from ffplug.engine.strategies import DeepSpeedStrategy, FSDPStrategy
from ffplug.engine.visualization_hook import FlowVisualizationHook

__all__ = [
    "AmpOptimWrapper",
    "CheckpointHook",
    "DeepSpeedStrategy",
    "EMAHook",
    "FSDPStrategy",
    "FlowVisualizationHook",
    "IterBasedTrainLoop",
    "NaNGuardHook",
    "ProgressHook",
    "ReportHook",
    "find_resumable",
    "publish",
]

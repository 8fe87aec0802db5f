"""Figures of flow and of produced frames: exact definitions and the metrics of a run."""

from ffplug.evaluation.flow_metrics import (
    FlowMetric,
    PairRecord,
    format_figure,
    measure_pair,
    read_metrics,
    summarise,
    write_metrics,
)
from ffplug.evaluation.flow_statistics import (
    PixelSums,
    add_sums,
    epe_map,
    figures,
    flow_array,
    flow_statistics,
    flow_sums,
    occlusion_boundary_distance,
)
from ffplug.evaluation.frame_metrics import (
    FrameMetric,
    FrameRecord,
    as_levels,
    lpips,
    psnr,
    squared_error,
    ssim,
    ssim_map,
)
from ffplug.evaluation.gathered import GatheredMetric

__all__ = [
    "FlowMetric",
    "FrameMetric",
    "FrameRecord",
    "GatheredMetric",
    "PairRecord",
    "PixelSums",
    "add_sums",
    "as_levels",
    "epe_map",
    "figures",
    "flow_array",
    "flow_statistics",
    "flow_sums",
    "format_figure",
    "lpips",
    "measure_pair",
    "occlusion_boundary_distance",
    "psnr",
    "read_metrics",
    "squared_error",
    "ssim",
    "ssim_map",
    "summarise",
    "write_metrics",
]

"""Figures of optical flow: exact definitions and the metric of a run."""

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

__all__ = [
    "FlowMetric",
    "PairRecord",
    "PixelSums",
    "add_sums",
    "epe_map",
    "figures",
    "flow_array",
    "flow_statistics",
    "flow_sums",
    "format_figure",
    "measure_pair",
    "occlusion_boundary_distance",
    "read_metrics",
    "summarise",
    "write_metrics",
]

"""Pictures, videos and reports of optical flow."""

from ffplug.visualization.colour import (
    colour_wheel,
    colour_wheel_legend,
    draw_arrows,
    error_map,
    flow_norm,
    flow_to_image,
)
from ffplug.visualization.film import write_video
from ffplug.visualization.flow_visualizer import FlowVisualizer, save_picture
from ffplug.visualization.panel import image_array, panel, text_image
from ffplug.visualization.report import write_report

__all__ = [
    "FlowVisualizer",
    "colour_wheel",
    "colour_wheel_legend",
    "draw_arrows",
    "error_map",
    "flow_norm",
    "flow_to_image",
    "image_array",
    "panel",
    "save_picture",
    "text_image",
    "write_report",
    "write_video",
]

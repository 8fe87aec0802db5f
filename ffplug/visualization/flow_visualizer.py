"""MMEngine's visualizer for optical flow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.dist import is_main_process
from mmengine.visualization import LocalVisBackend, Visualizer

from ffplug.errors import DataError
from ffplug.registry import VISUALIZERS
from ffplug.structures import FlowDataSample
from ffplug.visualization.panel import image_array, panel


@VISUALIZERS.register_module()
class FlowVisualizer(Visualizer):
    """Draws flow samples as captioned panels, to files and to the back-ends (TensorBoard and others).

    Args:
        name: of the instance, as MMEngine's managers need it.
        tile_width: width of each picture of a panel in pixels.
        arrows: draw the flow as arrows on frame 1.
        kwargs: MMEngine's: ``vis_backends``, ``save_dir``...

    Example:
        dict(type="ffplug.FlowVisualizer", name="visualizer")
    """

    def __init__(self, name: str = "visualizer", tile_width: int = 440, arrows: bool = False, **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.tile_width = tile_width
        self.arrows = arrows

    def draw(
        self,
        images: Any,
        data_sample: FlowDataSample | None = None,
        *,
        draw_gt: bool = True,
        draw_pred: bool = True,
        title: str | None = None,
    ) -> np.ndarray:
        """Return the panel of a sample, H×W×3 uint8 RGB.

        Args:
            images: both frames, tensor 2×3×H×W or a pair of arrays H×W×3; or frame 1 alone as an array.
            data_sample: ground truth and prediction.
            draw_gt: show the true flow, where there is one.
            draw_pred: show the prediction, where there is one.
            title: default the sample's id.
        """
        frames = [images] if isinstance(images, np.ndarray) and images.ndim == 3 else list(images)
        sample = data_sample if data_sample is not None else FlowDataSample()
        return panel(
            image_array(frames[0]),
            image_array(frames[1]) if len(frames) > 1 else None,
            sample.get("gt_flow") if draw_gt else None,
            sample.get("pred_flow") if draw_pred else None,
            sample.get("gt_valid"),
            title=title if title is not None else str(sample.get("sample_id") or ""),
            source=sample.source if sample.get("dataset") else "",
            tile_width=self.tile_width,
            arrows=self.arrows,
            further=_further_flows(sample, draw_gt, draw_pred),
        )

    def add_datasample(
        self,
        name: str,
        image: Any,
        data_sample: FlowDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | Path | None = None,
        step: int = 0,
        title: str | None = None,
    ) -> np.ndarray:
        """Draw a sample and record it; back-ends record what the first rank draws, files come from any rank.

        Args:
            name: its name in the back-ends.
            image: frames as in :meth:`draw`, likewise ``data_sample``, ``draw_gt``, ``draw_pred`` and ``title``.
            data_sample: ground truth and prediction.
            draw_gt: show the true flow.
            draw_pred: show the prediction.
            show: open a window.
            wait_time: seconds to show it; 0 waits for a key.
            out_file: PNG to write; the local back-end then does not write its own copy.
            step: iteration in the back-ends.
            title: first line of the panel.

        Returns:
            The panel, H×W×3 uint8 RGB.

        Raises:
            DataError: ``out_file`` cannot be written.
        """
        drawn = self.draw(image, data_sample, draw_gt=draw_gt, draw_pred=draw_pred, title=title)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            save_picture(drawn, out_file)
        for backend in self._vis_backends.values() if is_main_process() else ():
            if out_file is None or not isinstance(backend, LocalVisBackend):
                backend.add_image(name, drawn, step)
        return drawn


def _further_flows(sample: FlowDataSample, draw_gt: bool, draw_pred: bool) -> dict[str, tuple[Any, Any]]:
    """Flows of a sample besides its main one, as a face's head flow, by what they are called: truth and prediction."""
    kinds = ("gt_", draw_gt), ("pred_", draw_pred)
    keys = {key.removeprefix(kind) for key in sample.keys() for kind, _ in kinds if key.startswith(kind)}  # noqa: SIM118
    names = sorted(name for name in keys if name.endswith("_flow"))
    flows = {name: tuple(sample.get(kind + name) if drawn else None for kind, drawn in kinds) for name in names}
    return {name.replace("_", " "): pair for name, pair in flows.items() if any(flow is not None for flow in pair)}


def save_picture(picture: np.ndarray, path: str | Path) -> None:
    """Write an H×W×3 uint8 RGB picture; its folder is made.

    Raises:
        DataError: it cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise DataError(f"{path}: the picture could not be written")

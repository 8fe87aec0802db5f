"""Classical flow methods behind the interface of FFPlug's flow models, as baselines that need no weights."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ffplug.errors import PluginError
from ffplug_face.registry import MODELS


class _ClassicalFlow(nn.Module):
    """A method of OpenCV on grey frames."""

    def _flow(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Flow H×W×2 of two H×W uint8 frames."""
        raise NotImplementedError

    def predict_flow(self, image1: Tensor, image2: Tensor) -> dict[str, Tensor]:
        """Flow between frames.

        Args:
            image1: frame 1, N×3×H×W, RGB in 0..255.
            image2: frame 2, as ``image1``.

        Returns:
            ``flow``, N×2×H×W float32 in pixels.
        """
        pairs = zip(self._grey(image1), self._grey(image2), strict=True)
        flows = np.stack([self._flow(first, second) for first, second in pairs])
        return {"flow": torch.from_numpy(flows).permute(0, 3, 1, 2).to(image1.device)}

    @staticmethod
    def _grey(image: Tensor) -> list[np.ndarray]:
        frames = image.round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
        return [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in frames]


@MODELS.register_module()
class FarnebackFlow(_ClassicalFlow):
    """Farneback's polynomial expansion (SCIA 2003), of OpenCV.

    Args:
        levels: of the pyramid.
        window: side of the averaging window, pixels.
        iterations: at each level.

    Example:
        dict(type="ffplug_face.FarnebackFlow", window=21)
    """

    def __init__(self, levels: int = 3, window: int = 15, iterations: int = 3) -> None:
        super().__init__()
        self.options: dict[str, Any] = {"levels": levels, "winsize": window, "iterations": iterations}

    def _flow(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return cv2.calcOpticalFlowFarneback(
            first, second, None, pyr_scale=0.5, poly_n=5, poly_sigma=1.2, flags=0, **self.options
        )


@MODELS.register_module()
class TVL1Flow(_ClassicalFlow):
    """TV-L1 (Zach et al., DAGM 2007), of OpenCV's contributed modules: what most publications on micro-expressions use.

    Raises:
        PluginError: when flow is asked for, and the installed OpenCV lacks it.

    Example:
        dict(type="ffplug_face.TVL1Flow")
    """

    def _flow(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        if not hasattr(cv2, "optflow"):
            raise PluginError(
                "TVL1Flow needs OpenCV's contributed modules: pip uninstall opencv-python-headless, then "
                "pip install opencv-contrib-python-headless"
            )
        return cv2.optflow.DualTVL1OpticalFlow_create().calc(first, second, None)

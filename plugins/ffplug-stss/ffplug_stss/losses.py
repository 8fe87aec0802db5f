"""Terms of the training loss."""

from __future__ import annotations

from torch import Tensor, nn

from ffplug_stss.models.network import enlarge
from ffplug_stss.registry import MODELS


@MODELS.register_module()
class ReshadingLoss(nn.Module):
    """Mean absolute error, and once more inside of holes (section "Loss" of STSS, AAAI 2024).

    A pixel of the result is in a hole where the enlarged mask is exactly 0, so a hole of one pixel counts as none.

    Args:
        hole_weight: factor of the mean error inside of holes; 3 is what the published code computes (it sums over
            colours and divides by pixels).

    Example:
        dict(type="ffplug_stss.ReshadingLoss")
    """

    def __init__(self, hole_weight: float = 3.0) -> None:
        super().__init__()
        self.hole_weight = hole_weight

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Compare frames.

        Args:
            prediction: N×3×2H×2W.
            target: the same, true.
            mask: N×1×H×W, 1 = valid.

        Returns:
            ``loss_l1`` and ``loss_hole``; the latter is 0 where there is no hole.
        """
        error = (prediction - target).abs()
        hole = (enlarge(mask) == 0).to(error.dtype)
        inside = (error * hole).sum() / (3 * hole.sum()).clamp(min=1e-6)
        return {"loss_l1": error.mean(), "loss_hole": self.hole_weight * inside}

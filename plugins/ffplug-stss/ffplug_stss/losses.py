"""Terms of the training loss."""

from __future__ import annotations

from torch import Tensor, nn

from ffplug.errors import ConfigError
from ffplug.models.perceptual import LPIPS
from ffplug_stss.models.network import enlarge
from ffplug_stss.registry import MODELS

NORMS = ("l1", "l2", "log")
_LEAST = 1e-4


@MODELS.register_module()
class ReshadingLoss(nn.Module):
    """Mean error, and once more inside of holes (section "Loss" of STSS, AAAI 2024).

    A pixel of the result is in a hole where the enlarged mask is exactly 0, so a hole of one pixel counts as none.

    Args:
        hole_weight: factor of the mean error inside of holes; 3 is what the published code computes (it sums over
            colours and divides by pixels).
        norm: ``l1``, the absolute error, is published; ``l2`` is 20 times the squared one. A short training gains more
            by the latter: the absolute error is content with the enlarged frame wherever that is right more often than
            not. ``log`` is the logarithm of each sample's mean squared error, as in PSNR: a sample that is nearly right
            counts as much as one that is far off. Inside of holes it is the squared error as a share of that mean.

    Raises:
        ConfigError: there is no such norm.

    Example:
        dict(type="ffplug_stss.ReshadingLoss")
    """

    def __init__(self, hole_weight: float = 3.0, norm: str = "l1") -> None:
        super().__init__()
        if norm not in NORMS:
            raise ConfigError(f"norm={norm!r}: expected one of {', '.join(NORMS)}")
        self.hole_weight, self.norm = hole_weight, norm

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Compare frames.

        Args:
            prediction: N×3×2H×2W.
            target: the same, true.
            mask: N×1×H×W, 1 = valid.

        Returns:
            ``loss_l1`` (or ``loss_l2``, ``loss_log``) and ``loss_hole``; the latter is 0 where there is no hole.
        """
        error = prediction - target
        if self.norm == "log":
            error = error.square()
            level = error.mean(dim=(1, 2, 3), keepdim=True) + _LEAST
            whole, error = level.log().mean(), error / level.detach()
        else:
            error = error.abs() if self.norm == "l1" else 20 * error.square()
            whole = error.mean()
        hole = (enlarge(mask) == 0).to(error.dtype)
        inside = (error * hole).sum() / (3 * hole.sum()).clamp(min=1e-6)
        return {f"loss_{self.norm}": whole, "loss_hole": self.hole_weight * inside}


@MODELS.register_module()
class PerceptualLoss(nn.Module):
    """Distance of frames in the features of VGG-16, see :class:`ffplug.models.perceptual.LPIPS`.

    Its networks are frozen and lie in files that a user fetches (``ffplug weights pull vgg16_imagenet lpips_vgg``);
    checkpoints leave them out. It costs more than ten times the network itself.

    Args:
        weight: factor of the term.
        backbone: VGG-16 trained on ImageNet as torchvision has it: a path or the name of released weights.
        heads: the five linear heads of the LPIPS package, likewise.
        frames: how many of a batch's frames to compare, the first ones; None compares all.

    Raises:
        CheckpointError: a file is not on this machine, or of another network.
        ConfigError: no frames are left to compare.

    Example:
        dict(type="ffplug_stss.PerceptualLoss")
    """

    def __init__(
        self,
        weight: float = 0.01,
        backbone: str = "vgg16_imagenet",
        heads: str = "lpips_vgg",
        frames: int | None = None,
    ) -> None:
        super().__init__()
        if frames is not None and frames < 1:
            raise ConfigError(f"frames={frames}: expected at least 1, or None")
        self.weight = weight
        self.frames = frames
        self.distance = LPIPS("vgg", backbone, heads)

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Compare frames as :class:`ReshadingLoss` does; gives ``loss_perceptual``."""
        distance = self.distance(prediction[: self.frames], target[: self.frames])
        return {"loss_perceptual": self.weight * distance.mean()}

"""The terms that SRFlowNet (arXiv 2601.06479) adds to the training loss: mask, gradient, total variation, difference.

The paper's abstract names the four terms and the two gradients, by finite difference and by Sobel. Their formulas,
weights and use over the iterations are not public: what stands here is our reading, and each choice is an argument.
All is computed in float32, under autocast too; a mask without a pixel gives 0 with finite gradients.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ffplug.datasets.base import choose
from ffplug.errors import ConfigError, DataError
from ffplug.models.parts import FlowLoss
from ffplug_srflownet.registry import MODELS

OPERATORS = ("diff", "sobel")
TEXTURELESS = 3 / 255
"""Sobel gradient of the picture (0..1) below which a pixel has no texture."""


def gradient(field: Tensor, operator: str) -> tuple[Tensor, Tensor]:
    """Derivatives along x and along y of N×C×H×W, per pixel.

    ``diff`` gives the differences of neighbours, N×C×H×(W-1) and N×C×(H-1)×W; ``sobel`` the Sobel operator over 8, so
    that a ramp of slope 1 gives 1, with the border repeated, both N×C×H×W.
    """
    if operator == "diff":
        return field.diff(dim=-1), field.diff(dim=-2)
    field = functional.pad(field, (1, 1, 1, 1), mode="replicate")
    rows = field[..., :-2, :] + 2 * field[..., 1:-1, :] + field[..., 2:, :]
    columns = field[..., :-2] + 2 * field[..., 1:-1] + field[..., 2:]
    return (rows[..., 2:] - rows[..., :-2]) / 8, (columns[..., 2:, :] - columns[..., :-2, :]) / 8


def gradient_mask(mask: Tensor, operator: str) -> tuple[Tensor, Tensor]:
    """Where :func:`gradient` reads nothing outside of a mask N×1×H×W in {0, 1}, in the shapes of the derivatives.

    What lies beyond the picture counts as inside.
    """
    if operator == "diff":
        return mask[..., 1:] * mask[..., :-1], mask[..., 1:, :] * mask[..., :-1, :]
    eroded = -functional.max_pool2d(functional.pad(-mask, (1, 1, 1, 1), value=-1.0), 3, stride=1)
    return eroded, eroded


def _mean(values: Tensor, weight: Tensor, count: Tensor | None = None) -> Tensor:
    """Mean per number of N×2×… ``values`` that count by ``weight`` N×1×…; ``count`` in the place of its sum."""
    count = weight if count is None else count
    return (weight * values).sum() / (2 * count.sum()).clamp(min=1)


class FlowRegularizer(FlowLoss):
    """What the four terms share: which flow, which pixels, which iterations.

    Args:
        weight: factor of the whole term.
        mask: the pixels of the face: the name of a mask of the samples (``"foreground"``, whose field is
            ``gt_foreground``; any region's), ``"textureless"`` for those where the Sobel gradient of frame 1 is below
            3/255, or None for all.
        regularise: ``"last"``: the last iteration's flow alone; ``"all"``: each one's, weighted by ``gamma``.
        gamma: decay of the weight from the last iteration back.
        name: which flow: ``""`` for the main one, or the name of a further decoder.
    """

    term: str
    """The loss's name in the log."""

    def __init__(
        self,
        weight: float,
        mask: str | None = "foreground",
        regularise: str = "last",
        gamma: float = 0.8,
        name: str = "",
    ) -> None:
        super().__init__()
        self.weight = weight
        self.mask = mask
        self.every = choose("regularise", regularise, ("last", "all")) == "all"
        self.gamma = gamma
        self.prefix = f"{name}_" if name else ""

    def forward(self, outputs: dict[str, Any], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """See :class:`ffplug.models.parts.FlowLoss`.

        Raises:
            DataError: the samples have no such mask.
        """
        flows = outputs[f"{self.prefix}flows"]
        device = flows[-1].device.type
        with torch.autocast(device, enabled=False):
            truth = targets[f"{self.prefix}flow"].float()
            valid = (targets[f"{self.prefix}valid"] >= 0.5)[:, None]
            truth = torch.where(valid, truth, 0)  # where it is not valid it may be anything, NaN included
            image = outputs["image1"].float() / 255
            face = self._face(image, targets)
            total = truth.new_zeros(())
            for index in range(0 if self.every else len(flows) - 1, len(flows)):
                before = flows[index - 1].float() if index else None
                term = self.measure(flows[index].float(), before, truth, valid.float(), face, image)
                total = total + self.gamma ** (len(flows) - 1 - index) * term
        return {f"{self.prefix}loss_{self.term}": self.weight * total}

    @abstractmethod
    def measure(
        self, flow: Tensor, before: Tensor | None, truth: Tensor, valid: Tensor, face: Tensor, image: Tensor
    ) -> Tensor:
        """The term of one iteration, a scalar.

        Args:
            flow: the iteration's flow, N×2×H×W in pixels.
            before: that of the iteration before, or None.
            truth: the true flow, 0 where it is not known.
            valid: where the truth is known, N×1×H×W in {0, 1}.
            face: the mask, likewise.
            image: frame 1, N×3×H×W in 0..1.
        """

    def _face(self, image: Tensor, targets: dict[str, Tensor]) -> Tensor:
        if self.mask is None:
            return torch.ones_like(image[:, :1])
        if self.mask == "textureless":
            slopes = torch.stack(gradient(image.mean(dim=1, keepdim=True), "sobel"))
            return (slopes.square().sum(0) < TEXTURELESS**2).float()
        if self.mask not in targets:
            raise DataError(
                f"{type(self).__name__}: mask={self.mask!r}: the samples have no gt_{self.mask}; take a data set with "
                "this mask, mask='textureless', or mask=None for all pixels"
            )
        return (targets[self.mask] > 0.5)[:, None].float()


@MODELS.register_module()
class MaskLoss(FlowRegularizer):
    """Mean error outside of the face: the background must not move.

    ``Σ(1-M)·|f̂-f|₁ / 2Σ(1-M)``. The formula is our reading of the paper's abstract.

    Args:
        weight: factor of the whole term.
        zero_background: the background's flow is 0 whatever the truth says (``|f̂|`` in the place of ``|f̂-f|``), also
            where the truth is not known.
        **kwargs: see :class:`FlowRegularizer`.

    Example:
        dict(type="ffplug_srflownet.MaskLoss", weight=0.5)
    """

    term = "mask"

    def __init__(self, weight: float = 0.5, zero_background: bool = False, **kwargs: Any) -> None:
        super().__init__(weight, **kwargs)
        self.zero_background = zero_background

    def measure(  # noqa: D102 (see the base class)
        self, flow: Tensor, before: Tensor | None, truth: Tensor, valid: Tensor, face: Tensor, image: Tensor
    ) -> Tensor:
        if self.zero_background:
            return _mean(flow.abs(), 1 - face)
        return _mean((flow - truth).abs(), (1 - face) * valid)


@MODELS.register_module()
class GradientLoss(FlowRegularizer):
    """Mean error of the flow's derivatives on the face, half along x and half along y.

    ``½ Σ_{x,y} ΣV·|∂(f̂-f)|₁ / 2ΣV``, where V holds the pixels whose derivative reads the face alone. The formula is our
    reading of the paper's abstract, which names both operators.

    Args:
        weight: factor of the whole term.
        operator: ``"diff"`` or ``"sobel"``, see :func:`gradient`. Sobel's minds noise of the truth less.
        form: ``"absolute"``; ``"squared"`` for |∂(f̂-f)|²; ``"magnitude"`` for the error of √(∂x² + ∂y² + 1e-6) (with
            ``operator="sobel"`` only, whose derivatives lie on one grid).
        smooth_below: leave out derivatives where the truth's own is this or more (pixels per pixel), or None.
        **kwargs: see :class:`FlowRegularizer`.

    Raises:
        ConfigError: the form does not go with the operator.

    Example:
        dict(type="ffplug_srflownet.GradientLoss", weight=0.5, operator="sobel")
    """

    term = "gradient"

    def __init__(
        self,
        weight: float = 0.5,
        operator: str = "diff",
        form: str = "absolute",
        smooth_below: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(weight, **kwargs)
        self.operator = choose("operator", operator, OPERATORS)
        self.form = choose("form", form, ("absolute", "squared", "magnitude"))
        self.smooth_below = smooth_below
        if form == "magnitude" and operator != "sobel":
            raise ConfigError("GradientLoss: form='magnitude' needs both derivatives at one place: operator='sobel'")

    def measure(  # noqa: D102 (see the base class)
        self, flow: Tensor, before: Tensor | None, truth: Tensor, valid: Tensor, face: Tensor, image: Tensor
    ) -> Tensor:
        masks = gradient_mask(face * valid, self.operator)
        true = gradient(truth, self.operator)
        if self.form == "magnitude":
            found = gradient(flow, self.operator)
            lengths = [(x.square() + y.square() + 1e-6).sqrt() for x, y in (found, true)]
            errors = ((lengths[0] - lengths[1]).abs(),) * 2
        else:
            errors = [part.abs() for part in gradient(flow - truth, self.operator)]
            if self.form == "squared":
                errors = [part.square() for part in errors]
        if self.smooth_below is not None:
            smooth = [(part.abs().amax(dim=1, keepdim=True) < self.smooth_below).float() for part in true]
            masks = [mask * part for mask, part in zip(masks, smooth, strict=True)]
        return sum(_mean(error, mask) for error, mask in zip(errors, masks, strict=True)) / 2


@MODELS.register_module()
class TotalVariationLoss(FlowRegularizer):
    """Mean derivative of the predicted flow on the face, half along x and half along y; it needs no truth.

    ``½ Σ_{x,y} ΣV·w·|∂f̂|₁ / 2ΣV`` with w = 1, or exp(-edge·mean_c|∂I|) of frame 1 (0..1), by which texture-less places
    are smoothed most. It is not 0 for a true flow, so its weight should stay well below the gradient loss's. The
    formula is our reading of the paper's abstract.

    Args:
        weight: factor of the whole term.
        operator: ``"diff"`` or ``"sobel"``, see :func:`gradient`.
        edge: how much an edge of the picture takes off the weight; 0 for the plain form.
        keep_creases: also weigh by 1 - min(1, |∂f|) of the truth, so that its creases stay.
        **kwargs: see :class:`FlowRegularizer`.

    Example:
        dict(type="ffplug_srflownet.TotalVariationLoss", weight=0.02, edge=10.0)
    """

    term = "variation"

    def __init__(
        self,
        weight: float = 0.02,
        operator: str = "diff",
        edge: float = 0.0,
        keep_creases: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(weight, **kwargs)
        self.operator = choose("operator", operator, OPERATORS)
        self.edge = edge
        self.keep_creases = keep_creases

    def measure(  # noqa: D102 (see the base class)
        self, flow: Tensor, before: Tensor | None, truth: Tensor, valid: Tensor, face: Tensor, image: Tensor
    ) -> Tensor:
        masks = gradient_mask(face, self.operator)
        steps = [part.abs() for part in gradient(flow, self.operator)]
        weights = [torch.ones_like(mask) for mask in masks]
        if self.edge:
            edges = [part.abs().mean(dim=1, keepdim=True) for part in gradient(image, self.operator)]
            weights = [torch.exp(-self.edge * part) for part in edges]
        if self.keep_creases:
            creases = [part.abs().clamp(max=1) for part in gradient(truth, self.operator)]
            steps = [step * (1 - crease) for step, crease in zip(steps, creases, strict=True)]
        terms = (_mean(step, mask * weight, mask) for step, mask, weight in zip(steps, masks, weights, strict=True))
        return sum(terms) / 2


@MODELS.register_module()
class FlowDifferenceLoss(FlowRegularizer):
    """Mean error on the face, normalised by its area and not by the frame's.

    ``ΣM·|f̂-f|₁ / 2ΣM``. The formula is our reading of the paper's abstract.

    Args:
        weight: factor of the whole term.
        robust: (|x| + 0.01)^0.4 - 0.01^0.4 in the place of |x|.
        between: ``"truth"``: of prediction and truth; ``"iterations"``: of an iteration's flow and the one before, the
            first of which has none and counts 0.
        **kwargs: see :class:`FlowRegularizer`.

    Example:
        dict(type="ffplug_srflownet.FlowDifferenceLoss", weight=0.2)
    """

    term = "difference"

    def __init__(self, weight: float = 0.2, robust: bool = False, between: str = "truth", **kwargs: Any) -> None:
        super().__init__(weight, **kwargs)
        self.robust = robust
        self.between = choose("between", between, ("truth", "iterations"))

    def measure(  # noqa: D102 (see the base class)
        self, flow: Tensor, before: Tensor | None, truth: Tensor, valid: Tensor, face: Tensor, image: Tensor
    ) -> Tensor:
        if self.between == "iterations":
            error, where = (flow - (flow if before is None else before)).abs(), face
        else:
            error, where = (flow - truth).abs(), face * valid
        if self.robust:
            error = (error + 0.01) ** 0.4 - 0.01**0.4
        return _mean(error, where)

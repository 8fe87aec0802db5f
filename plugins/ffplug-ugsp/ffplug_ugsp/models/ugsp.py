"""UGSP (Cheng et al., ACM MM 2023): a decoder whose finer levels run only where the frame is hard to tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ffplug.errors import ConfigError, DataError
from ffplug.ops import active_pixels
from ffplug_ugsp.models.interpolator import InterpolationNetwork
from ffplug_ugsp.models.layers import ContextPyramid, ConvPReLU, centre, resize, warp
from ffplug_ugsp.models.refinement import Refinement
from ffplug_ugsp.models.sparse import enlarge_sparse, sparse_layer
from ffplug_ugsp.registry import MODELS

_THRESHOLDS = -32.0, 32.0
"""Between them logits differ, so that all pixels are computed, or none."""


class PrunedBlock(nn.Module):
    """One level of the decoder: convolutions at the pixels of a mask, and one over all their results.

    Without biases what is zero outside the mask stays zero.

    Args:
        inputs: channels of the input and of every convolution but the last.
        outputs: channels of the result: 4 of flow, then features. The finest level gives as many as it takes, and from
            them by a transposed convolution 4 of flow, one of blending and 3 of colour at twice the size.
        depth: number of convolutions between the first and the last.
        bias: give the convolutions biases: the coarsest level, which is not pruned, has them.
        finest: the finest level.
    """

    def __init__(self, inputs: int, outputs: int, depth: int, bias: bool = False, finest: bool = False) -> None:
        super().__init__()
        self.head = ConvPReLU(inputs, inputs, bias=bias)
        self.layers = nn.ModuleList(ConvPReLU(inputs, inputs, bias=bias) for _ in range(depth))
        self.finest = finest
        if finest:
            self.last = ConvPReLU((depth + 1) * inputs, inputs, kernel=1)
            self.up = nn.ConvTranspose2d(inputs, 8, 4, 2, 1)
        else:
            self.last = nn.Conv2d((depth + 1) * inputs, outputs, 1)
            self.keep = nn.Conv2d(outputs - 4, 2, 3, padding=1)

    def forward(self, head: Tensor, mask: Tensor | None) -> Tensor:
        """The last convolution's result.

        Args:
            head: what the first convolution gives, N×inputs×H×W.
            mask: N×1×H×W in 0..1, or None where nothing is pruned.
        """
        found = [head if mask is None else head * mask]
        for layer in self.layers:
            y = layer(found[-1])
            # A PReLU and a factor that is not negative may change places.
            found.append(y if mask is None else y * mask)
        return self.last(torch.cat(found, dim=1))

    def multiply_adds(self) -> int:
        """Multiply-adds of the convolutions for each pixel that is computed."""
        weights = [self.head.weight, self.last.weight, *(layer.weight for layer in self.layers)]
        return sum(weight.numel() for weight in weights)


@MODELS.register_module()
class UGSPNet(InterpolationNetwork):
    """The network: 6,764,702 parameters by default.

    Four levels, at 1/16, 1/8, 1/4 and 1/2 of the frame; each gives flow to both frames, a feature for the next, and
    which of its pixels are worth computing. The coarsest level is always computed whole.

    Args:
        widths: channels of the encoder's four stages.
        depths: convolutions between the first and last of each level, coarsest first.
        prune: learn masks; False computes every pixel: what UGSP is compared with, and what finds its labels.
        auxiliary: in training, run a second branch of the same weights that prunes nothing, for self-contrast.
        auxiliary_inputs: ``shared``: it warps by its own flow, but takes feature and flow of the pruned branch (as the
            published code does); ``separate``: all its own (as the published figure shows).
        mask_mode: masks of a training: ``soft``, drawn; ``straight``: drawn 0 or 1, with the gradient of the soft ones;
            ``certain``: the same without drawing, which are the masks of inference.
        budget: shares of pixels to compute at 1/8, 1/4 and 1/2 of the size; None: where the network says so. May be
            set at any time.
        threshold: by how much a pixel's logit for being computed must exceed the other one, where there is no budget;
            :meth:`calibrate` finds it for a share of the cost.
        lead: by how much the logits for being computed exceed the others before training. With 3 nearly all pixels are
            computed then, so that a network which has learned whole starts from where it is.
        refine: a U-Net refines the blended frame, and a teacher that sees the true frame helps it learn (UGSP-refine);
            no colour comes from the finest level then.

    Raises:
        ConfigError: an argument is out of its range.

    Example:
        dict(type="ffplug_ugsp.UGSPNet")
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 48, 72, 96),
        depths: Sequence[int] = (5, 5, 5, 4),
        prune: bool = True,
        auxiliary: bool = True,
        auxiliary_inputs: str = "shared",
        mask_mode: str = "soft",
        budget: Sequence[float] | None = None,
        threshold: float = 0.0,
        lead: float = 0.0,
        refine: bool = False,
    ) -> None:
        super().__init__()
        if auxiliary_inputs not in ("shared", "separate"):
            raise ConfigError(f"auxiliary_inputs={auxiliary_inputs!r}: expected 'shared' or 'separate'")
        if mask_mode not in ("soft", "straight", "certain"):
            raise ConfigError(f"mask_mode={mask_mode!r}: expected 'soft', 'straight' or 'certain'")
        if budget is not None and (len(budget) != 3 or not all(0 <= share <= 1 for share in budget)):
            raise ConfigError(f"budget={budget}: expected three shares in 0..1, for 1/8, 1/4 and 1/2 of the size")
        self.prune, self.auxiliary, self.auxiliary_inputs = prune, auxiliary and prune, auxiliary_inputs
        self.mask_mode, self.budget, self.threshold = mask_mode, budget, threshold
        self.temperature = 1.0
        """Of the softmax that gives the soft masks; a schedule lowers it."""
        self.noise: Sequence[Tensor] | None = None
        """Uniform numbers in 0..1 for the three masks of a training, each N×2×h×w; None draws them."""
        self.encoder = ContextPyramid(tuple(widths))
        inputs = (2 * widths[3], *(3 * width + 4 for width in widths[2::-1]))
        outputs = (*(width + 4 for width in widths[2::-1]), 8)
        self.blocks = nn.ModuleList(
            PrunedBlock(inputs[level], outputs[level], depths[level], level == 0, level == 3) for level in range(4)
        )
        if not prune:
            for block in self.blocks[:3]:
                del block.keep
        elif lead:
            for block in self.blocks[:3]:
                nn.init.constant_(block.keep.bias[:1], lead / 2)
                nn.init.constant_(block.keep.bias[1:], -lead / 2)
        self.refinement = Refinement() if refine else None
        self.teacher = PrunedBlock(inputs[3] + widths[0], 8, depths[3], finest=True) if refine else None

    def forward(self, frame0: Tensor, frame1: Tensor, timestep: Tensor, valid: tuple[int, int] | None = None) -> Tensor:
        """The frame, from the pixels of the masks alone where no gradient is wanted; see the base class."""
        if self.training or torch.is_grad_enabled() or not self.prune:
            return self.outputs(frame0, frame1, timestep, valid=valid)["frame"]
        return self.sparse(frame0, frame1, valid)["frame"]

    @torch.compiler.disable
    def sparse(self, frame0: Tensor, frame1: Tensor, valid: tuple[int, int] | None = None) -> dict[str, Any]:
        """The same as :meth:`outputs` up to rounding, computed at the pixels of the masks; for inference.

        What it computes depends on the frames, so ``torch.compile`` leaves it as it is.

        Returns:
            ``frame``, ``masks`` (bool) and ``flow``, that of full size.
        """
        frame0, frame1, mean = centre(frame0, frame1)
        count = len(frame0)
        features = [stage.split(count) for stage in self.encoder(torch.cat((frame0, frame1)))]
        block, mask, masks = self.blocks[0], None, []
        y = block(block.head(torch.cat(features[3], dim=1)), None)
        flow, feature = resize(y, 2).split((4, y.shape[1] - 4), dim=1)
        for level, block in enumerate(self.blocks[1:], start=1):
            logits = self.blocks[level - 1].keep(y[:, 4:])
            mask = self._hard_mask(resize(logits, 2), mask, level - 1, valid)
            masks.append(mask)
            first, second = features[3 - level]
            found = [warp(first, flow[:, :2]), warp(second, flow[:, 2:]), feature, flow]
            active = active_pixels(mask)
            found = [sparse_layer(block.head, found, mask, active)]
            for layer in block.layers:
                found.append(sparse_layer(layer, found[-1:], mask, active))
            if level < 3:
                y = sparse_layer(block.last, found, mask, active, outside="bias")
                flow, feature = self._next(y, flow)
        y = enlarge_sparse(block.up, sparse_layer(block.last, found, mask, active), block.last, mask)
        frame, flow, _ = self._finish(y, flow, frame0, frame1, mean)
        return dict(frame=frame, masks=masks, flow=flow)

    def outputs(
        self,
        frame0: Tensor,
        frame1: Tensor,
        timestep: Tensor,
        target: Tensor | None = None,
        valid: tuple[int, int] | None = None,
    ) -> dict[str, Any]:
        """Every level computed whole and multiplied by its mask.

        Returns:
            ``frame`` N×3×H×W in 0..1; ``flows`` N×4×h×w at 1/8, 1/4, 1/2 and 1/1, in pixels of their grid; ``blend``
            N×1×H×W, the share of the first frame; ``features``, what the three finer levels give, and
            ``level_features``, what they take. A network that prunes has ``masks`` at 1/8, 1/4 and 1/2, 0 or 1 unless
            it trains, ``logits`` of them at half their size, and ``activity``. In
            training the auxiliary branch adds ``auxiliary_frame``, ``auxiliary_features`` and ``auxiliary_flow``.
            With a ``target`` there are ``target_features``, and what :class:`ffplug_ugsp.TeacherLoss` takes of a
            network that has a teacher.
        """
        frame0, frame1, mean = centre(frame0, frame1)
        features = list(zip(self.encoder(frame0), self.encoder(frame1), strict=True))
        found: dict[str, Any] = dict(flows=[], features=[], level_features=[], masks=[], logits=[])
        block = self.blocks[0]
        y = block(block.head(torch.cat(features[3], dim=1)), None)
        flow, feature = resize(y, 2).split((4, y.shape[1] - 4), dim=1)
        taught = self.teacher is not None and target is not None
        aux = (flow, feature) if taught or (self.auxiliary and self.training) else None
        previous, mask = y, None
        for level, block in enumerate(self.blocks[1:], start=1):
            found["flows"].append(flow)
            found["level_features"].append(feature)
            if self.prune:
                found["logits"].append(self.blocks[level - 1].keep(previous[:, 4:]))
                mask = self._mask(resize(found["logits"][-1], 2), mask, level - 1, valid)
                found["masks"].append(mask)
            pair = features[3 - level]
            x = _join(pair, flow, feature, flow)
            head = block.head(x)
            y = block(head, mask)
            if aux is not None:
                aux_flow, aux_feature = aux
                shared = (feature, flow) if self.auxiliary_inputs == "shared" else (aux_feature, aux_flow)
                # The first pruned level gets the same as the auxiliary branch: nothing before it is pruned.
                aux_y = block(head if level == 1 else block.head(_join(pair, aux_flow, *shared)), None)
            if level < 3:
                previous = y
                flow, feature = self._next(y, flow)
                found["features"].append(feature)
                if aux is not None:
                    aux = self._next(aux_y, aux_flow)
                    found.setdefault("auxiliary_features", []).append(aux[1])
        found["features"].append(y)
        frame, flow4, blend = self._finish(block.up(y), flow, frame0, frame1, mean)
        found["flows"].append(flow4)
        found |= dict(frame=frame, blend=blend)
        if aux is not None:
            found["auxiliary_features"].append(aux_y)
            frame, found["auxiliary_flow"], _ = self._finish(block.up(aux_y), aux_flow, frame0, frame1, mean, flow4)
            found["auxiliary_frame"] = frame
        if self.prune:
            found["activity"] = self._activity(found["masks"])
        if target is not None:
            true = self.encoder(target - mean)
            found["target_features"] = true[2::-1]
            if taught:
                # The teacher goes on from the auxiliary branch, with nothing of the pruned one.
                x = torch.cat((_join(pair, aux_flow, aux_feature, aux_flow), true[0]), dim=1)
                y = self.teacher.up(self.teacher(self.teacher.head(x), None))
                frame, flow, _ = self._finish(y, aux_flow, frame0, frame1, mean, refine=False)
                found |= dict(teacher_frame=frame, teacher_flow=flow)
                found["full_flows"] = [4 * resize(found["flows"][1], 4), 2 * resize(found["flows"][2], 2), flow4]
                blended = blend * warp(frame0, flow4[:, :2]) + (1 - blend) * warp(frame1, flow4[:, 2:]) + mean
                found["merged"] = [blended] * 3
        return found

    def multiply_adds(
        self, height: int, width: int, shares: Sequence[float] = (1, 1, 1), published: bool = False
    ) -> int:
        """Count the multiply-adds of all convolutions for one frame, without a refinement.

        Args:
            height: of the frame, a multiple of 16.
            width: of the frame, likewise.
            shares: of pixels that are computed at 1/8, 1/4 and 1/2 of the size.
            published: count as the published tables do: the transposed convolution at its output's size, which is
                four times too much.
        """
        area, total = height * width, 0.0
        for stage, layers in enumerate(self.encoder.stages, start=1):
            total += 2 * sum(layer.weight.numel() for layer in layers) * area / 4**stage
        for level, (block, share) in enumerate(zip(self.blocks, (1, *shares), strict=True)):
            pixels = area / 4 ** (4 - level)
            total += share * block.multiply_adds() * pixels
            if level == 3:
                total += block.up.weight.numel() * pixels * (4 if published else 1)
            elif self.prune:
                total += block.keep.weight.numel() * pixels
        return round(total)

    @torch.no_grad()
    def calibrate(self, pairs: Sequence[tuple[Tensor, Tensor]], share: float) -> float:
        """Set the threshold with which frames like these need a share of the multiply-adds, and give it.

        Unlike a budget, which gives every frame as many pixels, a threshold lets hard frames have more.

        Args:
            pairs: frames N×3×H×W in 0..1 before and after, all of one size, sides in multiples of 16; a few dozen that
                are typical.
            share: of the multiply-adds of the whole network, in 0..1.

        Raises:
            ConfigError: nothing is pruned, there are no pairs, or the parts that are never pruned need more.
            DataError: the sides are no such multiples.
        """
        if not self.prune:
            raise ConfigError("prune=False: a network that computes everything has no threshold to calibrate")
        if not pairs:
            raise ConfigError("no pairs of frames to calibrate the threshold with")
        size = pairs[0][0].shape[2:]
        if any(side % self.multiple for side in size):
            raise DataError(
                f"frames of {size[0]}×{size[1]} to calibrate with: crop them to multiples of {self.multiple}"
            )
        whole, least = self.multiply_adds(*size), self.multiply_adds(*size, (0, 0, 0))
        if not least < share * whole <= whole:
            raise ConfigError(f"share={share}: expected {least / whole:.2f} (what is always computed) to 1")
        self.budget = None
        low, high = _THRESHOLDS
        while high - low > 0.01:
            self.threshold = (low + high) / 2
            masks = [self.sparse(*pair)["masks"] for pair in pairs]
            shares = [float(torch.cat(level).float().mean()) for level in zip(*masks, strict=True)]
            if self.multiply_adds(*size, shares) > share * whole:
                low = self.threshold
            else:
                high = self.threshold
        self.threshold = high
        return high

    def _next(self, y: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Flow and feature of the next level from what a level gives."""
        change, feature = resize(y, 2).split((4, y.shape[1] - 4), dim=1)
        return change + 2 * resize(flow, 2), feature

    def _mask(self, logits: Tensor, coarser: Tensor | None, place: int, valid: tuple[int, int] | None = None) -> Tensor:
        """The mask N×1×h×w of a level from its logits N×2×h×w, inside that of the coarser one."""
        if not self.training:
            return self._hard_mask(logits, coarser, place, valid).to(logits.dtype)
        logits = logits.float()
        if self.mask_mode != "certain":
            if self.noise is None:
                uniform = torch.rand_like(logits).clamp_(1e-6, 1 - 1e-6)
            else:
                uniform = self.noise[place].to(logits)
            logits = logits - (-uniform.log()).log()
        mask = torch.softmax(logits / self.temperature, dim=1)[:, :1]
        if self.mask_mode != "soft":
            mask = (mask > 0.5).to(mask.dtype) + mask - mask.detach()
        return mask if coarser is None else mask * F.interpolate(coarser, scale_factor=2, mode="nearest")

    def _hard_mask(
        self, logits: Tensor, coarser: Tensor | None, place: int, valid: tuple[int, int] | None = None
    ) -> Tensor:
        """The same as bool for inference; ``valid``: rows and columns of the frame that are no padding."""
        gain = logits[:, :1].float() - logits[:, 1:].float()
        allowed = torch.ones_like(gain, dtype=torch.bool)
        if coarser is not None:
            allowed = F.interpolate(coarser.to(gain.dtype), scale_factor=2, mode="nearest").bool()
        if valid is not None:
            stride = 8 >> place
            allowed = allowed.clone()
            allowed[:, :, -(-valid[0] // stride) :] = False
            allowed[:, :, :, -(-valid[1] // stride) :] = False
        if self.budget is None:
            return (gain > self.threshold) & allowed
        area = gain[0].numel() if valid is None else -(-valid[0] // stride) * -(-valid[1] // stride)
        count = min(round(self.budget[place] * area), gain[0].numel())
        ranked = gain.masked_fill(~allowed, -torch.inf).flatten(1)
        chosen = torch.zeros_like(ranked, dtype=torch.bool)
        if count:
            chosen.scatter_(1, ranked.topk(count, dim=1, sorted=False).indices, True)
        return chosen.view(gain.shape) & allowed

    def _activity(self, masks: Sequence[Tensor]) -> Tensor:
        """Mean of the masks over all channels that they let through; the coarsest level counts as 1."""
        heights = [(block.head.weight.shape[0], 4**level) for level, block in enumerate(self.blocks)]
        total = sum(channels * area for channels, area in heights)
        parts = [channels * area * mask.mean() for (channels, area), mask in zip(heights[1:], masks, strict=True)]
        return (heights[0][0] + sum(parts)) / total

    def _finish(
        self,
        y: Tensor,
        flow: Tensor,
        frame0: Tensor,
        frame1: Tensor,
        mean: Tensor,
        refined_by: Tensor | None = None,
        refine: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The frame, its flow and its blending weights, from what the finest level gives at full size.

        The auxiliary branch is refined by the pruned one's flow.
        """
        flow = y[:, :4] + 2 * resize(flow, 2)
        blend = torch.sigmoid(y[:, 4:5])
        warped0, warped1 = warp(frame0, flow[:, :2]), warp(frame1, flow[:, 2:])
        frame = blend * warped0 + (1 - blend) * warped1 + mean
        if self.refinement is None:
            frame = frame + y[:, 5:]
        elif refine:
            by = flow if refined_by is None else refined_by
            frame = frame + self.refinement(frame0, frame1, warped0, warped1, blend, by)
        return frame.clamp(0, 1), flow, blend


def _join(pair: tuple[Tensor, Tensor], by: Tensor, feature: Tensor, flow: Tensor) -> Tensor:
    """The input of a level: both frames' features warped, the feature so far, and the flow so far."""
    return torch.cat((warp(pair[0], by[:, :2]), warp(pair[1], by[:, 2:]), feature, flow), dim=1)

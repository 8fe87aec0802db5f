"""The second stage: representation diffusion finds in a code what all frames of a person share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from ffplug.apis.models import load_weights
from ffplug.errors import ConfigError, DataError
from ffplug_latentface.models.denoiser import build_denoiser
from ffplug_latentface.models.schedulers import build_scheduler, sample_codes, signal_to_noise
from ffplug_latentface.registry import MODELS
from ffplug_latentface.structures import VideoCodes

TARGETS = ("mean", "leave_one_out")
WEIGHTS = ("snr", "min_snr", "uniform")
EMBEDDINGS = ("identity", "expression", "both", "codes")


@MODELS.register_module()
class RepresentationDiffusion(BaseModel):
    """Two denoisers, of the albedo's and the depth's code, over a frozen autoencoder.

    In training each sees a noisy mean of a person's codes and one frame's code, and predicts the mean. Then, from noise
    and a frame's code, they draw its identity; what remains of the code is expression.

    Args:
        autoencoder: config of :class:`LatentFaceAutoencoder`, frozen.
        width: channels of the denoisers; 128 and 1024 were released.
        layout: ``mlp``, or ``unet`` of diffusers, of which most weights have no effect.
        sampler: ``ddim``, ``legacy`` or ``dpm``; see :func:`~ffplug_latentface.models.schedulers.build_scheduler`.
        clip_sample: cut codes to -1..1; by default only ``legacy`` does.
        steps: evaluations when sampling.
        target: ``mean`` of all frames as published, or ``leave_one_out``: of the others.
        weighting: of the loss: ``snr`` as published, nearly all on steps with little noise; ``min_snr``, cut at
            ``gamma``; or ``uniform``.
        gamma: see above.
        code_scale: what the two codes are multiplied by, in the weights of the autoencoder that training starts from.
            The noise has a deviation of 1, and codes should be of that size; as published they are as they come.
        seed: of the noise that sampling starts from, the same for every picture: predictions repeat.
        pretrained: weights of all to start from, or None.
        data_preprocessor: config of what batches the pictures.
        init_cfg: see MMEngine.

    Raises:
        ConfigError: an argument is none of the above.

    Example:
        dict(
            type="ffplug_latentface.RepresentationDiffusion",
            autoencoder=dict(type="ffplug_latentface.LatentFaceAutoencoder", width=8, code=16),
            width=16,
        )
    """

    def __init__(
        self,
        autoencoder: Mapping[str, Any],
        width: int = 128,
        layout: str = "mlp",
        sampler: str = "ddim",
        clip_sample: bool | None = None,
        steps: int = 5,
        target: str = "leave_one_out",
        weighting: str = "min_snr",
        gamma: float = 5.0,
        code_scale: Sequence[float] = (1.0, 1.0),
        seed: int = 0,
        pretrained: str | None = None,
        data_preprocessor: Mapping[str, Any] | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(dict(data_preprocessor or dict(type="ffplug_latentface.FaceDataPreprocessor")), init_cfg)
        for name, value, allowed in (("target", target, TARGETS), ("weighting", weighting, WEIGHTS)):
            if value not in allowed:
                raise ConfigError(f"{name}={value!r}: expected one of {', '.join(allowed)}")
        if not 1 <= steps <= 1000 or gamma <= 0:
            raise ConfigError(f"steps={steps}, gamma={gamma}: expected 1..1000 steps and a gamma above 0")
        self.autoencoder = MODELS.build(dict(autoencoder)).requires_grad_(False)
        if len(code_scale) != 2 or min(code_scale) <= 0:
            raise ConfigError(f"code_scale={code_scale}: expected two numbers above 0")
        self.autoencoder.scale_codes(code_scale)
        self.denoisers = nn.ModuleList(build_denoiser(self.autoencoder.code, width, layout) for _ in range(2))
        if layout == "unet":
            for name, parameter in self.denoisers.named_parameters():
                if "to_q" in name or "to_k" in name:  # attention over one place has no use for them
                    parameter.requires_grad_(False)
        self.scheduler = build_scheduler(sampler, clip_sample)
        self.steps, self.seed = steps, seed
        self.target, self.weighting, self.gamma = target, weighting, gamma
        if pretrained is not None:
            load_weights(self, pretrained)

    def checkpoint_exclude_prefixes(self) -> tuple[str, ...]:
        """What checkpoints leave out: the perceptual loss of the autoencoder."""
        return ("autoencoder.perceptual.",)

    def train(self, mode: bool = True) -> RepresentationDiffusion:
        """Training mode, of the denoisers alone."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def noise(self, like: Tensor) -> Tensor:
        """The noise that sampling starts from: N×C, each row the same."""
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(like.shape[1], generator=generator).to(like).expand_as(like)

    def identity(self, codes: Tensor, noise: Tensor | None = None, steps: int | None = None) -> Tensor:
        """The identity's share N×2C of codes N×2C.

        Args:
            codes: the albedo's, then the depth's.
            noise: N×2C to start from; that of the seed by default.
            steps: evaluations of the denoisers.
        """
        noise = self.noise(codes) if noise is None else noise
        parts = zip(self.denoisers, codes.chunk(2, 1), noise.chunk(2, 1), strict=True)
        drawn = [
            sample_codes(net, self.scheduler, part.float(), start.float(), steps or self.steps)
            for net, part, start in parts
        ]
        return torch.cat(drawn, 1).float()

    def embed(self, images: Tensor, kind: str = "identity") -> Tensor:
        """What further tasks use of pictures N×3×S×S in -1..1.

        Args:
            images: face crops.
            kind: ``identity`` (N×4C: albedo's identity and code, depth's identity and code), ``expression`` (likewise
                with what remains), ``both`` (N×4C: identity, then what remains) or ``codes`` (N×2C).

        Raises:
            ConfigError: there is no such kind.
        """
        if kind not in EMBEDDINGS:
            raise ConfigError(f"kind={kind!r}: expected one of {', '.join(EMBEDDINGS)}")
        codes = self.autoencoder.codes(images).float()
        if kind == "codes":
            return codes
        identity = self.identity(codes)
        if kind == "both":
            return torch.cat((identity, codes - identity), 1)
        parts = identity if kind == "identity" else codes - identity
        pairs = zip(parts.chunk(2, 1), codes.chunk(2, 1), strict=True)
        return torch.cat([value for pair in pairs for value in pair], 1)

    def forward(self, inputs: Tensor, data_samples: list | None = None, mode: str = "tensor") -> Any:
        """Run the networks.

        Args:
            inputs: N×F×3×S×S, or N×3×S×S where nothing is trained, in -1..1.
            data_samples: of the batch.
            mode: ``tensor`` gives identity and expression (rows×4C), ``predict`` the samples with ``pred_identity`` and
                ``pred_expression``, ``loss`` the loss terms.

        Raises:
            ConfigError: there is no such mode.
            DataError: single pictures were given to train on.
        """
        if mode == "loss":
            if inputs.dim() != 5 or inputs.shape[1] < 2:
                raise DataError(f"inputs {tuple(inputs.shape)}: expected two or more frames of each person to train on")
            return self._loss(inputs)
        if mode not in ("tensor", "predict"):
            raise ConfigError(f"mode={mode!r}: expected 'tensor', 'predict' or 'loss'")
        both = self.embed(inputs.flatten(0, -4), "both")
        if mode == "tensor":
            return both
        if inputs.dim() == 5:
            both = both.unflatten(0, inputs.shape[:2])
        for sample, row in zip(data_samples, both, strict=True):
            sample.pred_identity, sample.pred_expression = row.float().chunk(2, -1)
        return data_samples

    def _loss(self, images: Tensor) -> dict[str, Tensor]:
        people, frames = images.shape[:2]
        with torch.no_grad():
            codes = self.autoencoder.codes(images.flatten(0, 1)).float()
        losses = {}
        for name, net, part in zip(("albedo", "depth"), self.denoisers, codes.chunk(2, 1), strict=True):
            grouped = part.unflatten(0, (people, frames))
            clean = grouped.mean(1, keepdim=True).expand_as(grouped)
            if self.target == "leave_one_out":
                clean = (frames * clean - grouped) / (frames - 1)
            clean = clean.flatten(0, 1)
            steps = torch.randint(self.scheduler.config.num_train_timesteps, (len(part),), device=part.device)
            noisy = self.scheduler.add_noise(clean, torch.randn_like(clean), steps)
            found = net(torch.cat((noisy, part), 1)[:, :, None, None], steps).sample.flatten(1).float()
            error = ((found - clean) ** 2).mean(1)
            losses[f"loss_{name}"] = (self._weights(steps) * error).mean()
            losses[f"error_{name}"] = error.detach().mean()
        return losses

    def _weights(self, steps: Tensor) -> Tensor:
        if self.weighting == "uniform":
            return torch.ones_like(steps, dtype=torch.float32)
        weights = signal_to_noise(self.scheduler, steps)
        return weights.clamp(max=self.gamma) if self.weighting == "min_snr" else weights

    def example_batch(self, batch_size: int = 2) -> dict[str, Any]:
        """A small batch as a data loader would give it, always the same: three portraits of each person."""
        from ffplug_face.portraits import draw_portraits, render_portraits

        size = self.autoencoder.image_size
        inputs = [render_portraits(draw_portraits(0, person, 3), size).images for person in range(batch_size)]
        samples = [VideoCodes(metainfo=dict(sample_id=f"example/{k}", dataset="example")) for k in range(batch_size)]
        return dict(inputs=inputs, data_samples=samples)

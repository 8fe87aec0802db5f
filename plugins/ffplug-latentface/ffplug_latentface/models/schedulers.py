"""Noise schedules and samplers, those of diffusers; and the sampler of the released figures."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_ddim import DDIMSchedulerOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor, nn

from ffplug.errors import ConfigError, did_you_mean

SAMPLERS = ("ddim", "legacy", "dpm")


class LegacyDDIMScheduler(DDIMScheduler, SchedulerMixin):  # a pipeline looks for the mixin in this module
    """DDIM as diffusers 0.14 computed it for networks that predict the clean sample.

    The clean sample itself is taken for the noise's direction (mended in diffusers 0.15, issue 1486). LatentFace's
    published figures were made so, with codes cut to -1..1.
    """

    @register_to_config
    def __init__(
        self, num_train_timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, **kwargs: Any
    ):
        kwargs = {**dict(prediction_type="sample", clip_sample=True), **kwargs}
        steps = dict(num_train_timesteps=num_train_timesteps, beta_start=beta_start, beta_end=beta_end)
        super().__init__(**steps, **kwargs)

    def step(  # noqa: D102 (see the base class)
        self, model_output: Tensor, timestep: int, sample: Tensor, return_dict: bool = True, **kwargs: Any
    ) -> DDIMSchedulerOutput | tuple:
        before = int(timestep) - self.config.num_train_timesteps // self.num_inference_steps
        share = self.alphas_cumprod[before] if before >= 0 else self.final_alpha_cumprod
        clean = model_output.clamp(-1, 1) if self.config.clip_sample else model_output
        sample = share**0.5 * clean + (1 - share) ** 0.5 * model_output
        return DDIMSchedulerOutput(prev_sample=sample, pred_original_sample=clean) if return_dict else (sample,)


def build_scheduler(
    sampler: str = "ddim", clip_sample: bool | None = None, steps: int = 1000, spacing: str = "leading"
) -> DDIMScheduler | DPMSolverMultistepScheduler:
    """A scheduler of diffusers for networks that predict the clean code, with linear betas from 1e-4 to 0.02.

    Args:
        sampler: ``ddim``; ``legacy``, which gives the published figures; or ``dpm``, DPM-Solver++.
        clip_sample: cut clean codes to -1..1; by default only ``legacy`` does: codes have no upper end.
        steps: of the noise.
        spacing: ``leading`` samples at t = 800, 600, 400, 200, 0, ``trailing`` at 999, 799, ... Not for ``dpm``.

    Raises:
        ConfigError: there is no such sampler.
    """
    if sampler not in SAMPLERS:
        raise ConfigError(
            f"sampler={sampler!r}: expected one of {', '.join(SAMPLERS)}{did_you_mean(sampler, SAMPLERS)}"
        )
    shared = dict(num_train_timesteps=steps, beta_start=1e-4, beta_end=0.02, prediction_type="sample")
    if sampler == "dpm":
        if clip_sample:
            raise ConfigError("clip_sample=True: DPM-Solver does not cut codes; use sampler='ddim'")
        return DPMSolverMultistepScheduler(**shared)
    clip = sampler == "legacy" if clip_sample is None else clip_sample
    kind = LegacyDDIMScheduler if sampler == "legacy" else DDIMScheduler
    return kind(**shared, clip_sample=clip, timestep_spacing=spacing)


def signal_to_noise(scheduler: Any, timesteps: Tensor) -> Tensor:
    """abar / (1 - abar) at timesteps N."""
    share = scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
    return share / (1 - share)


@torch.compiler.disable  # diffusers' schedulers keep their state in Python
def sample_codes(
    denoiser: nn.Module,
    scheduler: Any,
    observed: Tensor,
    noise: Tensor,
    steps: int = 5,
    trace: list[Tensor] | None = None,
) -> Tensor:
    """Draw the identity's share of observed codes.

    Args:
        denoiser: predicts the clean code of ``[noisy, observed]``.
        scheduler: of diffusers.
        observed: N×C.
        noise: N×C, what to start from.
        steps: evaluations of the denoiser.
        trace: gets the state N×C×1×1 after each step, if given.

    Returns:
        N×C.
    """
    scheduler.set_timesteps(steps)
    observed = observed[:, :, None, None]
    x = noise[:, :, None, None] * scheduler.init_noise_sigma
    for step in scheduler.timesteps:
        clean = denoiser(torch.cat((x, observed), 1), step.to(x.device)).sample
        x = scheduler.step(clean, step, x).prev_sample
        if trace is not None:
            trace.append(x)
    return x.flatten(1)

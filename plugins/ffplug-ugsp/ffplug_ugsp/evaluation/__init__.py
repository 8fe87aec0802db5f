"""Figures of interpolated frames."""

from ffplug_ugsp.evaluation.interpolation_metric import InterpolationMetric, ssim_uniform, ssim_volume

__all__ = ["InterpolationMetric", "ssim_uniform", "ssim_volume"]

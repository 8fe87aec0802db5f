"""Schedules of a training."""

from ffplug_ugsp.engine.schedules import PiecewiseHook

__all__ = ["PiecewiseHook"]

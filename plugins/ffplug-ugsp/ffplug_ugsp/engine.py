"""Numbers and modes of a model that change while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn

from ffplug.errors import ConfigError
from ffplug_ugsp.registry import HOOKS

Points = Sequence[Sequence[Any]]


def value_at(points: Points, step: int) -> Any:
    """Value of a schedule at a step.

    Args:
        points: (step, value) in rising order. Numbers go linearly from one to the next, anything else jumps; before the
            first and after the last point the value stays.
        step: steps that are done.
    """
    before = points[0]
    for after in points:
        if step < after[0]:
            break
        before = after
    start, first = before
    if step <= start or after is before or isinstance(first, str):
        return first
    end, last = after
    return first + (last - first) * (step - start) / (end - start)


@HOOKS.register_module()
class PiecewiseHook(Hook):
    """Set attributes of the model before each step of a training, by the number of steps that are done.

    Args:
        schedules: by the attribute's name, such as ``network.temperature`` or ``losses.3.scale``, the (step, value)
            points of :func:`value_at`.

    Raises:
        ConfigError: points are missing or not in order, or the model has no such attribute.

    Example:
        dict(type="ffplug_ugsp.PiecewiseHook", schedules={"network.temperature": [(0, 1.0), (1000, 0.4)]})
    """

    priority = "NORMAL"

    def __init__(self, schedules: Mapping[str, Points]) -> None:
        for name, points in schedules.items():
            steps = [point[0] for point in points]
            if not steps or steps != sorted(set(steps)) or any(len(point) != 2 for point in points):
                raise ConfigError(f"schedule of {name!r}: {points}: expected (step, value) points in rising order")
        self.schedules = dict(schedules)

    def before_train(self, runner: Any) -> None:
        """See that all attributes are there."""
        self.apply(_unwrap(runner.model), runner.iter)

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Set them."""
        self.apply(_unwrap(runner.model), runner.iter)

    def apply(self, model: nn.Module, step: int) -> None:
        """Set the attributes of a model to their values at a step."""
        for name, points in self.schedules.items():
            *path, attribute = name.split(".")
            owner: Any = model
            for part in path:
                owner = getattr(owner, part, None)
            if not hasattr(owner, attribute):
                raise ConfigError(f"schedule of {name!r}: {type(model).__name__} has no such attribute")
            setattr(owner, attribute, value_at(points, step))


def _unwrap(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model

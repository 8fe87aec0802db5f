"""What is told of a face: valence and arousal, one expression, action units; their order and names.

The order is that of Aff-Wild2's second release (ABAW2, 2021). Later ones add an eighth class, ``other``.
"""

from __future__ import annotations

from ffplug.errors import ConfigError

TASKS = ("va", "expr", "au")
"""Valence and arousal (both in -1..1), the expression (a class), and the action units (each there or not)."""

EXPRESSIONS = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise", "other")

ACTION_UNITS = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)

LIMIT = 0.99
"""Predicted valence and arousal are cut to ±0.99, as published."""


def class_names(count: int) -> tuple[str, ...]:
    """Names of the first ``count`` expressions; what has no name of its own is ``class8`` and so on."""
    return tuple(EXPRESSIONS[index] if index < len(EXPRESSIONS) else f"class{index}" for index in range(count))


def check_tasks(argument: str, tasks: object) -> tuple[str, ...]:
    """Return ``tasks`` (one or several) in the fixed order, or fail naming the argument.

    Raises:
        ConfigError: one is none of :data:`TASKS`, or there is none.
    """
    wanted = (tasks,) if isinstance(tasks, str) else tuple(tasks or ())
    unknown = [task for task in wanted if task not in TASKS]
    if unknown or not wanted:
        raise ConfigError(f"{argument}={wanted}: expected one or more of {', '.join(TASKS)}")
    return tuple(task for task in TASKS if task in wanted)

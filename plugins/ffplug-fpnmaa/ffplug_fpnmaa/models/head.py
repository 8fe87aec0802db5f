"""The heads for valence-arousal, expressions and action units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ffplug.errors import ConfigError
from ffplug_fpnmaa.labels import ACTION_UNITS, check_tasks
from ffplug_fpnmaa.registry import MODELS


def bin_centres(count: int, device: torch.device | None = None) -> Tensor:
    """The numbers that valence and arousal are told by: ``count`` from -1 to 1, at even distances."""
    return torch.linspace(-1, 1, count, device=device)


@MODELS.register_module()
class MultiTaskAffectHead(nn.Module):
    """A linear head for each task on the means of the pyramid's levels.

    Args:
        channels: of each level, in the neck's order (FPN-MAA: five of 256).
        tasks: outputs by task: ``va`` has 2, ``expr`` one for each class, ``au`` one for each unit.
        levels: by task, the positions of the levels that its head sees; a task that is left out sees all of them.
        gates: weigh the levels of each task by a softmax that is learned; it starts as no gate at all.
        va_bins: tell valence and arousal as a distribution over so many numbers from -1 to 1, and its mean (Deng et
            al., FG 2020, with 20); 0 tells the two numbers themselves.
        thresholds: probability above which an action unit is there: a number for all, or one for each, as
            ``ffplug fpnmaa thresholds`` chooses them.

    Raises:
        ConfigError: an unknown task or level, or a number of outputs or thresholds that can't be.

    Example:
        dict(type="ffplug_fpnmaa.MultiTaskAffectHead", channels=(16, 16), tasks=dict(va=2, expr=7, au=12))
    """

    def __init__(
        self,
        channels: Sequence[int],
        tasks: Mapping[str, int],
        levels: Mapping[str, Sequence[int]] | None = None,
        gates: bool = False,
        va_bins: int = 0,
        thresholds: float | Sequence[float] = 0.5,
    ) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.tasks = {task: int(tasks[task]) for task in check_tasks("tasks", tasks)}
        for task, least, most in (("va", 2, 2), ("expr", 2, 1000), ("au", 1, 1000)):
            if not least <= self.tasks.get(task, least) <= most:
                raise ConfigError(f"tasks.{task}={self.tasks[task]}: expected {least} to {most} outputs")
        if va_bins and ("va" not in self.tasks or not 2 <= va_bins <= 1000):
            raise ConfigError(f"va_bins={va_bins}: expected 0, or 2 to 1000 and the task va")
        self.va_bins = int(va_bins)
        units = self.tasks.get("au", 0)
        self.thresholds = (
            (float(thresholds),) * units if isinstance(thresholds, (int, float)) else tuple(map(float, thresholds))
        )
        if len(self.thresholds) != units or not all(0 <= value <= 1 for value in self.thresholds):
            raise ConfigError(f"thresholds={thresholds}: expected a number in 0..1, or one for each of {units} units")
        levels = dict(levels or {})
        if set(levels) - set(self.tasks):
            raise ConfigError(f"levels names {', '.join(levels)}: expected tasks among {', '.join(self.tasks)}")
        everything = tuple(range(len(self.channels)))
        self.levels = {task: tuple(levels.get(task, everything)) for task in self.tasks}
        for task, chosen in self.levels.items():
            if not chosen or set(chosen) - set(everything) or len(set(chosen)) < len(chosen):
                raise ConfigError(f"levels.{task}={chosen}: expected different positions among {everything}")
        self.linear = nn.ModuleDict(
            {
                task: nn.Linear(
                    sum(self.channels[i] for i in self.levels[task]), 2 * va_bins if task == "va" and va_bins else n
                )
                for task, n in self.tasks.items()
            }
        )
        self.gates = (
            nn.ParameterDict({task: nn.Parameter(torch.zeros(len(chosen))) for task, chosen in self.levels.items()})
            if gates
            else None
        )

    def forward(self, means: Sequence[Tensor]) -> dict[str, Tensor]:
        """Outputs by task.

        Args:
            means: N×C_l, one for each level.

        Returns:
            ``va`` N×2 as it comes, ``expr`` N×K logits, ``au`` N×U logits; with ``va_bins`` also ``va_bins``, N×2×B
            logits, of which ``va`` is the mean.

        Raises:
            ConfigError: the levels are not those that the head was made for.
        """
        found = tuple(mean.shape[1] for mean in means)
        if found != self.channels:
            raise ConfigError(
                f"MultiTaskAffectHead: channels={self.channels}, but the neck gives levels of {found} channels"
            )
        outputs = {}
        for task, linear in self.linear.items():
            seen = [means[level] for level in self.levels[task]]
            if self.gates is not None:
                weights = len(seen) * self.gates[task].softmax(dim=0)
                seen = [weight * mean for weight, mean in zip(weights, seen, strict=True)]
            outputs[task] = linear(torch.cat(seen, dim=1).to(linear.weight.dtype))
        if self.va_bins:
            logits = outputs["va"].unflatten(1, (2, self.va_bins))
            centres = bin_centres(self.va_bins, device=logits.device)
            outputs["va"] = logits.float().softmax(dim=2) @ centres
            outputs["va_bins"] = logits
        return outputs

    def level_weights(self) -> dict[str, dict[int, float]]:
        """How much each task's head looks at each level: the share of its weights' squares, gates included."""
        shares = {}
        for task, linear in self.linear.items():
            parts = linear.weight.detach().split([self.channels[level] for level in self.levels[task]], dim=1)
            gates = [1.0] * len(parts) if self.gates is None else self.gates[task].detach().softmax(dim=0).tolist()
            squares = [gate**2 * float(part.square().sum()) for gate, part in zip(gates, parts, strict=True)]
            total = sum(squares) or 1.0
            shares[task] = {level: value / total for level, value in zip(self.levels[task], squares, strict=True)}
        return shares

    @property
    def units(self) -> tuple[int, ...]:
        """Numbers of the action units, where they are the usual twelve; else their positions."""
        count = self.tasks.get("au", 0)
        return ACTION_UNITS if count == len(ACTION_UNITS) else tuple(range(count))

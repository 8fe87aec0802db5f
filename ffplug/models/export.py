"""What a model says of itself so that others can run it without FFPlug: plain tensors and their meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor, nn


@dataclass(frozen=True)
class Channel:
    """One channel of a tensor.

    Attributes:
        name: of the channel.
        low: least value, or None where nothing bounds it.
        high: greatest value, likewise.
        meaning: what it holds, with its unit.
    """

    name: str
    low: float | None
    high: float | None
    meaning: str


@dataclass(frozen=True)
class ExportCase:
    """A module that takes and gives plain tensors.

    Attributes:
        module: its forward takes the inputs in order and gives the outputs, one tensor or a tuple of them.
        inputs: example tensors N×C×H×W by name, in the forward's order.
        outputs: names of the outputs.
        channels: of each input and output by its name.
        conventions: what else whoever runs it must know, by topic.
        multiple: what height and width must be multiples of, where the file takes several sizes.
        resizable: whether one file can take several sizes.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: Sequence[str]
    channels: Mapping[str, Sequence[Channel]]
    conventions: Mapping[str, str] = field(default_factory=dict)
    multiple: int = 1
    resizable: bool = False


@runtime_checkable
class Exportable(Protocol):
    """A model that ``ffplug export`` takes."""

    def export_case(self, height: int, width: int) -> ExportCase:
        """What is exported, with example inputs of this size.

        Raises:
            ConfigError: this model can't be exported, or not at this size; the message says why.
        """
        ...

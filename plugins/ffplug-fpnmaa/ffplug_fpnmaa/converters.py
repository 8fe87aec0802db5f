"""Converters for the checkpoints of FPN-MAA's public code: the multi-task network, and teachers with one head.

The body's keys are those of torchvision and of mmpretrain; its norms are frozen and have four tensors. Newer versions
of torchvision write the pyramid's convolutions as ``inner_blocks.0.0``.
"""

from __future__ import annotations

from ffplug.apis.converters import Converter
from ffplug_fpnmaa.registry import CONVERTERS

_TASKS = ("va", "expr", "au")

_BODY = [
    (r"backbone\.body\.(.*)", r"backbone.\1"),
    (r"backbone\.fpn\.inner_blocks\.(\d+)\.(?:0\.)?(weight|bias)", r"neck.lateral.\1.\2"),
    (r"backbone\.fpn\.layer_blocks\.(\d+)\.(?:0\.)?(weight|bias)", r"neck.smooth.\1.\2"),
]

CONVERTERS.register_module(
    name="fpn_maa",
    module=Converter(
        "fpn_maa",
        "fpn_maa",
        [
            *_BODY,
            *((rf"{task.upper()}_head\.linear\.(.*)", rf"head.linear.{task}.\1") for task in ("va", "expr", "au")),
        ],
    ),
)
for _task in _TASKS:
    _name = f"fpn_maa_{_task}"
    CONVERTERS.register_module(
        name=_name, module=Converter(_name, _name, [*_BODY, (r"head\.linear\.(.*)", rf"head.linear.{_task}.\1")])
    )

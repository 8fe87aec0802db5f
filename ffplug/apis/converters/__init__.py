"""Converters of published checkpoints: rules that rename keys, checked strictly against the network."""

from ffplug.apis.converters.raft import attention_rules, encoder_rules, join_gates, update_rules
from ffplug.apis.converters.rename import (
    Converter,
    convert_state_dict,
    find_converter,
    read_public,
    strip_wrappers,
)
from ffplug.apis.converters.skflow import SKFLOW

__all__ = [
    "SKFLOW",
    "Converter",
    "attention_rules",
    "convert_state_dict",
    "encoder_rules",
    "find_converter",
    "join_gates",
    "read_public",
    "strip_wrappers",
    "update_rules",
]

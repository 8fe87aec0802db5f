"""Ops: a definition in PyTorch, and backends in C++ and CUDA."""

from ffplug_stss.ops.gate import ApplyGate, apply_gate
from ffplug_stss.ops.packing import SplatMotion, WarpPack, splat_motion, warp_pack

__all__ = ["ApplyGate", "SplatMotion", "WarpPack", "apply_gate", "splat_motion", "warp_pack"]

"""Ops: a definition in PyTorch, and backends in C++ and CUDA."""

from ffplug_stss.ops.gate import ApplyGate, apply_gate

__all__ = ["ApplyGate", "apply_gate"]

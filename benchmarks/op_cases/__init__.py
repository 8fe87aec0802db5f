"""The sizes at which benchmarks/ops.py runs each op, one module for each family."""

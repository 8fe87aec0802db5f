"""Every op on every backend of this machine, from small to 4K: checked against its reference, then timed.

    python benchmarks/ops.py                       # CPU, or the GPU where torch sees one
    python benchmarks/ops.py --only corr --json ops.json

On a GPU this needs the repository, torch and Triton, nothing else, and stays under ten minutes. A case's backends are
timed in turns and the shortest time counts. The share of the ceiling is the larger of two: least traffic over the
bandwidth of a large copy, and operations over the rate of a large product, both measured here first.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import pkgutil
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))
from harness import BenchCase, ceilings, in_turns

from ffplug.ops.contract import BACKENDS, use_backend
from ffplug.testing.ops import Maker, as_tuple


def cases(only: str) -> list[BenchCase]:
    """The cases of all modules in ``op_cases`` whose op's name contains ``only``."""
    import op_cases

    found = []
    for module in pkgutil.iter_modules(op_cases.__path__):
        found += importlib.import_module(f"op_cases.{module.name}").CASES
    return [case for case in found if only in case.op.name]


def caller(case: BenchCase, function: Any, values: tuple, backend: str | None = None) -> Any:
    """A function of no argument that runs the case once, its gradient included where the case asks for it."""
    names = list(case.op._signature.parameters)

    def leaves() -> tuple:
        return tuple(
            value.detach().requires_grad_() if isinstance(value, Tensor) and name in case.op.differentiable else value
            for name, value in zip(names, values, strict=False)
        )

    def run() -> Any:
        with use_backend(backend or "auto"), torch.set_grad_enabled(case.backward):
            if not case.backward:
                return function(*values)
            inputs = leaves()
            results = [r for r in as_tuple(function(*inputs)) if r.requires_grad]
            wanted = [value for value in inputs if isinstance(value, Tensor) and value.requires_grad]
            return torch.autograd.grad([r.sum() for r in results], wanted, allow_unused=True)

    return run


def difference(found: Any, expected: Any) -> float:
    """Largest difference, relative to the largest magnitude of each result."""
    worst = 0.0
    for a, b in zip(as_tuple(found), as_tuple(expected), strict=True):
        if a is None or b is None or a.numel() == 0:
            continue
        a, b = a.double(), b.double()
        worst = max(worst, float((a - b).abs().max() / b.abs().max().clamp(min=1e-12)))
    return worst


def measure(case: BenchCase, device: str, bandwidth: float, rate: float, budget: float) -> list[dict[str, Any]]:
    """One row for each backend that runs here, and for the rival."""
    values = case.make(Maker(torch.float32, device))
    backends = [name for name in case.op.order.get(device, ()) if name in BACKENDS and name in case.op.backends()]
    functions: dict[str, Any] = {name: caller(case, case.op, values, name) for name in backends}
    if case.reference:
        functions["torch"] = caller(case, case.op, values, "torch")
    if case.rival is not None and case.reference:
        functions[case.rival[0]] = caller(case, case.rival[1], values)
    differences = {}
    if case.reference:
        expected = functions["torch"]()
        differences = {name: difference(functions[name](), expected) for name in backends}
        del expected
    times = dict(zip(functions, in_turns(list(functions.values()), device, budget=budget), strict=True))
    return [
        {
            "op": case.op.name,
            "size": case.label,
            "backend": name,
            "ms": 1e3 * seconds,
            "GB/s": case.bytes / seconds / 1e9,
            "ceiling": max(case.bytes / seconds / bandwidth, case.flops / seconds / rate),
            "over_reference": times["torch"] / seconds if "torch" in times else None,
            "over_rival": times[case.rival[0]] / seconds if case.rival and case.rival[0] in times else None,
            "difference": differences.get(name),
        }
        for name, seconds in times.items()
    ]


def show(row: dict[str, Any]) -> str:
    """A row of the table in Markdown."""

    def ratio(value: float | None) -> str:
        return "" if value is None else f"{value:.1f}"

    error = "" if row["difference"] is None else f"{row['difference']:.0e}"
    return (
        f"| {row['op']} | {row['size']} | {row['backend']} | {row['ms']:.2f} | {row['GB/s']:.1f} | "
        f"{100 * row['ceiling']:.0f} | {ratio(row['over_reference'])} | {ratio(row['over_rival'])} | {error} |"
    )


def main() -> None:
    """Run the cases and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="ops whose name contains this")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--budget", type=float, default=3.0, help="seconds a case, after its first run")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    arguments = parser.parse_args()
    logging.getLogger("ffplug.ops").setLevel(logging.WARNING)
    torch.set_num_threads(arguments.threads)
    start = time.perf_counter()
    bandwidth, rate = ceilings(arguments.device)
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.processor() or platform.machine()
    print(
        f"{name}, {arguments.threads} thread(s), torch {torch.__version__}, float32: copy {bandwidth / 1e9:.0f} GB/s, "
        f"product {rate / 1e9:.0f} GFLOP/s\n"
    )
    print("| op | size | backend | ms | GB/s | % of ceiling | over reference | over rival | difference |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows = []
    for case in cases(arguments.only):
        for row in measure(case, arguments.device, bandwidth, rate, arguments.budget):
            rows.append(row)
            print(show(row), flush=True)
    wrong = [row for row in rows if (row["difference"] or 0) > 1e-3]
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    print(f"\n{len(rows)} rows in {time.perf_counter() - start:.0f} s")
    if wrong:
        raise SystemExit("differs from the reference: " + ", ".join(f"{r['op']} {r['size']}" for r in wrong))


if __name__ == "__main__":
    main()

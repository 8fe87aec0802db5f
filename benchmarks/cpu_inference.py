"""RAFT-large on a CPU against ptlflow's and torchvision's RAFT, with the same weights, in one run.

    pip install -r requirements/bench.txt
    python benchmarks/cpu_inference.py

Every round times each implementation once, one after another, so that a busy machine slows all alike; the table gives
the median of the rounds, and the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import logging
import re
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

import ffplug

TO_TORCHVISION = [
    (r"fnet\.", "feature_encoder."),
    (r"cnet\.", "context_encoder."),
    (r"(encoder\.)conv1\.", r"\1convnormrelu.0."),
    (r"(encoder\.)norm1\.", r"\1convnormrelu.1."),
    (r"^((?:feature|context)_encoder\.)conv2\.", r"\1conv."),
    (r"(layer\d\.\d\.)conv(\d)\.", r"\1convnormrelu\2.0."),
    (r"(layer\d\.\d\.)norm([12])\.", r"\1convnormrelu\2.1."),
    (r"update_block\.encoder\.convc(\d)\.", r"update_block.motion_encoder.convcorr\1.0."),
    (r"update_block\.encoder\.convf(\d)\.", r"update_block.motion_encoder.convflow\1.0."),
    (r"update_block\.encoder\.conv\.", "update_block.motion_encoder.conv.0."),
    (r"update_block\.gru\.conv([zrq])(\d)\.", r"update_block.recurrent_block.convgru\2.conv\1."),
    (r"update_block\.mask\.0\.", "mask_predictor.convrelu.0."),
    (r"update_block\.mask\.2\.", "mask_predictor.conv."),
]


def torchvision_key(key: str) -> str:
    """The key that torchvision's RAFT has for one of princeton-vl's."""
    for pattern, replacement in TO_TORCHVISION:
        key = re.sub(pattern, replacement, key)
    return key


def implementations(iterations: int) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Each implementation as a function of two frames 1×3×H×W, RGB in 0..255, that gives flow 1×2×H×W."""
    import ptlflow
    from torchvision.models.optical_flow import raft_large

    from ffplug.models.padding import pad, padding_for, unpad

    torch.manual_seed(0)
    theirs = ptlflow.get_model("raft").eval()
    theirs.iters = iterations
    state = {
        key: value
        for key, value in theirs.state_dict().items()
        if key.split(".")[0] in ("fnet", "cnet", "update_block")
    }
    ours = ffplug.build_model("raft_large")
    ours.load_state_dict(ffplug.convert_state_dict(state, "raft_large"), strict=False)
    vision = raft_large(weights=None).eval()
    renamed = {torchvision_key(key): value for key, value in state.items() if ".norm3." not in key}
    vision.load_state_dict(renamed, strict=False)
    missing = set(vision.state_dict()) - set(renamed)
    if any(not key.endswith("num_batches_tracked") for key in missing):
        raise SystemExit(f"torchvision's RAFT has keys that ptlflow's has not: {sorted(missing)[:5]}")

    def run_ptlflow(first: Tensor, second: Tensor) -> Tensor:
        images = torch.stack((first, second), dim=1).flip(2) / 255  # BGR in 0..1
        return theirs({"images": images})["flows"][:, 0]

    def run_torchvision(first: Tensor, second: Tensor) -> Tensor:
        padding = padding_for(*first.shape[-2:], 8)
        a, b = (pad(frame, padding) / 127.5 - 1 for frame in (first, second))
        return unpad(vision(a, b, num_flow_updates=iterations)[-1], padding)

    def run_ffplug(first: Tensor, second: Tensor) -> Tensor:
        return ours.predict_flow(first, second, iterations=iterations)["flow"]

    return {"ffplug": run_ffplug, "ptlflow": run_ptlflow, "torchvision": run_torchvision}


def main() -> None:
    """Time the implementations and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="436x1024", help="height x width of the frames")
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(arguments.threads)
    height, width = map(int, arguments.size.split("x"))
    torch.manual_seed(1)
    first = torch.rand(1, 3, height // 4, width // 4) * 255
    first = torch.nn.functional.interpolate(first, (height, width), mode="bicubic").clamp(0, 255)
    second = first.roll((3, 5), dims=(2, 3))
    functions = implementations(arguments.iterations)
    times: dict[str, list[float]] = {name: [] for name in functions}
    flows = {}
    with torch.no_grad():
        for name, function in functions.items():
            flows[name] = function(first, second)
        for _ in range(arguments.rounds):
            for name, function in functions.items():
                start = time.perf_counter()
                function(first, second)
                times[name].append(time.perf_counter() - start)
    print(
        f"RAFT-large, {arguments.iterations} iterations, {arguments.size}, {arguments.threads} thread(s), "
        f"torch {torch.__version__}\n"
    )
    print("| implementation | median s | time / ffplug's | largest difference of flow, px |")
    print("|---|---|---|---|")
    for name, values in times.items():
        ratio = statistics.median(other / own for other, own in zip(values, times["ffplug"], strict=True))
        difference = float((flows[name] - flows["ffplug"]).abs().max())
        print(f"| {name} | {statistics.median(values):.2f} | {ratio:.2f} | {difference:.1e} |")
    print(f"\nLargest flow: {float(flows['ffplug'].abs().max()):.1f} px")


if __name__ == "__main__":
    main()

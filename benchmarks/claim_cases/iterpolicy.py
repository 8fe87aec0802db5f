"""The context-aware iteration policy against running every iteration, and against policies that need no training."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from claim_cases import Claim, Comparison, Metric, ffplug, once

ITERATIONS = 12
WITHIN = 1.02
"""Error that a policy may have on the pairs that its setting is chosen on, as a multiple of the base's."""

_FLOPS, _TIME = "about 40 % less (Sintel), 20 % (KITTI)", ""

CLAIM = Claim(
    title="An iteration policy saves operations and time at equal error",
    source="Cheng et al., AAAI 2024, abstract",
    setup=(
        "A narrow RAFT (`iterpolicy_small_base`: a quarter of the resolution, look-up of one level and two cells, 32 "
        "channels, 8 iterations in training) on 720 procedural pairs of 80×112 pixels, easy and hard ones: the speed "
        "of a scene is drawn evenly on a log scale between 1 and 40 pixels (at 128×160). 2500 steps of batch 4 train "
        f"the base, 600 the policy on it (`iterpolicy_small`), with {ITERATIONS} iterations. "
        "Of 600 further pairs, one half chooses each policy's setting: the cheapest at which "
        "the error is within 2 % of the base's; the other half is what the table tells of. Operations are those that "
        "ran, 2 for each multiply-accumulate, correlation included. Times are the processor's, on one thread, the "
        "least of four passes over 48 pairs."
    ),
    variants={
        "all": f"the base, {ITERATIONS} iterations for every pair",
        "policy": "the learned policy",
        "fixed": "the same smaller number of iterations for every pair",
        "threshold": "stop when the flow moves by less than a threshold",
        "random": "iterations left out at random",
        "oracle": "the best number of iterations for each pair, by its true flow",
    },
    metrics={
        "epe": Metric("EPE, px"),
        "iterations": Metric("iterations", digits=2),
        "mflops": Metric("MFLOPs a pair", digits=1),
        "ms1": Metric("ms a pair, batch 1", digits=2),
        "ms8": Metric("ms a pair, batch 8", digits=2),
    },
    comparisons=[
        Comparison("mflops", "policy", "all", _FLOPS),
        Comparison("ms1", "policy", "all", _TIME),
        Comparison("ms8", "policy", "all", _TIME),
        Comparison("mflops", "policy", "fixed", _TIME),
        Comparison("mflops", "policy", "threshold", _TIME),
        Comparison("mflops", "policy", "random", _TIME),
        Comparison("mflops", "oracle", "policy", _TIME),
    ],
)


def prepare(folder: Path) -> None:
    """Draw the pairs that are trained on, and others to choose settings and to measure."""
    for name, scenes, seed in (("pairs", 900, 0), ("further", 600, 1)):
        drawn = ("--scenes", scenes, "--size", "80x112", "--seed", seed, "--textures", "analytic")
        ffplug("synth", "chairs", "--root", folder / name, *drawn, "--set", "speed=[1,40]")


def measure(variant: str, seed: int, folder: Path, shared: Path) -> dict[str, float]:
    """Train base and policy of this seed, once for all variants; choose the variant's setting, and measure it."""
    import torch
    from ffplug_iterpolicy.costs import step_costs
    from ffplug_iterpolicy.curves import errors_by_step, run_policy

    torch.set_num_threads(1)
    model, pairs = _trained(seed, shared)
    chosen_on, measured_on = pairs[::2], pairs[1::2]
    height, width = pairs[0]["inputs"].shape[-2:]
    target = WITHIN * float(errors_by_step(model, chosen_on, ITERATIONS)[:, -1].mean())
    setting = None
    for candidate, policy, inputs in _candidates(variant, model, chosen_on):
        setting = candidate
        if float(run_policy(model, policy, chosen_on, ITERATIONS, inputs=inputs).errors.mean()) <= target:
            break
    policy, inputs = next((p, i) for s, p, i in _candidates(variant, model, measured_on) if s == setting)
    outcome = run_policy(model, policy, measured_on, ITERATIONS, inputs=inputs)
    steps = float(outcome.steps.mean())
    costs = step_costs(model, height, width)
    (folder / "setting.json").write_text(json.dumps({"setting": setting, "steps": outcome.steps.tolist()}))
    return {
        "epe": float(outcome.errors.mean()),
        "iterations": steps,
        "mflops": costs.flops(steps, ITERATIONS if variant == "policy" else None) / 1e6,
        **{f"ms{size}": _milliseconds(model, policy, measured_on, size, inputs) for size in (1, 8)},
    }


def _trained(seed: int, shared: Path) -> tuple[Any, list[Any]]:
    """Base and policy, trained unless they are there, and the pairs that they have not seen."""
    from ffplug.apis.models import build_model
    from ffplug.datasets import FlyingChairsDataset

    data = shared / "pairs"
    options = [
        "prepare_data=None",
        f"train_dataloader.dataset.data_root={data}",
        f"val_dataloader.dataset.data_root={data}",
    ]
    base, policy = shared / f"base{seed}", shared / f"policy{seed}"
    start = f"load_from={base}/weights.safetensors"
    for recipe, work, further in (("iterpolicy_small_base", base, []), ("iterpolicy_small", policy, [start])):
        further = [*options, *further, "default_hooks.checkpoint.interval=100"]
        train = ("train", recipe, "--work-dir", work, "--seed", seed, "--resume", "auto", "--cfg-options", *further)
        once(work, lambda train=train: ffplug(*train))
    pairs = FlyingChairsDataset(str(shared / "further"), split="all")
    return build_model("iterpolicy_small", policy / "weights.safetensors"), [pairs[i] for i in range(len(pairs))]


def _candidates(variant: str, model: Any, pairs: list[Any]) -> list[tuple[float | None, Any, dict]]:
    """Settings of a variant with policy and further inputs, the cheapest first."""
    import torch
    from ffplug_iterpolicy.curves import errors_by_step, oracle_steps
    from ffplug_iterpolicy.models import FixedSteps, RandomSkipping, UpdateThreshold

    if variant == "all":
        return [(None, None, {})]
    if variant == "policy":
        grid = [round(0.05 * i, 2) for i in range(1, 27)]
        return [(r, model.decoder.policy, {"preference": torch.full((len(pairs),), r)}) for r in grid]
    if variant == "fixed":
        return [(n, FixedSteps(n), {}) for n in range(1, ITERATIONS + 1)]
    if variant == "threshold":
        return [(t, UpdateThreshold(t), {}) for t in (4.0 * 0.8**i for i in range(30))]
    if variant == "random":
        return [(share, RandomSkipping(share), {}) for share in (0.05 * i for i in range(21))]
    errors = errors_by_step(model, pairs, ITERATIONS)
    prices = [0.5 * 0.7**i for i in range(20)]
    return [(price, FixedSteps(), {"steps": oracle_steps(errors, price).float()}) for price in prices]


def _milliseconds(model: Any, policy: Any, pairs: list[Any], size: int, inputs: dict) -> float:
    """Of the processor, for a pair: the least of four passes over 48. Other work on the machine does not count."""
    from ffplug_iterpolicy.curves import time_policy

    few = {key: value[:48] for key, value in inputs.items()}
    return time_policy(model, policy, pairs[:48], ITERATIONS, size, few, repeat=4, clock=time.process_time)

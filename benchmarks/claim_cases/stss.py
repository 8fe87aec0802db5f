"""STSS against bilinear and plain warping, with and without its two parts, from scratch and from released weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch

from claim_cases import Claim, Comparison, Metric, ffplug, once
from ffplug.apis.weights import locate

SIZE = (128, 224)
TRAINED, HELD_OUT, FRAMES = 24, 6, 4
STEPS, TUNED = 600, 100
RELEASED = "stss_arena"
THERE = locate(RELEASED)[0].is_file()
WARPS = ("bilinear", "plain")
SCRATCH = {
    "scratch": "narrow, from scratch",
    "no_rrm": "the same without random reshading masks (RRM)",
    "no_erm": "the same without the reshading module (ERM)",
}
FROM_RELEASED = {
    "released": "the released weights as they are",
    "tuned": "the released weights, trained on",
    "tuned_no_rrm": "the same without RRM",
}
METRICS = ("sf", "ef", "inside", "outside")

CLAIM = Claim(
    title="Space-time supersampling beats enlarging and warping, by its random masks and its reshading module",
    source="STSS (AAAI 2024): better than two-stage pipelines; its ablation has RRM and ERM each help",
    setup=f"""Procedural scenes, not the published ones: {TRAINED} scenes of {FRAMES} frames to train on, {HELD_OUT}
others to measure on, half of their frames shaded (SF), half extrapolated (EF), from {SIZE[1]}×{SIZE[0]} to twice that.
From scratch the network is narrow (`stss_small`) and trained for {STEPS} steps of four crops of 64×64; the released
weights (`{RELEASED}`) are the whole network, trained on for {TUNED} steps (`stss_finetune`). Neither is the published
training of 300,000 steps of eight crops of 256×256, nor its loss. PSNR over RGB in whole levels, a mean over frames.
Holes are told apart: *inside* are pixels that an earlier frame hid, *outside* those that it did not reach. `bilinear`
enlarges the warped frame with its holes filled by the occlusion motion, as the network gets it, `plain` the warped
frame. All repeat the frame's border outside of it, the networks' input included, also that of `released`, which knew
black there: filling black is no cheap gain. The released network needs ERM, so that only the narrow one goes without.
"""
    + ("" if THERE else f"`{RELEASED}` was not on the machine: what begins from it was skipped."),
    variants={
        "bilinear": "no network, holes filled by the occlusion motion",
        "plain": "no network, plain warp",
        **SCRATCH,
        **(FROM_RELEASED if THERE else {}),
    },
    metrics={
        "sf": Metric("SF, dB", "higher", 2),
        "ef": Metric("EF, dB", "higher", 2),
        "shown": Metric("EF outside of holes, dB", "higher", 2),
        "inside": Metric("holes inside, dB", "higher", 2),
        "outside": Metric("holes outside, dB", "higher", 2),
    },
    comparisons=[
        *(Comparison(metric, "scratch", than) for than in WARPS for metric in METRICS),
        *(Comparison(metric, "scratch", than, "better") for than in ("no_rrm", "no_erm") for metric in METRICS[:3]),
        *(Comparison(metric, "tuned", "bilinear") for metric in METRICS if THERE),
        *(Comparison(metric, "tuned", "tuned_no_rrm", "better") for metric in METRICS[:3] if THERE),
    ],
)


def prepare(folder: Path) -> None:
    """Draw the scenes."""
    size = "x".join(map(str, SIZE))
    for part, scenes, seed in (("train", TRAINED, 0), ("test", HELD_OUT, 1)):
        ffplug(
            "synth", "stss", "--root", folder / part, "--scenes", scenes, "--frames", FRAMES, "--size", size,
            "--seed", seed, "--set", 'outside="repeat"',
        )  # fmt: skip


def measure(variant: str, seed: int, folder: Path, shared: Path) -> dict[str, float]:
    """Train unless there is nothing to train, and measure on the held-out scenes."""
    torch.set_num_threads(1)
    if variant in (*WARPS, "released"):  # the same for all seeds
        figures = shared / f"{variant}.json"
        once(figures, lambda: figures.write_text(json.dumps(_measured(variant, seed, folder, shared))))
        return json.loads(figures.read_text())
    return _measured(variant, seed, folder, shared)


def _measured(variant: str, seed: int, folder: Path, shared: Path) -> dict[str, float]:
    from ffplug_stss.models.network import enlarge

    model = None if variant in WARPS else _model(variant, seed, folder, shared)
    found: dict[str, list[float]] = {name: [] for name in CLAIM.metrics}
    for inputs, target, regions in _held_out(shared):
        with torch.no_grad():
            if model is not None:
                frame = model(inputs[None], mode="tensor")[0]
            else:
                frame = enlarge(inputs[None, 0:3] if variant == "bilinear" else inputs[None, 3:6])[0]
        for key, value in _figures(frame, target, regions).items():
            found[key].append(value)
    return {name: mean(values) for name, values in found.items()}


def _model(variant: str, seed: int, folder: Path, shared: Path) -> torch.nn.Module:
    from ffplug import build_model, load_config
    from ffplug.apis.models import load_weights

    recipe = "stss_small" if variant in SCRATCH else "stss_finetune"
    config = load_config(recipe).model
    if variant == "no_erm":
        config.network.reshading = None
    if variant != "released":
        config.pretrained = None
    model = build_model(config).eval()
    if variant != "released":
        load_weights(model, _trained(recipe, variant, seed, folder, shared))
    return model


def _trained(recipe: str, variant: str, seed: int, folder: Path, shared: Path) -> Path:
    """Weights of a training of this variant."""
    from ffplug import load_config

    config = load_config(recipe)
    steps = STEPS if variant in SCRATCH else TUNED
    root = shared / "train"
    options = [f"{part}.dataset.data_root={root}" for part in ("train_dataloader", "val_dataloader")]
    options += [
        f"prepare_data.data_root={root}",
        f"randomness.seed={seed}",
        f"train_cfg.max_iters={steps}",
        f"train_cfg.val_interval={steps}",
        f"param_scheduler.1.T_max={steps - config.param_scheduler[1].begin}",
        f"default_hooks.checkpoint.interval={steps // 5}",
    ]
    if variant.endswith("no_rrm"):
        kinds = [step["type"] for step in config.train_dataloader.dataset.pipeline]
        place = kinds.index("ffplug_stss.RandomReshadingMask")
        options.append(f"train_dataloader.dataset.pipeline.{place}.probability=0.0")
    if variant == "no_erm":
        options.append("model.network.reshading=None")
    work = folder / "run"
    ffplug("train", recipe, "--work-dir", work, "--resume", "auto", "--cfg-options", *options)
    return work / "weights.safetensors"


def _held_out(shared: Path) -> Iterator[tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor | None]]]:
    """Packed inputs, true frame and regions of the frames to measure on; the inputs need no padding."""
    from ffplug_stss.datasets import STSSDataset
    from ffplug_stss.datasets.records import decode, open_array
    from ffplug_stss.warping import inside

    for item in STSSDataset(str(shared / "test"), split="train"):
        sample: Any = item["data_samples"]
        inputs, motion = decode(np.asarray(open_array(sample.record_path)))
        lost, beyond = inputs.mask[0] == 0, ~inside(motion[None])[0, 0]
        doubled = {
            name: where.repeat_interleave(2, 0).repeat_interleave(2, 1).double()
            for name, where in dict(shown=~lost, inside=lost & ~beyond, outside=lost & beyond).items()
        }
        extrapolated = sample.kind == "EF"  # one frame after what it is warped from, as the motion is
        yield item["inputs"], sample.gt_frame, {"ef": None, **doubled} if extrapolated else {"sf": None}


def _figures(frame: torch.Tensor, target: torch.Tensor, regions: dict[str, torch.Tensor | None]) -> dict[str, float]:
    from ffplug.evaluation.frame_metrics import as_levels, psnr, squared_error

    levels = [as_levels(image) for image in (frame, target)]
    errors = {name: squared_error(*levels, weight) for name, weight in regions.items()}
    return {name: psnr(error) for name, error in errors.items() if error is not None}

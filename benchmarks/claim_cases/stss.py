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

SIZE = (128, 224)
TRAINED, HELD_OUT, FRAMES = 12, 5, 4
STEPS, TUNED = 300, 60
RELEASED = "stss_arena"
MADE = ("scratch", "no_rrm", "no_erm")
WARPS = ("bilinear", "plain")

CLAIM = Claim(
    title="Space-time supersampling beats enlarging and warping, by its random masks and its reshading module",
    source="STSS (AAAI 2024): better than two-stage pipelines; its ablation has RRM and ERM each help",
    setup=f"""Procedural scenes, not the published ones: {TRAINED} scenes of {FRAMES} frames to train on, {HELD_OUT}
others to measure on, half of their frames shaded (SF), half extrapolated (EF), from {SIZE[1]}×{SIZE[0]} to twice that.
From scratch the network is narrow (`stss_small`: a quarter of the published parameters) and trained for {STEPS} steps
of four crops of 64×64; the released weights (`stss_arena`) are the whole network, trained on for {TUNED} steps
(`stss_finetune`). Neither is the published training of 300,000 steps, and the loss is squared, not absolute. PSNR over
RGB in whole levels, a mean over frames. Holes are told apart: *inside* are pixels that an earlier frame hid, *outside*
those that it did not reach. `bilinear` enlarges the warped frame with its holes filled as the network gets it, `plain`
the warped frame; both repeat the frame's border outside of it, and so does what the trained networks get: filling black
is no cheap gain. `released` gets black there, as it was trained; it needs ERM, so that only the narrow network goes
without.""",
    variants={
        "bilinear": "no network, holes filled by the occlusion motion",
        "plain": "no network, plain warp",
        "scratch": "narrow, from scratch",
        "no_rrm": "the same without random reshading masks (RRM)",
        "no_erm": "the same without the reshading module (ERM)",
        "released": "the released weights as they are",
        "tuned": "the released weights, trained on",
    },
    metrics={
        "sf": Metric("SF, dB", "higher", 2),
        "ef": Metric("EF, dB", "higher", 2),
        "shown": Metric("EF outside of holes, dB", "higher", 2),
        "inside": Metric("holes inside, dB", "higher", 2),
        "outside": Metric("holes outside, dB", "higher", 2),
    },
    comparisons=[
        *(Comparison(metric, "scratch", than) for than in WARPS for metric in ("sf", "ef", "inside", "outside")),
        *(Comparison(metric, "scratch", than) for than in ("no_rrm", "no_erm") for metric in ("sf", "ef", "inside")),
        *(Comparison(metric, "tuned", "bilinear") for metric in ("sf", "ef", "inside", "outside")),
    ],
)


def prepare(folder: Path) -> None:
    """Draw the scenes, and what there is without a network for those that are measured."""
    size = "x".join(map(str, SIZE))
    for part, scenes, seed in (("train", TRAINED, 0), ("test", HELD_OUT, 1)):
        ffplug(
            "synth", "stss", "--root", folder / part, "--scenes", scenes, "--frames", FRAMES, "--size", size,
            "--seed", seed,
        )  # fmt: skip
    for name, frames in _warped():
        np.savez(folder / f"{name}.npz", **frames)


def _warped() -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The held-out frames by name without a network: 3×2H×2W by kind, outside of the frame its border."""
    from ffplug_stss.datasets.layout import FIRST
    from ffplug_stss.models.network import enlarge
    from ffplug_stss.rendering import Renderer
    from ffplug_stss.scenes import SceneOptions, draw_scene
    from ffplug_stss.sequences import Sequence
    from ffplug_stss.warping import occlusion_motion

    from ffplug.ops import backward_warp

    for index in range(HELD_OUT):
        sequence = Sequence(Renderer(draw_scene(1, 2 * index, SceneOptions.preset("standard")), SIZE))
        for time in range(FIRST, FIRST + FRAMES):
            plain = filled = sequence.shaded(time - time % 2)
            if time % 2:
                motion, hole = sequence.hole(time, time - 1)
                fetch = occlusion_motion(motion, sequence.buffers(time).depth)
                plain, fetched = (backward_warp(filled, vectors, "border") for vectors in (motion, fetch))
                filled = torch.where(hole, fetched, plain)
            yield f"{index}-{time}", {"plain": enlarge(plain)[0].numpy(), "bilinear": enlarge(filled)[0].numpy()}


def measure(variant: str, seed: int, folder: Path, shared: Path) -> dict[str, float]:
    """Train unless there is nothing to train, and measure on the held-out scenes."""
    torch.set_num_threads(1)
    if variant in (*WARPS, "released"):  # the same for all seeds
        figures = shared / f"{variant}.json"
        once(figures, lambda: figures.write_text(json.dumps(_measured(variant, seed, folder, shared))))
        return json.loads(figures.read_text())
    return _measured(variant, seed, folder, shared)


def _measured(variant: str, seed: int, folder: Path, shared: Path) -> dict[str, float]:
    model = None if variant in WARPS else _model(variant, seed, folder, shared)
    found: dict[str, list[float]] = {name: [] for name in CLAIM.metrics}
    for name, inputs, target, regions in _held_out(shared, "black" if variant == "released" else "repeat"):
        if model is None:
            frame = torch.from_numpy(np.load(shared / f"{name}.npz")[variant])
        else:
            with torch.no_grad():
                frame = model(inputs[None], mode="tensor")[0]
        for key, value in _figures(frame, target, regions).items():
            found[key].append(value)
    return {name: mean(values) for name, values in found.items()}


def _model(variant: str, seed: int, folder: Path, shared: Path) -> torch.nn.Module:
    from ffplug import build_model, load_config
    from ffplug.apis.models import load_weights

    recipe = "stss_small" if variant in MADE else "stss_finetune"
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
    steps = STEPS if variant in MADE else TUNED
    root = shared / "train"
    options = [f"{part}.dataset.data_root={root}" for part in ("train_dataloader", "val_dataloader")]
    options += [
        f"prepare_data.data_root={root}",
        f"randomness.seed={seed}",
        f"train_cfg.max_iters={steps}",
        f"train_cfg.val_interval={steps}",
        f"param_scheduler.1.T_max={steps - 30}",
        "default_hooks.checkpoint.interval=50",
    ]
    if variant.endswith("no_rrm"):
        options.append("train_dataloader.dataset.pipeline.2.probability=0.0")
    if variant == "no_erm":
        options.append("model.network.reshading=None")
    work = folder / "run"
    ffplug("train", recipe, "--work-dir", work, "--resume", "auto", "--cfg-options", *options)
    return work / "weights.safetensors"


def _held_out(
    shared: Path, outside: str
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor, dict[str, torch.Tensor | None]]]:
    """Name, packed inputs, true frame and regions of the frames to measure on; the inputs need no padding."""
    from ffplug_stss.datasets import STSSDataset
    from ffplug_stss.datasets.records import open_array
    from ffplug_stss.warping import OUTSIDE

    steps = [dict(type="ffplug_stss.LoadRecord"), dict(type="ffplug_stss.PackSupersample", outside=outside)]
    for item in STSSDataset(str(shared / "test"), split="train", pipeline=steps):
        sample: Any = item["data_samples"]
        record = open_array(sample.record_path)
        lost, beyond = (torch.from_numpy(np.array(record[..., place] == OUTSIDE)) for place in (2, 14))
        doubled = {
            name: where.repeat_interleave(2, 0).repeat_interleave(2, 1).double()
            for name, where in dict(shown=~lost, inside=lost & ~beyond, outside=lost & beyond).items()
        }
        extrapolated = sample.kind == "EF"
        regions = {"ef": None, **doubled} if extrapolated else {"sf": None}
        scene = int(Path(sample.sequence).name.removeprefix("train")) - 1
        yield f"{scene}-{sample.frame}", item["inputs"], sample.gt_frame, regions


def _figures(frame: torch.Tensor, target: torch.Tensor, regions: dict[str, torch.Tensor | None]) -> dict[str, float]:
    from ffplug.evaluation.frame_metrics import as_levels, psnr, squared_error

    levels = [as_levels(image) for image in (frame, target)]
    errors = {name: squared_error(*levels, weight) for name, weight in regions.items()}
    return {name: psnr(error) for name, error in errors.items() if error is not None}

"""SRFlowNet's four losses against the same network without each of them, and without all."""

from __future__ import annotations

import json
from pathlib import Path

from claim_cases import Claim, Comparison, Metric, ffplug

LOSSES = {"mask": 1, "gradient": 2, "variation": 3, "difference": 4}
"""The losses' places in the recipe's list, after the sequence loss."""

_DATASETS = ("train_dataloader.dataset", "val_dataloader.dataset")
_METRICS = {
    "epe": ("EPE", Metric("EPE, px")),
    "face": ("EPE_face", Metric("EPE on the face, px")),
    "contour": ("EPE_contour", Metric("EPE at the contour, px")),
    "inside": ("EPE_inside", Metric("EPE inside of the face, px")),
    "drift": ("drift", Metric("drift of the background, px")),
    "gradient": ("gradient", Metric("gradient error, px/px", digits=4)),
}

CLAIM = Claim(
    title="Mask, gradient, total variation and difference losses make facial flow better",
    source="SRFlow and SRFlowNet (arXiv 2601.06479), abstract: the four losses lower noise and large errors where skin "
    "has no texture. Their formulas and weights are not public; these are our reading",
    setup="""Procedural Gaussian heads in [SRFlow's layout](../methods/srflownet.md), not SRFlow: 40 heads of 8 frames
to train on and 8 others, with 48 pairs, to measure on, 112×96 pixels, exact `ray` flow; zero flow has an EPE of 1.13 px
there, 2.54 px on the face. The network is a narrow RAFT (0.21 million parameters), trained for 800 steps of four pairs
on procedural scenes without the losses, and from there, once for each variant and seed, for 200 steps of four pairs of
heads, 80×80 pixels (`ffplug train srflownet_tiny`). The first stage is common to all; the seed draws the pairs and
their augmentation. The contour is what lies within 3 px of the mask's edge.""",
    variants={
        "all": "the four losses, gradient by difference",
        "sobel": "the four losses, gradient by Sobel",
        "no_mask": "without the mask loss",
        "no_gradient": "without the gradient loss",
        "no_variation": "without total variation",
        "no_difference": "without the flow difference",
        "none": "the sequence loss alone",
    },
    metrics={key: metric for key, (_, metric) in _METRICS.items()},
    comparisons=[
        *(Comparison(metric, "all", "none", "lower, no figure") for metric in _METRICS),
        Comparison("drift", "all", "no_mask"),
        Comparison("epe", "all", "no_mask"),
        Comparison("gradient", "all", "no_gradient"),
        Comparison("epe", "all", "no_gradient"),
        Comparison("gradient", "all", "no_variation"),
        Comparison("epe", "all", "no_variation"),
        Comparison("face", "all", "no_difference"),
        Comparison("epe", "all", "no_difference"),
        Comparison("gradient", "sobel", "all"),
        Comparison("epe", "sobel", "all"),
    ],
)


def prepare(folder: Path) -> None:
    """Draw the heads, and train the first stage on procedural scenes."""
    ffplug(
        *("synth", "srflow", "--root", folder / "heads", "--scenes", 40, "--frames", 8, "--size", "112x96"),
        *("--set", "fill=[0.75,1.0]"),
    )
    roots = [f"{key}.data_root={folder / 'scenes'}" for key in ("prepare_data", *_DATASETS)]
    start = ("train", "srflownet_tiny_scenes", "--work-dir", folder / "start", "--resume", "auto", "--seed", 0)
    ffplug(*start, "--cfg-options", *roots)


def measure(variant: str, seed: int, folder: Path, shared: Path) -> dict[str, float]:
    """Train the facial stage, and take the figures of its last validation."""
    options = [
        f"load_from={shared / 'start' / 'weights.safetensors'}",
        *(f"{key}.data_root={shared / 'heads'}" for key in _DATASETS),
        "prepare_data=None",
        "custom_hooks=[]",  # no pictures and no report, which take as long as the training
        f"randomness.seed={seed}",
    ]
    if variant == "sobel":
        options.append(f"model.losses.{LOSSES['gradient']}.operator=sobel")
    left_out = LOSSES if variant == "none" else [variant.removeprefix("no_")] if variant.startswith("no_") else []
    options += [f"model.losses.{LOSSES[name]}.weight=0.0" for name in left_out]
    ffplug("train", "srflownet_tiny", "--work-dir", folder, "--resume", "auto", "--cfg-options", *options)
    logs = sorted(folder.glob("*/vis_data/scalars.json"))
    records = [json.loads(line) for path in logs for line in path.read_text().splitlines()]
    found = [record for record in records if "facial/EPE" in record][-1]
    return {key: found[f"facial/{name}"] for key, (name, _) in _METRICS.items()}

"""A decomposed network against two plain ones, a similarity fit, and no motion at all."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import claim_faces as faces
import numpy as np

from claim_cases import Claim, Comparison, Metric, ffplug

STEPS = 250
RATE = 1e-3

CLAIM = Claim(
    title="A decomposed network tells head and expression flow better than plain ones",
    source="DecFlow (ACM MM 2024): the decomposed decoder gives the best facial, head and expression flow",
    setup=f"""Drawn faces in [FacialFlowNet's layout](../methods/decflow.md), not FacialFlowNet: 160 people with one
pair of {faces.SIZE} pixels each to train on, 32 other people with skins of their own to measure on. Each pair goes from
a faint expression to its height, and the head turns by a few degrees, which still moves the picture six times as far as
the expression does. Networks are as narrow as `decflow_small`, with random facial semantics; all start from one GMA,
trained for {faces.START} steps on procedural scenes, and are trained once per seed for {STEPS} steps of four pairs,
80×80 pixels, on faces. DecFlow has 0.76 million trained parameters, the two plain GMAs 0.77 million together, and they
run the encoders twice, so they cost more. The similarity (turn, scale and shift) is fitted to the plain facial flow in
the true mask of the head by RANSAC. The first stage is common to all seeds; the seed draws the pairs and their
augmentation. Errors are means over the pixels of the head, then over pairs; *moving* is the expression EPE of pixels
whose expression flow is 0.5 px or more.""",
    variants={
        "decflow": "one network, two decoders",
        "two_networks": "a plain GMA trained for facial flow less one trained for head flow",
        "similarity": "the former's facial flow, and its similarity fit as head flow",
        "zero": "no motion: what zeros would score",
    },
    metrics={
        "facial": Metric("facial EPE, px"),
        "head": Metric("head EPE, px"),
        "expression": Metric("expression EPE, px"),
        "moving": Metric("moving EPE, px"),
    },
    comparisons=[
        Comparison(metric, "decflow", than)
        for metric in ("head", "expression", "moving")
        for than in ("two_networks", "similarity", "zero")
    ],
)

prepare = faces.draw


def measure(variant: str, seed: int, folder: Path, shared: Path) -> dict[str, float]:
    """Train what the variant needs, and measure on people who were not trained on."""
    if variant == "decflow":
        start = decomposed_start(shared)
        weights = faces.train(shared, folder / "run", "face_decflow", STEPS, RATE, seed, start=start)
        model = faces.load("face_decflow", weights)
    elif variant != "zero":
        model = faces.load("face_gma", _plain(shared, "facial", seed))
        other = faces.load("face_gma", _plain(shared, "head", seed)) if variant == "two_networks" else None
    rows = []
    for first, second, sample in faces.held_out(shared):
        mask = sample.gt_mask.numpy()
        truth = {"facial": sample.gt_flow.numpy(), "head": sample.gt_head_flow.numpy()}
        if variant == "zero":
            flows = {name: np.zeros_like(flow) for name, flow in truth.items()}
        elif variant == "decflow":
            found = model.predict_flow(first, second)
            flows = {"facial": found["flow"][0].numpy(), "head": found["head_flow"][0].numpy()}
        else:
            facial = model.predict_flow(first, second)["flow"][0].numpy()
            head = other.predict_flow(first, second)["flow"][0].numpy() if other else similarity(facial, mask)
            flows = {"facial": facial, "head": head}
        for table in (truth, flows):
            table["expression"] = table["facial"] - table["head"]
        row = {name: faces.error(flow, truth[name], mask) for name, flow in flows.items()}
        moving = mask & (np.linalg.norm(truth["expression"], axis=0) >= 0.5)
        if moving.any():
            row["moving"] = faces.error(flows["expression"], truth["expression"], moving)
        rows.append(row)
    return {name: mean(row[name] for row in rows if name in row) for name in CLAIM.metrics}


def similarity(flow: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The turn, scale and shift that most of the flow (2×H×W) within a mask follows, as a flow."""
    import cv2

    height, width = mask.shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float32)
    points = grid[:, mask].T
    matrix, _ = cv2.estimateAffinePartial2D(points, points + flow[:, mask].T, ransacReprojThreshold=0.5)
    return (np.tensordot(matrix[:, :2], grid, 1) + matrix[:, 2, None, None] - grid).astype(np.float32)


def _plain(shared: Path, flows: str, seed: int) -> Path:
    """Weights of a plain network trained for one of the two flows."""
    options = [f"{split}_dataloader.dataset.flows={flows}" for split in ("train", "val")]
    start = faces.started(shared, "gma")
    return faces.train(shared, shared / f"{flows}{seed}", "face_gma", STEPS, RATE, seed, *options, start=start)


def decomposed_start(shared: Path) -> Path:
    """The plain network's start with its update block in both decoders."""
    start = faces.started(shared, "gma")
    target = start.with_name("decflow.safetensors")
    if not target.exists():
        ffplug("convert", start, target, "--from", "decflow_from_gma")
    return target

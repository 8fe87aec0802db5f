"""Training on facial data makes the flow of faces better than training on more scenes of the usual kind."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import claim_faces as faces

from claim_cases import Claim, Comparison, Metric

STEPS = 200
RATE = 5e-4

CLAIM = Claim(
    title="Facial data lower the error of plain flow networks on faces",
    source="FacialFlowNet and DecFlow (ACM MM 2024), abstract: fine-tuning on FacialFlowNet lowers EPE by up to 11 %, "
    "3.91 to 3.48 px, for several flow networks",
    setup=f"""Drawn faces in [FacialFlowNet's layout](../methods/decflow.md), not FacialFlowNet: 160 people with one
pair of {faces.SIZE} pixels each to train on, 32 other people with skins of their own to measure on. Each pair goes from
a faint expression to its height, and the head turns by a few degrees; zero flow has an EPE of 3.0 px. RAFT and GMA are
narrow (0.34 and 0.39 million parameters). Both are trained for {faces.START} steps of four pairs, 80×80 pixels, on
procedural scenes (192 pairs), and from there, once per seed, for {STEPS} more: on the same scenes, or on faces. The
first stage is common to all seeds; the seed draws the pairs and their augmentation. Errors are means over the pixels of
the head, then over pairs; *moving* are pixels whose expression flow is 0.5 px or more.""",
    variants={
        "raft_general": "RAFT, more steps on scenes",
        "raft_facial": "RAFT, the same number of steps on faces",
        "gma_general": "GMA, more steps on scenes",
        "gma_facial": "GMA, the same number of steps on faces",
    },
    metrics={
        "epe": Metric("EPE, px"),
        "moving": Metric("moving EPE, px"),
    },
    comparisons=[
        Comparison("epe", "raft_facial", "raft_general", "lower, by up to 11 %"),
        Comparison("moving", "raft_facial", "raft_general"),
        Comparison("epe", "gma_facial", "gma_general", "lower, by up to 11 %"),
        Comparison("moving", "gma_facial", "gma_general"),
    ],
)

prepare = faces.draw


def measure(variant: str, seed: int, folder: Path, shared: Path) -> dict[str, float]:
    """Go on from the common start, and measure on people who were not trained on."""
    network, data = variant.split("_")
    start = faces.started(shared, network)
    recipe = f"{'face' if data == 'facial' else 'scene'}_{network}"
    weights = faces.train(shared, folder / "run", recipe, STEPS, RATE, seed, start=start)
    model = faces.load(recipe, weights)
    errors, moving = [], []
    for first, second, sample in faces.held_out(shared):
        flow, truth = model.predict_flow(first, second)["flow"][0].numpy(), sample.gt_flow.numpy()
        mask = sample.gt_mask.numpy()
        errors.append(faces.error(flow, truth, mask))
        moves = mask & (sample.gt_expression_flow.norm(dim=0).numpy() >= 0.5)
        if moves.any():
            moving.append(faces.error(flow, truth, moves))
    return {"epe": mean(errors), "moving": mean(moving)}

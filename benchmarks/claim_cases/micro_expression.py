"""Micro-expressions from expression flow against facial flow, and what is lost where the flow is estimated."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import claim_faces as faces

from claim_cases import Claim, Comparison, Metric, decflow, facial_data

SIZE, SUBJECTS, CLIPS = 96, 10, 9
INTENSITY, HEAD_MOTION = (0.15, 0.5), 3.0
EPOCHS = 30

CLAIM = Claim(
    title="Expression flow tells micro-expressions apart better than facial flow",
    source="DecFlow (ACM MM 2024), abstract: accuracy 69.1 % with facial flow, 82.1 % with DecFlow's expression flow",
    setup=f"""Rendered weak expressions ([`ffplug micro synth`](../methods/micro_expression.md)), not people: for each
seed {SUBJECTS} new heads with {CLIPS} clips each, {SIZE}×{SIZE} pixels. Action units reach a strength of {INTENSITY[0]}
to {INTENSITY[1]}, at which skin moves by some half to four pixels: more than in a micro-expression, since so small
networks do not see less. The camera has noise, and from onset to offset the head turns about each axis by a deviation
of {HEAD_MOTION:g}° and shifts by {HEAD_MOTION:g} mm, which moves the picture more than expression does. One subject is
left out at a time; scores are pooled over all, and chance is 0.33. The classifier is logistic regression on 7×7 means
or, where a variant says so, STSTNet, trained for {EPOCHS} epochs. No head motion is removed but where `similarity` says
so. The narrow DecFlow is that of the [claim on it](decflow.md), the narrow RAFT that of the [claim on facial
data](facial_data.md): trained on other heads, whose expressions are stronger and turns smaller, for {decflow.STEPS} and
{facial_data.STEPS} steps after {faces.START} on procedural scenes. Their flow lifts recognition only a little above
chance, so what estimated flow shows is weak evidence. The seed draws the clips and trains networks and classifiers.""",
    variants={
        "exact_expression": "exact expression flow: the upper bound",
        "exact_facial": "exact facial flow",
        "exact_similarity": "exact facial flow less a fitted similarity",
        "ststnet_exact_expression": "the same three with STSTNet",
        "ststnet_exact_facial": "",
        "ststnet_exact_similarity": "",
        "decflow_expression": "DecFlow's expression flow",
        "decflow_facial": "DecFlow's facial flow",
        "decflow_similarity": "DecFlow's facial flow less a fitted similarity",
        "raft": "RAFT's flow",
        "raft_similarity": "RAFT's flow less a fitted similarity",
        "ststnet_decflow_expression": "three of these with STSTNet",
        "ststnet_decflow_facial": "",
        "ststnet_raft": "",
    },
    metrics={"uf1": Metric("UF1", better="higher"), "uar": Metric("UAR", better="higher")},
    comparisons=[
        Comparison(metric, variant, than, published if metric == "uf1" else "")
        for variant, than, published in (
            ("exact_expression", "exact_facial", ""),
            ("ststnet_exact_expression", "ststnet_exact_facial", ""),
            ("decflow_expression", "decflow_facial", "accuracy 82.1 % against 69.1 %"),
            ("ststnet_decflow_expression", "ststnet_decflow_facial", "accuracy 82.1 % against 69.1 %"),
            ("decflow_expression", "decflow_similarity", ""),
            ("decflow_expression", "raft", ""),
            ("decflow_expression", "raft_similarity", ""),
            ("ststnet_decflow_expression", "ststnet_raft", ""),
        )
        for metric in ("uf1", "uar")
    ],
)

prepare = faces.draw


def measure(variant: str, seed: int, folder: Path, shared: Path) -> dict[str, float]:
    """Make features of the clips by one kind of flow, and recognise them."""
    from ffplug_face.micro_expression.loso import LeaveOneSubjectOut, read_run
    from ffplug_face.micro_expression.metrics import scores

    from ffplug.registry import DATASETS

    clips = _clips(seed, shared)
    learner, flow = ("ststnet", variant[8:]) if variant.startswith("ststnet_") else ("grid", variant)
    kind, _, what = flow.partition("_")
    feature = {"type": "ffplug_face.FlowFeature", "head": "similarity" if what == "similarity" else "none"}
    if kind == "exact":
        feature["flow_root"] = "expression" if what == "expression" else "flow"
    else:
        feature.update(
            flow=str(faces.CONFIGS / f"face_{kind}.py"),
            checkpoint=str(_trained(kind, seed, shared)),
            flow_key="expression_flow" if what == "expression" else "flow",
            flow_size=SIZE,
            cache=str(shared / "flow"),
        )
    data = {"type": "ffplug_face.MicroExpressionDataset", "data_root": str(clips), "feature": feature}
    LeaveOneSubjectOut(DATASETS.build(data), _LEARNERS[learner], folder, [seed]).run()
    result = scores(read_run(folder)[0].confusion()[0])
    return {"uf1": float(result["UF1"]), "uar": float(result["UAR"])}


def _trained(kind: str, seed: int, shared: Path) -> Path:
    """Weights of the seed's network from the claim that is about it, trained here if they are not there yet."""
    claims = shared.parents[1]
    if kind == "decflow":
        folder, start = claims / f"decflow/decflow/seed{seed}/run", decflow.decomposed_start(shared)
        return faces.train(shared, folder, "face_decflow", decflow.STEPS, decflow.RATE, seed, start=start)
    folder, start = claims / f"facial_data/raft_facial/seed{seed}/run", faces.started(shared, "raft")
    return faces.train(shared, folder, "face_raft", facial_data.STEPS, facial_data.RATE, seed, start=start)


def _clips(seed: int, shared: Path) -> Path:
    """The clips of a seed, drawn by whoever needs them first."""
    from ffplug_face.micro_expression.procedural import write_example

    target = shared / f"clips{seed}"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=shared) as folder:
            drawn = Path(folder) / "clips"
            write_example(drawn, SUBJECTS, CLIPS, SIZE, seed, frames=3, intensity=INTENSITY, head_motion=HEAD_MOTION)
            with contextlib.suppress(OSError):  # another process was first
                os.rename(drawn, target)
    return target


_LEARNERS = {
    "ststnet": {
        "type": "ffplug_face.NetworkLearner",
        "network": {"type": "ffplug_face.STSTNet"},
        "normaliser": {"type": "ffplug_face.RobustScale"},
        "epochs": EPOCHS,
        "batch_size": 32,
        "optimizer": {"type": "Adam", "lr": 3e-3},
        "mirror": True,
    },
    "grid": {"type": "ffplug_face.GridBaseline"},
}

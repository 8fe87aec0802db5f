"""FPN-MAA against its ablations: one task at a time, no teachers, no pyramid."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from claim_cases import Claim, Comparison, Metric, ffplug, once

SIZE, WIDTH, LEVEL = 64, 16, 32
PEOPLE, TEST_PEOPLE, PICTURES = 160, 50, 12
STEPS, BATCH, RATE = 1200, 32, 3e-3
NOISE = 12.0
FACES = dict(
    intensity=(0.3, 1.0),
    noise=0.1,
    stray=0.2,
    pitch_yaw_roll=(0.1, 0.25, 0.06),
    shift=0.005,
    ambient=(0.3, 0.6),
    diffuse=(0.3, 0.6),
    tilt=0.6,
    background="plain",
)
TASKS = {"va": 2, "expr": 7, "au": 12}
LOSSES = {"va": "MaskedMSE", "expr": "MaskedCE", "au": "MaskedBCE"}
STAGES = tuple(WIDTH * 2**stage for stage in range(4))

CLAIM = Claim(
    title="Learning three kinds of affect label together, with teachers and a pyramid, beats learning them apart",
    source="He et al., ICCV workshops 2021, abstract: the labels depend on each other and lie at different levels of "
    "features, and teachers of one task fill in what is missing",
    setup=(
        f"Procedural portraits of {SIZE} pixels, {PICTURES} of each person: {PEOPLE} people to train on, {TEST_PEOPLE} "
        "others to test. Expressions from faint to full, stray action units, turned heads, light from the side, noise "
        f"with a deviation of {NOISE:.0f} of 255. Valence and arousal, the expression, or the action units are known "
        f"of a third of the pictures each ({PEOPLE * PICTURES // 3} labels), and nothing else of these. The recipes of "
        f"`fpn_maa_procedural`: a ResNet-18 of {STAGES[0]} to {STAGES[-1]} channels, a pyramid of {LEVEL}, 0.7 million "
        f"parameters; every network, a teacher as well, takes {STEPS} steps of {BATCH} pictures (AdamW, one cycle up "
        f"to {RATE:g}) and the losses of the paper (squared error, cross-entropy). The seed draws weights and order; "
        "the pictures are the same. Nothing is chosen on the test pictures: the last weights count."
    ),
    variants={
        "single": "three networks, a task each: the teachers",
        "multi": "one network, from what is known of each picture",
        "teacher_student": "one network; teachers' hard labels where the truth is missing, as published",
        "stages": "as teacher_student; no pyramid: the means of the stages",
        "last": "as teacher_student; flat: the last stage alone",
    },
    metrics={
        "score": Metric("mean of the three scores", better="higher"),
        "va": Metric("CCC, mean of valence and arousal", better="higher"),
        "expr": Metric(".67 F1 + .33 accuracy, expressions", better="higher"),
        "au": Metric("mean of F1 and accuracy, units", better="higher"),
        "expr_f1": Metric("F1, expressions", better="higher"),
        "au_f1": Metric("F1, units", better="higher"),
    },
    comparisons=[
        *(Comparison(metric, "multi", "single") for metric in ("score", "va", "expr", "au")),
        *(Comparison(metric, "teacher_student", "single") for metric in ("score", "va", "expr", "au")),
        *(Comparison(metric, "teacher_student", "multi") for metric in ("score", "va", "expr", "au")),
        *(Comparison(metric, "teacher_student", "stages") for metric in ("score", "va", "expr", "au")),
        *(Comparison(metric, "teacher_student", "last") for metric in ("score", "va", "expr", "au")),
    ],
)


def prepare(folder: Path) -> None:
    """Draw the pictures once, and list them: with one label each, with all, and of other people to test on."""
    from ffplug_face.portraits import PortraitOptions, Portraits, draw_portraits, render_portraits
    from ffplug_fpnmaa.datasets.index import COLUMNS, UNITS, VA
    from ffplug_fpnmaa.datasets.layouts import PRESENT, classes_of

    from ffplug.datasets.formats import write_image

    options = PortraitOptions(**FACES)
    for part, people in (("train", range(PEOPLE)), ("test", range(PEOPLE, PEOPLE + TEST_PEOPLE))):
        faces = Portraits.joined([draw_portraits(0, person, PICTURES, options=options) for person in people])
        images = render_portraits(faces, SIZE).images.permute(0, 2, 3, 1).numpy()
        draw = np.random.default_rng([0, len(part)])
        images = (images + draw.normal(0, NOISE, images.shape)).round().clip(0, 255).astype(np.uint8)
        known = draw.permutation(len(faces)) % 3
        (folder / part).mkdir(parents=True, exist_ok=True)
        rows = []
        for place, image in enumerate(images):
            path = f"{part}/{place:04d}.png"
            write_image(folder / path, image)
            units = (faces.action_units[place] > PRESENT).astype(int)
            labels = (
                dict(zip(VA, (f"{value:.4f}" for value in faces.affect[place]), strict=True)),
                {"expression": int(classes_of(faces[place])[0])},
                dict(zip(UNITS, units, strict=True)),
            )
            rows.append((dict(path=path, sequence=int(faces.person[place]), frame=place), labels, known[place]))
        if part == "train":
            listed = [row | labels[kept] for row, labels, kept in rows]
        else:
            listed = [row | va | expr | au for row, (va, expr, au), _ in rows]
        with open(folder / f"{part}.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(listed)


def measure(variant: str, seed: int, folder: Path, shared: Path) -> dict[str, float]:
    """Train unless that is done, the teachers once for all variants of a seed; tell the scores."""
    import torch

    torch.set_num_threads(1)
    figures: dict[str, float] = {}
    for name in TASKS if variant == "single" else (variant,):
        figures |= _scores(_trained(name, seed, shared), shared)
    (folder / "figures.json").write_text(json.dumps(figures, indent=1))
    names = {"va": "VA", "expr": "EXPR", "au": "AU", "expr_f1": "EXPR_F1", "au_f1": "AU_F1"}
    found = {key: figures[name] for key, name in names.items()}
    return {"score": sum(found[task] for task in TASKS) / len(TASKS), **found}


def _trained(name: str, seed: int, shared: Path) -> Path:
    """The work folder of a network: a teacher by the name of its task, or a variant."""
    work = shared / f"seed{seed}" / name
    config = work.parent / f"{name}.py"
    taught = name not in (*TASKS, "multi")
    teachers = {task: _trained(task, seed, shared) for task in TASKS} if taught else {}
    once(config, lambda: _config(name, shared, teachers).dump(str(config)))
    train = ("train", config, "--work-dir", work, "--seed", seed, "--resume", "auto")
    return once(work, lambda: ffplug(*train))


def _config(name: str, shared: Path, teachers: dict[str, Path]) -> Any:
    """A recipe: that of the narrow networks on procedural faces, with a variant's tasks, labels and neck."""
    from mmengine.config import Config

    from ffplug.config import load_config

    config = load_config("fpn_maa_procedural_va").to_dict()
    tasks = {task: width for task, width in TASKS.items() if name not in TASKS or name == task}
    faces = dict(
        type="ffplug_fpnmaa.AffectIndexDataset",
        data_root=str(shared),
        index="train.csv",
        tasks=tuple(tasks),
    )
    seen = dict(pipeline=config["val_dataloader"]["dataset"]["pipeline"])
    config["train_dataloader"].update(
        batch_size=BATCH, dataset=dict(**faces, pipeline=config["train_dataloader"]["dataset"]["pipeline"])
    )
    config["val_dataloader"]["dataset"] = dict(faces, index="test.csv", **seen)
    stages = {"stages": (0, 1, 2, 3), "last": (3,)}.get(name)
    backbone = dict(type="mmpretrain.ResNet", depth=18, stem_channels=WIDTH, base_channels=WIDTH)
    config["model"]["backbone"] = dict(backbone, out_indices=stages or (0, 1, 2, 3))
    if stages:
        channels = [STAGES[stage] for stage in stages]
        config["model"]["neck"] = dict(type="ffplug_fpnmaa.StageMeans", in_channels=channels)
    else:
        channels = [LEVEL] * 5
        neck = dict(type="ffplug_fpnmaa.PyramidNeck", in_channels=list(STAGES), out_channels=LEVEL)
        config["model"]["neck"] = neck
    config["model"]["head"].update(channels=channels, tasks=tasks)
    config["model"]["losses"] = [dict(type=f"ffplug_fpnmaa.{LOSSES[task]}") for task in tasks]
    config["prepare_data"] = None
    if teachers:
        recipes = {task: str(work.with_suffix(".py")) for task, work in teachers.items()}
        weights = {task: str(work / "weights.safetensors") for task, work in teachers.items()}
        told = recipes["va"].removesuffix("va.py") + "labels"
        labelled = dict(faces, unlabelled=True, **seen)
        step = dict(type="ffplug_fpnmaa.TrainTeachers", teachers=recipes, checkpoints=weights, folder=told)
        config["prepare_data"] = [dict(step, dataset=labelled)]
        labels = {task: f"{told}/{task}.csv" for task in TASKS}
        config["train_dataloader"]["dataset"].update(teachers=labels, fill=True)
    config["optim_wrapper"]["optimizer"].update(lr=RATE)
    config["param_scheduler"] = [dict(type="OneCycleLR", by_epoch=False, eta_max=RATE, total_steps=STEPS + 10)]
    config["train_cfg"].update(max_iters=STEPS, val_interval=STEPS)
    config["default_hooks"]["checkpoint"] = dict(type="ffplug.CheckpointHook", interval=STEPS // 4, max_keep_ckpts=1)
    return Config(config)


def _scores(work: Path, shared: Path) -> dict[str, float]:
    """ABAW2's figures of a network on the people that no training has seen."""
    from ffplug_fpnmaa.evaluation import AffectMetric

    from ffplug.apis.models import build_model
    from ffplug.config import load_config
    from ffplug.registry import DATASETS

    config = load_config(work.with_suffix(".py"))
    model = build_model(config, work / "weights.safetensors").eval()
    dataset, metric = DATASETS.build(config.val_dataloader.dataset), AffectMetric(prefix="affect")
    for first in range(0, len(dataset), 120):
        items = [dataset[place] for place in range(first, min(first + 120, len(dataset)))]
        batch = {key: [item[key] for item in items] for key in ("inputs", "data_samples")}
        metric.process(batch, [sample.to_dict() for sample in model.val_step(batch)])
    return {key.partition("/")[2]: value for key, value in metric.evaluate(len(dataset)).items()}

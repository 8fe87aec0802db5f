"""``ffplug fpnmaa``: what stands beside training."""

from __future__ import annotations

from typing import Any

import click


@click.group("fpnmaa")
def command() -> None:
    """Label faces by a teacher, list data sets, and write submissions to ABAW."""


_MODEL = (
    click.option(
        "--model", help="A model's or recipe's name, a config file, or a work folder.  [that of the checkpoint]"
    ),
    click.option("--checkpoint", help="Weights; those of the work folder if not given."),
    click.option("--root", required=True, help="Folder of Aff-Wild2, second ABAW release."),
    click.option("--task", required=True, type=click.Choice(["va", "expr", "au"])),
    click.option("--size", type=int, help="Side of the pictures that the network sees.  [its own]"),
    click.option("--batch-size", default=64, show_default=True),
)


def _with_model(function: Any) -> Any:
    for option in reversed(_MODEL):
        function = option(function)
    return function


def _load(model: str | None, checkpoint: str | None) -> Any:
    import torch

    from ffplug.apis.models import build_model

    config, path = _resolve(model, checkpoint)
    return build_model(config, checkpoint=path).to("cuda" if torch.cuda.is_available() else "cpu")


def _resolve(model: str | None, checkpoint: str | None) -> tuple[Any, Any]:
    """The model's config and its weights."""
    from ffplug.apis.run_folder import resolve_run
    from ffplug.errors import CheckpointError, ConfigError

    config, path = resolve_run(model, checkpoint)
    if path is None:
        raise CheckpointError(f"{model or 'no model'}: give weights with --checkpoint; random ones would say nothing")
    if config is None:
        raise ConfigError(f"{path}: has no config of its model; name it with --model")
    return config, path


def _model_dict(config: Any) -> dict[str, Any]:
    """The model of a name, a file or a config, as a plain dict."""
    import os

    from mmengine.config import Config, ConfigDict

    from ffplug.config import load_config

    if isinstance(config, (str, os.PathLike)):
        config = load_config(config)
    model = config.get("model", config)
    if isinstance(model, (Config, ConfigDict)):
        model = model.to_dict()
    return {**model, "head": dict(model["head"])}


def _frames(root: str, split: str, task: str, size: int) -> Any:
    from ffplug.registry import DATASETS

    pipeline = [
        dict(type="ffplug_fpnmaa.LoadFace"),
        dict(type="ffplug_fpnmaa.ResizeFace", size=size),
        dict(type="ffplug_fpnmaa.PackAffect"),
    ]
    config = dict(type="ffplug_fpnmaa.AffWild2Dataset", data_root=root, split=split, unlabelled=True, pipeline=pipeline)
    return DATASETS.build({**config, **({"tasks": task} if split == "test" else {})})


@command.command("labels")
@_with_model
@click.option("--split", default="train", show_default=True, type=click.Choice(["train", "validation", "test"]))
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="The CSV file to write.")
def labels(
    model: str | None,
    checkpoint: str | None,
    root: str,
    task: str,
    size: int | None,
    batch_size: int,
    split: str,
    out: str,
) -> None:
    """Write what a model says of every frame, for a student (`teachers=dict(va=OUT)` of its data set)."""
    from pathlib import Path

    from ffplug_fpnmaa.datasets.teachers import write_teacher_labels
    from ffplug_fpnmaa.distillation import teacher_labels

    network = _load(model, checkpoint)
    told = teacher_labels(network, _frames(root, split, task, size or network.image_size), task, batch_size)
    count = write_teacher_labels(Path(out), task, told)
    click.echo(f"{count} labels are in {out}")


@command.command("submit")
@_with_model
@click.option("--out", default="test_result", show_default=True, type=click.Path(file_okay=False))
@click.option("--leading", default="first", show_default=True, type=click.Choice(["first", "unknown"]))
@click.option(
    "--threshold",
    default="model",
    show_default=True,
    type=click.Choice(["model", "probability", "logit"]),
    help="When an action unit is there: above the model's own thresholds, a probability of .5, or a logit of .5.",
)
def submit(
    model: str | None,
    checkpoint: str | None,
    root: str,
    task: str,
    size: int | None,
    batch_size: int,
    out: str,
    leading: str,
    threshold: str,
) -> None:
    """Write a challenge's files of the test videos that test_set_..._frame.txt lists: OUT/VA_Set/VIDEO.txt and so on.

    A frame without a face repeats the one before; frames before the first face get what --leading says.
    """
    from pathlib import Path

    from ffplug.datasets.layouts import join
    from ffplug_fpnmaa.datasets.affwild2 import FOLDERS, TEST_LISTS
    from ffplug_fpnmaa.datasets.annotations import read_frame_counts
    from ffplug_fpnmaa.distillation import teacher_labels
    from ffplug_fpnmaa.submission import write_submission

    counts = read_frame_counts(join(root, TEST_LISTS[task]))
    network = _load(model, checkpoint)
    told = teacher_labels(network, _frames(root, "test", task, size or network.image_size), task, batch_size)
    limits = network.head.thresholds if threshold == "model" else threshold
    missing = write_submission(told, counts, task, Path(out), leading, limits)
    click.echo(
        f"{len(counts)} videos, {sum(counts.values())} frames ({sum(missing.values())} without a face) are in "
        f"{Path(out) / FOLDERS[task]}"
    )


@command.command("thresholds")
@click.option("--model", help="A model's or recipe's name, a config file, or a work folder.  [that of the checkpoint]")
@click.option("--checkpoint", help="Weights; those of the work folder if not given.")
@click.option("--root", required=True, help="Folder of Aff-Wild2, second ABAW release.")
@click.option("--split", default="validation", show_default=True, type=click.Choice(["train", "validation"]))
@click.option("--size", type=int, help="Side of the pictures that the network sees.  [its own]")
@click.option("--batch-size", default=64, show_default=True)
@click.option("--out", required=True, type=click.Path(dir_okay=False), help="The weights to write (.safetensors).")
def thresholds(
    model: str | None, checkpoint: str | None, root: str, split: str, size: int | None, batch_size: int, out: str
) -> None:
    """Choose each action unit's threshold, and keep them with the weights.

    A unit's threshold is the one at which its F1 is largest on the frames of --split. OUT holds weights and config with
    these thresholds, which evaluation, submissions and `ffplug affect --checkpoint OUT` then use.
    """
    import json

    import numpy as np
    import torch
    from ffplug_face.affect import best_thresholds, unit_scores

    from ffplug.apis.checkpoints import save_weights
    from ffplug.apis.models import build_model
    from ffplug.errors import ConfigError, DataError
    from ffplug_fpnmaa.distillation import teacher_labels

    if not out.endswith(".safetensors"):
        raise ConfigError(f"--out {out}: expected a name that ends in .safetensors")
    config, path = _resolve(model, checkpoint)
    network = build_model(config, checkpoint=path).to("cuda" if torch.cuda.is_available() else "cpu")
    frames = _frames(root, split, "au", size or network.image_size)
    told = [odds for _, odds in teacher_labels(network, frames, "au", batch_size)]
    pairs = [(odds, true) for odds, true in zip(told, frames.labels("au"), strict=True) if true is not None]
    if not pairs:
        raise DataError(f"{root}: no frame of {split} has action units")
    found, true = (np.array(side) for side in zip(*pairs, strict=True))
    chosen = [round(float(value), 4) for value in best_thresholds(found, true)]
    described = _model_dict(config)
    described["head"]["thresholds"] = chosen
    save_weights(out, network.state_dict(), {"model": json.dumps(described)})
    before, after = (unit_scores(found, true, limits).mean_f1 for limits in (network.head.thresholds, chosen))
    shown = ", ".join(f"AU{unit} {value:.2f}" for unit, value in zip(network.head.units, chosen, strict=True))
    click.echo(f"{len(true)} frames, F1 {before:.3f} -> {after:.3f}: {shown}")
    click.echo(f"weights with these thresholds: {out}")


@command.command("index")
@click.argument("dataset", type=click.Choice(["affwild2", "affectnet", "expw"]))
@click.option("--root", required=True, help="Folder of the data set.")
@click.option("--split", default="train", show_default=True)
@click.option("--every", default=1, show_default=True, help="Take frames whose number divides by it.")
@click.option("--out", default="index.csv", show_default=True, help="Name of the list, in the folder of the data set.")
def index(dataset: str, root: str, split: str, every: int, out: str) -> None:
    """Write a data set as a list (CSV) that AffectIndexDataset reads, and anybody can edit."""
    from pathlib import Path

    from ffplug.registry import DATASETS
    from ffplug_fpnmaa.datasets import write_index

    kind = {"affwild2": "AffWild2Dataset", "affectnet": "AffectNetDataset", "expw": "ExpWDataset"}[dataset]
    more = {} if dataset == "expw" else {"split": split}
    faces = DATASETS.build(dict(type=f"ffplug_fpnmaa.{kind}", data_root=root, every=every, **more))
    click.echo(f"{write_index(faces, Path(root) / out)} faces are in {Path(root) / out}")

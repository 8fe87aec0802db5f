"""UGSP: pruning by uncertainty costs next to no quality."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from claim_cases import Claim, Comparison, Metric, once

SIZE = (96, 128)
TRAIN, TEST = 240, 24
CROP, BATCH = 64, 4
BASE, FINE, DOUBT = 3500, 2000, 500
WIDE = (256, 448)
TARGET, RATES = 0.6, (0.9, 0.65, 0.4)
NETWORK = dict(type="ffplug_ugsp.UGSPNet", widths=(12, 16, 24, 32), depths=(2, 2, 2, 2))

CLAIM = Claim(
    title="UGSP computes a third less, and loses less than 0.05 dB to itself computed whole",
    source="Cheng et al., ACM MM 2023, abstract and table 2; the ablation is ours, after the paper's section 3",
    setup=(
        f"Procedural triplets with exact middle frames, {SIZE[1]}×{SIZE[0]} pixels, {TRAIN} to train on and {TEST} "
        "others to test; the camera stands still, which UGSP is meant for, and seven pixels of ten stay as they are. A "
        "narrow network (widths 12 to 32, two convolutions a level). For each seed the network that computes "
        f"everything trains {BASE} steps of {BATCH} crops of {CROP}×{CROP}; from it every variant trains {FINE} more, "
        f"and so does a network that finds labels, {DOUBT} steps. The published loss, with a budget of {TARGET}; masks "
        "start open (lead=3), the temperature falls from 1 to 0.4, masks are 0 or 1 after 60 % of the steps and "
        "without noise in the last "
        "15 %. On 24 frames of the training set each network is calibrated to 34 % and 50 % fewer multiply-adds "
        "(`calibrate`), and tested on the others. The time is that of a core of the processor for a frame of 256×448 "
        "of such scenes, at the same threshold."
    ),
    variants={
        "dense": "computes everything; trained as long",
        "sparsity": "masks learn from the budget alone",
        "labels": "masks learn from uncertainty labels, too",
        "ugsp": "labels, and self-contrast with the branch that is not pruned",
    },
    metrics={
        "psnr34": Metric("PSNR at −34 % multiply-adds, dB", better="higher", digits=2),
        "psnr50": Metric("PSNR at −50 %, dB", better="higher", digits=2),
        "whole": Metric("PSNR of the same weights computed whole, dB", better="higher", digits=2),
        "loss34": Metric("loss to that at −34 %, dB", digits=3),
        "flops34": Metric("multiply-adds spent at −34 %, share of dense", digits=2),
        "flops50": Metric("multiply-adds spent at −50 %, share of dense", digits=2),
        "ms34": Metric("ms at −34 %", digits=1),
        "ms50": Metric("ms at −50 %", digits=1),
    },
    comparisons=[
        Comparison("loss34", "ugsp", "sparsity", published="no figures found"),
        Comparison("psnr34", "ugsp", "dense", published="35.62 beside IFRNet-S's 35.59 on Vimeo90K"),
        Comparison("psnr34", "ugsp", "sparsity", published="labels and contrast help; no figures found"),
        Comparison("psnr34", "ugsp", "labels", published="contrast helps; no figures found"),
        Comparison("ms34", "ugsp", "dense", published="0.46 s beside 0.62 s of IFRNet-S"),
    ],
)


def prepare(folder: Path) -> None:
    """Draw the triplets."""
    for name, count, seed, size in (("train", TRAIN, 7, SIZE), ("test", TEST, 8, SIZE), ("wide", 8, 9, WIDE)):
        target = folder / f"{name}.npy"
        once(target, lambda args=(count, seed, size), target=target: np.save(target, _draw(*args)))


def _draw(count: int, seed: int, size: tuple[int, int]) -> np.ndarray:
    """Triplets as uint8 count×3×3×H×W."""
    from ffplug.datasets.procedural import SceneOptions, random_scene

    still = dict(camera=0.0, rotation=0.0, zoom=0.0, perspective=0.0, elastic=0.0)
    options = SceneOptions(layers=(2, 5), speed=(4.0, 24.0), size=(0.15, 0.4), **still)
    found = []
    for number in range(count):
        scene = random_scene((seed, number), size, options)
        found.append([scene.view(when).image.transpose(2, 0, 1) for when in (0.0, 0.5, 1.0)])
    return np.array(found)


def measure(variant: str, seed: int, folder: Path, shared: Path) -> dict[str, float]:
    """Train unless that is done, and test."""
    torch.set_num_threads(1)
    network = _trained(variant, seed, shared).network.eval()
    train, test, wide = (_triplets(shared / f"{name}.npy") for name in ("train", "test", "wide"))
    known = [(triplet[None, 0], triplet[None, 2]) for triplet in train[:24]]
    found = {}
    with torch.no_grad():
        for name, share in (("34", 0.66), ("50", 0.5)):
            if variant != "dense":
                network.calibrate(known, share)
            found[f"psnr{name}"], found[f"ms{name}"] = _psnr(network, test), _milliseconds(network, wide)
            found[f"flops{name}"] = 1.0 if variant == "dense" else _spent(network, test)
        network.threshold = -torch.inf
        found["whole"] = _psnr(network, test)
    found["loss34"] = found["whole"] - found["psnr34"]
    (folder / "psnr.json").write_text(json.dumps(found))
    return found


@cache
def _triplets(path: Path) -> torch.Tensor:
    """Triplets of a file as float N×3×3×H×W in 0..1."""
    return torch.from_numpy(np.load(path)).float() / 255


def _psnr(network: Any, triplets: torch.Tensor) -> float:
    """Mean PSNR of the middle frames, rounded to whole levels."""
    values = []
    for triplet in triplets:
        frame = network(triplet[None, 0], triplet[None, 2], torch.tensor([0.5]))[0]
        error = ((frame * 255).round() / 255 - triplet[1]).square().mean()
        values.append(float(-10 * error.log10()))
    return statistics.mean(values)


def _spent(network: Any, triplets: torch.Tensor) -> float:
    """Share of the dense network's multiply-adds that the frames need at the network's threshold."""
    masks = [network.sparse(triplet[None, 0], triplet[None, 2])["masks"] for triplet in triplets]
    shares = [float(torch.cat(level).float().mean()) for level in zip(*masks, strict=True)]
    return network.multiply_adds(*SIZE, shares) / network.multiply_adds(*SIZE)


def _milliseconds(network: Any, triplets: torch.Tensor) -> float:
    """Mean processor time of a frame, the best of three rounds."""
    from ffplug.models.layers import fixed_weights

    rounds = []
    with fixed_weights():
        for _ in range(3):
            start = time.process_time()
            for triplet in triplets:
                network(triplet[None, 0], triplet[None, 2], torch.tensor([0.5]))
            rounds.append(1000 * (time.process_time() - start) / len(triplets))
    return min(rounds)


def _config(variant: str) -> dict[str, Any]:
    """The model of a variant."""
    laplacian = dict(type="ffplug_ugsp.LaplacianLoss")
    config = dict(type="ffplug_ugsp.FrameInterpolator", network=dict(NETWORK), losses=[laplacian])
    if variant == "doubt":
        config["network"]["type"] = "ffplug_ugsp.UncertaintyNet"
        config["losses"] = [dict(type="ffplug_ugsp.UncertaintyLoss")]
    elif variant == "dense":
        config["network"]["prune"] = False
    else:
        config["network"].update(auxiliary=variant == "ugsp", lead=3.0)
        config["losses"].append(dict(type="ffplug_ugsp.SparsityLoss", target=TARGET))
    if variant in ("labels", "ugsp"):
        config["losses"].append(dict(type="ffplug_ugsp.LabelLoss"))
    if variant == "ugsp":
        auxiliary = dict(type="ffplug_ugsp.LaplacianLoss", found="auxiliary_frame", weight=0.5)
        contrast = dict(type="ffplug_ugsp.GeometryLoss", wanted="auxiliary_features", weight=0.001)
        config["losses"] += [auxiliary, contrast]
    return config


def _trained(variant: str, seed: int, shared: Path) -> Any:
    """The model of a variant, from the disk where it was trained before."""
    from ffplug import build_model

    target = shared / f"seed{seed}" / f"{variant}.pt"
    once(target, lambda: _train(variant, seed, shared, target))
    model = build_model(_config("dense" if variant == "base" else variant))
    model.load_state_dict(torch.load(target, weights_only=True), strict=False)
    return model


def _train(variant: str, seed: int, shared: Path, target: Path) -> None:
    """Train a variant from the base of its seed, or the base from scratch."""
    from ffplug_ugsp.engine import PiecewiseHook
    from ffplug_ugsp.structures import InterpolationSample

    from ffplug import build_model

    steps = {"base": BASE, "doubt": DOUBT}.get(variant, FINE)
    torch.manual_seed(100 * seed + sum(map(ord, variant)))
    model = build_model(_config("dense" if variant == "base" else variant)).train()
    if variant != "base":
        model.load_state_dict(_trained("base", seed, shared).state_dict(), strict=False)
    needs_labels = variant in ("labels", "ugsp")
    labels = _labels(seed, shared) if needs_labels else None
    schedules = {}
    if variant not in ("base", "dense", "doubt"):
        schedules["network.temperature"] = [(0, 1.0), (0.6 * steps, 0.4)]
        schedules["network.mask_mode"] = [(0, "soft"), (0.6 * steps, "straight"), (0.85 * steps, "certain")]
        schedules["losses.1.scale"] = [(0, 0.0), (0.3 * steps, 1.0)]
    if needs_labels:
        schedules["losses.2.scale"] = [(0, 0.0), (0.3 * steps, 1.0)]
        schedules["losses.2.weight"] = [(0, 0.5), (0.67 * steps, 0.5), (steps, 0.1)]
    hook = PiecewiseHook(schedules)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, steps + 1, pct_start=0.05)
    triplets, draw = _triplets(shared / "train.npy"), np.random.default_rng((seed, 1))
    for step in range(steps):
        hook.apply(model, step)
        inputs, samples = [], []
        for _ in range(BATCH):
            number = int(draw.integers(len(triplets)))
            top, left = (int(draw.integers(side - CROP + 1)) for side in SIZE)
            parts = [triplets[number].flatten(0, 1)] + ([labels[number]] if needs_labels else [])
            parts = torch.cat(parts)[:, top : top + CROP, left : left + CROP]
            axes = [axis for axis in (1, 2) if draw.random() < 0.5]
            parts = parts.flip(axes)
            triplet = parts[:9].unflatten(0, (3, 3))
            inputs.append(triplet[[0, 2]] if draw.random() < 0.5 else triplet[[2, 0]])
            samples.append(InterpolationSample(metainfo=dict(sample_id=str(number))))
            samples[-1].gt_frame = triplet[1]
            if needs_labels:
                samples[-1].gt_labels = parts[9:]
        terms = model(torch.stack(inputs), samples, mode="loss")
        loss, _ = model.parse_losses(terms)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
    torch.save(model.state_dict(), target)


def _labels(seed: int, shared: Path) -> torch.Tensor:
    """Labels of the training frames, N×3×H×W: where the uncertainty is above its quantile over all of them."""
    from ffplug_ugsp.labels import label, thresholds

    network = _trained("doubt", seed, shared).network.eval()
    maps = [network.uncertainty(triplet[None, 0], triplet[None, 2]) for triplet in _triplets(shared / "train.npy")]
    found = thresholds(maps, RATES)
    return torch.cat([label(one, found) for one in maps])


def plot(results: Mapping[str, Mapping[int, Mapping[str, float]]], path: Path) -> None:
    """PSNR by multiply-adds and by time, each seed a thin line, the mean a thick one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    colours = dict(zip(results, ("#777777", "#c8553d", "#3f9b76", "#26406f"), strict=True))
    for variant, colour in colours.items():
        rows = list(results[variant].values())
        spent = [[*((row[f"flops{n}"], row[f"psnr{n}"]) for n in ("50", "34")), (1.0, row["whole"])] for row in rows]
        taken = [[(row[f"ms{n}"], row[f"psnr{n}"]) for n in ("50", "34")] for row in rows]
        for axis, lines in ((left, spent), (right, taken)):
            for line in lines:
                axis.plot(*zip(*line, strict=True), color=colour, linewidth=0.6, alpha=0.6)
            axis.plot(*np.mean(lines, axis=0).T, "o-", color=colour, label=variant)
    left.set_xlabel("multiply-adds, share of the dense network's")
    right.set_xlabel("processor time of a frame of 256×448, ms")
    left.set_ylabel("PSNR, dB (higher is better)")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    figure.savefig(path, dpi=120)

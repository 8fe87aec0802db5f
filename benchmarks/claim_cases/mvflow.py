"""MVFlow's prior against the same network without it."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from claim_cases import Claim, Comparison, Metric, ffplug, once

QUALITIES = {"h264": (18, 28, 38), "mpeg4": (4,)}
"""Codecs and qualities (CRF, quantiser) of the tests; training draws H.264 of CRF 18 to 38."""
COUNTS = (1, 2, 3, 4, 6, 8, 12)
"""Iterations at which flow is compared."""
SIZE = (112, 144)
STEPS = 1300

CLAIM = Claim(
    title="A prior of motion vectors lowers the error at equal iterations, and the time at equal error",
    source="MVFlow, ACM MM 2023: end-point error lower by 1.09 px, or 52 % less time at similar accuracy",
    setup=(
        "Procedural pairs of 112×144 pixels as H.264 shows them. A narrow RAFT (the recipes `mvflow_small` and "
        "`mvflow_small_plain`) at a quarter of the resolution, whose look-up reaches two cells, with and without the "
        "Motion-Vector Converting Module, is trained on crops of "
        f"64×80 for {STEPS} steps with 6 iterations, each pair encoded at a CRF between 18 and 38. It is tested on"
        " 20 pairs that were not trained on, as H.264 of CRF 18, 28 and 38 and as MPEG-4, which training has not "
        "seen. `median` is the network without the prior, started from the median of the vectors, which takes no "
        "training. The time is that of one pair in one thread: the network with the fewest iterations (1, 2, 3, 4,"
        " 6, 8 or 12) whose error is no more than 2 % above that of the plain network after 12, and, where vectors"
        " are used, taking them out of the stream. Where that error is not reached, it is the time of 12 "
        "iterations."
    ),
    variants={
        "mvflow": "with the Motion-Vector Converting Module",
        "median": "plain, started from the median of the vectors",
        "plain": "without a prior",
    },
    metrics={
        "epe2": Metric("EPE after 2 iterations, px"),
        "epe4": Metric("EPE after 4, px"),
        "epe12": Metric("EPE after 12, px"),
        "h264_crf18": Metric("after 4: CRF 18, px"),
        "h264_crf28": Metric("CRF 28, px"),
        "h264_crf38": Metric("CRF 38, px"),
        "mpeg4_q4": Metric("MPEG-4, px"),
        "iterations": Metric("iterations to the plain network's error after 12", digits=1),
        "ms": Metric("time to it, ms", digits=1),
    },
    comparisons=[
        Comparison("epe2", "mvflow", "plain"),
        Comparison("epe4", "mvflow", "plain", "lower by 1.09 px"),
        Comparison("epe12", "mvflow", "plain"),
        Comparison("h264_crf18", "mvflow", "plain"),
        Comparison("h264_crf28", "mvflow", "plain"),
        Comparison("h264_crf38", "mvflow", "plain"),
        Comparison("mpeg4_q4", "mvflow", "plain"),
        Comparison("epe4", "mvflow", "median"),
        Comparison("ms", "mvflow", "plain", "52 % less"),
    ],
)


def prepare(folder: Path) -> None:
    """Draw the scenes, and encode the test pairs."""
    from ffplug_mvflow.datasets import compress
    from ffplug_mvflow.encoding import Encoding

    for name, scenes, seed in (("train", 120, 0), ("test", 10, 1)):
        options = ("--scenes", scenes, "--frames", 3, "--size", f"{SIZE[0]}x{SIZE[1]}", "--seed", seed)
        drawn = ("--textures", "analytic", "--set", "speed=[3,30]")
        ffplug("synth", "sintel", "--root", folder / name, *options, *drawn)
    source = dict(type="ffplug.SintelDataset", data_root=str(folder / "test"), render="clean")
    for codec, qualities in QUALITIES.items():
        for quality in qualities:
            compress(source, folder / f"{codec}_{quality}", Encoding(codec, quality))


def measure(variant: str, seed: int, folder: Path, shared: Path) -> dict[str, float]:
    """Train unless that is done, and test; the plain network serves three."""
    recipe = "mvflow_small" if variant == "mvflow" else "mvflow_small_plain"
    weights = _trained(recipe, seed, shared) / "weights.safetensors"
    plain = weights if variant != "mvflow" else None
    found = _test(variant, weights, shared)
    if plain is None:
        plain = _trained("mvflow_small_plain", seed, shared)
        plain /= "weights.safetensors"
    base = found if variant == "plain" else _test("plain", plain, shared)
    mean = {count: statistics.mean(errors[count] for errors in found["epe"].values()) for count in COUNTS}
    goal = 1.02 * statistics.mean(errors[12] for errors in base["epe"].values())
    enough = next((count for count in COUNTS if mean[count] <= goal), COUNTS[-1])
    (folder / "curves.json").write_text(json.dumps(found["epe"]))
    at_four = {name: errors[4] for name, errors in found["epe"].items()}
    milliseconds = found["ms"][enough]
    return {
        **{f"epe{count}": mean[count] for count in (2, 4, 12)},
        **{f"{name.replace('_', '_crf' if name.startswith('h264') else '_q')}": e for name, e in at_four.items()},
        "iterations": enough,
        "ms": milliseconds,
    }


def _trained(recipe: str, seed: int, shared: Path) -> Path:
    """The folder of a training that several variants share."""
    work = shared / f"seed{seed}" / recipe
    roots = [f"{part}.dataset.data_root={shared / 'train'}" for part in ("train_dataloader", "val_dataloader")]
    root = f"prepare_data.data_root={shared / 'train'}"
    steps = (
        f"train_cfg.max_iters={STEPS}",
        f"train_cfg.val_interval={STEPS}",
        f"param_scheduler.total_steps={STEPS + 10}",
    )
    options = [f"randomness.seed={seed}", "default_hooks.checkpoint.interval=50", *steps, root, *roots]
    train = ("train", recipe, "--work-dir", work, "--resume", "auto", "--cfg-options")
    return once(work, lambda: ffplug(*train, *options))


def _test(variant: str, weights: Path, shared: Path) -> dict[str, Any]:
    """Errors by test set and number of iterations, and milliseconds of a pair by number of iterations."""
    from ffplug_mvflow.datasets import CompressedFlowDataset

    from ffplug import build_model, load_config
    from ffplug.apis.models import load_weights

    torch.set_num_threads(1)
    config = load_config("mvflow_small" if variant == "mvflow" else "mvflow_small_plain").model
    if variant == "median":
        config["prior"] = dict(type="ffplug_mvflow.MedianMotionPrior")
    model = build_model(config).eval()
    load_weights(model, weights)
    errors: dict[str, Mapping[int, float]] = {}
    with torch.no_grad():
        for codec, qualities in QUALITIES.items():
            for quality in qualities:
                sums = dict.fromkeys(COUNTS, 0.0)
                dataset = CompressedFlowDataset(shared / f"{codec}_{quality}")
                for item in dataset:
                    image1, image2, inputs, truth = _sample(item)
                    flows = model.run(image1, image2, COUNTS[-1], every=True, inputs=inputs)["flows"]
                    for count in COUNTS:
                        sums[count] += float((flows[count - 1][0] - truth).norm(dim=0).mean())
                errors[f"{codec}_{quality}"] = {count: total / len(dataset) for count, total in sums.items()}
        image1, image2, inputs, _ = _sample(dataset[0])
        extra = _extraction(shared) if variant != "plain" else 0.0
        times = {
            count: 1000 * _seconds(lambda count=count: model.predict_flow(image1, image2, count, inputs=inputs)) + extra
            for count in COUNTS
        }
    return {"epe": errors, "ms": times}


def _sample(item: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
    """Frames and vectors of a sample as a batch of one, and its true flow. The frames need no padding."""
    from ffplug_mvflow.fields import INPUTS

    sample = item["data_samples"]
    inputs = {name: sample.get(f"input_{name}")[None] for name in INPUTS}
    return *(frame[None].float() for frame in item["inputs"]), inputs, sample.gt_flow


def _extraction(shared: Path) -> float:
    """Milliseconds that vectors take beside decoding, a frame."""
    from ffplug_mvflow.video import MotionVectorVideo

    from ffplug.apis.video import VideoFrames

    clip = shared / "clip.mp4"
    once(clip, lambda: _write_clip(shared, clip))
    times = [_seconds(lambda kind=kind: sum(1 for _ in kind(clip)), 5) for kind in (MotionVectorVideo, VideoFrames)]
    return 1000 * (times[0] - times[1]) / VideoFrames(clip).count


def _write_clip(shared: Path, clip: Path) -> None:
    from ffplug_mvflow.encoding import Encoding, encode_clip

    from ffplug.datasets import SintelDataset

    pairs = SintelDataset(str(shared / "test"), render="clean")
    encode_clip([pair["inputs"][0].permute(1, 2, 0).numpy() for pair in pairs], Encoding(gop=12), clip)


def _seconds(function: Callable[[], Any], repeats: int = 15) -> float:
    """Median time of the processor: other work on the machine does not count."""
    found = []
    for _ in range(repeats):
        begun = time.process_time()
        function()
        found.append(time.process_time() - begun)
    return statistics.median(found)


def plot(results: Mapping[str, Mapping[int, Mapping[str, float]]], path: Path) -> None:
    """Error by iterations, each seed a thin line, the mean a thick one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    names = [f"{codec}_{quality}" for codec, qualities in QUALITIES.items() for quality in qualities]
    axes = figure.subplots(1, len(names), sharey=True)
    for axis, name in zip(axes, names, strict=True):
        for colour, variant in zip(("#26406f", "#3f9b76", "#c8553d"), results, strict=True):
            curves = []
            for seed in results[variant]:
                curves.append(json.loads((path.parent / variant / f"seed{seed}" / "curves.json").read_text())[name])
                axis.plot(COUNTS, [curves[-1][str(c)] for c in COUNTS], color=colour, linewidth=0.6, alpha=0.6)
            mean = [statistics.mean(curve[str(c)] for curve in curves) for c in COUNTS]
            axis.plot(COUNTS, mean, "o-", color=colour, markersize=3, label=variant)
        codec, quality = name.split("_")
        axis.set_title(f"H.264, CRF {quality}" if codec == "h264" else f"MPEG-4, quantiser {quality}", fontsize=10)
        axis.set_xlabel("iterations")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("EPE, px (lower is better)")
    axes[0].legend(frameon=False)
    figure.savefig(path, dpi=120)

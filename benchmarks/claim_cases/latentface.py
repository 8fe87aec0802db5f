"""LatentFace's two codes against the raw 3D codes, a plain autoencoder's, PCA's, and plain regression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from claim_cases import Claim, Comparison, Metric, ffplug, once

PEOPLE, FRAMES, SIZE = 300, 16, 32
FIT, TEST, PROBED = 225, 75, 8
"""People that probes are fitted on and tested on, drawn from the same 300 by each seed, and frames of each."""

WIDTH, CODE = 16, 32
STEPS = {"stage1": 5000, "plain": 5000, "stage2": 300}
BATCH = {"stage1": 8, "plain": 8, "stage2": 3}
RATE = {"stage1": 2e-3, "plain": 2e-3, "stage2": 1e-3}
FACES = {
    "background": "same",
    "intensity": (0.7, 1.0),
    "pitch_yaw_roll": (0.15, 0.5, 0.08),
    "shift": 0.005,
}
"""What portraits are drawn from: clear expressions, and heads that turn by up to 29 degrees, before one background."""
CODES = {"latent3d": "stage1", "autoencoder": "plain", "regression": "stage1"}
"""Whose codes a variant starts from; the denoisers' bring their own."""

_PAPER = "probes better"

CLAIM = Claim(
    title="Representation diffusion over 3D codes parts identity from expression",
    source="He et al., arXiv 2309.08273: linear probes of expression and verification are better than with other "
    "self-supervised codes; both the 3D factors and diffusion add to it",
    setup=f"""[Portraits](../methods/face.md#portraits) of {SIZE} pixels before one background: {PEOPLE} people with
{FRAMES} frames each to train on, without labels, by `latentface_small1` and `latentface_small2`. The networks are
narrow (width {WIDTH}, two codes of {CODE} numbers); the first stage has no perceptual loss and no confidence, but
depth is smoothed. {STEPS["stage1"]} steps of {BATCH["stage1"]} pictures for the 3D-aware autoencoder and for the plain
one, which has the same encoders and decoders but adds the two decoders' pictures, {STEPS["stage2"]} of
{FRAMES} frames of each of {BATCH["stage2"]} people for the denoisers, over codes scaled to a mean square of 1. The
two autoencoders are common to all seeds; the seed draws the denoisers' training, and which of {FIT + TEST} other people
linear probes (ridge and logistic regression) are fitted on ({FIT}) and tested on ({TEST}). R² are means over the 12
action units or the 12 numbers of an identity. Pairs of all test pictures are verified by the cosine of centred codes.
DCI's disentanglement is that of both codes together, for identity, action units, view and light.""",
    variants={
        "latentface": "identity and expression by diffusion over the 3D codes",
        "plain_diffusion": "the same over the plain autoencoder's codes",
        "regression": "identity by linear regression on the 3D codes, the rest expression",
        "latent3d": "the 3D codes themselves, for both",
        "autoencoder": "the plain autoencoder's codes, for both",
        "pca": f"PCA of the pixels with as many numbers ({2 * CODE}), for both",
    },
    metrics={
        "units": Metric("action units, R² (expression)", better="higher"),
        "classes": Metric("classes, accuracy (expression)", better="higher"),
        "affect": Metric("valence and arousal, R² (expression)", better="higher"),
        "identity": Metric("identity, R² (identity)", better="higher"),
        "auc": Metric("verification, ROC-AUC (identity)", better="higher"),
        "eer": Metric("verification, EER (identity)"),
        "leaked_identity": Metric("verification, ROC-AUC (expression)"),
        "leaked_units": Metric("action units, R² (identity)"),
        "pose": Metric("yaw, R² (expression)"),
        "light": Metric("light, R² (expression)"),
        "dci": Metric("DCI", better="higher"),
    },
    comparisons=[
        Comparison("units", "latentface", "latent3d", _PAPER),
        Comparison("classes", "latentface", "latent3d", _PAPER),
        Comparison("auc", "latentface", "latent3d", _PAPER),
        Comparison("leaked_identity", "latentface", "latent3d"),
        Comparison("leaked_units", "latentface", "latent3d"),
        Comparison("auc", "latentface", "regression"),
        Comparison("leaked_identity", "latentface", "regression"),
        Comparison("units", "latentface", "plain_diffusion", _PAPER),
        Comparison("auc", "latentface", "plain_diffusion", _PAPER),
        Comparison("units", "latent3d", "autoencoder", _PAPER),
        Comparison("pose", "latent3d", "autoencoder"),
        Comparison("units", "latentface", "pca", _PAPER),
        Comparison("auc", "latentface", "pca", _PAPER),
        Comparison("dci", "latentface", "latent3d"),
    ],
)


def prepare(folder: Path) -> None:
    """Draw the people to train on, in both stages' layouts, and those of the probes."""
    import torch
    from ffplug_face.portraits import PortraitOptions, Portraits, draw_portraits, render_portraits

    from ffplug.datasets.formats import write_image

    options = PortraitOptions(**FACES)
    sets = {"train": (0, PEOPLE, FRAMES), "probe": (PEOPLE, FIT + TEST, PROBED)}
    for name, (first, people, frames) in sets.items():
        faces = Portraits.joined([draw_portraits(0, first + k, frames, options=options) for k in range(people)])
        images = render_portraits(faces, SIZE).images
        truth = {key: torch.from_numpy(value) for key, value in faces.arrays().items()}
        torch.save({"images": images, **truth}, folder / f"{name}.pth")
        split = {"train": "train", "probe": "val"}[name]
        for number, image in enumerate(images.permute(0, 2, 3, 1).numpy()):
            single = folder / "celeba-crops" / split / f"{number:05d}.png"
            frame = folder / "voxceleb" / split / f"id{faces.person[number]:05d}" / "1" / f"{number:05d}_recrop.png"
            for path in (single, frame):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_image(path, image)


def measure(variant: str, seed: int, folder: Path, shared: Path) -> dict[str, float]:
    """Train what the variant needs, once for all of a seed, and probe its codes."""
    import torch

    torch.set_num_threads(1)
    sets = {name: torch.load(shared / f"{name}.pth") for name in ("train", "probe")}
    images = {name: data["images"].float() / 127.5 - 1 for name, data in sets.items()}
    identity, expression = _codes(variant, seed, shared, images)
    people = torch.randperm(FIT + TEST, generator=torch.Generator().manual_seed(seed))
    rows = (people[:, None] * PROBED + torch.arange(PROBED)).flatten().split([FIT * PROBED, TEST * PROBED])
    codes = [(code[rows[0]], code[rows[1]]) for code in (identity, expression)]
    fit, test = ({key: value[chosen] for key, value in sets["probe"].items()} for chosen in rows)
    return _figures(codes, fit, test)


def _trained(name: str, seed: int, shared: Path) -> Path:
    """The work folder of a training: ``stage1``, ``plain``, or ``stage2`` over one of them (``stage2_plain``).

    Autoencoders are those of the first seed.
    """
    kind, _, base = name.partition("_")
    seed = seed if base else 0
    work = shared / f"seed{seed}" / name
    config = work.parent / f"{name}.py"
    start = _trained(base, seed, shared) / "weights.safetensors" if base else None
    once(config, lambda: _config(kind, base, start, shared).dump(str(config)))
    train = ("train", config, "--work-dir", work, "--seed", seed, "--resume", "auto")
    return once(work, lambda: ffplug(*train))


def _config(kind: str, base: str, start: Path | None, shared: Path) -> Any:
    """The recipe of a small stage, with the claim's sizes."""
    from mmengine.config import Config

    from ffplug.config import load_config

    config = load_config("latentface_small2" if base else "latentface_small1").to_dict()
    sizes = dict(image_size=SIZE, width=WIDTH, code=CODE, spread=True)
    autoencoder = {
        "stage1": dict(type="ffplug_latentface.LatentFaceAutoencoder", smoothness=0.1, confidence=False, **sizes),
        "plain": dict(type="ffplug_latentface.PlainAutoencoder", **sizes),
    }[base or kind]
    layout, reader = "celeba-crops", "ffplug_latentface.LoadFace"
    if base:
        layout, reader = "voxceleb", "ffplug_face.LoadFaceFrames"
        autoencoder = dict(autoencoder, pretrained=str(start))
        autoencoder = dict(config["model"], autoencoder=autoencoder, code_scale=_scale(autoencoder, shared))
    config["model"] = autoencoder
    for part in ("train", "val"):
        load = dict(type=reader, size=SIZE)
        config[f"{part}_dataloader"]["dataset"].update(data_root=str(shared / layout), pipeline=[load])
        if base:
            config[f"{part}_dataloader"]["dataset"]["min_frames"] = PROBED
    steps = STEPS[kind]
    warm = steps // 25
    config["train_dataloader"]["batch_size"] = BATCH[kind]
    config["optim_wrapper"]["optimizer"] = dict(type="Adam", lr=RATE[kind])
    config["param_scheduler"] = [
        dict(type="LinearLR", by_epoch=False, start_factor=0.01, end=warm),
        dict(type="CosineAnnealingLR", by_epoch=False, begin=warm, T_max=steps - warm, eta_min=RATE[kind] / 20),
    ]
    config["train_cfg"].update(max_iters=steps, val_interval=steps)
    config["default_hooks"]["checkpoint"].update(interval=steps)
    return Config({**config, "prepare_data": None})


def _scale(autoencoder: dict[str, Any], shared: Path) -> tuple[float, ...]:
    """What gives both codes of an autoencoder a mean square of 1 over the pictures to train on."""
    import torch

    from ffplug.apis.models import build_model

    model = build_model(autoencoder)
    images = torch.load(shared / "train.pth")["images"][::4].float() / 127.5 - 1
    with torch.no_grad():
        codes = torch.cat([model.codes(part) for part in images.split(256)])
    return tuple(1 / float(part.square().mean().sqrt()) for part in codes.chunk(2, 1))


def _codes(variant: str, seed: int, shared: Path, images: dict[str, Any]) -> tuple[Any, Any]:
    """Identity and expression of the pictures to probe, each N×2C."""
    import torch
    from ffplug_latentface.evaluation.disentanglement import ridge

    from ffplug.apis.models import build_model

    if variant == "pca":
        train, probe = (images[name].flatten(1) for name in ("train", "probe"))
        torch.manual_seed(seed)
        codes = (probe - train.mean(0)) @ torch.pca_lowrank(train, 2 * CODE, niter=6)[2]
        return codes, codes
    diffused = {"latentface": "stage2_stage1", "plain_diffusion": "stage2_plain"}.get(variant)
    work = _trained(diffused or CODES[variant], seed, shared)
    model = build_model(str(work.with_suffix(".py")), work / "weights.safetensors")
    with torch.no_grad():
        run = (lambda x: model.embed(x, "both")) if diffused else model.codes
        found = {name: torch.cat([run(part) for part in values.split(256)]).float() for name, values in images.items()}
    codes = found["probe"]
    if diffused:
        return codes.chunk(2, 1)
    if variant != "regression":
        return codes, codes
    people = found["train"].unflatten(0, (PEOPLE, FRAMES))
    others = (people.sum(1, keepdim=True) - people) / (FRAMES - 1)
    weights, mean, deviation = ridge(found["train"], others.flatten(0, 1))
    identity = ((codes - mean) / deviation @ weights[:-1] + weights[-1]).float()
    return identity, codes - identity


def _figures(sides: list[tuple[Any, Any]], fit: dict[str, Any], test: dict[str, Any]) -> dict[str, float]:
    """All metrics of identity and expression, each of the pictures to fit and to test on."""
    import torch
    from ffplug_latentface.evaluation.disentanglement import dci, probe_accuracy, probe_r2
    from ffplug_latentface.evaluation.verification import area_under_curve, cosines, equal_error_rate

    def r2(side: int, name: str, columns: slice = slice(None)) -> float:
        before, after = sides[side]
        return float(probe_r2(before, fit[name][:, columns], after, test[name][:, columns], strength=10.0).mean())

    first, second = torch.triu_indices(len(test["person"]), len(test["person"]), 1)
    same = test["person"][first] == test["person"][second]
    alike = []
    for before, after in sides:
        centred = after - before.mean(0)
        alike.append(cosines(centred[first], centred[second]))
    factors = torch.cat([fit[name] for name in ("identity", "action_units", "light")] + [fit["view"][:, :3]], 1)
    both = sides[0][0] if sides[0][0] is sides[1][0] else torch.cat((sides[0][0], sides[1][0]), 1)
    return {
        "units": r2(1, "action_units"),
        "classes": probe_accuracy(sides[1][0], fit["expression"], sides[1][1], test["expression"]),
        "affect": r2(1, "affect"),
        "identity": r2(0, "identity"),
        "auc": area_under_curve(alike[0], same),
        "eer": equal_error_rate(alike[0], same),
        "leaked_identity": area_under_curve(alike[1], same),
        "leaked_units": r2(0, "action_units"),
        "pose": r2(1, "view", slice(1, 2)),
        "light": r2(1, "light"),
        "dci": dci(both, factors)[0],
    }

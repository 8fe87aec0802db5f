"""What the claims on faces share: drawn faces and scenes, small networks, and their start on scenes.

All lies in ``work_dirs/claims/faces`` and is made once, whichever claim or process comes first. Trainings are recipes
of ``configs``, run by ``ffplug train``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from claim_cases import ffplug, once

CONFIGS = Path(__file__).parent / "configs"
SIZE = "96x96"
START = 800
"""Iterations of the start on procedural scenes."""

OPTIONS = {
    "eases": ["smooth"],
    "intensity": [0.6, 1.0],
    "extra_actions": 8,
    "yaw_pitch_roll": [2, 1.5, 1.5],
    "translation": 0.003,
    "fill": [0.8, 1.0],
}
"""What faces are drawn from: the strongest expression within one pair, and a head that turns little."""


def home(shared: Path) -> Path:
    """The folder of all claims on faces, from the folder that a claim shares among its runs."""
    return shared.parents[1] / "faces"


def draw(shared: Path) -> None:
    """Draw 160 pairs of faces, 32 pairs of other people to test on, and 192 pairs of scenes."""
    changes = [part for key, value in OPTIONS.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    size = ("--size", SIZE, "--textures", "analytic", "--workers", 0)
    root = home(shared)
    faces = ("synth", "ffn", "--root", root / "drawn", "--scenes", 160, "--frames", 2, *size, *changes)
    once(root / "drawn", lambda: ffplug(*faces))
    where = ("--root", root / "scenes")
    scenes = ("synth", "sintel", *where, "--scenes", 64, "--frames", 4, "--difficulty", "demo", *size)
    once(root / "scenes", lambda: ffplug(*scenes))


def train(
    shared: Path,
    folder: Path,
    config: str,
    steps: int,
    rate: float,
    seed: int,
    *options: str,
    start: Path | None = None,
) -> Path:
    """Train a recipe of ``configs``, or go on with it, and return its weights.

    Args:
        shared: the claim's shared folder.
        folder: of the training.
        config: name of the recipe.
        steps: iterations.
        rate: peak learning rate.
        seed: of the training.
        options: further ``key=value`` for the config.
        start: weights to start from.
    """
    data = home(shared) / ("scenes" if config.startswith("scene") else "drawn")
    options = (
        f"train_dataloader.dataset.data_root={data}",
        f"train_cfg.max_iters={steps}",
        f"train_cfg.val_interval={steps}",
        f"val_dataloader.dataset.data_root={home(shared) / 'drawn'}",
        f"optim_wrapper.optimizer.lr={rate}",
        f"param_scheduler.eta_max={rate}",
        f"param_scheduler.total_steps={steps + 10}",
        *([f"load_from={start}"] if start else []),
        *options,
    )
    path = CONFIGS / f"{config}.py"
    command = ("train", path, "--work-dir", folder, "--seed", seed, "--resume", "auto", "--cfg-options", *options)
    once(folder, lambda: ffplug(*command))
    return folder / "weights.safetensors"


def started(shared: Path, network: str) -> Path:
    """Weights of ``raft`` or ``gma`` after its start on procedural scenes."""
    return train(shared, home(shared) / f"{network}_start", f"scene_{network}", START, 1.5e-3, 0)


def load(config: str, weights: Path) -> Any:
    """The network of a recipe, with trained weights."""
    import ffplug as library

    return library.build_model(CONFIGS / f"{config}.py", checkpoint=weights).eval()


def held_out(shared: Path) -> Iterator[tuple]:
    """Frame 1 and 2 (1×3×H×W) and the sample of each pair of people and skins that no training has seen."""
    from ffplug_decflow.datasets import FacialFlowNetDataset

    for item in FacialFlowNetDataset(str(home(shared) / "drawn"), split="val"):
        first, second = (frame[None].float() for frame in item["inputs"])
        yield first, second, item["data_samples"]


def error(flow: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> float:
    """Mean end-point error of 2×H×W flow within a mask."""
    return float(np.linalg.norm(flow - truth, axis=0)[mask].mean())

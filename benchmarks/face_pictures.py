"""Draw the pictures of docs/methods/face.md: frames with their flows, and heads.

python benchmarks/face_pictures.py [--out docs/images] [--suffix .jpg] [--seed 0]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from ffplug_face.models import HeadModel, OpenHead, ProceduralHead
from ffplug_face.sequences import FaceScene, face_scene

from ffplug.visualization.colour import flow_norm, flow_to_image
from ffplug.visualization.flow_visualizer import save_picture
from ffplug.visualization.panel import text_image

_REGIONS = np.array(
    [[40, 40, 44], [214, 170, 140], [196, 72, 80], [110, 74, 40], [240, 240, 240], [120, 20, 40], [160, 130, 190]]
)
_BAR = 20


def picture(tensor: torch.Tensor) -> np.ndarray:
    """A picture 3×H×W as H×W×3 uint8."""
    return tensor.permute(1, 2, 0).contiguous().numpy().astype(np.uint8)


def tile(image: np.ndarray, caption: str) -> np.ndarray:
    """A picture with a line of text above it."""
    bar = np.full((_BAR, image.shape[1], 3), 255, np.uint8)
    text = text_image(caption, 13)[:_BAR, : image.shape[1]]
    opaque = text[..., 3:].astype(float) / 255
    corner = bar[: text.shape[0], : text.shape[1]]
    corner[...] = (1 - opaque) * corner + opaque * text[..., :3]
    return np.concatenate([bar, image])


def flows(scene: FaceScene, frame: int) -> np.ndarray:
    """One row: both frames, the three flows, what stays visible, the regions."""
    flow = scene.flow(frame)
    tiles = [tile(picture(scene.image(frame)), "frame 1"), tile(picture(scene.image(frame + 1)), "frame 2")]
    largest = flow_norm(flow.facial.permute(1, 2, 0).numpy())
    for name in ("facial", "head", "expression"):
        values = getattr(flow, name).permute(1, 2, 0).numpy()
        scale = flow_norm(values) if name == "expression" else largest
        tiles.append(tile(flow_to_image(values, scale), f"{name} flow, up to {scale:.1f} px"))
    seen = np.repeat(np.where(flow.visible.numpy(), 255, 60).astype(np.uint8)[..., None], 3, axis=2)
    seen[~flow.mask.numpy()] = seen[~flow.mask.numpy()] // 2 + 90
    tiles.append(tile(seen, "visible in frame 2"))
    tiles.append(tile(_REGIONS[scene.regions(frame).numpy() + 1].astype(np.uint8), "regions"))
    return np.concatenate(tiles, axis=1)


def heads(head: HeadModel, seed: int, count: int, size: int) -> np.ndarray:
    """One row of identities, each in the middle of its sequence."""
    scenes = [face_scene(head, seed, index, size=(size, size), frames=(5,), fill=(0.75, 0.8)) for index in range(count)]
    return np.concatenate([picture(scene.image(2)) for scene in scenes], axis=1)


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--suffix", default=".jpg")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    head, rows = OpenHead(), []
    for index, emotion in enumerate(("happiness", "surprise", "anger", "contempt")):
        still = {"yaw_pitch_roll": (7.0, 4.0, 3.0), "fill": (0.75, 0.8), "intensity": (0.9, 1.0)}
        chosen = {**still, "emotions": (emotion,), "eases": ("smooth",), "drift": 0.02 * (index == 3)}
        scene = face_scene(head, arguments.seed, index, size=(216, 216), frames=(3,), **chosen)
        rows.append(flows(scene, 0))
    save_picture(np.concatenate(rows), arguments.out / f"face_flow{arguments.suffix}")
    kinds = [heads(kind, arguments.seed, 7, 216) for kind in (head, ProceduralHead())]
    save_picture(np.concatenate(kinds), arguments.out / f"face_heads{arguments.suffix}")


if __name__ == "__main__":
    main()

"""Time LatentFace's renderer: the rasteriser's kernels against its dense reference in PyTorch.

    python benchmarks/latentface.py [--size 64] [--batch 4] [--rounds 3] [--device cpu]

A picture is forward and backward of a depth map in a turned view. The reference holds every triangle against every
pixel; both must give the same pictures.
"""

from __future__ import annotations

import time

import click
import torch
from ffplug_face.portraits import draw_portraits, face_maps
from ffplug_face.rendering.depth_map import DepthCamera, grid_faces, rasterize_depth_map

from ffplug.ops import mesh_rasterize


def _seconds(run, rounds: int, device: str) -> float:
    """Seconds of the quickest of some rounds, after one that does not count."""
    best = float("inf")
    for number in range(rounds + 1):
        start = time.perf_counter()
        run()
        if device != "cpu":
            torch.cuda.synchronize()
        if number:
            best = min(best, time.perf_counter() - start)
    return best


@click.command()
@click.option("--size", default=64, show_default=True)
@click.option("--batch", default=4, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--device", default="cpu", show_default=True)
def main(size: int, batch: int, rounds: int, device: str) -> None:
    """Print pictures a second of both, with gradients and without."""
    portraits = draw_portraits(0, 0, batch)
    depth, _, _ = face_maps(portraits.identity, portraits.action_units, size)
    depth, view = depth.to(device), torch.from_numpy(portraits.view).to(device)
    camera = DepthCamera(size)
    faces = grid_faces(size, size, depth.device)

    def kernel(gradient: bool) -> torch.Tensor:
        leaf = depth.clone().requires_grad_(gradient)
        seen, _, _ = rasterize_depth_map(camera, leaf, view)
        if gradient:
            seen.sum().backward()
        return seen.detach()

    def dense(gradient: bool) -> torch.Tensor:
        leaf = depth.clone().requires_grad_(gradient)
        corners = camera.project(camera.turn(camera.back_project(leaf), view)).flatten(1, 2)
        _, seen, _ = mesh_rasterize.reference(corners, faces, size, size, 1e-6)
        if gradient:
            seen.sum().backward()
        return seen.detach()

    off = float((kernel(False) - dense(False)).abs().max())
    click.echo(f"{batch} maps of {size}×{size} on {device}: largest difference {off:.1e}")
    for gradient in (False, True):
        for name, run in (("kernel", kernel), ("dense reference", dense)):
            seconds = _seconds(lambda run=run, gradient=gradient: run(gradient), rounds, device)
            click.echo(
                f"{name:16} {'with' if gradient else 'without'} gradient: {batch / seconds:9.1f} pictures a second"
            )


if __name__ == "__main__":
    main()

"""The networks, the renderer, the losses and the samplers give the numbers of the public code."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from ffplug_face.rendering.depth_map import (
    DepthCamera,
    depth_normals,
    lambertian,
    rasterize_depth_map,
    rotations,
)
from ffplug_latentface.losses import VGGPerceptualLoss, photometric_loss
from ffplug_latentface.models.denoiser import build_denoiser, current_unet_keys, unet_to_mlp
from ffplug_latentface.models.factors import Factors, Renderer, light_of
from ffplug_latentface.models.networks import CodeNet, ConfidenceNet, FactorNet
from ffplug_latentface.models.schedulers import build_scheduler, sample_codes, signal_to_noise

from ffplug.testing.golden import image, values

GOLDEN = Path(__file__).parent / "golden"
KEYS = json.loads((GOLDEN / "keys64.json").read_text())


def draw(seed: int, shape: tuple[int, ...], low: float, high: float) -> torch.Tensor:
    return torch.from_numpy(image(seed, shape, low, high))


def reference(net: str, width: int = 128) -> dict[str, torch.Tensor]:
    """The reference's weights under its own inner names; denoisers also wider than the file has them."""
    shapes = KEYS[net]
    if width != 128:
        shapes = {key: _widened(key, shape, width // 128) for key, shape in shapes.items()}
    state = {key: torch.from_numpy(values(f"{net}.{key}", tuple(shape))) for key, shape in shapes.items()}
    if net in ("netEA", "netED"):
        state["conv_out.weight"] = 6 * state["conv_out.weight"]
    return state


def _widened(key: str, shape: list[int], factor: int) -> list[int]:
    """Channels times the factor, but for the codes'."""
    fixed = {"conv_in.weight": 1, "conv_out.weight": 0, "conv_out.bias": 0}.get(key)
    return [side * factor if side >= 128 and axis != fixed else side for axis, side in enumerate(shape)]


def filled(network: torch.nn.Module, net: str) -> torch.nn.Module:
    """A network with the reference's weights."""
    parts = {"network1": "encoder", "network2": "decoder", "out_net1": "pixels", "out_net2": "cells"}
    state = {}
    for key, value in reference(net).items():
        part, _, rest = key.partition(".")
        state[f"{parts.get(part, part)}.{rest}"] = value
    network.load_state_dict(state)
    return network.eval()


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "nets64.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return draw(11, (2, 3, 64, 64), 0, 1) * 2 - 1


def close(found: torch.Tensor, wanted: np.ndarray, tolerance: float = 1e-4) -> None:
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=1e-4, atol=tolerance)


@torch.no_grad()
def test_autoencoder(x: torch.Tensor, expected: dict[str, np.ndarray]) -> None:
    depth, albedo = filled(CodeNet(1), "netD"), filled(CodeNet(3), "netA")
    code = depth.encode(x)
    close(code, expected["depth_code"][:, :, 0, 0])
    close(depth.decode(code), expected["depth_raw"])
    code = albedo.encode(x)
    close(code, expected["albedo_code"][:, :, 0, 0])
    close(albedo.decode(code).tanh(), expected["albedo"])
    assert sum(parameter.numel() for parameter in depth.parameters()) == pytest.approx(12.98e6, rel=1e-3)


@torch.no_grad()
def test_light_view_and_confidence(x: torch.Tensor, expected: dict[str, np.ndarray]) -> None:
    close(filled(FactorNet(4), "netL")(x), expected["light"])
    close(filled(FactorNet(6), "netV")(x), expected["view"])
    pixels, cells = filled(ConfidenceNet(), "netC")(x)
    close(pixels, expected["conf_l1"])
    close(cells, expected["conf_percl"])


@pytest.fixture(scope="module")
def denoisers() -> dict[tuple[str, str], torch.nn.Module]:
    """Both networks in both layouts."""
    built = {}
    for name, net in (("a", "netEA"), ("d", "netED")):
        unet, mlp = build_denoiser(layout="unet"), build_denoiser()
        unet.load_state_dict(current_unet_keys(reference(net)))
        mlp.load_state_dict(unet_to_mlp(reference(net)))
        built[name, "unet"], built[name, "mlp"] = unet.eval(), mlp.eval()
    return built


NOISE, OBSERVED, STEPS = (12, (4, 256, 1, 1), -2, 2), (13, (4, 256, 1, 1), 0, 1.5), [0, 37, 500, 999]


@pytest.mark.parametrize("layout", ["unet", "mlp"])
@torch.no_grad()
def test_denoisers(denoisers: dict, expected: dict[str, np.ndarray], layout: str) -> None:
    both, steps = torch.cat((draw(*NOISE), draw(*OBSERVED)), 1), torch.tensor(STEPS)
    close(denoisers["a", layout](both, steps).sample, expected["rdm_EA"])
    close(denoisers["d", layout](both, steps).sample, expected["rdm_ED"])


@torch.no_grad()
def test_training_step(denoisers: dict, expected: dict[str, np.ndarray]) -> None:
    noise, observed, steps = draw(*NOISE), draw(*OBSERVED), torch.tensor(STEPS)
    scheduler = build_scheduler()
    clean = observed.mean(0, keepdim=True).expand_as(observed)
    noisy = scheduler.add_noise(clean, noise, steps)
    close(noisy, expected["noisy"])
    found = denoisers["a", "mlp"](torch.cat((noisy, observed), 1), steps).sample
    close(found, expected["rdm_pred_on_noisy"])
    weight = signal_to_noise(scheduler, steps)
    np.testing.assert_allclose(weight.numpy(), expected["snr"], rtol=1e-4)
    loss = weight * ((found - clean) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(loss.numpy(), expected["diffusion_loss_per_sample"], rtol=1e-4)


@pytest.mark.parametrize("sampler", ["legacy", "ddim"])
@pytest.mark.parametrize("clip", [True, False])
@torch.no_grad()
def test_samplers(denoisers: dict, expected: dict[str, np.ndarray], sampler: str, clip: bool) -> None:
    noise = draw(14, (2, 256), -1.7, 1.7)
    for name, code in (("a", "albedo_code"), ("d", "depth_code")):
        observed = torch.from_numpy(expected[code])[:, :, 0, 0]
        trace: list[torch.Tensor] = []
        found = sample_codes(denoisers[name, "mlp"], build_scheduler(sampler, clip), observed, noise, trace=trace)
        close(
            torch.stack(trace), expected[f"{sampler}_{'clip' if clip else 'noclip'}_{name}"], 5e-4
        )  # float64 is off by 3e-4
        assert torch.equal(found, trace[-1].flatten(1))


@pytest.mark.skipif(
    os.environ.get("FFPLUG_CHECK_LARGE") != "1", reason="228 million parameters: set FFPLUG_CHECK_LARGE=1"
)
@torch.no_grad()
def test_wide_denoiser() -> None:
    with np.load(GOLDEN / "rdm1024.npz") as file:
        wanted = file["rdm_EA"]
    network = build_denoiser(width=1024)
    network.load_state_dict(unet_to_mlp(reference("netEA", 1024)))
    both = torch.cat((draw(*NOISE), draw(*OBSERVED)), 1)
    close(network.eval()(both, torch.tensor(STEPS)).sample, wanted)


@pytest.fixture(scope="module")
def scene() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN / "render48.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def factors(scene: dict[str, torch.Tensor]) -> Factors:
    return Factors(scene["depth_border"], scene["albedo"], light_of(scene["light"]), scene["view"])


def test_geometry_and_shading(scene: dict[str, torch.Tensor]) -> None:
    renderer, faces = Renderer(48), factors(scene)
    camera = renderer.mesh_camera
    points = camera.back_project(faces.depth)
    close(points, scene["grid3d"].numpy(), 1e-6)
    close(depth_normals(points), scene["normal"].numpy())
    close(lambertian(depth_normals(points), faces.light)[1][:, None], scene["shading"].numpy())
    close(renderer.canonical(faces), scene["canon_im"].numpy())
    close(rotations(faces.view[:, :3]), scene["rot"].numpy(), 1e-6)
    turned = camera.turn(points, faces.view)
    close(turned, scene["warped3d"].numpy(), 1e-6)
    close(camera.project(turned)[..., :2] / camera.middle - 1, scene["warped2d"].numpy())


def same_pictures(found: torch.Tensor, wanted: torch.Tensor, tolerance: float = 1e-4) -> None:
    """Equal but for five pixels at silhouettes."""
    off = (found - wanted).abs() > tolerance
    assert int((off.any(1) if off.dim() == 4 else off).sum()) <= 5


@pytest.mark.parametrize(("camera", "name"), [("exact", "k"), ("legacy", "p3d")])
def test_meshes_of_colours(scene: dict[str, torch.Tensor], camera: str, name: str) -> None:
    picture, depth = Renderer(48, camera, "colours").render(factors(scene))
    same_pictures(depth, scene[f"{name}_depth"])
    same_pictures(picture, scene[f"{name}_image"])


def test_inverse_warp(scene: dict[str, torch.Tensor]) -> None:
    renderer, faces = Renderer(48), factors(scene)
    grid = renderer.sampling_grid(scene["k_depth"], faces.view)
    close(grid, scene["k_inv_grid"].numpy())
    same_pictures(renderer.render(faces)[0], scene["k_sampled"], tolerance=1e-3)


def test_gradients_of_the_renderer(scene: dict[str, torch.Tensor]) -> None:
    depth, picture, view = (scene[name].clone().requires_grad_() for name in ("depth_border", "canon_im", "view"))
    seen, hit, colours = rasterize_depth_map(DepthCamera(48), depth, view, picture)
    mask = (hit & (scene["k_depth"] < 1.19)).float()
    first, second = draw(5, (2, 3, 48, 48), -1, 1), draw(6, (2, 48, 48), -1, 1)
    ((colours * first * mask[:, None]).sum() + 10 * (seen * second * mask).sum()).backward()
    np.testing.assert_allclose(depth.grad, scene["k_grad_depth"], rtol=1e-3, atol=0.02)
    np.testing.assert_allclose(picture.grad, scene["k_grad_im"], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(view.grad, scene["k_grad_view"], rtol=1e-3, atol=0.02)


def test_losses() -> None:
    with np.load(GOLDEN / "losses32.npz") as file:
        wanted = {name: file[name] for name in file.files}
    a, b = draw(21, (2, 3, 32, 32), -1, 1), draw(22, (2, 3, 32, 32), -1, 1)
    mask = (draw(23, (2, 1, 32, 32), 0, 1) > 0.3).float()
    fine, coarse = draw(24, (2, 1, 32, 32), 0.2, 2), draw(25, (2, 1, 8, 8), 0.2, 2)
    network = VGGPerceptualLoss()
    for place, layer in zip(("1.0", "1.2", "2.5", "2.7", "3.10", "3.12", "3.14"), network.layers, strict=True):
        for name, parameter in layer.named_parameters():
            parameter.data = torch.from_numpy(values(f"PerceptualLoss.slice{place}.{name}", tuple(parameter.shape)))
    features = network.features(torch.cat((a, b)))
    close(features, wanted["relu3_3"])
    first, second = features.chunk(2)
    found = dict(
        l1_plain=photometric_loss(a, b),
        l1_mask_conf=photometric_loss(a, b, mask, fine),
        perc_plain=network(first, second),
        perc_mask_conf=network(first, second, mask, coarse),
    )
    for name, value in found.items():
        assert float(value) == pytest.approx(float(wanted[name]), rel=1e-5), name

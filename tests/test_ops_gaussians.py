"""Conformance of Gaussian splatting, and its exact rules."""

import json

import numpy as np
import pytest
import torch
from golden_cases import GOLDEN

from ffplug.ops import (
    NextFrame,
    gaussian_composite,
    gaussian_rasterize,
    gaussian_ray_flow,
    project_gaussians,
    ray_maps,
    spherical_harmonics,
)
from ffplug.ops.contract import use_backend
from ffplug.ops.gaussians import camera_centre, rotation_matrices
from ffplug.testing.ops import Maker, OpConformance, available_backends, on_backend

SCENES = ("static_camera", "moving_camera_opaque")


def splats(make, number, channels, height, width, size=2.0, opacity=0.9):
    """Random projected Gaussians over an image and beyond its border."""
    means = make.uniform(number, 2, low=-0.1, high=1.1) * make.tensor([width, height])
    half = make(number, 2, 2, scale=size)
    covariances = half @ half.transpose(1, 2) + 0.4 * torch.eye(2, dtype=half.dtype, device=half.device)
    inverse = torch.linalg.inv(covariances.double()).to(half.dtype)
    conics = torch.stack((inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]), 1)
    opacities = make.uniform(number, low=0.1, high=opacity)
    return means, conics, opacities, make(number, channels), make.uniform(number, low=1, high=3)


def composite_case(number, channels, height, width, **options):
    return lambda make: (*splats(make, number, channels, height, width, **options), make(channels), height, width)


def ray_case(number, height, width):
    def case(make):
        means, conics, opacities, _, depths = splats(make, number, 0, height, width)
        # A ray in front of each Gaussian, and a motion near to none.
        half = make(number, 3, 3, scale=0.1)
        spread = half @ half.transpose(1, 2) + torch.eye(3, dtype=half.dtype, device=half.device)
        row, column = torch.triu_indices(3, 3)
        turn = make(number, 3, 3, scale=0.05) + torch.eye(3, dtype=half.dtype, device=half.device)
        near = make(number, 3, scale=0.1) + make.tensor([0, 0, 5])
        rays = torch.cat((near, spread[:, row, column], turn.flatten(1), make(number, 3, scale=0.1)), 1)
        rays[:, 20] += 40
        return means, conics, opacities, depths, rays, height, width

    return case


class TestGaussianComposite(OpConformance):
    op = gaussian_composite
    # Half-precision means move by pixels' fractions, so the reference sees the same rounded ones.
    cases = {
        "tiles": composite_case(60, 9, 37, 21),
        "saturated": composite_case(80, 1, 18, 17, size=9.0, opacity=2.0),
        "no_channels": composite_case(4, 0, 5, 4),
        "empty": composite_case(0, 2, 5, 4),
    }


class TestGaussianRayFlow(OpConformance):
    op = gaussian_ray_flow
    cases = {"tiles": ray_case(50, 20, 33), "empty": ray_case(0, 3, 4)}


@pytest.fixture(params=[*available_backends(gaussian_composite), "torch"])
def backend(request):
    if request.param == "torch":
        with use_backend("torch"):
            yield "cpu"
    else:
        with on_backend(request.param) as device:
            yield device


def scene(name, device, dtype=torch.float32):
    data = np.load(GOLDEN / "gaussian_flow" / f"{name}.npz")
    meta = json.loads(str(data["meta"]))
    tensors = {key: torch.from_numpy(data[key]).to(device) for key in data if key != "meta"}
    return meta, {key: t.to(dtype) if t.is_floating_point() else t for key, t in tensors.items()}


def render(g, meta, **options):
    rgb = spherical_harmonics(g["in_sh"], g["in_means"] - camera_centre(g["in_V"]))
    return rgb, gaussian_rasterize(
        g["in_means"], g["in_quats"], g["in_scales"], g["in_opac"], rgb, g["in_V"], g["in_K"], meta["W"], meta["H"],
        g["in_bg"], **options
    )  # fmt: skip


def close(found, expected, tolerance):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance, check_dtype=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", SCENES)
def test_golden_values(backend, name, dtype):
    """Everything a scene of two frames gives, against an independent float64 renderer."""
    meta, g = scene(name, backend, dtype)
    following = NextFrame(g["in_means2"], g["in_quats2"], g["in_scales2"], g["in_V2"])
    rgb, found = render(g, meta, next_frame=following, ray_flow=True)
    close(rgb, g["rgb_per_gaussian"], 1e-6)
    close(found.projection.means, g["means2d_t"], 1e-5)
    close(found.projection.covariances, g["cov2d_t"], 1e-5)
    close(found.projection.depths, g["z_t"], 1e-6)
    close(found.image, g["image_t"], 1e-5)
    close(found.alpha, g["alpha_t"], 1e-5)
    close(found.depth, g["depth_acc_t"], 1e-5)
    close(found.depth_median, g["depth_median_t"], 1e-6)
    assert torch.equal(found.contributors.short(), g["contributors_t"])
    assert torch.equal(found.top_gaussian.short(), g["top_gaussian_t"])
    close(found.flow, g["flow_center_acc"], 1e-4)
    close(found.ray_flow, g["flow_ray_acc"], 1e-4)
    close(found.next_depth, g["next_depth_acc"], 1e-5)
    second = gaussian_rasterize(
        *following[:3], g["in_opac"], spherical_harmonics(g["in_sh"], g["in_means2"] - camera_centre(g["in_V2"])),
        g["in_V2"], g["in_K"], meta["W"], meta["H"], g["in_bg"]
    )  # fmt: skip
    close(second.image, g["image_t1"], 1e-5)
    close(second.alpha, g["alpha_t1"], 1e-5)
    close(second.depth, g["depth_acc_t1"], 1e-5)
    close(second.projection.means, g["means2d_t1"], 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", SCENES)
def test_golden_gradients(backend, name, dtype):
    meta, g = scene(name, backend, dtype)
    draw, shape = np.random.RandomState(meta["seed"] + 7), (meta["H"], meta["W"])
    weights = [
        torch.from_numpy(draw.uniform(-1, 1, size).astype(np.float32)).to(backend).to(dtype)
        for size in ((3, *shape), shape, shape)
    ]
    keys = ("in_means", "in_quats", "in_scales", "in_opac", "rgb_per_gaussian")
    leaves = [g[key].clone().requires_grad_() for key in keys]
    found = gaussian_rasterize(*leaves, g["in_V"], g["in_K"], meta["W"], meta["H"], g["in_bg"])
    loss = sum((w * t).sum() for w, t in zip(weights, (found.image, found.alpha, found.depth), strict=True))
    expected = ("grad_means", "grad_quats", "grad_scales", "grad_opac", "grad_rgb")
    for grad, key in zip(torch.autograd.grad(loss, leaves), expected, strict=True):
        assert (grad - g[key]).abs().max() <= 1e-4 * g[key].abs().max(), key


def test_order_of_gaussians_changes_nothing(backend):
    """A permutation gives the same bits; equal depths are composited by index."""
    height, width = 19, 34
    values = splats(Maker(torch.float32, backend), 40, 3, height, width)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2)).to(backend)
    first = gaussian_composite(*values, None, height, width)
    second = gaussian_composite(*(value[order] for value in values), None, height, width)
    for a, b in zip(first[:3], second[:3], strict=True):
        assert torch.equal(a, b)
    for a, b in zip(first[3:], second[3:], strict=True):
        assert torch.equal(a, torch.where(b >= 0, order[b.clamp(min=0).long()].int(), -1))
    means, conics = torch.tensor([[2.5, 2.5]] * 2, device=backend), torch.tensor([[0.1, 0, 0.1]] * 2, device=backend)
    opaque, colours = torch.tensor([0.9, 0.9], device=backend), torch.eye(2, device=backend)
    image, *_, top = gaussian_composite(means, conics, opaque, colours, torch.ones(2, device=backend), None, 5, 5)
    torch.testing.assert_close(image[:, 2, 2].cpu(), torch.tensor([0.9, 0.09]))
    assert (top == 0).all()


def test_edges_of_the_rules(backend):
    """No Gaussian, all behind the camera, one that covers the image, and no motion."""
    eye, height, width = torch.eye(4, device=backend), 18, 33
    camera = torch.tensor([[30.0, 0, width / 2], [0, 30, height / 2], [0, 0, 1]], device=backend)
    background = torch.tensor([0.25, 0.5], device=backend)

    def seen(z, number, scale=1.0):
        means = torch.tensor([[0.0, 0, z]], device=backend).expand(number, 3)
        quats = torch.tensor([[2.0, 0, 0, 0]], device=backend).expand(number, 4)
        scales = torch.full((number, 3), scale, device=backend)
        opacities, colours = torch.full((number,), 0.6, device=backend), torch.ones(number, 2, device=backend)
        leaves = [t.clone().requires_grad_() for t in (means, quats, scales, opacities, colours)]
        found = gaussian_rasterize(
            *leaves, eye, camera, width, height, background, next_frame=NextFrame(), ray_flow=True
        )
        if number:
            grads = torch.autograd.grad(found.image.sum() + found.depth.sum(), leaves)
            assert all(grad.isfinite().all() for grad in grads)
        return found

    for found in (seen(3.0, 0), seen(-3.0, 2), seen(0.005, 2)):
        assert torch.equal(found.image, background[:, None, None].expand(2, height, width))
        assert not found.alpha.any() and not found.contributors.any() and not found.depth_median.any()
        assert (found.top_gaussian == -1).all() and not found.flow.any() and not found.ray_flow.any()
    whole = seen(3.0, 1, scale=500.0)
    torch.testing.assert_close(whole.alpha, torch.full_like(whole.alpha, 0.6), atol=1e-3, rtol=0)
    torch.testing.assert_close(whole.depth, 3 * whole.alpha)
    assert not whole.flow.any() and whole.ray_flow.abs().max() < 1e-4
    assert (whole.depth_median == 3).all() and (whole.contributors == 1).all()


def test_ray_flow_of_a_rigid_plane():
    """Thin Gaussians on a plane that moves rigidly: the flow of the plane, which the centres' only approaches."""
    dtype, height, width, focal = torch.float64, 40, 48, 60.0
    camera = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=dtype)
    v, u = torch.meshgrid(
        torch.linspace(-1.6, 1.6, 25, dtype=dtype), torch.linspace(-1.6, 1.6, 25, dtype=dtype), indexing="ij"
    )
    tilt = torch.tensor([0.9, 0.25, 0.3, 0.0], dtype=dtype)
    rotation = rotation_matrices(tilt[None])[0]
    means = torch.stack((u, v, torch.zeros_like(u)), -1).view(-1, 3) @ rotation.T + torch.tensor(
        [0, 0, 4.0], dtype=dtype
    )
    number = len(means)
    quats, scales = tilt.expand(number, 4), torch.tensor([0.08, 0.08, 1e-5], dtype=dtype).expand(number, 3)
    view, after = torch.eye(4, dtype=dtype), torch.eye(4, dtype=dtype)
    after[:3, :3] = rotation_matrices(torch.tensor([[1, 0.02, -0.03, 0.01]], dtype=dtype))[0]
    after[:3, 3] = torch.tensor([0.05, -0.03, 0.08], dtype=dtype)
    found = gaussian_rasterize(
        means, quats, scales, torch.full((number,), 0.9, dtype=dtype), means, view, camera, width, height,
        next_frame=NextFrame(viewmat=after), ray_flow=True,
    )  # fmt: skip
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    rays = torch.stack((x, y, torch.ones_like(x)), -1).to(dtype) @ torch.linalg.inv(camera).T
    normal = rotation[:, 2]
    points = rays * (4 * normal[2] / (rays @ normal))[..., None]
    moved = (points @ after[:3, :3].T + after[:3, 3]) @ camera.T
    truth = (moved[..., :2] / moved[..., 2:]).permute(2, 0, 1) - torch.stack((x, y))
    inside = found.alpha > 0.98
    assert inside.sum() > 400
    ray = (found.ray_flow / found.alpha - truth)[:, inside].abs()
    centre = (found.flow / found.alpha - truth)[:, inside].abs()
    assert ray.max() < 1e-5 < centre.max()


def test_threads_change_nothing():
    values = splats(Maker(torch.float32), 300, 5, 70, 65)
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            leaves = [value.clone().requires_grad_() for value in values[:4]]
            with use_backend("cpp"):
                found = gaussian_composite(*leaves, values[4], None, 70, 65)
            grads = torch.autograd.grad(found[0].square().sum() + found[1].sum(), leaves)
            results.append((*found, *grads))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_projection_is_differentiable():
    make = Maker(torch.float64)
    camera, view = torch.tensor([[20.0, 0, 8], [0, 20, 6], [0, 0, 1]], dtype=torch.float64), torch.eye(4).double()
    values = [make(3, 3, scale=0.3) + make.tensor([0, 0, 3]), make(3, 4), make.uniform(3, 3, low=0.05, high=0.3)]

    def project(*leaves):
        found = project_gaussians(*leaves, view, camera, 16, 12)
        return found.means, found.conics, found.depths, found.contrast

    assert torch.autograd.gradcheck(project, [value.requires_grad_() for value in values])
    still = [value.detach() for value in values]
    seen = project(*still)[0]
    maps = ray_maps(seen, *still, view, camera, *still, view, camera)
    assert maps.shape == (3, 21) and maps[:, 18:].abs().max() < 1e-12


def test_antialiasing_dims_what_is_smaller_than_a_pixel():
    eye, camera = torch.eye(4), torch.tensor([[10.0, 0, 8], [0, 10, 8], [0, 0, 1]])
    means, quats = torch.tensor([[0.0, 0, 5]]), torch.tensor([[1.0, 0, 0, 0]])
    for scale, factor in ((0.05, 0.01 / 0.31), (5.0, 100 / 100.3)):
        plain, dimmed = (
            gaussian_rasterize(
                means, quats, torch.full((1, 3), scale), torch.ones(1), torch.ones(1, 1), eye, camera, 16, 16,
                antialiased=antialiased, alpha_max=0.9999,
            ).alpha[8, 8]
            for antialiased in (False, True)
        )  # fmt: skip
        torch.testing.assert_close(dimmed / plain, torch.tensor(factor), atol=2e-4, rtol=0)


def test_errors():
    means, conics, opacities, features, depths = splats(Maker(torch.float32), 2, 3, 4, 4)
    for arguments, words in (
        ((means, conics[:1], opacities, features, depths, None, 4, 4), "conics"),
        ((means, conics, opacities, features[:1], depths, None, 4, 4), "features"),
        ((means, conics, opacities, features, depths, torch.zeros(2), 4, 4), "background"),
        ((means, conics, opacities, features, depths, None, 0, 4), "0×4"),
        ((means, conics, opacities, features, depths, None, 4, 4, 1.0), "alpha_max"),
    ):
        with pytest.raises(ValueError, match=words):
            gaussian_composite(*arguments)
    with pytest.raises(ValueError, match="rays"):
        gaussian_ray_flow(means, conics, opacities, depths, torch.zeros(2, 20), 4, 4)
    with pytest.raises(ValueError, match="coefficients"):
        spherical_harmonics(torch.zeros(2, 5, 3), torch.ones(2, 3))
    cloud = (
        torch.ones(2, 3),
        torch.ones(2, 4),
        torch.ones(2, 3),
        opacities,
        features,
        torch.eye(4),
        torch.eye(3),
        4,
        4,
    )
    with pytest.raises(ValueError, match="next_frame"):
        gaussian_rasterize(*cloud, ray_flow=True)
    with pytest.raises(ValueError, match="quats"):
        gaussian_rasterize(cloud[0], cloud[0], *cloud[2:])

"""Conformance of the mesh rasteriser, and its exact rules."""

import numpy as np
import pytest
import torch
from golden_cases import GOLDEN

from ffplug.ops import interpolate_attributes, mesh_rasterize
from ffplug.ops.contract import use_backend
from ffplug.testing.golden import image as golden_image
from ffplug.testing.ops import Maker, OpConformance, available_backends, on_backend


def triangles(make, count, number, height, width, spread=6.0):
    """Random triangles of their own three vertices each, over an image and beyond its border."""
    middle = make.uniform(count, number, 1, 2, low=-3) * make.tensor([width + 3, height + 3])
    corners = middle + make(count, number, 3, 2, scale=spread)
    vertices = torch.cat((corners, make.uniform(count, number, 3, 1, low=0.5, high=2.0)), dim=-1)
    return vertices.reshape(count, number * 3, 3), torch.arange(number * 3, device=vertices.device).view(-1, 3)


class TestMeshRasterize(OpConformance):
    op = mesh_rasterize
    cases = {
        "many": lambda make: (*triangles(make, 2, 40, 37, 45), 37, 45),
        "behind": lambda make: (
            triangles(make, 1, 9, 8, 8)[0] - make.tensor([0, 0, 1.2]),
            torch.arange(27).view(9, 3).to(make.device),
            8,
            8,
        ),
        "no_faces": lambda make: (make(2, 5, 3), make.integers(0, 3, high=5), 5, 4),
        "no_images": lambda make: (make(0, 5, 3), make.integers(4, 3, high=5), 5, 4),
    }


@pytest.fixture(params=[*available_backends(mesh_rasterize), "torch"])
def backend(request):
    if request.param == "torch":
        with use_backend("torch"):
            yield "cpu"
    else:
        with on_backend(request.param) as device:
            yield device


def test_shared_edges_are_covered_once(backend):
    """A fan and a grid of triangles tile a square: every centre belongs to exactly one, on edges and corners too."""
    side = 9
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    first = (y * side + x)[:-1, :-1].flatten()
    faces = torch.cat(
        (torch.stack((first, first + 1, first + side), 1), torch.stack((first + side + 1, first + 1, first + side), 1))
    )
    faces[::3] = faces[::3].flip(1)  # either orientation
    scattered = torch.rand(side, side, 2, generator=torch.Generator().manual_seed(0)) * 0.9
    for grid in (torch.stack((x, y), -1) * 2.0, torch.stack((x, y), -1) * 2.5 - 0.25 + scattered):
        vertices = torch.cat((grid.reshape(-1, 2), torch.ones(side * side, 1)), 1).to(backend)
        hits = torch.zeros(24, 24, dtype=torch.int)
        for face in faces.split(1):
            hits += (mesh_rasterize(vertices, face.to(backend), 24, 24)[2][0] >= 0).int().cpu()
        whole = (mesh_rasterize(vertices, faces.to(backend), 24, 24)[2][0] >= 0).int().cpu()
        assert torch.equal(hits, whole)
        assert hits.sum() >= 14 * 14
    # A square on centres owns its left and top border, not its right and bottom one.
    square = torch.tensor([[1.0, 1, 1], [4, 1, 1], [4, 4, 1], [1, 4, 1]], device=backend)
    shown = mesh_rasterize(square, torch.tensor([[0, 1, 2], [0, 2, 3]], device=backend), 6, 6)[2][0] >= 0
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[1:4, 1:4] = True
    assert torch.equal(shown.cpu(), expected)


def test_tie_goes_to_the_lowest_index(backend):
    vertices = torch.tensor([[-1.0, -1, 2], [20, -1, 2], [-1, 20, 2]], device=backend)
    faces = torch.tensor([[0, 1, 1], [1, 2, 0], [0, 1, 2], [2, 1, 0]], device=backend)
    weights, depth, triangle = mesh_rasterize(vertices, faces, 5, 6)
    assert (triangle == 1).all() and (depth == 2).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(depth))


def test_tilted_plane_gives_its_homography(backend):
    """Perspective-correct interpolation of a plane's points, moved rigidly, lands where the camera sees them."""
    focal, height, width = 40.0, 21, 27
    plane = torch.tensor([[-3.0, -3, 4], [3, -3, 6], [3, 3, 9], [-3, 3, 7]], dtype=torch.float64, device=backend)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]], device=backend)
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2], dtype=torch.float64, device=backend)
    vertices = torch.cat((focal * plane[:, :2] / plane[:, 2:] + centre, plane[:, 2:]), 1)
    weights, depth, triangle = mesh_rasterize(vertices, faces, height, width)
    points = interpolate_attributes(plane, faces, triangle, weights)[0]
    shown = triangle[0] >= 0
    assert shown.sum() > 200
    pixel = focal * points[:2] / points[2:] + centre[:, None, None]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    assert (pixel[0].cpu() - x)[shown.cpu()].abs().max() < 1e-12
    assert (pixel[1].cpu() - y)[shown.cpu()].abs().max() < 1e-12
    assert (points[2] - depth[0])[shown].abs().max() < 1e-12


def test_head_and_its_flow(backend):
    """A real head (CC0, from MakeHuman's assets) against a float64 rasteriser: triangles, depth and flow."""
    data = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / "open_head" / "projected.npz").items()}
    faces, expected = data["faces"].long(), data["face_id"].long()
    vertices = data["vertices"].float().to(backend)
    weights, depth, triangle = mesh_rasterize(vertices, faces.to(backend), 120, 96)
    moved = interpolate_attributes(data["camera_next"].to(backend), faces.to(backend), triangle, weights)[0].cpu()
    triangle, depth = triangle[0].long().cpu(), depth[0].cpu()
    assert ((triangle >= 0) != (expected >= 0)).sum() <= 3
    same = (triangle == expected) & (expected >= 0)
    assert same.sum() >= 0.998 * (expected >= 0).sum()
    assert (depth - data["depth"])[same].abs().max() < 1e-5
    y, x = torch.meshgrid(torch.arange(120), torch.arange(96), indexing="ij")
    u, v = (2.4 * 96 * moved[k] / moved[2] + middle for k, middle in ((0, 47.5), (1, 59.5)))
    flow = torch.stack((u - x, v - y), -1)
    assert (flow - data["flow"])[same].abs().max() < 1e-4


def view_matrix(view):
    """Rotations about x, y, z, in this order, N×3×3."""
    (cx, cy, cz), (sx, sy, sz) = view[:, :3].cos().T, view[:, :3].sin().T
    one, zero = torch.ones_like(cx), torch.zeros_like(cx)
    about_x = torch.stack((one, zero, zero, zero, cx, -sx, zero, sx, cx), 1).view(-1, 3, 3)
    about_y = torch.stack((cy, zero, sy, zero, one, zero, -sy, zero, cy), 1).view(-1, 3, 3)
    about_z = torch.stack((cz, -sz, zero, sz, cz, zero, zero, zero, one), 1).view(-1, 3, 3)
    return about_z @ about_y @ about_x


def test_depth_map_renderer(backend):
    """A depth map turned in front of a camera, its colours and all gradients, against a public mesh renderer."""
    data = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / "latentface" / "render48.npz").items()}
    side = 48
    focal, centre = (side - 1) / 2 / np.tan(np.deg2rad(5)), (side - 1) / 2
    index = torch.arange(side * side).view(side, side)
    corner, right, below = index[:-1, :-1].flatten(), index[:-1, 1:].flatten(), index[1:, :-1].flatten()
    faces = torch.cat((torch.stack((corner, right, below), 1), torch.stack((below, right, index[1:, 1:].flatten()), 1)))
    faces = faces.to(backend)
    leaves = [data[key].to(backend).requires_grad_() for key in ("depth_border", "canon_im", "view")]
    depth_map, colours, view = leaves
    y, x = torch.meshgrid(torch.arange(side, device=backend), torch.arange(side, device=backend), indexing="ij")
    rays = torch.stack(((x - centre) / focal, (y - centre) / focal, torch.ones_like(x)), -1).to(depth_map)
    points = (depth_map[..., None] * rays).flatten(1, 2)
    middle = points.new_tensor([0.0, 0, 1])
    points = (points - middle) @ view_matrix(view).transpose(1, 2) + middle + view[:, None, 3:]
    vertices = torch.cat((focal * points[..., :2] / points[..., 2:] + centre, points[..., 2:]), -1)
    weights, depth, triangle = mesh_rasterize(vertices, faces, side, side)
    image = interpolate_attributes(colours.flatten(2).transpose(1, 2), faces, triangle, weights)
    outside = triangle < 0
    image, depth = torch.where(outside[:, None], 1.0, image), torch.where(outside, 1.2, depth)
    wrong = (depth.cpu() - data["k_depth"]).abs() > 1e-5
    assert wrong.sum() <= 5
    assert ((image.cpu() - data["k_image"]).abs().amax(1) > 1e-4).sum() <= 5
    mask = (depth < 1.19).detach().to(depth)
    w1 = torch.from_numpy(golden_image(5, (2, 3, side, side), -1, 1)).to(depth)
    w2 = torch.from_numpy(golden_image(6, (2, side, side), -1, 1)).to(depth)
    loss = (image * w1 * mask[:, None]).sum() + 10 * (depth * w2 * mask).sum()
    grads = torch.autograd.grad(loss, leaves)
    for grad, key in zip(grads, ("k_grad_depth", "k_grad_im", "k_grad_view"), strict=True):
        difference = (grad.cpu() - data[key]).abs()
        assert (difference > 2e-4 * data[key].abs().max()).float().mean() < 2e-3, key


def test_gradient_of_attributes_is_exact():
    make_faces = torch.tensor([[0, 1, 2], [1, 3, 2]])
    vertices = torch.tensor([[0.0, 0, 1], [9, 0, 2], [0, 9, 3], [9, 9, 1]], dtype=torch.float64).requires_grad_()
    attributes = torch.rand(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def through(vertices, attributes):
        weights, _, triangle = mesh_rasterize(vertices - 0.3, make_faces, 6, 5)
        return interpolate_attributes(attributes, make_faces, triangle, weights)

    assert torch.autograd.gradcheck(through, (vertices, attributes))
    batch = interpolate_attributes(
        attributes[None].expand(2, -1, -1),
        make_faces,
        *(t.expand(2, *t.shape[1:]) for t in mesh_rasterize(vertices, make_faces, 6, 5)[::-2]),
    )
    assert torch.equal(batch[0], batch[1])


def test_threads_change_nothing():
    vertices, faces = triangles(Maker(torch.float32), 2, 300, 65, 70)
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            leaf = vertices.clone().requires_grad_()
            with use_backend("cpp"):
                found = mesh_rasterize(leaf, faces, 65, 70)
                found[0].square().sum().add(found[1].sum()).backward()
            results.append((*found, leaf.grad))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_errors():
    vertices, faces = torch.zeros(1, 3, 3), torch.tensor([[0, 1, 2]])
    for arguments, words in (
        ((vertices[..., :2], faces, 4, 4), "vertices"),
        ((vertices, faces.float(), 4, 4), "faces"),
        ((vertices, faces + 1, 4, 4), "vertices 1..3"),
        ((vertices, faces, 0, 4), "0×4"),
        ((vertices, faces, 4, 4, -1.0), "near"),
    ):
        with pytest.raises(ValueError, match=words):
            mesh_rasterize(*arguments)

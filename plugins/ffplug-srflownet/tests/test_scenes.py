import pytest
import torch
from ffplug_face.models import OpenHead, ProceduralHead
from ffplug_face.rendering import Camera
from ffplug_face.sequences import FaceScene, SequenceOptions, draw_sequence
from ffplug_srflownet.scenes import (
    DEFINITIONS,
    SplatScene,
    View,
    head_scene,
    look,
    splat_flow,
    splats_on_mesh,
)

from ffplug.errors import ConfigError

OPTIONS = SequenceOptions(frames=(6,), size=(96, 80))
HEADS = {"procedural": lambda: ProceduralHead(rows=48, columns=64), "open": OpenHead}


@pytest.fixture(scope="module", params=HEADS)
def head(request: pytest.FixtureRequest):
    return HEADS[request.param]()


@pytest.fixture(scope="module")
def scene(head) -> SplatScene:
    return head_scene(head, seed=1, index=2, options=OPTIONS)


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_without_motion_the_flow_is_exactly_zero(scene: SplatScene, definition: str):
    found = scene.flow(2, 2, definition)
    assert (found.flow == 0).all() and (found.depth_change == 0).all()
    assert found.mask.float().mean() > 0.1 and found.visible.float().mean() > 0.98


def test_the_flow_is_the_surface_s(head, scene: SplatScene):
    """Against the exact flow of the mesh that carries the Gaussians: the ray's is by far the closest."""
    mesh = FaceScene(head, draw_sequence(head, 1, 2, OPTIONS), OPTIONS)
    true = mesh.flow(2, 4)
    where = true.mask & (scene.frame(2).alpha > 0.98)
    assert where.sum() > 0.9 * true.mask.sum()
    errors = {
        name: float((scene.flow(2, 4, name).flow - true.facial).norm(dim=0)[where].mean()) for name in DEFINITIONS
    }
    length = float(true.facial.norm(dim=0)[where].mean())
    assert length > 0.5 and errors["ray"] < 0.03 * length and errors["ray"] < 0.6 * errors["center"] < 0.1 * length
    found = scene.flow(2, 4)
    assert (found.visible == true.visible).float().mean() > 0.95
    far = (true.mask & found.mask).nonzero().T
    depth = scene.frame(2).depth[tuple(far)] - mesh.depth(2)[tuple(far)]
    assert depth.abs().median() < 0.01 * scene.frame(2).depth[tuple(far)].mean()
    assert (found.flow[:, ~found.mask] == 0).all()


def test_a_picture_moves_by_its_flow(scene: SplatScene):
    """Frame 4 taken back by the flow is frame 2, where it is visible."""
    first, second = (torch.from_numpy(scene.image(k)).permute(2, 0, 1).float() for k in (2, 4))
    found = scene.flow(2, 4)
    height, width = found.mask.shape
    x = (torch.arange(width) + 0.5 + found.flow[0]) * 2 / width - 1
    y = (torch.arange(height)[:, None] + 0.5 + found.flow[1]) * 2 / height - 1
    grid = torch.stack((x, y), -1)[None]
    back = torch.nn.functional.grid_sample(second[None], grid, padding_mode="border", align_corners=False)[0]
    where = found.mask & found.visible
    with_flow, without = ((picture - first).abs().mean(0)[where].mean() for picture in (back, second))
    assert with_flow < 0.4 * without


def plane(count: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """A square of 0.3 m that faces the camera, as a fine mesh."""
    line = torch.linspace(-0.15, 0.15, count + 1)
    y, x = torch.meshgrid(line, line, indexing="ij")
    vertices = torch.stack((x, y, torch.zeros_like(x)), -1).view(-1, 3)
    number = torch.arange((count + 1) ** 2).view(count + 1, count + 1)
    a, b, c, d = (part.reshape(-1) for part in (number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]))
    return vertices, torch.cat((torch.stack((a, b, c), 1), torch.stack((d, c, b), 1)))


def test_rays_are_exact_on_a_plane_that_moves_rigidly():
    vertices, faces = plane()
    angle = torch.tensor(0.15)
    turn = torch.tensor([[angle.cos(), 0, angle.sin()], [0, 1, 0], [-angle.sin(), 0, angle.cos()]])
    moved = vertices @ turn.T + torch.tensor([0.004, -0.003, 0.01])
    splats = splats_on_mesh(faces, torch.rand(len(faces), 3), thickness=1e-3)
    camera = Camera.facing((0, 0, 0), 0.6, 20, 64, 48)
    now, then = (View(splats.bound_to(part, faces), camera) for part in (vertices, moved))
    # The point of the plane that a pixel sees, moved and projected, by hand.
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(48.0), indexing="ij")
    depth = camera.translation[2]
    points = torch.stack((x - 23.5, 31.5 - y, torch.zeros_like(x)), -1) * depth / camera.focal
    target = camera.project(points @ turn.T + torch.tensor([0.004, -0.003, 0.01]))
    true = torch.stack((target[..., 0] - x, target[..., 1] - y))
    assert true.norm(dim=0).mean() > 1
    errors = {}
    for name in DEFINITIONS:
        found = splat_flow(now, then, look(then), name)
        where = look(now).alpha > 0.98
        assert where.float().mean() > 0.9
        errors[name] = float((found.flow - true).norm(dim=0)[where].mean())
    assert errors["ray"] < 2e-3 and errors["affine2d"] < 0.05 and errors["center"] < 0.2
    assert errors["ray"] < 0.2 * min(errors["center"], errors["affine2d"])


def test_what_the_camera_has_behind_it_shows_nothing():
    vertices, faces = plane(4)
    splats = splats_on_mesh(faces, torch.rand(len(faces), 3))
    camera = Camera.facing((0, 0, 0), 0.6, 20, 32, 24)
    now = View(splats.bound_to(vertices, faces), camera)
    then = View(splats.bound_to(vertices + torch.tensor([0, 0, 1.0]), faces), camera)
    assert not look(then).mask.any() and look(now).mask.all()
    for name in DEFINITIONS:
        found = splat_flow(now, then, look(then), name)
        assert found.flow.isfinite().all() and not found.mask.any()
        found = splat_flow(then, now, look(now), name)
        assert (found.flow == 0).all() and not found.visible.any()


def test_a_scene_follows_from_its_seed(scene: SplatScene, head):
    again = head_scene(head, seed=1, index=2, options=OPTIONS)
    assert (again.image(3) == scene.image(3)).all() and torch.equal(again.flow(3, 4).flow, scene.flow(3, 4).flow)
    other = head_scene(head, seed=1, index=3, options=OPTIONS, background="drawn")
    assert (other.image(3) != scene.image(3)).mean() > 0.5
    assert (scene.image(3)[0, 0] == 255).all()
    with pytest.raises(ConfigError, match="did you mean 'center'"):
        scene.flow(0, 1, "centre")


def test_regions_are_those_of_the_mesh(head, scene: SplatScene):
    mesh = FaceScene(head, draw_sequence(head, 1, 2, OPTIONS), OPTIONS)
    found, true = scene.regions(2), mesh.regions(2)
    both = (found >= 0) & (true >= 0)
    assert both.sum() > 0.9 * (true >= 0).sum() and (found[both] == true[both]).float().mean() > 0.93
    labels, counts = true[both].unique(return_counts=True)
    assert set(labels[counts > 10].tolist()) <= set(found.unique().tolist()) and (counts > 10).sum() > 2
    assert (found[~scene.frame(2).mask] == -1).all()
    assert SplatScene(scene.splats, head.faces, scene.vertices, 6, scene.cameras[0]).regions(0) is None


def test_a_camera_that_moves_has_flow_of_its_own(head, scene: SplatScene):
    """The mesh stands still, and the camera goes to the side: all moves the other way, what is near the most."""
    camera = scene.cameras[0]
    x, y, z = camera.translation
    aside = Camera(camera.height, camera.width, camera.focal, (x - 0.02, y, z), camera.rotation)
    still = SplatScene(scene.splats, head.faces, lambda frame: scene.vertices(2), 2, [camera, aside])
    found = still.flow(0, 1)
    inner = found.mask & (still.frame(0).alpha > 0.98)
    expected = -0.02 * camera.focal / still.frame(0).depth
    assert (found.flow[0] - expected)[inner].abs().median() < 0.02 * expected[inner].abs().median()
    assert found.flow[1][inner].abs().mean() < 0.05
    with pytest.raises(ValueError, match="1 cameras for 2 frames"):
        SplatScene(scene.splats, head.faces, scene.vertices, 2, [camera])

"""The renderer: flow against exact numbers and against pictures, visibility, light, skin."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from ffplug_face.models import OpenHead, ProceduralHead
from ffplug_face.models.head import REGIONS
from ffplug_face.rendering import (
    Camera,
    Light,
    ProceduralSkin,
    SkinSource,
    State,
    UVSkin,
    optical_flow,
    random_light,
    rasterize,
    shade,
    visible_in,
)
from ffplug_face.rendering.openness import openness

from ffplug.datasets import write_image
from ffplug.errors import DataError
from ffplug.ops import backward_warp

GOLDEN = Path(__file__).parent / "golden"


def row(values: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(values)[None]


def test_the_open_head_moves_as_an_independent_renderer_says(open_head_states):
    check = np.load(GOLDEN / "open_head.npz")
    shape, first, second, pose, later, translation = open_head_states
    held = np.concatenate([later[:6], pose[6:]])
    head = OpenHead().double()
    camera = Camera(120, 96, 2.4 * 96, (0.0, 0.13, 0.9 + 0.05))
    moved = dataclasses.replace(camera, translation=tuple(np.array(camera.translation) + translation))

    def state(expression: np.ndarray, turn: np.ndarray, seen: Camera) -> State:
        return State(head(row(shape), row(expression), row(turn))[0], seen)

    now = state(first, pose, camera)
    surface = rasterize(now, head.faces)
    assert np.array_equal(surface.mask.numpy(), check["mask"])
    same = surface.triangle.numpy() == check["face_id"]
    assert same.mean() > 0.9995
    np.testing.assert_allclose(surface.depth.numpy()[same], check["depth"][same], atol=1e-6)
    flows = {}
    for name, expression, turn in (("facial_flow", second, later), ("head_flow", first, held)):
        flows[name] = optical_flow(surface, head.faces, now, state(expression, turn, moved)).permute(1, 2, 0).numpy()
        np.testing.assert_allclose(flows[name][same], check[name][same], atol=1e-4)
    expression = np.linalg.norm(flows["facial_flow"] - flows["head_flow"], axis=-1)
    assert expression.max() == pytest.approx(4.8, abs=0.05)
    assert expression[check["mask"]].mean() == pytest.approx(0.50, abs=0.005)


def plane(tilt: float = 0.4) -> tuple[torch.Tensor, torch.Tensor]:
    """A tilted square of a metre, as a grid of triangles."""
    y, x = torch.meshgrid(torch.linspace(-0.5, 0.5, 7).double(), torch.linspace(-0.5, 0.5, 7).double(), indexing="ij")
    vertices = torch.stack((x, y, tilt * x - 0.3 * tilt * y), -1).reshape(-1, 3)
    index = torch.arange(49).view(7, 7)
    quads = torch.stack((index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]), -1).reshape(-1, 4)
    return vertices, torch.cat((quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]))


def test_a_rigid_plane_moves_by_its_homography():
    vertices, faces = plane()
    camera = Camera.facing((0, 0, 0), 1.5, 40, 61, 83)
    turn = torch.linalg.matrix_exp(torch.tensor([[0, -0.1, 0.05], [0.1, 0, -0.08], [-0.05, 0.08, 0]]).double())
    shift = torch.tensor([0.03, -0.02, 0.1]).double()
    now, then = State(vertices, camera), State(vertices @ turn.T + shift, camera)
    surface = rasterize(now, faces)
    flow = optical_flow(surface, faces, now, then)
    # In the camera's axes the plane is n·X = d, and X' = R X + T = (R + T nᵀ/d) X.
    points = camera.to_camera(vertices)
    normal = torch.linalg.cross(points[1] - points[0], points[7] - points[0])
    axes = torch.diag(torch.tensor([1.0, -1, -1])).double()
    rotation = axes @ turn @ axes
    offset = torch.tensor(camera.translation).double()
    step = axes @ shift + offset - rotation @ offset
    homography = rotation + torch.outer(step, normal) / (normal @ points[0])
    y, x = torch.meshgrid(torch.arange(61).double(), torch.arange(83).double(), indexing="ij")
    rays = torch.stack(((x - 41) / camera.focal, (y - 30) / camera.focal, torch.ones_like(x)), -1) @ homography.T
    expected = torch.stack(
        (camera.focal * rays[..., 0] / rays[..., 2] + 41 - x, camera.focal * rays[..., 1] / rays[..., 2] + 30 - y)
    )
    assert surface.mask.sum() > 1000 and flow.abs().max() > 3
    torch.testing.assert_close(flow[:, surface.mask], expected[:, surface.mask], atol=1e-10, rtol=0)
    assert flow[:, ~surface.mask].abs().max() == 0


def test_no_motion_is_exactly_no_flow():
    head = ProceduralHead(24, 32)
    now = State(head()[0], Camera.facing((0, 0.13, 0.02), 0.9, 25, 60, 50))
    again = State(now.vertices.clone(), now.camera)
    surface = rasterize(now, head.faces)
    assert torch.equal(optical_flow(surface, head.faces, now, again), torch.zeros(2, 60, 50, dtype=torch.float64))
    assert torch.equal(visible_in(surface, head.faces, now, again, surface), surface.mask)


@pytest.mark.parametrize("make", [OpenHead, lambda: ProceduralHead(48, 64)], ids=["open", "procedural"])
def test_warping_the_next_picture_by_the_flow_gives_the_first(make):
    head, size = make(), 160
    camera = Camera.facing((0, 0.13, 0.02), 0.6, 30, size, size)
    first = head.expression_of({"AU12": 0.2})[None]
    second = head.expression_of({"AU12": 0.9, "AU26": 0.4, "AU1": 0.7})[None]
    pose = torch.zeros(1, 15)
    pose[0, 3:6] = torch.tensor([0.03, 0.06, -0.02])
    now, then = State(head(None, first)[0], camera), State(head(None, second, pose)[0], camera)
    skin = ProceduralSkin.draw(np.random.default_rng(3))
    background = torch.full((3, size, size), 96.0)
    pictures = [shade(head, state, skin, Light.even(0.9), background, supersample=3)[None] for state in (now, then)]
    surfaces = [rasterize(state, head.faces) for state in (now, then)]
    flow = optical_flow(surfaces[0], head.faces, now, then)
    visible = visible_in(surfaces[0], head.faces, now, then, surfaces[1])
    # A pixel at an edge is a mixture of what lies on both sides, so the inside of what is visible is compared.
    inside = -torch.nn.functional.max_pool2d(-visible[None].float(), 5, 1, 2)[0] > 0

    def difference(motion: torch.Tensor) -> float:
        warped = backward_warp(pictures[1], motion.float()[None])
        return float((warped - pictures[0])[0].abs().mean(0)[inside].mean())

    still, exact = difference(torch.zeros_like(flow)), difference(flow)
    assert flow[:, inside].norm(dim=0).mean() > 3 and inside.sum() > 0.5 * surfaces[0].mask.sum()
    assert exact < 1.6 and exact < 0.15 * still
    for off in ((0.5, 0.0), (0.0, -0.5)):  # half a pixel away it is worse already
        assert difference(flow + torch.tensor(off).double().view(2, 1, 1)) > 1.3 * exact


def test_what_a_nearer_thing_covers_is_not_visible():
    vertices, faces = plane(0.0)
    near = torch.tensor([[-0.1, -0.1, 0.4], [0.1, -0.1, 0.4], [0.0, 0.2, 0.4]]).double()
    faces = torch.cat((faces, torch.tensor([[49, 50, 51]])))
    camera = Camera.facing((0, 0, 0), 2.0, 30, 80, 80)
    states = [State(torch.cat((vertices, near + torch.tensor([x, 0, 0]).double())), camera) for x in (-0.2, 0.2)]
    surfaces = [rasterize(state, faces) for state in states]
    visible = visible_in(surfaces[0], faces, *states, surfaces[1])
    patch = [surface.triangle == len(faces) - 1 for surface in surfaces]
    assert patch[1].sum() > 100
    # The plane does not move: it is hidden just where the patch lies afterwards. The patch stays visible.
    torch.testing.assert_close(visible, ~patch[1] & surfaces[0].mask | patch[0] & surfaces[0].mask)
    turned = State(states[0].vertices * torch.tensor([-1.0, 1, 1]).double(), camera)
    assert not visible_in(surfaces[0], faces, states[0], turned, rasterize(turned, faces)).any()


def test_a_surface_seen_at_a_grazing_angle_does_not_hide_itself():
    vertices, faces = plane(4.0)
    camera = Camera.facing((0, 0, 0), 4.0, 30, 60, 60)
    now, then = State(vertices, camera), State(vertices + torch.tensor([0.01, 0.013, 0.0]).double(), camera)
    surface, other = rasterize(now, faces), rasterize(then, faces)
    step = surface.depth[:, 1:] - surface.depth[:, :-1]
    within = surface.mask[:, 1:] & surface.mask[:, :-1]
    assert (step.abs() / 4.0)[within].max() > 0.01  # beside each other pixels differ by more than the tolerance
    visible = visible_in(surface, faces, now, then, other)
    target = optical_flow(surface, faces, now, then).round()
    assert target.abs().max() <= 2 and visible[3:-3, 3:-3][surface.mask[3:-3, 3:-3]].all()


def test_edges_are_soft_in_colour_alone():
    head = ProceduralHead(24, 32)
    state = State(head()[0], Camera.facing((0, 0.13, 0.02), 0.9, 25, 64, 64))
    white = UVSkin(torch.ones(3, 4, 4))
    pictures = {factor: shade(head, state, white, Light.even(1.0), torch.zeros(3, 64, 64), factor) for factor in (1, 4)}
    mask = rasterize(state, head.faces).mask
    assert set(pictures[1].round().unique().tolist()) == {0, 255}
    torch.testing.assert_close(pictures[1][0] > 128, mask)
    assert pictures[4].unique().numel() > 8
    edge = (pictures[4][0] > 3) & (pictures[4][0] < 252)
    most, least = (torch.nn.functional.max_pool2d(sign * mask[None].float(), 5, 1, 2)[0] for sign in (1, -1))
    near = most != -least
    assert edge.any() and not (edge & ~near).any()
    ramp = torch.linspace(0, 255, 64).expand(3, 64, 64)
    behind = shade(head, state, white, Light.even(1.0), ramp, 2)
    assert (behind - ramp)[:, ~mask & ~near].abs().max() < 0.1  # the background stays as it is


def test_light():
    normals = torch.tensor([[0.0, 0, 1], [1, 0, 0], [0, 0, 1]])
    points, eye, albedo = torch.zeros(3, 3), torch.tensor([0.0, 0, 1]).double(), torch.full((3, 3), 0.5)
    gloss, none = torch.tensor([1.0, 1.0, 0.0]), torch.zeros(0, 3)
    lamp = Light(torch.full((3,), 0.1), torch.tensor([[0.0, 0, 1]]), torch.full((1, 3), 0.8), none, none, specular=0.5)
    shaded = lamp.shade(albedo, normals, points, eye, gloss)[:, 0]
    # ambient .05; facing it .4 more and a highlight of .4 where it is glossy; across it none.
    torch.testing.assert_close(shaded, torch.tensor([0.85, 0.05, 0.45]))
    near = dataclasses.replace(
        lamp,
        directions=none,
        colours=none,
        points=torch.tensor([[0.0, 0, 2]]),
        point_colours=torch.full((1, 3), 3.2),
        specular=0.0,
    )
    torch.testing.assert_close(near.shade(albedo, normals, points, eye, gloss)[:, 0], torch.tensor([0.45, 0.05, 0.45]))
    # Blinn's half vector: from 45° it lies 22.5° off the normal.
    slant = dataclasses.replace(lamp, directions=torch.tensor([[0.5**0.5, 0, 0.5**0.5]]))
    expected = 0.05 + 0.4 * 0.5**0.5 + 0.5 * 0.8 * np.cos(np.pi / 8) ** 24
    assert float(slant.shade(albedo, normals, points, eye, gloss)[0, 0]) == pytest.approx(expected, abs=1e-5)
    harmonics = torch.zeros(9, 3)
    harmonics[0], harmonics[2] = 0.6, 0.3
    sky = Light(torch.zeros(3), none, none, none, none, harmonics=harmonics, specular=0.0, intensity=2.0)
    torch.testing.assert_close(sky.shade(albedo, normals, points, eye, gloss)[:, 0], torch.tensor([0.9, 0.6, 0.9]))
    drawn = [random_light(np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0].ambient, drawn[1].ambient)
    assert len({light.shininess for light in drawn}) == 2
    with pytest.raises(ValueError, match="expected 'lamps'"):
        random_light(np.random.default_rng(0), "candle")


def test_textures_of_the_user_lie_where_the_coordinates_say(tmp_path: Path):
    head = OpenHead()
    state = State(head()[0], Camera.facing((0, 0.13, 0.05), 0.7, 25, 96, 96))
    v, u = np.mgrid[:64, :64] / 63 * 255
    write_image(tmp_path / "skin.png", np.stack([u, 255 - v, np.zeros_like(u)], -1).astype(np.uint8))
    skin = SkinSource(tmp_path).draw(np.random.default_rng(0))
    picture = shade(head, state, skin, Light.even(1.0), torch.zeros(3, 96, 96), supersample=1)
    surface = rasterize(state, head.faces)
    triangle = surface.triangle[surface.mask].long()
    weights = surface.barycentrics[surface.mask]
    coordinates = (weights[..., None] * head.uv.double()[head.uv_faces[triangle]]).sum(1)
    found = picture[:2, surface.mask].T.double() / 255
    assert (found - coordinates).abs().mean() < 0.01
    bare = ProceduralHead(24, 32)
    bare.uv = None
    surface = rasterize(State(bare()[0], state.camera), bare.faces)
    with pytest.raises(DataError, match=r"no texture coordinates for .*skin\.png"):
        skin.colours(bare, surface)
    (tmp_path / "empty").mkdir()
    for folder, message in ((tmp_path / "none", "no such folder"), (tmp_path / "empty", "no picture in it")):
        with pytest.raises(DataError, match=message):
            SkinSource(folder)


def test_procedural_skin_has_a_pattern_everywhere_and_follows_its_seed():
    head = OpenHead()
    state = State(head()[0], Camera.facing((0, 0.13, 0.05), 0.5, 25, 160, 160))
    skins = [ProceduralSkin.draw(np.random.default_rng(seed)) for seed in (5, 5, 6)]
    pictures = [shade(head, state, skin, Light.even(1.0), torch.zeros(3, 160, 160), 2) for skin in skins]
    assert torch.equal(pictures[0], pictures[1]) and not torch.equal(pictures[0], pictures[2])
    grey = pictures[0].mean(0)[None, None]
    mean, square = (torch.nn.functional.avg_pool2d(value, 9, 1, 4) for value in (grey, grey**2))
    spread = (square - mean**2).clamp(min=0).sqrt()[0, 0]
    mask = rasterize(state, head.faces).mask
    assert (spread[mask] > 0.5).float().mean() > 0.99


def test_geometry_is_differentiable():
    head = ProceduralHead(12, 16).double()
    camera = Camera.facing((0, 0.13, 0.02), 0.9, 25, 24, 24)
    still = State(head()[0], camera)
    surface = rasterize(still, head.faces)
    pose = torch.zeros(1, 15, dtype=torch.float64, requires_grad=True)

    def moved(turn: torch.Tensor) -> torch.Tensor:
        return optical_flow(surface, head.faces, still, State(head(pose=turn)[0], camera))[:, ::3, ::3]

    assert torch.autograd.gradcheck(moved, pose)


def test_cameras_that_see_nothing():
    for view, distance in ((0, 1.0), (180, 1.0), (30, 0.0)):
        with pytest.raises(ValueError, match=r"Camera\.facing"):
            Camera.facing((0, 0, 0), distance, view, 10, 10)
    camera = Camera.facing((0.1, 0.2, 0.3), 0.8, 30, 40, 60)
    torch.testing.assert_close(camera.position, torch.tensor([0.1, 0.2, 1.1]).double())
    torch.testing.assert_close(camera.project(torch.tensor([[0.1, 0.2, 0.3]])), torch.tensor([[29.5, 19.5, 0.8]]))
    # A fine pixel block covers its pixel: the corner pixel's centre lies in the middle of its block.
    point = torch.tensor([[0.05, 0.1, 0.3]]).double()
    coarse, fine = camera.project(point)[0], camera.scaled(2).project(point)[0]
    torch.testing.assert_close(fine[:2], 2 * coarse[:2] + 0.5)


def test_folds_sky_and_skin_change_the_light():
    none = torch.zeros(0, 3)
    up, down, away = torch.eye(3)[1][None], -torch.eye(3)[1][None], torch.tensor([[0.6, 0.0, 0.8]])
    ones, eye, gloss = torch.ones(1, 3), torch.tensor([0.0, 0.0, 1.0]), torch.ones(1)
    place = torch.zeros(1, 3)

    def seen(light: Light, normal: torch.Tensor, openness: float = 1.0) -> list[float]:
        return light.shade(ones, normal, place, eye, gloss, torch.tensor([openness]))[0].tolist()

    sky = Light(torch.full((3,), 0.5), none, none, none, none, specular=0.0, sky=0.4, folds=1.0)
    tilted = torch.nn.functional.normalize(up + torch.tensor([[0.0, 0, 1e-4]]))
    assert seen(sky, tilted) == pytest.approx([0.7] * 3, abs=1e-3)
    assert seen(sky, torch.nn.functional.normalize(down + torch.tensor([[0.0, 0, 1e-4]]))) == pytest.approx(
        [0.3] * 3, abs=1e-3
    )
    assert seen(sky, tilted, 0.5) == pytest.approx([0.35] * 3, abs=1e-3)
    assert seen(dataclasses.replace(sky, folds=0.0), tilted, 0.5) == pytest.approx([0.7] * 3, abs=1e-3)
    # A lamp to the side and behind: only what spreads in the skin comes round, red the furthest.
    lamp = torch.tensor([[0.0, 0.0, -1.0]])
    side = Light(torch.zeros(3), lamp, torch.ones(1, 3), none, none, specular=0.0, wrap=(1.0, 0.5, 0.1))
    turned = torch.tensor([[0.96, 0.0, 0.28]])
    assert seen(side, turned) == pytest.approx([0.72 / 2, 0.22 / 1.5, 0.0], abs=1e-6)
    assert seen(side, away) == pytest.approx([0.1, 0.0, 0.0], abs=1e-6)
    assert seen(dataclasses.replace(side, wrap=(0.0, 0.0, 0.0)), turned) == [0.0, 0.0, 0.0]


def test_what_is_open_to_the_light():
    head = OpenHead()
    share = openness(head)
    assert 0.3 < float(share.min()) < 0.5 and float(share.max()) > 0.99
    inside = head.masks[:, REGIONS.index("mouth")] > 0.5
    crown = head.template[:, 1] > 0.22
    assert share[crown].mean() > 0.95 and share[inside].mean() < 0.5
    assert openness(head) is openness(head)

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from ffplug_face.models import ProceduralHead
from ffplug_face.models.head import REGIONS, HeadModel
from ffplug_srflownet.avatars import Avatar, read_cameras, read_motion
from ffplug_srflownet.command import command
from ffplug_srflownet.datasets import GaussianSequenceDataset, SRFlowDataset
from ffplug_srflownet.ply import write_splats
from ffplug_srflownet.scenes import splats_on_mesh
from ffplug_srflownet.splats import triangle_frames

from ffplug.datasets.checker import check_dataset
from ffplug.errors import ConfigError, DataError

SIZE = (64, 56)
FRAMES = 3
TEETH = 4


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return ProceduralHead(rows=24, columns=32)


@pytest.fixture(scope="module")
def folder(head: HeadModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of an avatar: the procedural head as a FLAME model, its motion twice over, Gaussians, cameras."""
    root = tmp_path_factory.mktemp("avatar")
    points = len(head.template)
    np.savez(
        root / "flame.npz",
        v_template=head.template.numpy(),
        f=head.faces.numpy(),
        shapedirs=torch.cat((head.shape_directions, head.expression_directions), 2).numpy(),
        posedirs=np.zeros((points, 3, 36), np.float32),
        J_regressor=head.joint_regressor.numpy(),
        weights=head.weights.numpy(),
        kintree_table=np.array([[2**32 - 1, *head.parents[1:]], range(5)], np.uint32),
    )
    rng = np.random.default_rng(0)
    np.savez(root / "flame_param.npz", **parameters(head, rng))
    torch.manual_seed(0)
    splats = splats_on_mesh(head.faces, torch.rand(len(head.faces), 3))
    higher = 0.1 * torch.randn(len(splats), 3, 3)
    object.__setattr__(splats, "sh", torch.cat((splats.sh, higher), 1))
    write_splats(root / "head.ply", splats)
    # Those of GaussianAvatars have teeth behind FLAME's triangles.
    binding = splats.binding.clone()
    binding[:TEETH] = len(head.faces) + torch.arange(TEETH)
    object.__setattr__(splats, "binding", binding)
    write_splats(root / "teeth.ply", splats)
    (root / "transforms_train.json").write_text(json.dumps(transforms()))
    return root


def parameters(head: HeadModel, rng: np.random.Generator) -> dict[str, np.ndarray]:
    def of(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.05, shape).astype(np.float32)

    poses = dict(rotation=of(FRAMES, 3), neck_pose=of(FRAMES, 3), jaw_pose=of(FRAMES, 3), eyes_pose=of(FRAMES, 6))
    extra = 120  # vertices of the teeth, behind FLAME's
    return dict(
        poses,
        shape=10 * of(head.n_shape),
        expr=of(FRAMES, head.n_expression) ** 2,
        translation=0.02 * of(FRAMES, 3),
        static_offset=0.01 * of(1, len(head.template) + extra, 3),
        dynamic_offset=0.01 * of(FRAMES, len(head.template) + extra, 3),
    )


def transforms() -> dict:
    """Two cameras that stand still, one from the front and one from the side, each for two of the times."""
    front = np.eye(4)
    front[:3, 3] = 0, 0.1, 0.9
    turn = math.radians(30)
    side = np.array(
        [[math.cos(turn), 0, math.sin(turn), 0], [0, 1, 0, 0], [-math.sin(turn), 0, math.cos(turn), 0], [0, 0, 0, 1]]
    )
    side[:3, 3] = side[:3, :3] @ (0, 0.1, 0.9)
    frames = [
        dict(timestep_index=time, camera_index=index, transform_matrix=matrix.tolist(), file_path=f"{time}_{index}.png")
        for time in (0, 2)
        for index, matrix in ((0, front), (8, side))
    ]
    return dict(camera_angle_x=math.radians(25), frames=frames)


def flame(folder: Path, head: HeadModel) -> dict:
    return dict(type="ffplug_face.FLAMEHead", path=str(folder / "flame.npz"), identities=head.n_shape)


def test_flame_s_parameters_move_the_mesh(folder: Path, head: HeadModel, tmp_path: Path):
    found = read_motion(folder / "flame_param.npz", flame(folder, head))
    given = {name: torch.from_numpy(array) for name, array in np.load(folder / "flame_param.npz").items()}
    points = len(head.template)
    offsets = given["static_offset"][:, :points] + given["dynamic_offset"][:, :points]
    pose = torch.cat([given[name] for name in ("rotation", "neck_pose", "jaw_pose", "eyes_pose")], 1)
    for frame in range(FRAMES):
        row = slice(frame, frame + 1)
        expected = head(given["shape"][None], given["expr"][row], pose[row], given["translation"][row], offsets[row])
        torch.testing.assert_close(found.vertices[frame], expected[0], rtol=0, atol=1e-6)
        without = head(given["shape"][None], given["expr"][row], pose[row], given["translation"][row])
        assert (without[0] - found.vertices[frame]).abs().max() > 1e-4
    assert torch.equal(found.faces, head.faces) and set(found.labels.tolist()) <= set(range(len(REGIONS)))
    # A folder with a file for each frame says the same.
    for frame in range(FRAMES):
        part = {
            name: array[None][0] if name in ("shape", "static_offset") else array[frame : frame + 1].numpy()
            for name, array in given.items()
        }
        np.savez(tmp_path / f"{frame:05d}.npz", **part)
    again = read_motion(tmp_path, flame(folder, head))
    torch.testing.assert_close(again.vertices, found.vertices, rtol=0, atol=1e-6)


def test_gaussians_on_teeth_are_left_out(folder: Path, head: HeadModel):
    motion = folder / "flame_param.npz"
    avatar = Avatar(folder / "teeth.ply", motion, flame(folder, head))
    assert len(avatar.splats) == len(head.faces) - TEETH and len(
        Avatar(folder / "head.ply", motion, flame(folder, head)).splats
    ) == len(head.faces)
    with pytest.raises(ConfigError, match="give flame="):
        Avatar(folder / "head.ply", motion)


def test_meshes_of_any_tracker_drive_them_too(folder: Path, head: HeadModel, tmp_path: Path):
    driven = Avatar(folder / "head.ply", folder / "flame_param.npz", flame(folder, head))
    vertices, faces, _ = driven.motion
    np.savez(tmp_path / "a.npz", verts=vertices.numpy(), faces=faces.numpy().astype(np.int32))
    scene, same = Avatar(folder / "head.ply", tmp_path / "a.npz").scene(SIZE), driven.scene(SIZE)
    assert len(scene) == FRAMES and 0.2 < scene.frame(0).mask.float().mean() < 0.9
    assert 0.1 < scene.flow(0, 2).flow.norm(dim=0).max() < 40
    assert (scene.image(1) == same.image(1)).all() and torch.equal(scene.flow(0, 1).flow, same.flow(0, 1).flow)
    assert scene.regions(0) is None and same.regions(0).max() > 0
    np.savez(tmp_path / "b.npz", verts=vertices.numpy(), faces=faces[:-1].numpy())
    with pytest.raises(DataError, match=r"head\.ply with .*b\.npz: .*is it another tracker's mesh"):
        Avatar(folder / "head.ply", tmp_path / "b.npz")


def test_cameras_look_as_their_file_says(folder: Path, head: HeadModel):
    cameras = read_cameras(folder / "transforms_train.json")
    assert list(cameras) == [0, 8] and list(cameras[0]) == [0, 2]
    point = torch.tensor([0.03, 0.12, 0.05], dtype=torch.float64)
    for index, frame in zip((0, 8), transforms()["frames"][:2], strict=True):
        # OpenGL: the camera looks along its -z, with y up.
        x, y, z = np.linalg.solve(np.array(frame["transform_matrix"]), [*point.tolist(), 1])[:3]
        focal = 0.5 * SIZE[1] / math.tan(math.radians(25) / 2)
        expected = [focal * x / -z + (SIZE[1] - 1) / 2, focal * -y / -z + (SIZE[0] - 1) / 2, -z]
        found = cameras[index][0].camera(SIZE).project(point)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)
    avatar = Avatar(
        folder / "head.ply", folder / "flame_param.npz", flame(folder, head), folder / "transforms_train.json"
    )
    front, side = (avatar.scene(SIZE, view) for view in avatar.views)
    assert all(0.1 < scene.frame(0).mask.float().mean() < 0.9 for scene in (front, side))
    assert (front.image(0) != side.image(0)).mean() > 0.1
    with pytest.raises(ConfigError, match="view=1: expected one of the cameras 0, 8"):
        avatar.scene(SIZE, 1)


def test_a_camera_that_moves_is_there_for_each_frame(folder: Path, head: HeadModel, tmp_path: Path):
    content = transforms()
    content["frames"][2]["transform_matrix"][0][3] += 0.05
    (tmp_path / "a.json").write_text(json.dumps(content))
    files = (folder / "head.ply", folder / "flame_param.npz", flame(folder, head), tmp_path / "a.json")
    with pytest.raises(DataError, match="camera 0 moves and is not there for timestep 1"):
        Avatar(*files).scene(SIZE)
    content["frames"].append({**content["frames"][0], "timestep_index": 1})
    (tmp_path / "a.json").write_text(json.dumps(content))
    scene = Avatar(*files).scene(SIZE, 0)
    assert [scene.cameras[k] == scene.cameras[0] for k in range(FRAMES)] == [True, True, False]


def test_colours_turn_with_the_triangle_or_with_the_world(folder: Path, head: HeadModel):
    files = (folder / "head.ply", folder / "flame_param.npz", flame(folder, head))
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1))).Q
    turn = turn * torch.linalg.det(turn)
    centre = torch.tensor([0.1, 0.2, 0.9])
    mesh = head.template
    for frame, same in (("local", True), ("world", False)):
        splats = Avatar(*files, sh_frame=frame).splats
        first = splats.bound_to(mesh, head.faces, frame).colours(centre)
        second = splats.bound_to(mesh @ turn.T, head.faces, frame).colours(turn @ centre)
        assert (float((first - second).abs().max()) < 1e-4) == same
    local = splats.bound_to(mesh, head.faces, "local")
    turned = (triangle_frames(mesh, head.faces)[0].transpose(1, 2) @ (local.means - centre)[..., None])[..., 0]
    expected = splats.bound_to(mesh, head.faces)
    object.__setattr__(expected, "means", turned)
    torch.testing.assert_close(local.colours(centre), expected.colours(torch.zeros(3)))
    flat = Avatar(*files, sh_degree=0)
    assert flat.splats.sh.shape[1] == 1
    with pytest.raises(ConfigError, match="did you mean 'local'"):
        Avatar(*files, sh_frame="locl")
    with pytest.raises(ConfigError, match="sh_degree=4"):
        Avatar(*files, sh_degree=4)


def test_avatars_are_rendered_while_training(folder: Path, head: HeadModel):
    avatar = dict(
        splats=str(folder / "head.ply"),
        motion=str(folder / "flame_param.npz"),
        flame=flame(folder, head),
        cameras=str(folder / "transforms_train.json"),
    )
    dataset = GaussianSequenceDataset(length=6, size=SIZE, avatars=[avatar], regions=("skin", "eyes"))
    assert not dataset.metainfo["procedural"] and dataset.metainfo["flow_definition"] == "ray"
    samples = [dataset[k]["data_samples"] for k in range(6)]
    assert all(sample.gt_skin.any() and not (sample.gt_skin & ~sample.gt_foreground).any() for sample in samples)
    scenes = [Avatar(**avatar).scene(SIZE, view) for view in (0, 8)]
    shown = [[torch.from_numpy(scene.image(k)).permute(2, 0, 1) for k in range(FRAMES)] for scene in scenes]
    seen = {
        view
        for k in range(6)
        for view in (0, 1)
        if any(torch.equal(dataset[k]["inputs"][0], picture) for picture in shown[view])
    }
    assert seen == {0, 1}
    with pytest.raises(ConfigError, match=r"avatars\[0\]: 'moton' is no argument; did you mean 'motion'"):
        GaussianSequenceDataset(avatars=[dict(splats="a.ply", moton="b.npz")])
    with pytest.raises(ConfigError, match=r"avatars\[0\]: 'motion' is missing"):
        GaussianSequenceDataset(avatars=[dict(splats="a.ply")])
    with pytest.raises(ConfigError, match="did you mean 'lips'"):
        GaussianSequenceDataset(regions=("lip",))


def test_avatars_are_rendered_to_disk(folder: Path, head: HeadModel, tmp_path: Path):
    vertices, faces, _ = read_motion(folder / "flame_param.npz", flame(folder, head))
    np.savez(tmp_path / "m.npz", verts=vertices.numpy(), faces=faces.numpy())
    root = tmp_path / "set"

    def run(*more: str) -> str:
        files = (str(folder / "head.ply"), str(tmp_path / "m.npz"))
        where = ("--root", str(root), "--subject", "018", "--size", "64x56", "--stride", "1")
        cameras = ("--cameras", str(folder / "transforms_train.json"))
        result = CliRunner().invoke(command, ["render", *files, *where, *cameras, *more], catch_exceptions=True)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output

    assert "6 frames in 2 clips, flow by center" in run("--definition", "center")
    assert check_dataset(str(root)).ok
    dataset = SRFlowDataset(str(root))
    assert dataset.metainfo == {**dataset.metainfo, "procedural": False, "flow_definition": "center"}
    pairs = [dataset.get_data_info(k)["sample_id"] for k in range(len(dataset))]
    assert pairs == [f"train/018/{k:04d}-{k + 1:04d}" for k in (0, 1, 3, 4)]  # none crosses from camera to camera
    scene = Avatar(folder / "head.ply", tmp_path / "m.npz", cameras=folder / "transforms_train.json").scene(SIZE, 8)
    torch.testing.assert_close(dataset[2]["data_samples"].gt_flow, scene.flow(0, 1, "center").flow, rtol=0, atol=1e-6)
    inverse = [np.load(root / f"train/{kind}/018/0003.npy") for kind in ("scaled_inv_depth", "scaled_inv_depth_change")]
    seen, truth = scene.frame(0), scene.flow(0, 1)
    next_depth = (seen.depth + truth.depth_change)[truth.mask]
    np.testing.assert_allclose((inverse[0] + inverse[1])[truth.mask], 1 / next_depth, rtol=1e-4)
    assert (inverse[0][~truth.mask] == 0).all()
    assert "complete already" in run("--definition", "center")
    with pytest.raises(DataError, match="flow_definition is center, not ray"):
        run("--subject", "019")
    with pytest.raises(ConfigError, match="expected the name of a folder"):
        run("--subject", "../019")
    assert "--size" in run("--size", "64")


def test_a_file_is_looked_into(folder: Path):
    found = CliRunner().invoke(command, ["inspect", str(folder / "teeth.ply")]).output
    assert "colours of degree 1" in found and "opacity: median 0.95, below 0.05 in 0%" in found
    plain = Path(__file__).parent / "golden" / "plain_3dgs.ply"
    assert (
        "24 Gaussians, colours of degree 3\nin the world" in CliRunner().invoke(command, ["inspect", str(plain)]).output
    )


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (dict(faces=np.zeros((1, 3), int)), "verts is missing"),
        (dict(verts=np.zeros((2, 5, 3)), faces=np.zeros((4, 2), int)), "faces is 4×2"),
        (dict(verts=np.zeros((2, 5, 3)), faces=np.full((1, 3), 5)), "faces names 5..5: there are 5"),
        (dict(verts=np.full((2, 5, 3), np.nan), faces=np.zeros((1, 3), int)), "verts is not finite"),
        (dict(verts=np.zeros((1, 5, 3)), faces=np.zeros((1, 3), int)), "verts has 1 frames"),
        (dict(verts=np.array([{}]), faces=np.zeros((1, 3), int)), "a.npz"),
        (dict(pictures=np.zeros(3)), "expected verts and faces, or FLAME's shape"),
    ],
)
def test_motion_that_is_none(tmp_path: Path, arrays: dict, message: str):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_motion(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04nothing")
    with pytest.raises(DataError, match=r"b\.npz: expected a \.npz"):
        read_motion(tmp_path / "b.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.npz in this folder"):
        read_motion(tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("shape", lambda array: np.zeros(400, np.float32), "shape has 400 coefficients"),
        ("expr", lambda array: array[:, :, None], "expr is 3×"),
        ("jaw_pose", lambda array: array[:2], "jaw_pose is 2×3 float32: expected 3×3"),
        ("neck_pose", None, "neck_pose is missing"),
        ("rotation", lambda array: array * np.nan, "rotation is not finite"),
        ("static_offset", lambda array: array[:, :9], "static_offset has 9 vertices"),
        ("translation", lambda array: np.array([["a"] * 3] * 3), "translation is 3×3 <U1"),
    ],
)
def test_parameters_that_are_none_of_flame(folder: Path, head: HeadModel, tmp_path: Path, name, change, message: str):
    arrays = dict(np.load(folder / "flame_param.npz"))
    value = arrays.pop(name)
    if change is not None:
        arrays[name] = change(value)
    np.savez(tmp_path / "odd.npz", **arrays)
    with pytest.raises(DataError, match=message) as told:
        read_motion(tmp_path / "odd.npz", flame(folder, head))
    assert "odd.npz" in str(told.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(frames=[]), "frames: expected a list"),
        (lambda c: c.update(frames={"0": 1}), "frames: expected a list"),
        (lambda c: c.pop("camera_angle_x"), "frame 0: camera_angle_x is None"),
        (lambda c: c.update(camera_angle_x=4), "camera_angle_x is 4"),
        (lambda c: c["frames"][1].update(camera_index="8"), "frame 1: camera_index '8'"),
        (lambda c: c["frames"][1].pop("transform_matrix"), "frame 1: transform_matrix: expected 4×4"),
        (lambda c: c["frames"][1].update(transform_matrix=[[1, 2], [3]]), "frame 1: transform_matrix"),
        (lambda c: c["frames"][1].update(transform_matrix=np.zeros((4, 4)).tolist()), "with a rotation"),
        (lambda c: c["frames"][1].update(transform_matrix=np.diag([1, 1, -1, 1]).tolist()), "with a rotation"),
    ],
)
def test_cameras_that_are_none(tmp_path: Path, change, message: str):
    content = transforms()
    change(content)
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_cameras(tmp_path / "a.json")
    with pytest.raises(DataError, match="no such file"):
        read_cameras(tmp_path / "b.json")
    (tmp_path / "c.json").write_text('{"frames": [')
    with pytest.raises(DataError, match=r"c\.json: not valid JSON"):
        read_cameras(tmp_path / "c.json")

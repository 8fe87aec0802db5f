from pathlib import Path

import numpy as np
import pytest
import torch
from ffplug_srflownet.ply import read_splats, write_splats
from ffplug_srflownet.splats import Splats, quaternions

from ffplug.errors import DataError
from ffplug.ops.gaussians import rotation_matrices

FOLDER = Path(__file__).parent / "golden"
GOLDEN = np.load(FOLDER / "gaussian_ply.npz")
FIELDS = ("means", "quats", "scales", "opacities", "sh")


def close(found: torch.Tensor, expected: str) -> None:
    np.testing.assert_allclose(found.numpy(), GOLDEN[expected], rtol=1e-6, atol=1e-6)


def same(a: Splats, b: Splats, tolerance: float = 0.0) -> None:
    for name in FIELDS:
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=tolerance, atol=tolerance)


def test_the_plain_file_is_activated():
    splats = read_splats(FOLDER / "plain_3dgs.ply")
    assert len(splats) == 24 and splats.binding is None
    close(splats.sh, "sh")
    close(splats.opacities, "opacity")
    close(splats.scales, "scales_plain")
    close(rotation_matrices(splats.quats), "rotmat_plain")
    towards = splats.means - torch.tensor([0.0, 0.0, -1.0])
    assert splats.colours(torch.tensor([0.0, 0.0, -1.0])).shape == towards.shape


@pytest.mark.parametrize("frame", ["t", "t1"])
def test_bound_gaussians_ride_on_their_triangles(frame: str):
    bound = read_splats(FOLDER / "bound_3dgs.ply")
    assert bound.binding.tolist() == GOLDEN["binding"].tolist()
    vertices = torch.from_numpy(GOLDEN[f"verts_{frame}"]).float()
    faces = torch.from_numpy(GOLDEN["faces"]).long()
    splats = bound.bound_to(vertices, faces)
    close(splats.means, f"means_{frame}")
    close(splats.scales, f"scales_{frame}")
    close(rotation_matrices(splats.quats), f"rotmat_{frame}")
    assert splats.binding is None
    with pytest.raises(DataError, match="the mesh has 3"):
        bound.bound_to(vertices, faces[:3])
    with pytest.raises(DataError, match="not bound to triangles"):
        splats.bound_to(vertices, faces)


def test_quaternions_of_any_rotation():
    quats = torch.randn(200, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    quats = torch.cat((quats, torch.eye(4, dtype=torch.float64)))  # no turn, and half turns round each axis
    rotations = rotation_matrices(quats)
    torch.testing.assert_close(rotation_matrices(quaternions(rotations)), rotations, rtol=0, atol=1e-12)


@pytest.mark.parametrize("encoding", ["binary_little_endian", "binary_big_endian", "ascii"])
@pytest.mark.parametrize("name", ["plain_3dgs.ply", "bound_3dgs.ply"])
def test_what_is_written_is_read(tmp_path: Path, name: str, encoding: str):
    splats = read_splats(FOLDER / name)
    write_splats(tmp_path / "a.ply", splats, encoding)
    text = (tmp_path / "a.ply").read_bytes().split(b"end_header")[0]
    assert text.count(b"property float") == (63 if name.startswith("bound") else 62)
    again = read_splats(tmp_path / "a.ply")
    same(splats, again, 2e-6)
    assert (again.binding is None) == (splats.binding is None)
    if splats.binding is not None:
        assert torch.equal(again.binding, splats.binding)


def columns() -> tuple[list[str], np.ndarray]:
    data = (FOLDER / "bound_3dgs.ply").read_bytes()
    header, body = data.split(b"end_header\n", 1)
    names = [line.split()[-1].decode() for line in header.splitlines() if line.startswith(b"property")]
    return names, np.frombuffer(body, "<f4").reshape(24, -1)


def ply(path: Path, names: list[str], table: np.ndarray, count: object = None, kind: str = "float") -> Path:
    code = {"float": "<f4", "double": "<f8"}[kind]
    header = ["ply", "format binary_little_endian 1.0", "comment made by a test"]
    header += [f"element vertex {len(table) if count is None else count}"]
    header += [*(f"property {kind} {name}" for name in names), "end_header", ""]
    path.write_bytes("\n".join(header).encode() + table.astype(code).tobytes())
    return path


def test_the_order_of_properties_and_further_ones_do_not_count(tmp_path: Path):
    names, table = columns()
    order = np.random.default_rng(0).permutation(len(names))
    mixed = ["confidence", *(names[k] for k in order)]
    path = ply(tmp_path / "a.ply", mixed, np.concatenate((np.full((24, 1), np.nan), table[:, order]), 1), kind="double")
    found, expected = read_splats(path), read_splats(FOLDER / "bound_3dgs.ply")
    same(found, expected, 1e-6)
    assert torch.equal(found.binding, expected.binding)


def test_without_f_rest_the_colours_are_of_degree_zero(tmp_path: Path):
    names, table = columns()
    few = [k for k, name in enumerate(names) if not name.startswith("f_rest") and not name.startswith("n")]
    splats = read_splats(ply(tmp_path / "a.ply", [names[k] for k in few], table[:, few]))
    assert splats.sh.shape == (24, 1, 3)
    ahead = splats.colours(torch.zeros(3))
    assert torch.allclose(ahead, torch.from_numpy(GOLDEN["rgb_dc"]).clamp(min=0).float(), atol=1e-6)
    some = [k for k, name in enumerate(names) if not name.startswith("f_rest") or int(name[7:]) < 9]
    assert read_splats(ply(tmp_path / "b.ply", [names[k] for k in some], table[:, some])).sh.shape == (24, 4, 3)
    odd = [k for k, name in enumerate(names) if name != "f_rest_44"]
    with pytest.raises(DataError, match="44 fields f_rest"):
        read_splats(ply(tmp_path / "c.ply", [names[k] for k in odd], table[:, odd]))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("x", np.nan, "x is not finite in 1 Gaussians, the first is number 5"),
        ("f_rest_7", np.inf, "f_rest_7 is not finite"),
        ("opacity", np.nan, "opacity is not finite"),
        ("scale_1", 500.0, "scale_1=500.0 of Gaussian 5"),
        ("scale_2", -500.0, "scale_2=-500.0 of Gaussian 5"),
        ("binding_0", -1.0, "binding_0 holds -1.0"),
        ("binding_0", 1.5, "binding_0"),
        ("rot", 0.0, "rot_0..3 of Gaussian 5"),
    ],
)
def test_numbers_that_are_no_gaussians(tmp_path: Path, field: str, value: float, message: str):
    names, table = columns()
    table = table.copy()
    table[5, [k for k, name in enumerate(names) if name == field or name.startswith(f"{field}_")]] = value
    with pytest.raises(DataError, match=message) as told:
        read_splats(ply(tmp_path / "odd.ply", names, table))
    assert "odd.ply" in str(told.value)


def test_files_that_are_no_gaussians(tmp_path: Path):
    names, table = columns()
    whole = (FOLDER / "bound_3dgs.ply").read_bytes()
    foreign = {
        "empty": b"",
        "picture": b"\x89PNG\r\n" + bytes(200),
        "header": whole[:300],
        "format": whole.replace(b"binary_little_endian", b"binary_middle_endian"),
        "first": whole.replace(b"element vertex", b"element faces"),
        "list": whole.replace(b"property float nx", b"property list uchar int nx"),
        "twice": whole.replace(b"property float nx", b"property float x"),
        "latin": whole.replace(b"property float nx", b"property float \xe9"),
    }
    for name, data in foreign.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=f"{name}: "):
            read_splats(tmp_path / name)
    (tmp_path / "short").write_bytes(whole[:-1])
    with pytest.raises(DataError, match="short: truncated"):
        read_splats(tmp_path / "short")
    for count in (10**18 - 1, 25):
        with pytest.raises(DataError, match=f"says {count} Gaussians"):
            read_splats(ply(tmp_path / "many", names, table, count))
    for count in (-1, "nan", 10**30, 1.5):
        with pytest.raises(DataError, match="element vertex has the count"):
            read_splats(ply(tmp_path / "many", names, table, count))
    with pytest.raises(DataError, match=r"the field f_dc_0 is missing .11 of 14"):
        read_splats(ply(tmp_path / "points", names[:3], table[:, :3]))
    with pytest.raises(DataError, match=r"nothing\.ply"):
        read_splats(tmp_path / "nothing.ply")


def test_ascii_that_ends_early_or_holds_words(tmp_path: Path):
    write_splats(tmp_path / "a.ply", read_splats(FOLDER / "plain_3dgs.ply"), "ascii")
    text = (tmp_path / "a.ply").read_text()
    (tmp_path / "short.ply").write_text(text[: int(len(text) * 0.9)])
    with pytest.raises(DataError, match=r"truncated: Gaussian \d+ of 24"):
        read_splats(tmp_path / "short.ply")
    (tmp_path / "many.ply").write_text(text.replace("vertex 24", "vertex 999999999999"))
    with pytest.raises(DataError, match="says 999999999999 Gaussians"):
        read_splats(tmp_path / "many.ply")
    lines = text.splitlines()
    lines[-1] = "word " + lines[-1].split(" ", 1)[1]
    (tmp_path / "word.ply").write_text("\n".join(lines))
    with pytest.raises(DataError, match="holds what is no number"):
        read_splats(tmp_path / "word.ply")


def test_no_gaussians_at_all(tmp_path: Path):
    splats = read_splats(FOLDER / "plain_3dgs.ply")
    write_splats(tmp_path / "a.ply", Splats(*(getattr(splats, name)[:0] for name in FIELDS)))
    assert len(read_splats(tmp_path / "a.ply")) == 0

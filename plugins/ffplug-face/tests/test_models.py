"""Head models: the maths against independent numbers, files that are wrong or hostile, gradients."""

from __future__ import annotations

import functools
import os
import pickle
import pickletools
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ffplug_face.models import FLAMEHead, OpenHead, ProceduralHead, arrays
from ffplug_face.models.head import JOINTS, REGIONS, rotation_matrices
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_matrix

from ffplug.errors import CheckpointError, DataError
from ffplug.registry import MODELS

GOLDEN = Path(__file__).parent / "golden"
POINTS, IDENTITIES, EXPRESSIONS = 40, 6, 4


def draw(seed: int) -> np.random.RandomState:
    return np.random.RandomState(seed)


def flame_arrays() -> dict[str, np.ndarray]:
    """A small made-up model with FLAME's keys."""
    rng = draw(0)
    weights = rng.dirichlet(np.ones(5), POINTS)
    regressor = rng.rand(5, POINTS) * (rng.rand(5, POINTS) < 0.3)
    regressor /= regressor.sum(1, keepdims=True)
    return {
        "v_template": rng.randn(POINTS, 3) * 0.1,
        "f": rng.randint(0, POINTS, (30, 3)).astype(np.uint32),
        "shapedirs": rng.randn(POINTS, 3, IDENTITIES + EXPRESSIONS) * 0.01,
        "posedirs": rng.randn(POINTS, 3, 36) * 0.01,
        "J_regressor": regressor,
        "weights": weights,
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32),
    }


def class_named(module: str, name: str) -> type:
    """A class that pickles under another module's name, as one of a library that is not installed does."""
    return type(
        name, (), {"__module__": module, "__reduce_ex__": lambda self, _: (_Old(module, name), (), self.__dict__)}
    )


class _Old:
    """Pickles as a global of any name."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name

    def __call__(self) -> None:
        raise AssertionError("only its name is pickled")


class Python2Pickler(pickle._Pickler):
    """Writes protocol 2 as Python 2 did: arrays' bytes as its strings, the old names of NumPy's modules."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes

    def save(self, value: object, save_persistent_id: bool = True) -> None:
        if isinstance(value, _Old):
            self.write(f"c{value.module}\n{value.name}\n".encode())
            return
        if value is np._core.multiarray._reconstruct:
            value = _Old("numpy.core.multiarray", "_reconstruct")
            return self.save(value)
        super().save(value, save_persistent_id)


def write_flame(path: Path, arrays: dict) -> Path:
    """The pickle that FLAME's authors give out: chumpy's arrays, SciPy's sparse regressor, Python 2's protocol."""
    chumpy = class_named("chumpy.ch", "Ch")
    directions = chumpy()
    directions.x = arrays["shapedirs"]
    sparse = class_named("scipy.sparse.csc", "csc_matrix")()
    matrix = csc_matrix(arrays["J_regressor"])
    sparse.__dict__.update(
        _shape=matrix.shape, maxprint=50, data=matrix.data, indices=matrix.indices, indptr=matrix.indptr
    )
    content = {**arrays, "shapedirs": directions, "J_regressor": sparse, "bs_style": "lbs", "bs_type": "lrotmin"}
    with path.open("wb") as file:
        Python2Pickler(file, 2).dump(content)
    return path


def flame_vertices(arrays: dict, shape, expression, pose, translation) -> np.ndarray:
    """The maths once more, joint by joint in float64, with rotations by the matrix exponential."""
    from scipy.linalg import expm

    number = arrays["shapedirs"].shape[2] - EXPRESSIONS
    coefficients = np.zeros(number + EXPRESSIONS)
    coefficients[: len(shape)], coefficients[number : number + len(expression)] = shape, expression
    shaped = arrays["v_template"] + arrays["shapedirs"] @ coefficients
    joints = arrays["J_regressor"] @ shaped
    rotations = [expm(np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])) for x, y, z in pose.reshape(5, 3)]
    feature = np.concatenate([(r - np.eye(3)).ravel() for r in rotations[1:]])
    posed = shaped + (arrays["posedirs"].reshape(-1, 36) @ feature).reshape(-1, 3)
    chain = []
    for index, parent in enumerate([-1, 0, 1, 1, 1]):
        local = np.eye(4)
        local[:3, :3] = rotations[index]
        local[:3, 3] = joints[index] - (joints[parent] if parent >= 0 else 0)
        chain.append(local if parent < 0 else chain[parent] @ local)
    result = np.zeros_like(posed)
    for vertex, point in enumerate(posed):
        for index, matrix in enumerate(chain):
            moved = matrix @ np.append(point - joints[index], 1)
            result[vertex] += arrays["weights"][vertex, index] * moved[:3]
    return result + translation


def row(values: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)[None]


@pytest.mark.parametrize("kind", ["pickle", "again", "npz"])
def test_flame_is_its_maths(tmp_path: Path, kind: str):
    arrays = flame_arrays()
    path = tmp_path / f"model.{'npz' if kind == 'npz' else 'pkl'}"
    if kind == "npz":
        np.savez(path, **arrays)
    elif kind == "again":  # as someone who reads it may write it, by today's protocol
        path.write_bytes(pickle.dumps({**arrays, "J_regressor": csc_matrix(arrays["J_regressor"])}, protocol=5))
    else:
        write_flame(path, arrays)
        named = {arg for code, arg, _ in pickletools.genops(path.read_bytes()) if code.name == "GLOBAL"}
        assert {"chumpy.ch Ch", "scipy.sparse.csc csc_matrix", "numpy.core.multiarray _reconstruct"} <= named
    before = set(sys.modules)
    head = FLAMEHead(path, identities=IDENTITIES).double()
    assert not {name for name in set(sys.modules) - before if name.startswith("chumpy")}
    rng = draw(1)
    shape, expression = rng.randn(IDENTITIES), rng.randn(EXPRESSIONS)
    pose, translation = 0.4 * rng.randn(15), 0.1 * rng.randn(3)
    expected = flame_vertices(arrays, shape, expression, pose, translation)
    found = head(row(shape), row(expression), row(pose), row(translation))[0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-7)
    # All that differs is that the model's numbers are kept in single precision.
    kept = {
        key: value.astype(np.float32).astype(float) if value.dtype == float else value for key, value in arrays.items()
    }
    np.testing.assert_allclose(found, flame_vertices(kept, shape, expression, pose, translation), atol=1e-13)
    # Codes of networks that predict the first few coefficients go in as they are.
    few = head(row(shape[:3]), row(expression[:2]), row(pose), row(translation))[0].numpy()
    np.testing.assert_allclose(few, flame_vertices(arrays, shape[:3], expression[:2], pose, translation), atol=1e-7)
    # Offsets of a tracker count as part of the rest mesh, from which the joints follow.
    offsets = 0.05 * rng.randn(POINTS, 3)
    moved = flame_vertices(
        {**arrays, "v_template": arrays["v_template"] + offsets}, shape, expression, pose, translation
    )
    found = head(row(shape), row(expression), row(pose), row(translation), row(offsets))[0].numpy()
    np.testing.assert_allclose(found, moved, atol=1e-7)
    assert head.parents == (-1, 0, 1, 1, 1) and head.n_shape == IDENTITIES and head.n_expression == EXPRESSIONS


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


def test_a_pickle_with_code_is_refused_and_runs_nothing(tmp_path: Path):
    trace, path = tmp_path / "trace", tmp_path / "model.pkl"
    for content in (Hostile(trace), {**flame_arrays(), "f": Hostile(trace)}):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(DataError, match=r"model\.pkl is refused: it names .*system"):
            FLAMEHead(path)
    programs = (
        b"cbuiltins\neval\n(V1\ntR.",
        b"cbuiltins\ngetattr\n.",
        b"cchumpy.ch\nos.system\n(Vtrue\ntR.",
        b"c_codecs\nlookup\n.",
        b"c_codecs\nencode\n}Vcode\nI1\nsb.",  # sets an attribute of a function that may be called
        b"c_codecs\nencode\n(N}V__defaults__\n(Vutf-8\ntst" + b"b.",
        b"cchumpy.ch\nCh\n(N}V__setstate__\nI1\nstb.",
        b"cnumpy\nndarray\n}V__call__\nI1\nsb.",
        b"\x80\x02}r\xff\xff\xff\x7f.",  # asks for a table of two thousand million objects
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\x00\x00\x00.",  # and for a string of a terabyte
        b"Pevil\n.",
        b"\x82\x01.",
    )
    for program in programs:
        path.write_bytes(program)
        with pytest.raises(DataError, match=r"model\.pkl"):
            FLAMEHead(path)
    assert not trace.exists()
    assert arrays._encode("\xe9") == b"\xe9" and not vars(arrays._encode)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_any_type_come_back_whole(tmp_path: Path, protocol: int):
    path, rng = tmp_path / "arrays.pkl", draw(0)
    content = {
        code: rng.randint(0, 2, (3, 4)).astype(code) for code in ("f2", "f4", "f8", "i1", "u4", "i8", "?", ">f4")
    }
    content |= {"columns": np.asfortranarray(rng.randn(4, 3)), "one": np.float64(2.5), "none": np.zeros((0, 3))}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    found = arrays.read_pickle(path)
    for name, value in content.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype.newbyteorder("=") and np.shape(found[name]) == np.shape(value)
    path.write_bytes(pickle.dumps({"f": np.array([{}, []], object)}, protocol=protocol))
    assert np.asarray(arrays.read_pickle(path)["f"]).dtype == object  # no numbers: whoever wants them refuses it


def test_a_sparse_matrix_that_lies_is_refused(tmp_path: Path):
    path = tmp_path / "model.pkl"
    for shape, changes, message in (
        ((5, POINTS), {"indices": np.array([0, -1])}, "names -1..0 of 5"),
        ((5, POINTS), {"indices": np.array([0, 5])}, "names 0..5 of 5"),
        ((10**6, 10**6), {"indptr": np.zeros(10**6 + 1, np.int8)}, "larger than any head's"),
        ((5, POINTS), {"indptr": np.zeros(3, np.int64)}, "has 2 columns"),
        ((5, POINTS), {"indptr": np.array([0, 2**60] + [2] * (POINTS - 1))}, "does not say where"),
        ((5, POINTS), {"data": np.ones(3)}, "does not say where"),
    ):
        sparse = class_named("scipy.sparse.csc", "csc_matrix")()
        parts = {"data": np.ones(2), "indices": np.array([0, 1]), "indptr": np.array([0, 2] + [2] * (POINTS - 1))}
        sparse.__dict__.update(_shape=shape, **{**parts, **changes})
        with path.open("wb") as file:
            Python2Pickler(file, 2).dump({**flame_arrays(), "J_regressor": sparse})
        with pytest.raises(DataError, match=message):
            FLAMEHead(path)


@given(data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_damaged_pickles_give_one_kind_of_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.pkl"
    content = bytearray(_small_pickle())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        arrays.read_pickle(path)
    except DataError as error:
        assert "damaged.pkl" in str(error)


@functools.cache
def _small_pickle() -> bytes:
    matrix = csc_matrix(np.eye(2))
    return pickle.dumps({"v": np.arange(6.0).reshape(2, 3), "f": np.array([0, 1]), "J": matrix}, protocol=2)


def test_flame_landmarks_come_from_its_embedding(tmp_path: Path):
    rng = draw(3)
    numbers = {"lmk_face_idx": rng.randint(0, 30, 51).astype(np.uint32), "lmk_b_coords": rng.dirichlet(np.ones(3), 51)}
    model = write_flame(tmp_path / "model.pkl", flame_arrays())
    path = tmp_path / "embedding.pkl"
    path.write_bytes(pickle.dumps(numbers, protocol=2))
    np.savez(tmp_path / "embedding.npz", **numbers)
    head = FLAMEHead(model, identities=IDENTITIES, embedding=path, landmarks={"chin": 7, "nose_tip": [1, 2]})
    same = FLAMEHead(model, identities=IDENTITIES, embedding=tmp_path / "embedding.npz")
    assert set(OpenHead().landmark_names) - set(head.landmark_names) <= {"right_eye", "left_eye"}  # no eyes in this one
    vertices = head.double()(row(rng.randn(IDENTITIES)), row(rng.randn(EXPRESSIONS)), row(0.3 * rng.randn(15)))
    found = dict(zip(head.landmark_names, head.landmarks(vertices)[0].numpy(), strict=True))
    # Points as the file's authors number them: 48, 54, 62 and 37 and 38 of iBUG's 68, less the 17 of the jaw.
    points = (
        vertices[0].numpy()[flame_arrays()["f"][numbers["lmk_face_idx"]]] * numbers["lmk_b_coords"][..., None]
    ).sum(1)
    for name, index in (
        ("mouth_right", [31]),
        ("mouth_left", [37]),
        ("lip_upper", [45]),
        ("eye_right_upper", [20, 21]),
    ):
        np.testing.assert_allclose(found[name], points[index].mean(0), atol=1e-9)
    np.testing.assert_allclose(found["nose_tip"], vertices[0, 1:3].mean(0).numpy(), atol=1e-9)  # the user's wins
    np.testing.assert_allclose(found["chin"], vertices[0, 7].numpy())
    assert "mouth_left" in same.landmark_names and "chin" not in same.landmark_names
    for wrong, message in (
        ({"lmk_face_idx": np.full(51, 30)}, r"names triangles 30\.\.30: there are 0\.\.29"),
        ({"lmk_face_idx": np.zeros(68, int)}, r"expected \(51,\), \(51, 3\)"),
        ({"lmk_b_coords": np.full((51, 3), np.nan)}, "expected barycentrics"),
        ({"lmk_b_coords": "text"}, "expected numbers"),
    ):
        path.write_bytes(pickle.dumps({**numbers, **wrong}))
        with pytest.raises(DataError, match=message):
            FLAMEHead(model, identities=IDENTITIES, embedding=path)
    path.write_bytes(pickle.dumps([1]))
    with pytest.raises(DataError, match="lacks lmk_face_idx, lmk_b_coords: expected FLAME's"):
        FLAMEHead(model, identities=IDENTITIES, embedding=path)


def test_files_that_are_no_flame_model(tmp_path: Path):
    arrays = flame_arrays()
    whole = write_flame(tmp_path / "whole.pkl", arrays).read_bytes()
    path = tmp_path / "model.pkl"
    with pytest.raises(CheckpointError, match=r"no such file\. FLAME comes from"):
        FLAMEHead(path)
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"model\.pkl is damaged"):
            FLAMEHead(path)
    wrong = {
        "weights": (np.ones((POINTS, 4)), "weights is 40×4: expected 40×5"),
        "v_template": (np.full((POINTS, 3), np.nan), "template holds numbers that are not finite"),
        "f": (np.full((3, 3), POINTS), "faces names 40..40: there are 0..39"),
        "posedirs": (np.zeros((POINTS, 3, 9)), "pose_directions is 40×3×9"),
        "kintree_table": (np.zeros((2, 24)), "expected 2×5"),
        "shapedirs": (np.zeros((POINTS, 3, 2)), "at least 6 identity directions"),
    }
    for key, (value, message) in wrong.items():
        write_flame(path, {**arrays, key: value})
        with pytest.raises(DataError, match=message):
            FLAMEHead(path, identities=IDENTITIES)
    path.write_bytes(pickle.dumps({key: value for key, value in arrays.items() if key != "posedirs"}))
    with pytest.raises(DataError, match="lacks posedirs: expected a FLAME model"):
        FLAMEHead(path)
    for content, message in (([1, 2], "lacks v_template"), ({**arrays, "f": "text"}, "f holds <U4: expected numbers")):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(DataError, match=message):
            FLAMEHead(path)
    (tmp_path / "model.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(DataError, match=r"no readable \.npz"):
        FLAMEHead(tmp_path / "model.npz")


def test_the_open_head_is_exact(open_head_states):
    check = np.load(GOLDEN / "open_head.npz")
    shape, first, second, pose, later, _ = open_head_states
    held = np.concatenate([later[:6], pose[6:]])
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        head = OpenHead().to(dtype)
        cases = {"vertices0": (first, pose), "vertices_facial": (second, later), "vertices_head": (first, held)}
        for name, (expression, turn) in cases.items():
            found = head(*(row(value).to(dtype) for value in (shape, expression, turn)))[0, ::40]
            np.testing.assert_allclose(found.numpy(), check[name], atol=tolerance)


@pytest.mark.parametrize("make", [OpenHead, lambda: ProceduralHead(24, 32)], ids=["open", "procedural"])
def test_the_interface(make):
    head = make()
    assert head.joint_names == JOINTS
    assert head.uv_faces.shape == head.faces.shape and int(head.uv_faces.max()) < len(head.uv)
    assert float(head.uv.min()) >= 0 and float(head.uv.max()) <= 1
    torch.testing.assert_close(head.weights.sum(1), torch.ones(len(head.weights)))
    torch.testing.assert_close(head.joint_regressor.sum(1), torch.ones(5))
    labels = head.regions.bincount(minlength=len(REGIONS))
    assert all(labels > 0), dict(zip(REGIONS, labels.tolist(), strict=True))
    torch.testing.assert_close(head()[0], head.template)
    points = dict(zip(head.landmark_names, head.landmarks(head())[0], strict=True))
    assert len(points) == 22
    for name, point in points.items():
        if "left" in name:  # the template is a mirror image of itself
            other = points[name.replace("left", "right")]
            torch.testing.assert_close(other, point * torch.tensor([-1.0, 1, 1]), atol=2e-3, rtol=0)
    assert points["mouth_left"][0] > 0.015 and points["nose_tip"][2] > points["left_eye"][2]
    assert points["brow_left_middle"][1] > points["eye_left_upper"][1] > points["eye_left_lower"][1]
    assert points["nose_tip"][1] > points["mouth_left"][1] > points["chin"][1]
    # Outward orientation: the volume that the triangles enclose is positive.
    a, b, c = head.template.double()[head.faces].unbind(1)
    volume = (a * torch.linalg.cross(b, c)).sum(1) / 6
    ball = head.regions == REGIONS.index("eyes")
    assert volume[~ball].sum() > 1e-3 and volume[ball].sum() > 1e-6


@pytest.mark.parametrize("make", [OpenHead, lambda: ProceduralHead(24, 32)], ids=["open", "procedural"])
def test_actions_move_what_they_name(make):
    head = make()
    rest = dict(zip(head.landmark_names, head.landmarks(head())[0], strict=True))

    def moved(**weights: float) -> dict[str, torch.Tensor]:
        points = head.landmarks(head(expression=head.expression_of(weights)[None]))[0]
        return {name: point - rest[name] for name, point in zip(head.landmark_names, points, strict=True)}

    smile = moved(AU12L=1.0)
    assert smile["mouth_left"][1] > 3e-3 and smile["mouth_left"].norm() > 5 * smile["mouth_right"].norm()
    assert moved(AU26=1.0)["lip_lower"][1] < -8e-3
    assert abs(moved(AU26=1.0)["lip_upper"][1]) < 3e-3
    assert moved(AU1=1.0, AU2=1.0)["brow_right_inner"][1] > 2e-3
    assert moved(AU43=1.0)["mouth_left"].norm() < 1e-3
    torch.testing.assert_close(
        head.expression_of({"AU12": 0.5}), head.expression_of({"mouthSmileLeft": 0.5, "mouthSmileRight": 0.5})
    )
    with pytest.raises(DataError, match="mouthSmileLeft"):
        head.expression_of({"mouthSmileLef": 1.0})


def test_jaw_and_eyes_turn_about_their_joints():
    head = OpenHead().double()
    pose = torch.zeros(1, 15, dtype=torch.float64)
    pose[0, 6] = 0.3
    lips = [head.landmark_names.index(name) for name in ("lip_upper", "lip_lower")]
    upper, lower = (head.landmarks(head(pose=pose)) - head.landmarks(head()))[0, lips, 1]
    assert lower < -0.01 and abs(upper) < 2e-3
    pose = torch.zeros(1, 15, dtype=torch.float64)
    pose[0, 9:] = torch.tensor([0.0, 0.4, 0.0, 0.0, 0.4, 0.0])
    moved = (head(pose=pose) - head())[0].norm(dim=1)
    balls = head.weights[:, 3:].sum(1) > 0.999
    assert moved[balls].max() > 3e-3 and moved[head.weights[:, 3:].sum(1) == 0].max() < 1e-7


def test_head_models_are_differentiable_and_batches_are_their_samples():
    head = ProceduralHead(12, 16).double()
    generator = torch.Generator().manual_seed(0)
    sizes = (head.n_shape, head.n_expression, 15, 3)
    values = [0.2 * torch.randn(2, size, generator=generator, dtype=torch.float64) for size in sizes]
    values[2][0] = 0  # the rotation formula has a removable zero there
    together = head(*values)
    for index in range(2):
        torch.testing.assert_close(together[index : index + 1], head(*(value[index : index + 1] for value in values)))
    leaves = [value.requires_grad_() for value in values]
    picked = head.landmarks
    assert torch.autograd.gradcheck(lambda *x: picked(head(*x))[:, :4], leaves)
    turns = torch.tensor([[0.0, 0, 0], [1e-5, 0, 0], [3.0, 1, -2]], dtype=torch.float64)
    matrices = rotation_matrices(turns)
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(3, dtype=torch.float64).expand(3, 3, 3))
    for value, name in zip((torch.zeros(1, 99), torch.zeros(1, 14)), ("shape", "pose"), strict=True):
        with pytest.raises(ValueError, match=name):
            ProceduralHead(12, 16)(**{name: value})


def test_heads_build_from_configs_and_take_files_of_others(tmp_path: Path):
    from ffplug_face.models.open_head import OPEN_HEAD

    head = MODELS.build(dict(type="ffplug_face.OpenHead", path=OPEN_HEAD))
    torch.testing.assert_close(head(), OpenHead()())
    assert head.landmark_names == ("right_eye", "left_eye", "nose_tip")
    with np.load(OPEN_HEAD) as archive:
        arrays = {key: archive[key] for key in archive.files if key != "vt"}
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(DataError, match=r"mine\.npz lacks vt"):
        OpenHead(tmp_path / "mine.npz")
    with pytest.raises(ValueError, match="a multiple of 4"):
        ProceduralHead(columns=30)
    assert OPEN_HEAD.with_suffix(".md").read_text().count("CC0") >= 1

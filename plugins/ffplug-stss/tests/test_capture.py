"""EXR files of an engine against the records that the renderer makes of the same scene, and files that are wrong."""

import numpy as np
import pytest
import torch
from ffplug_stss.capture import BUFFERS, COLOUR, SKY, Capture, import_capture, read_exr
from ffplug_stss.datasets import STSSDataset
from ffplug_stss.datasets.records import decode
from ffplug_stss.rendering import Renderer
from ffplug_stss.scenes import SKY as SKY_LABEL
from ffplug_stss.scenes import SceneOptions, draw_scene
from ffplug_stss.sequences import Sequence
from ffplug_stss.warping import from_engine

from ffplug.cli import cli, run
from ffplug.errors import DataError

exr = pytest.importorskip("OpenEXR")
FRAMES = range(1, 9)
FAR = 5000.0


def write(path, **channels):
    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    with exr.File(header, {name: np.ascontiguousarray(values) for name, values in channels.items()}) as file:
        file.write(str(path))


def named(values, names="RGB"):
    return {name: values[0, place].numpy() for place, name in enumerate(names)}


def linear(srgb):
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


@pytest.fixture(scope="module")
def sequence():
    options = SceneOptions(style="field", speed=2.0, samples=1, objects=(4, 4), poles=(0, 0))
    return Sequence(Renderer(draw_scene(3, 0, options), (32, 48)))


@pytest.fixture(scope="module")
def captured(sequence, tmp_path_factory):
    folder = tmp_path_factory.mktemp("capture")
    renderer = sequence.renderer
    for part in ("low", "high"):
        (folder / part).mkdir()
    for time in FRAMES:
        now, sky = sequence.buffers(time), sequence.buffers(time).label == SKY_LABEL
        view = torch.nn.functional.normalize(now.position - renderer.scene.camera(time).position[:, None, None], dim=1)
        values = {
            COLOUR: linear(sequence.shaded(time)),
            "BaseColor": now.base_color,
            "WorldNormal": torch.where(sky, SKY, now.normal),
            "WorldPosition": 20 * now.position,  # a small room: neighbouring pixels lie centimetres apart
            "SceneDepth": FAR * now.depth,
            "MotionVector": from_engine(renderer.motion(now, time, time - 1)),
            "MyStencil": torch.where(now.label > 1, now.label, 0).float().expand(1, 3, -1, -1),
            "NoV": (now.normal * view).sum(dim=1, keepdim=True),
            "Metallic": now.metallic,
            "Roughness": now.roughness,
        }
        for name, channels in BUFFERS.items():
            write(folder / "low" / f"Room{name}.{time:04d}.exr", **named(values[name], channels))
        write(folder / "high" / f"Room{COLOUR}.{time:04d}.exr", **named(linear(renderer.reference(time))))
    return folder


@pytest.fixture
def copy(captured, tmp_path):
    """The capture with links, so that a test may replace single files."""
    for part in ("low", "high"):
        (tmp_path / part).mkdir()
        for path in (captured / part).iterdir():
            (tmp_path / part / path.name).symlink_to(path)
    return tmp_path


def test_a_capture_becomes_a_data_set(sequence, captured, tmp_path):
    arguments = ["stss", "import", captured / "low", captured / "high", tmp_path / "set", "--far", FAR]
    assert run(cli, [*map(str, arguments)], "ffplug") == 0
    dataset = STSSDataset(str(tmp_path / "set"), split="train")
    assert [dataset.get_data_info(place)["kind"] for place in range(len(dataset))] == ["SF", "EF", "SF"]
    for item in dataset:
        time = item["data_samples"].frame
        found, motion = decode(Capture(captured / "low", captured / "high", FAR).record(time))
        expected, true_motion = decode(sequence.record(time))
        torch.testing.assert_close(motion, true_motion, rtol=0, atol=0.02)
        torch.testing.assert_close(found.feature, expected.feature, rtol=0, atol=0.01)
        torch.testing.assert_close(item["data_samples"].gt_frame, sequence_target(sequence, time), rtol=0, atol=0.01)
        # Vectors that are joined, and the published rule of holes, agree with the exact ones nearly everywhere.
        assert float((found.mask == expected.mask).float().mean()) > 0.85
        near = (found.x - expected.x).abs().amax(dim=0) < 0.05
        assert float(near.float().mean()) > 0.9
    with pytest.raises(DataError, match="is there already"):
        import_capture(Capture(captured / "low", captured / "high", FAR), tmp_path / "set", "train1")


def sequence_target(sequence, time):
    return torch.from_numpy(sequence.target(time)[..., ::-1].transpose(2, 0, 1).astype(np.float32))


def replace(path, **channels):
    path.unlink()
    write(path, **channels)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda low, one: (low / "RoomNoV.0007.exr").unlink(), r"RoomNoV.0007.exr: no such file"),
        (lambda low, one: replace(low / "RoomNoV.0007.exr", Y=one), r"no part has the channels R \(part 0: Y\)"),
        (lambda low, one: replace(low / "RoomNoV.0007.exr", R=one * np.nan), "1536 values are NaN or infinite"),
        (lambda low, one: replace(low / "RoomNoV.0007.exr", R=one[:31]), "31×48 pixels, expected 32×48"),
        (lambda low, one: replace(low / "RoomMetallic.0007.exr", R=9 * one), r"values lie in 9..9, expected 0..1"),
        (
            lambda low, one: replace(low / "RoomMotionVector.0007.exr", R=999 * one, G=one),
            "vectors of up to 999 pixels",
        ),
    ],
)
def test_wrong_files_are_named_and_nothing_is_left(copy, spoil, message):
    spoil(copy / "low", np.ones((32, 48), np.float32))
    with pytest.raises(DataError, match=message):
        import_capture(Capture(copy / "low", copy / "high", FAR), copy / "set", "train1")
    assert not any((copy / "set").rglob("*.*"))


def test_channels_are_found_in_any_part(tmp_path):
    one = np.ones((4, 6), np.float32)
    parts = [exr.Part({}, {name: (place + 1) * one}, name=name) for place, name in enumerate(("Z", "R"))]
    with exr.File(parts) as file:
        file.write(str(tmp_path / "two.exr"))
    assert (read_exr(tmp_path / "two.exr", "R") == 2).all()
    with pytest.raises(DataError, match=r"no part has the channels G \(part 0: Z; part 1: R\)"):
        read_exr(tmp_path / "two.exr", "G")


def test_a_damaged_file_and_a_wrong_size_of_the_true_frame(copy, captured):
    path = copy / "high" / f"Room{COLOUR}.0008.exr"
    small = captured / "low" / path.name
    path.unlink()
    path.symlink_to(small)
    with pytest.raises(DataError, match="32×48 pixels, expected 64×96, twice the buffers'"):
        Capture(copy / "low", copy / "high", FAR).target(8)
    path.unlink()
    path.write_bytes(small.read_bytes()[:400])
    with pytest.raises(DataError, match="not a whole EXR file"):
        Capture(copy / "low", copy / "high", FAR).target(8)


def test_turned_vectors_are_told(copy):
    Capture(copy / "low", copy / "high", FAR).check_vectors(7)
    path = copy / "low" / "RoomMotionVector.0007.exr"
    channels = exr.File(str(path), separate_channels=True).channels()
    vectors = {name: channel.pixels for name, channel in channels.items()}
    replace(path, R=-vectors["R"], G=-vectors["G"])
    with pytest.raises(DataError, match=r"with both negated the vectors fit the frames better \(mean error"):
        Capture(copy / "low", copy / "high", FAR).check_vectors(7)


def test_too_short_a_capture(copy):
    for path in (copy / "low").glob(f"*{COLOUR}.0003.exr"):
        path.unlink()
    with pytest.raises(DataError, match="no frame has 5 successive frames before it"):
        Capture(copy / "low", copy / "high", FAR).usable()

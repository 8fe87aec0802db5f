"""The commands and the recipes, through the real command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from ffplug_face.crops import Face, FaceDetector, NoFaceError
from ffplug_face.portraits import draw_portraits, render_portraits
from ffplug_latentface.edit import command as face_swap
from ffplug_latentface.editing import mixed
from ffplug_latentface.embed import command as embed
from ffplug_latentface.photos import crop_face, load_model, read_photo
from ffplug_latentface.verify import command as face_verify

from ffplug.datasets.formats import read_image, write_image
from ffplug.datasets.procedural import Recipe
from ffplug.datasets.procedural.writers import write_procedural
from ffplug.errors import CheckpointError, ConfigError, DataError

OPTIONS = (
    "train_cfg.max_iters=2",
    "train_cfg.val_interval=2",
    "default_hooks.checkpoint.interval=2",
    "train_dataloader.batch_size=2",
    "prepare_data.scenes=10",
    "prepare_data.size=[32,32]",
    "model.width=16",
    "model.autoencoder.width=8",
    "model.autoencoder.code=16",
    "model.autoencoder.pretrained=None",
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    images = render_portraits(draw_portraits(0, 0, 2), 48).images
    for number, image in enumerate(images):
        write_image(folder / f"{number}.png", image.permute(1, 2, 0).numpy())
    write_image(folder / "grey.png", images[0][0].numpy()[:, :40])
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:200])
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The second stage's work folder, trained for two steps on portraits."""
    folder = tmp_path_factory.mktemp("run")
    command = [sys.executable, "-m", "ffplug.cli", "train", "latentface_small2", "--cfg-options", *OPTIONS]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "verification/expression" in done.stderr + done.stdout
    return str(folder / "work_dirs" / "latentface_small2")


def test_embed(run: str, photos: Path, tmp_path: Path) -> None:
    names = [str(photos / name) for name in ("0.png", "grey.png", "cut.png")]
    done = CliRunner().invoke(embed, [*names, "--out", str(tmp_path / "a.npz"), "--model", run])
    assert done.exit_code == 0, done.output
    assert "cut.png" in done.output and "2 faces, 1 left out" in done.output
    with np.load(tmp_path / "a.npz") as file:
        assert list(file["files"]) == names[:2]
        assert file["identity"].shape == file["expression"].shape == (2, 32)
        total = file["identity"][0] + file["expression"][0]
    model = load_model(run, None, False)
    with torch.no_grad():
        expected = model.embed(read_photo(names[0], 64)[None], "codes")[0].numpy()
    np.testing.assert_allclose(total, expected, atol=1e-5)
    with pytest.raises(DataError, match="none of 1"):
        CliRunner().invoke(embed, [names[2], "--out", "a.npz", "--random-weights"], catch_exceptions=False)
    with pytest.raises(CheckpointError, match="no weights"):
        CliRunner().invoke(embed, [names[0], "--out", "a.npz"], catch_exceptions=False)


def test_face_swap(run: str, photos: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "a.png")
    faces = [str(photos / "0.png"), str(photos / "1.png")]
    options = ["--out", out, "--steps", "3", "--scale", "1", "--model", run]
    done = CliRunner().invoke(face_swap, [*faces, *options])
    assert done.exit_code == 0, done.output
    assert read_image(out).shape == (192, 320, 3)


def test_a_share_of_nothing_is_the_face_itself(model: torch.nn.Module, photos: Path) -> None:
    face, other = (read_photo(photos / f"{number}.png", 64)[None] for number in range(2))
    with torch.no_grad():
        plain, own = model.autoencoder.factors(face), model.autoencoder.factors(other)
    found = mixed(model, face, other, torch.tensor([0.0, 1.0]))
    assert torch.allclose(found.depth[:1], plain.depth, atol=1e-5)
    assert torch.equal(found.view[1:], plain.view) and not torch.equal(plain.view, own.view)


def test_crops_reach_over_the_border() -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, -1] = 200
    crop = crop_face(image, (20, 0, 20, 20))
    assert crop.shape == (22, 22, 3)
    assert crop[:, -5].min() == 200 and crop[:, 0].max() == 0
    assert crop_face(image, (-500, -500, 20, 20)).max() == 0


class Brightest(FaceDetector):
    """Takes a bright patch for a face."""

    def __call__(self, image: np.ndarray) -> list[Face]:
        self.side = max(image.shape[:2])
        rows, columns = (image[..., 0] > 100).nonzero()
        if not len(rows):
            return []
        left, top = columns.min(), rows.min()
        box = (left, top, columns.max() + 1 - left, rows.max() + 1 - top)
        return [Face(tuple(map(float, box)), np.zeros((5, 2)), 1.0)]


def test_photos_of_any_kind(tmp_path: Path) -> None:
    detector = Brightest()
    dark = np.zeros((60, 90, 3), np.uint8)
    write_image(tmp_path / "dark.png", dark)
    with pytest.raises(NoFaceError, match=r"dark\.png: no face"):
        read_photo(tmp_path / "dark.png", 64, detector)
    huge = np.zeros((4000, 9000), np.uint8)  # and grey
    huge[1000:1200, 5000:5200] = 255
    write_image(tmp_path / "huge.png", huge)
    face = read_photo(tmp_path / "huge.png", 64, detector)
    assert detector.side <= 1600 and face.shape == (3, 64, 64)
    assert float((face > 0).float().mean()) > 0.6  # the patch fills the crop, but for its margin
    write_image(tmp_path / "line.png", np.full((2, 3000, 3), 7, np.uint8))
    assert read_photo(tmp_path / "line.png", 64).shape == (3, 64, 64)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DataError, match=r"text\.png"):
        read_photo(tmp_path / "text.png", 64)


def test_face_verify(run: str, tmp_path: Path) -> None:
    root = tmp_path / "lfw"
    write_procedural(Recipe("lfw", scenes=4, frames=5, size=(32, 32), textures="analytic"), root)
    roc = tmp_path / "roc.csv"
    options = ["--roc", str(roc), "--model", run]
    done = CliRunner().invoke(face_verify, [str(root), *options], catch_exceptions=False)
    assert done.exit_code == 0 and "20 pairs in 10 folds" in done.output, done.output
    lines = roc.read_text().splitlines()
    assert lines[1] == "0.000000,0.000000" and lines[-1] == "1.000000,1.000000"
    area = float(done.output.split("ROC curve ")[1].split(",")[0])
    points = np.array([[float(value) for value in line.split(",")] for line in lines[1:]])
    assert area == pytest.approx(float((np.diff(points[:, 0]) * (points[1:, 1] + points[:-1, 1]) / 2).sum()), abs=1e-4)
    done = CliRunner().invoke(face_verify, [str(root), "--roc", str(tmp_path / "roc.png"), *options[2:]])
    assert done.exit_code == 0 and read_image(tmp_path / "roc.png").shape[0] > 100

    def refused(match: str, *arguments: str, kind: type[Exception] = DataError) -> None:
        with pytest.raises(kind, match=match):
            CliRunner().invoke(face_verify, [str(root), *options, *arguments], catch_exceptions=False)

    refused("set --folds", "--folds", "3")
    refused(r"\.csv", "--roc", "roc.txt", kind=ConfigError)
    refused("pairs2", "--pairs", str(tmp_path / "pairs2.txt"))
    (root / "lfw_crop" / "Person_0001" / "Person_0001_0002.png").unlink()
    (tmp_path / "two.txt").write_text("2\t1\nPerson_0001\t1\t2\nPerson_0001\t1\tPerson_0002\t1\n")
    refused(
        "1 of 3 pictures of the list are missing: Person_0001/Person_0001_0002",
        "--pairs",
        str(tmp_path / "two.txt"),
        "--folds",
        "2",
    )

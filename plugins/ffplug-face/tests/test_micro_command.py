"""``ffplug micro``: the whole chain through the command line."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from ffplug.cli import cli, run
from ffplug.config import load_config, validate_config
from ffplug.datasets.formats import read_image, write_image
from ffplug.registry import DATASETS, MODELS

RECIPES = ("grid", "ststnet", "ststnet_paper", "off_apexnet", "rcn_a", "htnet", "htnet_paper")


def ffplug(*arguments):
    return run(cli, ["micro", *map(str, arguments)], "ffplug")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain")
    assert ffplug("synth", "--root", folder / "data", "--subjects", 5, "--clips", 6, "--size", 64, "--frames", 5) == 0
    return folder


def options(place, **more):
    values = {
        "train_dataloader.dataset.data_root": place / "data",
        "train_dataloader.dataset.feature.cache": place / "cache",
        "train_dataloader.dataset.feature.flow_size": 96,
        **more,
    }
    return [part for key, value in values.items() for part in ("--cfg-options", f"{key}={value}")]


def test_help_imports_no_torch():
    program = (
        "import sys; from ffplug.cli import cli; cli.main(['micro', '--help'], standalone_mode=False); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("synth", "convert", "apex", "features", "run", "score"))


def test_the_chain_from_drawn_frames(place, capsys):
    """Flow of Farneback, grid baseline, scored far above chance; then a network, compared with it."""
    assert ffplug("run", "micro_grid", "--work-dir", place / "grid", *options(place)) == 0
    told = capsys.readouterr().out
    assert "30 PROCEDURAL clips (10 negative, 10 positive, 10 surprise), 5 folds" in told and "PROCEDURAL DATA" in told
    scores = json.loads((place / "grid" / "scores.json").read_text())
    assert scores["procedural"] and scores["scores"]["all"]["UF1"]["mean"] > 0.6
    assert set(scores["scores"]) == {"all", "procedural"}
    page = (place / "grid" / "report.html").read_text()
    assert "PROCEDURAL DATA" in page and page.count("data:image/png;base64,") == 2 and "<script" not in page
    for name in ("confusion.png", "flows.png"):
        assert read_image(str(place / "grid" / name)).std() > 20
    more = {"model.epochs": 2, "model.batch_size": 8}
    arguments = ("--work-dir", place / "net", "--seeds", 2, "--oracle-epoch", *options(place, **more))
    assert ffplug("run", "micro_ststnet", *arguments) == 0
    told = capsys.readouterr().out
    assert "seeds averaged" in told and "ORACLE (best TEST epoch" in told
    assert ffplug("score", place / "grid", "--against", place / "net", "--resamples", 200) == 0
    scores = json.loads((place / "grid" / "scores.json").read_text())
    assert scores["difference"]["UF1"]["difference"] > 0 and "UF1: +" in capsys.readouterr().out


def test_features_and_apex(place):
    assert ffplug("features", "micro_grid", "--out", place / "f.npz", *options(place)) == 0
    stored = np.load(place / "f.npz")
    assert stored["features"].shape == (30, 3, 28, 28) and stored["clips"][0] == "procedural/p00/00"
    assert np.isfinite(stored["features"]).all() and sorted(set(stored["labels"])) == [0, 1, 2]
    found = place / "data" / "found.csv"
    assert ffplug("apex", "micro_grid", "--out", found, *options(place)) == 0
    feature = "train_dataloader.dataset.feature"
    config = options(place, **{"train_dataloader.dataset.manifest": "found.csv", f"{feature}.head": "none"})
    assert ffplug("features", "micro_grid", "--out", place / "g.npz", *config) == 0


def test_convert(tmp_path, capsys):
    for kind, name in (("negative", "s1_ne_01"), ("surprise", "s1_sur_01")):
        folder = tmp_path / "HS" / "s1" / "micro" / kind / name
        folder.mkdir(parents=True)
        for number in range(3):
            write_image(folder / f"{number}.bmp", np.zeros((4, 4, 3), np.uint8))
    out = tmp_path / "manifest.csv"
    assert ffplug("convert", "smic", tmp_path / "HS", "--out", out) == 0
    told = capsys.readouterr().out
    assert "smic: 1 subjects, 1 negative, 0 positive, 1 surprise, 2 clips" in told
    assert "smic: 1 subjects (composite 16)" in told
    assert ffplug("convert", "smic", tmp_path / "HS", "--out", out) == 2
    assert "is there already" in capsys.readouterr().err
    assert ffplug("convert", "smic", tmp_path / "HS", "--out", out, "--append") == 2
    assert "holds clips of smic already" in capsys.readouterr().err


def test_errors_are_one_line(place, tmp_path, capsys):
    feature = "train_dataloader.dataset.feature"
    assert ffplug("score", tmp_path) == 2
    assert capsys.readouterr().err.startswith("error: ") and ffplug("run", "micro_grdi") == 2
    assert "did you mean 'micro_grid'" in capsys.readouterr().err
    root = f"train_dataloader.dataset.data_root={tmp_path}"
    assert ffplug("run", "micro_grid", "--cfg-options", root) == 2
    assert "no such manifest; `ffplug micro convert` writes one" in capsys.readouterr().err
    assert ffplug("run", "micro_grid", *options(place, **{f"{feature}.detector": tmp_path / "yunet.onnx"})) == 2
    assert "yunet.onnx: no such file. YuNet is" in capsys.readouterr().err
    if not hasattr(cv2, "optflow"):
        flow = {f"{feature}.flow.type": "ffplug_face.TVL1Flow"}
        assert ffplug("run", "micro_grid", "--work-dir", tmp_path / "tvl1", *options(place, **flow)) == 2
        assert "pip install opencv-contrib-python-headless" in capsys.readouterr().err
    assert ffplug("run", "raft_small") == 2
    assert "no `train_dataloader`; see the recipe micro_grid" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "htnet_paper"])
def test_recipes_fit_together(place, name):
    """The classifier of each recipe takes what its features give."""
    config = load_config(f"micro_{name}")
    validate_config(config)
    feature = config.train_dataloader.dataset.feature
    feature.update(flow=None, flow_root="flow", cache=None)
    config.train_dataloader.dataset.data_root = str(place / "data")
    dataset = DATASETS.build(config.train_dataloader.dataset.to_dict())
    learner = MODELS.build(config.model.to_dict())
    if name != "grid":
        learner.epochs = 1
    import torch

    features = torch.stack([dataset.features(index) for index in range(6)])
    learner.fit(features, torch.arange(6) % 3, ["procedural"] * 6, 3, 0)
    found = learner.predict(features[:2], ["procedural"] * 2)
    assert found.shape == (2, 3) and torch.allclose(found.sum(1), torch.ones(2), atol=1e-5)


def test_the_published_geometry_of_htnet():
    config = load_config("micro_htnet_paper")
    validate_config(config)
    assert config.train_dataloader.dataset.feature.channels == ("u", "v", "magnitude")
    assert config.model.network == dict(type="ffplug_face.HTNet") and config.model.epochs == 800

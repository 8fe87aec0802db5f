"""``ffplug new``: what it makes works as it stands, away from the repository, whose plugins have the same layout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
import warm
import yaml

from ffplug.cli.new import TEMPLATE
from ffplug.datasets import read_flow, write_image

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytest.importorskip("copier")

REPOSITORY = Path(__file__).parents[1]
PLUGINS = sorted(path.parents[1] for path in REPOSITORY.glob("plugins/*/ffplug_*/ffplug.toml"))
ENVIRONMENT = {
    **{key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "FFPLUG_PLUGINS"))},
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
MORE_FOLDERS = {
    "ffplug-face": {"assets", "micro_expression", "portraits", "rendering"},
    "ffplug-ugsp": {"video"},
}
"""What a plugin may hold beside the template's folders: data that it reads, subjects of their own."""

SUMMARY = "A method's example: flow {{ as }} it is"
SHORT = (
    "train_cfg.max_iters=4",
    "train_cfg.val_interval=4",
    "default_hooks.checkpoint.interval=4",
    "prepare_data.scenes=4",
)


def run(*command: object, cwd: Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env={**ENVIRONMENT, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def ffplug(python: object, *arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    return run(python, "-m", "ffplug.cli", *arguments, cwd=cwd, environment=environment)


def worked(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plugin made by the command, in a path with spaces, without git on the path."""
    folder = tmp_path_factory.mktemp("made by a stranger") / "my plugin"
    options = ("--title", "My Method", "--author", "A. Stranger", "--summary", SUMMARY)
    told = worked(ffplug(sys.executable, "new", "my-method", folder, *options, cwd=folder.parent, PATH="/nonexistent"))
    assert f"cd '{folder}'" in told and "ffplug train my_method_pairs" in told
    return folder


@pytest.fixture(scope="module")
def python(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that sees this one's packages, with the plugin installed in it alone."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    purelib = worked(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)).strip()
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    lines = [f"import site; site.addsitedir({path!r})" for path in sorted(paths)]
    Path(purelib, "surrounding.pth").write_text("\n".join(lines) + "\n")
    pip = ("-m", "pip", "--disable-pip-version-check", "--python", python)
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    worked(run(sys.executable, *pip, "install", *options, "--editable", project, cwd=folder))
    return python


@pytest.fixture(scope="module")
def found(project: Path) -> dict[str, str]:
    """Variables with which the plugin works uninstalled (tools/check_template.sh installs it)."""
    return {"FFPLUG_PLUGINS": str(project)}


@pytest.fixture(scope="module")
def trained(found: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("some where else")
    log = worked(ffplug(warm.python(), "train", "my_method_pairs", cwd=folder, **found))
    assert "THIS IS NOT MY METHOD PAIRS" in log
    return folder


def files_in(folder: Path) -> set[str]:
    leave = ("__pycache__", ".pytest_cache", ".ruff_cache", ".egg-info", "/build/")
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {path for path in paths if not any(part in f"/{path}" for part in leave)}


def test_the_plugin_is_complete_and_fully_rendered(project: Path):
    files = files_in(project)
    assert {".gitignore", ".github/workflows/ci.yml", "LICENSE", "README.md", "tests/test_conformance.py"} <= files
    assert {"ffplug_my_method/ops/csrc/gate.cpp", "ffplug_my_method/ops/csrc/gate.cu"} <= files
    for name in files - {".github/workflows/ci.yml"}:
        text = (project / name).read_text().replace(SUMMARY, "")
        assert "{{" not in text and "{%" not in text and "{{" not in name and ".jinja" not in name, name
    head = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert head["name"] == "ffplug-my-method" and head["authors"] == [{"name": "A. Stranger"}]
    assert head["description"] == SUMMARY
    yaml.safe_load((project / ".github/workflows/ci.yml").read_text())
    assert (project / "LICENSE").read_bytes() == (REPOSITORY / "LICENSE").read_bytes()


def test_its_code_keeps_the_repository_s_style(project: Path):
    ruff = shutil.which("ruff") or shutil.which("ruff", path=os.path.dirname(sys.executable))
    if ruff is None:
        pytest.skip("ruff is not installed")
    settings = ("--no-cache", "--config", REPOSITORY / "pyproject.toml")
    worked(run(ruff, "check", *settings, "--extend-per-file-ignores", "**/tests/**:D", project, cwd=project))
    worked(run(ruff, "format", "--check", *settings, project, cwd=project))


def test_rendering_runs_no_code():
    settings = {key for key in yaml.safe_load((TEMPLATE / "copier.yml").read_text()) if key.startswith("_")}
    assert settings == {"_subdirectory"}


def test_its_own_tests_pass(project: Path, python: Path):
    out = worked(run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=project))
    assert re.search(r"\d{2,} passed", out) and "failed" not in out


def test_it_is_listed_with_all_that_it_registers(python: Path, tmp_path: Path):
    lines = worked(ffplug(python, "list", cwd=tmp_path)).splitlines()
    start = lines.index(f"ffplug-my-method 0.1.0 - {SUMMARY}")
    block = "\n".join(lines[start : start + 9])
    for name in ("GatedUpdate", "SmoothnessLoss", "PairsDataset", "my-method-pairs", "AngularErrorMetric"):
        assert name in block
    assert "confidence_gate" in block and "recipes: my_method_pairs" in block and "BROKEN" not in block


def test_it_trains_from_another_folder(trained: Path):
    work_dir = trained / "work_dirs" / "my_method_pairs"
    evaluations = json.loads((work_dir / "metrics.json").read_text())["evaluations"]["val"]
    [evaluation] = evaluations.values()
    assert evaluation["procedural"] and evaluation["source"] == "procedural, not My Method pairs"
    assert 0 < evaluation["summary"]["EPE"] < evaluation["summary"]["EPE_zero"]
    log = next(work_dir.glob("*/*.log")).read_text()
    angles = [float(angle) for angle in re.findall(r"my_method/AAE: ([\d.]+)", log)]
    assert len(angles) == 2 and all(0 < angle < 180 for angle in angles)
    assert re.search(r"loss_smoothness: \d", log)


def test_two_processes_train_it(found: dict[str, str], trained: Path):
    python = warm.python()
    torchrun = (python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "ffplug.cli")
    options = ("--launcher", "pytorch", "--work-dir", "two processes", "--cfg-options", *SHORT)
    environment = {"PYTHON_EXEC": python, **found}
    worked(run(*torchrun, "train", "my_method_pairs", *options, cwd=trained, environment=environment))
    assert (trained / "two processes" / "weights.safetensors").is_file()
    log = next((trained / "two processes").glob("*/*.log")).read_text()
    assert re.search(r"Iter\(val\).*my_method/AAE: \d", log)


def test_it_estimates_flow(python: Path, trained: Path):
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), np.uint8)
    for name, frame in zip(("a.png", "b.png"), frames, strict=True):
        write_image(trained / name, frame)
    options = ("--model", "work_dirs/my_method_pairs", "--out", "f.flo")
    worked(ffplug(python, "infer", "a.png", "b.png", *options, cwd=trained))
    flow, _ = read_flow(str(trained / "f.flo"))
    assert flow.shape == (64, 96, 2) and np.isfinite(flow).all()


def test_the_command_line_takes_its_layout(found: dict[str, str], tmp_path: Path):
    python = warm.python()
    options = ("--root", tmp_path / "set", "--scenes", 2, "--size", "32x48", "--workers", 1)
    worked(ffplug(python, "synth", "my-method-pairs", *options, cwd=tmp_path, **found))
    assert "3 frame pairs, 9 files" in worked(ffplug(python, "data", "check", tmp_path / "set", cwd=tmp_path, **found))
    (tmp_path / "set" / "PROCEDURAL.json").unlink()
    (tmp_path / "set" / "val" / "000000" / "frame2.png").unlink()
    done = ffplug(python, "data", "check", tmp_path / "set", cwd=tmp_path, **found)
    assert done.returncode == 2 and "frame2.png" in done.stdout and "My Method pairs" in done.stderr


def test_plugins_whose_data_look_alike_get_on_with_each_other(project: Path, tmp_path: Path):
    worked(ffplug(sys.executable, "new", "another", tmp_path / "another", cwd=tmp_path))
    both = {"FFPLUG_PLUGINS": os.pathsep.join([str(tmp_path / "another"), str(project)])}
    options = ("--root", "set", "--scenes", 2, "--size", "32x48")
    worked(ffplug(warm.python(), "synth", "my-method-pairs", *options, cwd=tmp_path, **both))
    assert "My Method pairs" in worked(ffplug(warm.python(), "data", "check", "set", cwd=tmp_path, **both))
    (tmp_path / "set" / "PROCEDURAL.json").unlink()
    for layout, title in (("my-method-pairs", "My Method pairs"), ("another-pairs", "Another pairs")):
        told = worked(ffplug(warm.python(), "data", "check", "set", "--layout", layout, cwd=tmp_path, **both))
        assert title in told and "procedural" not in told


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MyMethod", "did you mean 'mymethod'?"),
        ("2flow", "did you mean 'flow'?"),
        ("class", "expected an identifier"),
        ("my method", "did you mean 'my_method'?"),
        ("ffplug-", "expected an identifier"),
        ("flow/../../x", "expected an identifier"),
        ("samflow", "ffplug-samflow is installed already"),
        ("ffplug_samflow", "ffplug-samflow is installed already"),
        ("flowformer", "ffplug-flowformer is installed already"),
        ("gma", "has a model, recipe or layout 'gma'"),
    ],
)
def test_names_that_do_not_do(tmp_path: Path, name: str, message: str):
    done = ffplug(sys.executable, "new", name, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--title", "--author", "--summary"])
def test_texts_that_would_break_a_file(tmp_path: Path, option: str):
    for text in ('a "quoted" one', "two\nlines", "back\\slash", " "):
        done = ffplug(sys.executable, "new", "mine", option, text, cwd=tmp_path)
        assert done.returncode == 2 and f"{option} " in done.stderr
    assert not list(tmp_path.iterdir())


def test_nothing_is_written_over(tmp_path: Path):
    (tmp_path / "ffplug-mine").mkdir()
    (tmp_path / "ffplug-mine" / "README.md").write_text("precious")
    done = ffplug(sys.executable, "new", "mine", cwd=tmp_path)
    assert done.returncode == 2 and "ffplug-mine: exists and is not empty" in done.stderr
    assert (tmp_path / "ffplug-mine" / "README.md").read_text() == "precious"
    assert [path.name for path in tmp_path.rglob("*")] == ["ffplug-mine", "README.md"]


def test_without_copier_the_line_that_installs_it_is_given(tmp_path: Path):
    program = "import sys; sys.modules['copier'] = None; from ffplug.cli import main; main()"
    done = run(sys.executable, "-c", program, "new", "mine", cwd=tmp_path)
    assert done.returncode == 2 and "pip install 'ffplug[author]'" in done.stderr
    assert not list(tmp_path.iterdir())


def folders_of(project: Path, package: str) -> dict[str, set[str]]:
    """The suffixes of the files in each folder of a package."""
    found: dict[str, set[str]] = {}
    for name in files_in(project / package):
        folder, _, file = name.rpartition("/")
        found.setdefault(folder, set()).add(Path(file).suffix)
    return found


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_the_repository_s_plugins_have_the_template_s_layout(project: Path, plugin: Path):
    package = plugin.name.replace("-", "_")
    files = files_in(plugin)
    made = {name.replace("ffplug_my_method", package) for name in files_in(project)}
    required = {"pyproject.toml", "README.md", "LICENSE", "tests/test_conformance.py"}
    required |= {f"{package}/{name}" for name in ("__init__.py", "ffplug.toml", "registry.py")}
    assert required <= made
    assert not required - files, f"{plugin.name} lacks files that every plugin has"
    top_level = {name.split("/")[0] for name in made}
    assert {name.split("/")[0] for name in files} <= top_level
    known = folders_of(project, "ffplug_my_method")
    for folder, suffixes in folders_of(plugin, package).items():
        if folder.split("/")[0] in MORE_FOLDERS.get(plugin.name, ()):
            continue
        assert folder in known, f"{plugin.name}: the template has no folder {folder}"
        assert suffixes <= known[folder] | ({".h"} if folder == "ops/csrc" else set()), f"{plugin.name}: {folder}"


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda plugin: plugin.name)
def test_the_repository_s_plugins_are_packaged_as_the_template_is(project: Path, plugin: Path):
    package = plugin.name.replace("-", "_")
    ours, made = (tomllib.loads((folder / "pyproject.toml").read_text()) for folder in (plugin, project))
    assert ours["build-system"] == made["build-system"]
    assert set(ours["project"]) - {"urls", "authors"} == set(made["project"]) - {"authors"}
    for key in ("readme", "requires-python", "license", "license-files"):
        assert ours["project"][key] == made["project"][key]
    assert ours["project"]["entry-points"]["ffplug.plugins"] == {package.removeprefix("ffplug_"): package}
    (kind, tool), *others = ours["tool"].items()
    assert kind == "setuptools" and not others and set(tool) == set(made["tool"]["setuptools"])
    assert tool["packages"] == {"find": {"include": [f"{package}*"]}}
    [patterns] = made["tool"]["setuptools"]["package-data"].values()
    patterns += [f"{folder}/*" for folder in MORE_FOLDERS.get(plugin.name, ())]
    assert set(tool["package-data"]) == {package}
    assert {"ffplug.toml"} <= set(tool["package-data"][package]) <= set(patterns)
    manifests = (plugin / package / "ffplug.toml", project / "ffplug_my_method" / "ffplug.toml")
    ours, made = (tomllib.loads(path.read_text())["plugin"] for path in manifests)
    assert set(ours) == set(made)

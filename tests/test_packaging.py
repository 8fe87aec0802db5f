"""Wheels and sdists of every distribution: what they hold, what they pull, and that they work where nothing else is."""

import ast
import email
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "tools" / "build_all.py"

spec = importlib.util.spec_from_file_location("build_all", TOOL)
build_all = importlib.util.module_from_spec(spec)
sys.modules["build_all"] = build_all
spec.loader.exec_module(build_all)

PROJECTS = {project.name: project for project in build_all.projects()}


def run(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def declared(name, *extras):
    """Requirements that a pyproject.toml states, of the distribution itself and of these extras."""
    table = PROJECTS[name].table["project"]
    optional = table.get("optional-dependencies", {})
    texts = [*table.get("dependencies", []), *(text for extra in extras for text in optional[extra])]
    return [r for r in map(Requirement, texts) if r.marker is None or r.marker.evaluate()]


def pulled_by(name, *extras):
    """Names of everything that installing a distribution of the repository has to pull, by what is declared."""
    names = {name}
    for requirement in declared(name, *extras):
        other = canonicalize_name(requirement.name)
        names |= pulled_by(other, *requirement.extras) if other in PROJECTS else {other}
    return names


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Everything, built and checked by the script itself."""
    folder = tmp_path_factory.mktemp("dist")
    (folder / "report").write_text(run(sys.executable, TOOL, "--out", folder))
    return folder


def test_the_script_builds_checks_and_measures_everything(dist):
    report = (dist / "report").read_text()
    for name, project in PROJECTS.items():
        stem = f"{name.replace('-', '_')}-{build_all.core_version()}"
        assert (dist / f"{stem}.tar.gz").is_file()
        size = (dist / f"{stem}-py3-none-any.whl").stat().st_size / 1024
        assert re.search(rf"^{stem}-py3-none-any.whl +{size:.1f} ", report, re.MULTILINE), report
        assert project.version == build_all.core_version()
    assert "import ffplug, beyond import mmengine" in report and "ffplug --help" in report
    assert report.rstrip().endswith("all right")


def test_wheels_hold_packages_and_nothing_else(dist):
    with zipfile.ZipFile(next(dist.glob("ffplug-*.whl"))) as archive:
        names = set(archive.namelist())
    assert {
        "ffplug/ffplug.toml",
        "ffplug/configs/models/raft_large.py",
        "ffplug/ops/csrc/ffplug.h",
        "ffplug/ops/csrc/correlation.cu",
    } <= names
    for wheel in dist.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                assert re.match(r"ffplug\w*/|ffplug\w*-[\w.]+\.dist-info/", name), name
                assert "__pycache__" not in name and not name.endswith((".pyc", ".so")), name
                assert "/tests/" not in name or name.startswith("ffplug/template/"), name


def test_an_sdist_builds_the_same_wheel_alone(dist, tmp_path):
    # The script builds every wheel from its sdist; here it is done once more, from nothing else.
    name = "ffplug"
    stem = f"{name.replace('-', '_')}-{build_all.core_version()}"
    shutil.unpack_archive(dist / f"{stem}.tar.gz", tmp_path)
    isolation = build_all._isolation(PROJECTS[name])
    run(sys.executable, "-m", "build", *isolation, "--wheel", "--outdir", tmp_path, tmp_path / stem, cwd=tmp_path)
    wheel = f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(tmp_path / wheel) as ours, zipfile.ZipFile(dist / wheel) as first:
        assert {i.filename: i.CRC for i in ours.infolist()} == {i.filename: i.CRC for i in first.infolist()}


def remake(wheel, folder, change):
    """Copy a wheel, with its members as ``change`` (of a dict of name to bytes) leaves them."""
    with zipfile.ZipFile(wheel) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    copy = folder / wheel.name
    with zipfile.ZipFile(copy, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return copy


def in_metadata(old, new):
    def change(members):
        name = next(name for name in members if name.endswith("METADATA"))
        text = members[name].decode()
        changed, count = re.subn(old, new, text, flags=re.MULTILINE)
        assert count
        members[name] = changed.encode()

    return change


def without(suffix):
    def change(members):
        del members[next(name for name in members if name.endswith(suffix))]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda members: members.update({"tests/__init__.py": b""}), "should not hold tests/__init__.py"),
        (lambda members: members.update({"ffplug_samflow/_C.so": b""}), "should not hold ffplug_samflow/_C.so"),
        (without("configs/samflow_tiny.py"), "lacks ffplug_samflow/configs/samflow_tiny.py"),
        (without("ffplug.toml"), "lacks ffplug_samflow/ffplug.toml"),
        (without("LICENSE"), "holds no LICENSE"),
        (without("entry_points.txt"), "has no entry point"),
        (in_metadata("^Version: .*", "Version: 77"), "has version 77"),
        (in_metadata("^Requires-Dist: ffplug>=", "Requires-Dist: ffplug=="), "asks for ffplug=="),
        (in_metadata("^Requires-Dist: ffplug>=.*", "Requires-Dist: ffplug"), "asks for ffplug: expected a lower bound"),
        (in_metadata("^Requires-Dist: ffplug>=.*", "Requires-Dist: ffplug>=0.1,<2"), "asks for ffplug<2,>=0.1"),
        (in_metadata("^Classifier: .*\n", ""), "has no classifiers"),
        (lambda members: members.update({"ffplug_samflow/__init__.py": os.urandom(1 << 19)}), "over its budget of 256"),
    ],
)
def test_the_script_sees_what_is_wrong_with_a_wheel(dist, tmp_path, change, message):
    wheel, project = next(dist.glob("ffplug_samflow*.whl")), PROJECTS["ffplug-samflow"]
    assert list(build_all.complaints(wheel, project)) == []
    found = list(build_all.complaints(remake(wheel, tmp_path, change), project))
    assert len(found) == 1 and message in found[0]


def test_the_script_sees_a_help_that_imports_torch(dist, tmp_path):
    for wheel in dist.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(tmp_path)
    assert build_all.heavy_imports(tmp_path) == []
    command_line = tmp_path / "ffplug" / "cli" / "__init__.py"
    command_line.write_text(f"{command_line.read_text()}\nimport torch\n")
    assert build_all.heavy_imports(tmp_path) == ["torch"]


def test_a_version_is_raised_in_one_place(tmp_path):
    for path in ["tools/build_all.py", "ffplug/version.py", *(f"{p.folder}/pyproject.toml" for p in PROJECTS.values())]:
        target = tmp_path / os.path.relpath(ROOT / path, ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, target)
    tool = tmp_path / "tools" / "build_all.py"
    run(sys.executable, tool, "--set-version", "7.8.9rc1")
    assert '__version__ = "7.8.9rc1"' in (tmp_path / "ffplug" / "version.py").read_text()
    for project in PROJECTS.values():
        if project.folder != ROOT:
            text = (tmp_path / project.folder.relative_to(ROOT) / "pyproject.toml").read_text()
            assert text.count('\nversion = "7.8.9rc1"\n') == 1
    wrong = subprocess.run([sys.executable, tool, "--set-version", "seven"], capture_output=True, check=False)
    assert wrong.returncode != 0


@pytest.fixture(scope="module")
def index(dist, tmp_path_factory):
    """An index of packages as a folder: our wheels, and an empty stand-in for all that they ask for from outside."""
    root = tmp_path_factory.mktemp("simple")
    for project in PROJECTS:
        page = root / project
        page.mkdir()
        for file in dist.glob(f"{project.replace('-', '_')}-[0-9]*"):
            shutil.copy(file, page)
    extras = {name: project.table["project"].get("optional-dependencies", {}) for name, project in PROJECTS.items()}
    for requirement in (r for name in PROJECTS for r in declared(name, *extras[name])):
        page = root / canonicalize_name(requirement.name)
        if canonicalize_name(requirement.name) not in PROJECTS and not page.exists():
            page.mkdir()
            stem = f"{requirement.name.replace('-', '_')}-9999.0"
            with zipfile.ZipFile(page / f"{stem}-py3-none-any.whl", "w") as archive:
                metadata = f"Metadata-Version: 2.1\nName: {requirement.name}\nVersion: 9999.0\n"
                archive.writestr(f"{stem}.dist-info/METADATA", metadata)
                archive.writestr(
                    f"{stem}.dist-info/WHEEL",
                    "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
                )
                archive.writestr(f"{stem}.dist-info/RECORD", "")
    for page in root.iterdir():
        links = "".join(f'<a href="{file.name}">{file.name}</a>\n' for file in page.iterdir())
        (page / "index.html").write_text(f"<!DOCTYPE html>\n<html><body>\n{links}</body></html>\n")
    return root


def resolve(index, requirement, tmp_path):
    """What pip would install from the index into an empty environment: names and files."""
    report = tmp_path / "report.json"
    run(
        *(sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "install", requirement),
        *("--dry-run", "--ignore-installed", "--only-binary", ":all:", "--no-cache-dir", "--quiet"),
        *("--index-url", index.as_uri(), "--report", report),
        cwd=tmp_path,
    )
    items = json.loads(report.read_text())["install"]
    return {canonicalize_name(item["metadata"]["name"]): item["download_info"]["url"] for item in items}


@pytest.mark.parametrize("name", PROJECTS)
def test_installing_pulls_what_is_declared_and_compiles_nothing(index, tmp_path, name):
    found = resolve(index, name, tmp_path)
    assert set(found) == pulled_by(name)
    assert all(url.endswith("-py3-none-any.whl") for url in found.values())


def test_what_the_distributions_pull(index, tmp_path):
    ours = {name: pulled_by(name) & set(PROJECTS) for name in PROJECTS}
    assert ours["ffplug"] == {"ffplug"}
    assert ours["ffplug-samflow"] == {"ffplug", "ffplug-flowformer", "ffplug-samflow"}
    assert ours["ffplug-all"] == set(PROJECTS)


EXTRAS = [
    (name, extra) for name, p in PROJECTS.items() for extra in p.table["project"].get("optional-dependencies", {})
]


@pytest.mark.parametrize(("name", "extra"), EXTRAS)
def test_an_extra_brings_what_it_says(index, tmp_path, name, extra):
    assert set(resolve(index, f"{name}[{extra}]", tmp_path)) == pulled_by(name, extra)
    assert pulled_by(name, extra) > pulled_by(name)


@pytest.mark.parametrize("name", [name for name, project in PROJECTS.items() if project.package])
def test_all_that_is_imported_is_declared(name):
    """By a distribution itself, or by one that it depends on; an import that is optional, by an extra."""
    allowed = {"triton", "tomli"}  # one comes with torch where there is one, one only goes to Python 3.10
    for distribution in pulled_by(name) & set(PROJECTS):
        extras = PROJECTS[distribution].table["project"].get("optional-dependencies", {})
        allowed |= {distribution} | {canonicalize_name(r.name) for r in declared(distribution, *extras)}
    owners = importlib.metadata.packages_distributions()
    for path in PROJECTS[name].package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module]
            for package in {module.partition(".")[0] for module in modules} - sys.stdlib_module_names:
                names = {canonicalize_name(owner) for owner in owners.get(package, [package])}
                assert names & allowed, f"{path}, line {node.lineno}: {package} ({names}) is declared nowhere"


def test_installed_wheels_work_outside_the_repository(dist, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = (sys.executable, "-m", "pip", "--isolated", "--disable-pip-version-check", "install", "--no-deps", "--quiet")
    run(*pip, "--no-index", "--no-compile", "--target", site, *dist.glob("*.whl"), cwd=elsewhere)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = (sys.executable, "-m", "ffplug.cli")
    listed = run(*command, "list", cwd=elsewhere, env=environment)
    for name, project in PROJECTS.items():
        if project.package:
            assert f"{name} {build_all.core_version()}" in listed
    assert "BROKEN" not in listed
    for name, project in PROJECTS.items():
        if project.package:
            told = run(*command, "info", name, cwd=elsewhere, env=environment)
            assert f"package: {project.package.name} in {site / project.package.name}" in told
    origins = run(*command, "config", "samflow_sintel", "--origin", cwd=elsewhere, env=environment)
    assert str(ROOT) not in origins and "samflow_tiny.py" in origins
    metadata = email.message_from_bytes(next(site.glob("ffplug-*.dist-info/METADATA")).read_bytes())
    assert metadata["Name"] == "ffplug" and "# FFPlug" in metadata.get_payload()

#!/usr/bin/env python
"""Build wheel and sdist of the core and every plugin, check them, and print their sizes and import times.

    python tools/build_all.py                        # into dist/
    python tools/build_all.py --set-version 0.2.0    # raise the version of everything, and build nothing

Each wheel is built from its sdist alone. What is wrong ends the script with status 1: a wheel that is not
py3-none-any, that lacks a file of its package or holds another, a long description that twine refuses, a requirement
that is no plain lower bound, another version than ffplug/version.py's, a size over the budget, or a command line whose
help imports torch. Times are printed beside what they should be, and fail nothing: the machine may be busy.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import email
import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
CORE_VERSION = ROOT / "ffplug" / "version.py"

BUDGET = {"ffplug": (1024, 4096), "ffplug-face": (4096, 5120)}
"""KiB of a wheel, packed and unpacked; :data:`PLUGIN_BUDGET` holds for what is not named."""

PLUGIN_BUDGET = (256, 1024)

IMPORT_BUDGET = 0.5
"""Seconds of ``import ffplug`` beyond ``import mmengine``."""

HELP_BUDGET = 1.0
"""Seconds of ``ffplug --help``."""


@dataclasses.dataclass(frozen=True)
class Project:
    """One distribution of the repository: its folder, and what its pyproject.toml says."""

    folder: Path
    table: dict

    @property
    def name(self) -> str:
        """Of the distribution."""
        return self.table["project"]["name"]

    @property
    def package(self) -> Path | None:
        """Folder of the package, or None for a distribution without code."""
        folder = self.folder / self.name.replace("-", "_")
        return folder if folder.is_dir() else None

    @property
    def version(self) -> str:
        """As pyproject.toml or, for the core, ffplug/version.py states it."""
        return self.table["project"].get("version") or core_version()

    def files(self) -> set[str]:
        """What the wheel must hold of the package: all of it but what Python leaves behind."""
        found = self.package.rglob("*") if self.package else ()
        return {
            path.relative_to(self.folder).as_posix()
            for path in found
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
        }


def core_version() -> str:
    """The version of everything, from the one place that states it."""
    return re.search(r'^__version__ = "(.+)"$', CORE_VERSION.read_text(encoding="utf-8"), re.MULTILINE)[1]


def projects() -> list[Project]:
    """The core, then the plugins by name."""
    folders = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
    return [Project(folder, tomllib.loads((folder / "pyproject.toml").read_text())) for folder in folders]


def set_version(version: str) -> None:
    """Write a version into ffplug/version.py, and into the pyproject.toml of every plugin of the repository."""
    version = str(Version(version))
    edits = [(CORE_VERSION, "__version__")]
    edits += [(project.folder / "pyproject.toml", "version") for project in projects() if project.folder != ROOT]
    for path, key in edits:
        text, count = re.subn(
            rf'^{key} = "[^"]*"$', f'{key} = "{version}"', path.read_text(encoding="utf-8"), flags=re.MULTILINE
        )
        if count != 1:
            raise SystemExit(f"{path}: expected one line {key} = ..., found {count}")
        path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {version}")


def build(project: Project, out: Path) -> tuple[Path, Path]:
    """Build sdist, and wheel from it, in a copy that nothing of earlier builds can get into.

    Returns:
        The wheel and the sdist.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, project.name)
        copy.mkdir()
        for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
            if (project.folder / name).is_file():
                shutil.copy2(project.folder / name, copy)
        if project.package:
            ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(project.package, copy / project.package.name, ignore=ignore)
        command = [sys.executable, "-m", "build", *_isolation(project), "--outdir", scratch, str(copy)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise SystemExit(f"{project.name} does not build:\n{result.stdout}{result.stderr}")
        wheel, sdist = next(Path(scratch).glob("*.whl")), next(Path(scratch).glob("*.tar.gz"))
        out.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copy2(wheel, out)), Path(shutil.copy2(sdist, out))


def _isolation(project: Project) -> list[str]:
    """Build in this environment where it has what the build needs, which is much quicker."""
    for requirement in map(Requirement, project.table["build-system"]["requires"]):
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            return []
        if not requirement.specifier.contains(version, prereleases=True):
            return []
    return ["--no-isolation"]


def complaints(wheel: Path, project: Project) -> Iterator[str]:
    """What is wrong with a wheel."""
    if not wheel.name.endswith("-py3-none-any.whl"):
        yield f"{wheel.name} is not py3-none-any"
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        info = next(name.partition("/")[0] for name in names if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
    inside = {name for name in names if not name.startswith(f"{info}/")}
    for what, wrong in (("lacks", project.files() - inside), ("should not hold", inside - project.files())):
        if wrong:
            yield f"{wheel.name} {what} {', '.join(sorted(wrong)[:5])}" + (" ..." if len(wrong) > 5 else "")
    if f"{info}/licenses/LICENSE" not in names:
        yield f"{wheel.name} holds no LICENSE"
    if project.package and f"{info}/entry_points.txt" not in names:
        yield f"{wheel.name} has no entry point in ffplug.plugins"
    if metadata["Version"] != core_version():
        yield f"{wheel.name} has version {metadata['Version']}, ffplug/version.py {core_version()}: see --set-version"
    if not metadata.get_payload().strip():
        yield f"{wheel.name} has no long description"
    if not metadata.get_all("Classifier"):
        yield f"{wheel.name} has no classifiers"
    for requirement in map(Requirement, metadata.get_all("Requires-Dist", ())):
        if {item.operator for item in requirement.specifier} != {">="}:
            yield f"{wheel.name} asks for {requirement}: expected a lower bound and nothing else"
    packed, unpacked = sizes(wheel)
    most_packed, most_unpacked = BUDGET.get(project.name, PLUGIN_BUDGET)
    if packed > most_packed or unpacked > most_unpacked:
        yield f"{wheel.name} is over its budget of {most_packed} KiB packed, {most_unpacked} KiB unpacked"


def sizes(wheel: Path) -> tuple[float, float]:
    """KiB of a wheel, packed and unpacked."""
    with zipfile.ZipFile(wheel) as archive:
        return wheel.stat().st_size / 1024, sum(item.file_size for item in archive.infolist()) / 1024


def twine_check(files: Sequence[Path]) -> str | None:
    """What twine says against the metadata of these files, or None."""
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, files)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"twine check:\n{result.stdout}{result.stderr}" if result.returncode else None


HELP = "from ffplug.cli import cli, run; status = run(cli, ['--help'], 'ffplug')"


def heavy_imports(site: Path) -> list[str]:
    """Which of torch and mmengine the command line's help imports, from the wheels unpacked in ``site``."""
    program = f"import sys; {HELP}; print(*{{'torch', 'mmengine'}} & set(sys.modules))"
    return _python(program, site).stdout.splitlines()[-1].split()


def import_seconds(site: Path) -> float:
    """Time of ``import ffplug`` where mmengine is imported already."""
    program = "import time, mmengine; start = time.perf_counter(); import ffplug; print(time.perf_counter() - start)"
    return float(_python(program, site).stdout)


def help_seconds(site: Path) -> float:
    """Time of a whole process that prints the command line's help."""
    start = time.perf_counter()
    _python(HELP, site)
    return time.perf_counter() - start


def _python(program: str, site: Path) -> subprocess.CompletedProcess:
    program = f"import sys; sys.path.insert(0, {str(site)!r}); {program}"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=site)


def _times(site: Path) -> Iterator[tuple[str, float, float]]:
    if importlib.util.find_spec("mmengine"):
        yield "import ffplug, beyond import mmengine", min(import_seconds(site) for _ in range(3)), IMPORT_BUDGET
    yield "ffplug --help", min(help_seconds(site) for _ in range(3)), HELP_BUDGET


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder of the wheels and sdists (dist)")
    parser.add_argument("--jobs", type=int, default=2, help="builds at a time (2)")
    parser.add_argument("--set-version", metavar="VERSION", help="raise the version of core and plugins, and end")
    options = parser.parse_args()
    if options.set_version:
        set_version(options.set_version)
        return 0

    found = projects()
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        built = list(pool.map(lambda project: build(project, options.out), found))
    wrong = [text for (wheel, _), project in zip(built, found, strict=True) for text in complaints(wheel, project)]
    wrong += filter(None, [twine_check([file for pair in built for file in pair])])

    print(f"{'wheel':50} {'packed':>10} {'unpacked':>10}  budget, KiB")
    for (wheel, _), project in zip(built, found, strict=True):
        packed, unpacked = sizes(wheel)
        most = "{} {}".format(*BUDGET.get(project.name, PLUGIN_BUDGET))
        print(f"{wheel.name:50} {packed:10.1f} {unpacked:10.1f}  {most}")
    with tempfile.TemporaryDirectory() as site:
        for wheel, _ in built:
            zipfile.ZipFile(wheel).extractall(site)
        if heavy := heavy_imports(Path(site)):
            wrong.append(f"ffplug --help imports {' and '.join(heavy)}")
        print(f"\n{'time, the best of three':50} {'seconds':>10}  budget")
        for what, taken, budget in _times(Path(site)):
            over = "  OVER (not counted as a failure)" if taken > budget else ""
            print(f"{what:50} {taken:10.3f}  {budget}{over}")
    for text in wrong:
        print(f"WRONG: {text}", file=sys.stderr)
    print(f"\n{len(built)} distributions in {options.out}" + (f", {len(wrong)} complaints" if wrong else ", all right"))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python
"""Give an environment what it is to have, by links into another one that has it already.

    python tools/link_packages.py ENVIRONMENT WHEELS REQUIREMENT...

Follows the requirements through the wheels in the folder WHEELS and what they declare, and links the packages that it
meets, and no others, from the environment that runs this into ENVIRONMENT. The wheels themselves, and what is not here
or not as it was installed, are left to pip, which then finds the large packages there: a dependency that nothing
declares stays missing.
"""

from __future__ import annotations

import email
import os
import shutil
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename


def declared(texts: list[str], extras: set[str]) -> Iterator[Requirement]:
    """The requirements that hold here, with these extras."""
    for requirement in map(Requirement, texts):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def wheels(folder: Path) -> dict[str, list[str]]:
    """What each wheel of a folder declares, by name."""
    found = {}
    for path in folder.glob("*.whl"):
        with zipfile.ZipFile(path) as archive:
            [name] = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            content = email.message_from_bytes(archive.read(name))
        found[parse_wheel_filename(path.name)[0]] = content.get_all("Requires-Dist", [])
    return found


def is_intact(distribution: metadata.Distribution) -> bool:
    """Whether its files are its own: another package that shares their names may have replaced them."""
    files = [(Path(distribution.locate_file(file)), file.size) for file in distribution.files or ()]
    return all(size is None or (path.is_file() and path.stat().st_size == size) for path, size in files)


def link(distribution: metadata.Distribution, site: Path) -> None:
    """Link a distribution's files, but for programs: their first line names the other environment."""
    for file in distribution.files or ():
        source = Path(distribution.locate_file(file))
        if ".." in file.parts or file.is_absolute() or not source.is_file():
            continue
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except FileExistsError:
            pass  # packages share the folders of namespaces, and some share files
        except OSError:
            shutil.copy2(source, target)


def main(environment: str, folder: str, *requirements: str) -> None:
    """Entry point."""
    site = Path(sysconfig.get_path("purelib", vars={"base": environment, "platbase": environment}))
    own, linked, seen = wheels(Path(folder)), [], set()
    waiting = list(declared(list(requirements), set()))
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = (name, *sorted(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        if name in own:
            waiting += declared(own[name], requirement.extras)
            continue
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if requirement.specifier.contains(distribution.version, prereleases=True):
            waiting += declared(distribution.requires or [], requirement.extras)
            if name not in linked and is_intact(distribution):
                link(distribution, site)
                linked.append(name)
    print(f"{len(linked)} packages linked: {', '.join(sorted(linked))}")


if __name__ == "__main__":
    main(*sys.argv[1:])

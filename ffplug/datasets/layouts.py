"""What the public data sets look like on disk, so that a wrong folder gets an answer that helps."""

from __future__ import annotations

import dataclasses
import json
import os

from mmengine import fileio

from ffplug.errors import DataError

MARKER = "PROCEDURAL.json"
"""The file at a data root that tells that its content was made by ``ffplug synth``."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """How to recognise a data set.

    Attributes:
        title: the set's name as people know it.
        datasets: the types that read it.
        markers: any of these folders below the root gives it away.
        expected: the folders that its reader needs, for messages.
    """

    title: str
    datasets: tuple[str, ...]
    markers: tuple[str, ...]
    expected: str


LAYOUTS = {
    "sintel": Layout(
        "MPI Sintel",
        ("SintelDataset",),
        ("training/clean", "training/final", "test/clean", "test/final"),
        "training/{clean,final,flow}/<scene>/ and test/{clean,final}/<scene>/",
    ),
    "chairs": Layout(
        "FlyingChairs",
        ("FlyingChairsDataset",),
        ("data/00001_img1.ppm", "data/00001_flow.flo", "data/00001_img2.ppm"),
        "data/%05d_{img1.ppm,img2.ppm,flow.flo}",
    ),
    "things": Layout(
        "FlyingThings3D",
        ("FlyingThings3DDataset",),
        ("frames_cleanpass", "frames_finalpass"),
        "frames_{cleanpass,finalpass}/{TRAIN,TEST}/{A,B,C}/dddd/left/ and optical_flow/…",
    ),
    "things-subset": Layout(
        "FlyingThings3D subset",
        ("FlyingThings3DSubsetDataset",),
        ("train/image_clean", "train/image_final", "val/image_clean", "val/image_final"),
        "{train,val}/{image_clean,image_final}/left/ and {train,val}/flow/left/{into_future,into_past}/",
    ),
    "kitti2015": Layout(
        "KITTI 2015",
        ("KITTI2015Dataset",),
        ("training/image_2", "testing/image_2"),
        "{training,testing}/image_2/ and training/flow_occ/",
    ),
    "kitti2012": Layout(
        "KITTI 2012",
        ("KITTI2012Dataset",),
        ("training/colored_0", "testing/colored_0", "training/image_0", "testing/image_0"),
        "{training,testing}/colored_0/ (or image_0/) and training/flow_occ/",
    ),
    "hd1k": Layout(
        "HD1K",
        ("HD1KDataset",),
        ("hd1k_input", "hd1k_flow_gt"),
        "hd1k_input/image_2/ and hd1k_flow_gt/flow_occ/",
    ),
    "spring": Layout(
        "Spring",
        ("SpringDataset",),
        ("train/0001/frame_left", "train/0001/flow_FW_left", "test/0003/frame_left", "train/0001/frame_right"),
        "{train,test}/%04d/frame_{left,right}/ and train/%04d/flow_{FW,BW}_{left,right}/",
    ),
}


def join(*parts: str) -> str:
    """Join path parts with slashes, which every back-end understands."""
    return "/".join(part.rstrip("/") or "/" for part in parts if part)


def list_folder(path: str) -> tuple[list[str], list[str]]:
    """Return the sorted names of the folders and of the files in a folder; none where it does not exist.

    Hidden entries are left out.
    """
    if not fileio.isdir(path):
        return [], []
    return (
        sorted(fileio.list_dir_or_file(path, list_file=False)),
        sorted(fileio.list_dir_or_file(path, list_dir=False)),
    )


def detect_layout(root: str) -> str | None:
    """Return the key in :data:`LAYOUTS` of the data set that lies at ``root``, or None."""
    marker = read_marker(root)
    if marker and marker.get("layout") in LAYOUTS:
        return marker["layout"]
    for key, layout in LAYOUTS.items():
        if any(fileio.exists(join(root, folder)) for folder in layout.markers):
            return key
    # Chairs and Spring may start at another number than 1.
    _, files = list_folder(join(root, "data"))
    if any(name.endswith(("_img1.ppm", "_flow.flo")) for name in files[:9]):
        return "chairs"
    for split in ("train", "test"):
        scenes, _ = list_folder(join(root, split))
        if scenes and fileio.isdir(join(root, split, scenes[0], "frame_left")):
            return "spring"
    return None


def read_marker(root: str) -> dict | None:
    """Return what ``PROCEDURAL.json`` at a data root says, or None where there is none.

    Raises:
        DataError: the file is not a JSON object.
    """
    path = join(root, MARKER)
    if not fileio.exists(path):
        return None
    try:
        marker = json.loads(fileio.get_text(path))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); write the data set again with `ffplug synth`") from None
    if not isinstance(marker, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(marker).__name__}")
    return marker


def explain_root(root: str, key: str, missing: str) -> str:
    """Say why ``root`` can't be read as the layout ``key``: what is there instead, and the likely mistake.

    Args:
        root: the folder that the user gave.
        key: the layout that was asked for.
        missing: the folder below the root that the reader did not find.
    """
    layout = LAYOUTS[key]
    if not fileio.exists(root):
        return f"{root}: no such folder; expected {layout.title} with {layout.expected}{_elsewhere(root, key)}"
    if not fileio.isdir(root):
        return f"{root}: expected the root folder of {layout.title}, found a file"
    folders, files = list_folder(root)
    if not folders and not files:
        return f"{root}: the folder is empty; expected {layout.title} with {layout.expected}"
    found = ", ".join([f"{name}/" for name in folders] + files[:4]) if len(folders) < 9 else f"{len(folders)} folders"
    there = detect_layout(root)
    if there == key:
        return (
            f"{root}: {missing} is missing, so {layout.title} is incomplete (found {found}): a download or an "
            f"extraction stopped half-way? `ffplug data check {root}` names all that is missing"
        )
    if there:
        types = " or ".join(f"type='ffplug.{name}'" for name in LAYOUTS[there].datasets)
        return f"{root}: expected {layout.title}, found {LAYOUTS[there].title}: another data set's folder? Use {types}"
    return f"{root}: expected {layout.title} with {layout.expected}, found {found}{_elsewhere(root, key)}"


def _elsewhere(root: str, key: str) -> str:
    """Say where the data set lies, if it does one or two levels below or above ``root``."""
    below, parents = [], []
    for folder in list_folder(root)[0][:20]:
        child = join(root, folder)
        below.append(child)
        below.extend(join(child, name) for name in list_folder(child)[0][:20])
    parent = os.path.dirname(os.path.abspath(root)) if "://" not in root else ""
    if parent:
        parents = [parent, os.path.dirname(parent)]
    for candidate in (*below, *parents):
        if detect_layout(candidate) == key:
            return f"; it lies in {candidate}: set data_root to that"
    return ""

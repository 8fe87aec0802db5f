"""The layouts are read as published, and what is wrong in them is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ffplug_face.portraits import draw_portraits, render_portraits
from ffplug_latentface.datasets import CelebACropDataset, LFWDataset, RAFDBDataset
from ffplug_latentface.datasets.lfw import read_pairs

from ffplug.datasets.procedural import Recipe
from ffplug.datasets.procedural.writers import write_procedural
from ffplug.datasets.seeding import SeededIndex
from ffplug.errors import DataError


def write(layout: str, root: Path) -> str:
    write_procedural(Recipe(layout, scenes=2, frames=5, size=(32, 32), textures="analytic"), root)
    return str(root)


def test_crops(tmp_path: Path) -> None:
    root = write("celeba-crops", tmp_path / "set")
    dataset = CelebACropDataset(root, pipeline=[dict(type="ffplug_latentface.LoadFace", size=32)])
    assert len(dataset) == 10 and len(CelebACropDataset(root, "val")) == 5
    expected = render_portraits(draw_portraits(0, 1, 5), 32).images[2]
    assert torch.equal(dataset[7]["inputs"], expected)
    seen = {bool(torch.equal(dataset[SeededIndex(7, draw)]["inputs"], expected)) for draw in range(8)}
    assert seen == {True, False}
    (Path(root) / "train" / "00000_001.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    with pytest.raises(DataError, match="00000_001"):
        dataset[1]


def test_raf_db(tmp_path: Path) -> None:
    root = Path(write("raf-db", tmp_path / "set"))
    dataset = RAFDBDataset(str(root), "test")
    drawn = draw_portraits(0, 2, 5).expression
    order = (6, 5, 2, 1, 3, 4, 0)  # neutral, anger, disgust, fear, happiness, sadness, surprise
    assert [int(dataset[k]["data_samples"].gt_expr) for k in range(5)] == [order[label] for label in drawn]
    listed = root / "list_patition_label.txt"
    text = listed.read_text()
    listed.write_text(text.replace("train_00002.png", "train_00002.png 1"))
    with pytest.raises(DataError, match=r"label.txt:2"):
        RAFDBDataset(str(root))
    listed.write_text(text.splitlines()[0].rsplit(" ", 1)[0] + " 8\n")
    with pytest.raises(DataError, match=r"1\.\.7"):
        RAFDBDataset(str(root))
    listed.write_text(text + "train_00099.jpg 3\n")
    with pytest.raises(DataError, match=r"train_00099_aligned.jpg: this picture is missing"):
        RAFDBDataset(str(root))


def test_lfw(tmp_path: Path) -> None:
    root = Path(write("lfw", tmp_path / "set"))
    stems = {dataset_entry["stem"] for dataset_entry in map(LFWDataset(str(root)).get_data_info, range(10))}
    pairs = read_pairs(root / "pairs.txt")
    assert len(pairs) % 10 == 0 and {stem for pair in pairs for stem in pair[:2]} <= stems
    assert all(same == (a.split("/")[0] == b.split("/")[0]) for a, b, same in pairs)
    (tmp_path / "sll.txt").write_text("A/A_0001.jpg\nB/B_0002.jpg\nA/A_0001.jpg\nA/A_0003.jpg\n")
    assert [same for *_, same in read_pairs(tmp_path / "sll.txt")] == [False, True]
    (tmp_path / "bad.txt").write_text("10\t1\nA\t1\t2\nA\tone\t2\n")
    with pytest.raises(DataError, match=r"bad.txt:3"):
        read_pairs(tmp_path / "bad.txt")
    (tmp_path / "odd.txt").write_text("A/A_0001.jpg\n")
    with pytest.raises(DataError, match="two for each pair"):
        read_pairs(tmp_path / "odd.txt")

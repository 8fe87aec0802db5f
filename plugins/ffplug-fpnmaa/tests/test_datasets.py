"""The readers on procedural sets in the real layouts, and on what goes wrong in them."""

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from ffplug_fpnmaa.datasets import (
    AffectIndexDataset,
    AffectNetDataset,
    AffWild2Dataset,
    BalancedSampler,
    ExpWDataset,
    LoadFace,
    write_index,
)
from ffplug_fpnmaa.datasets.annotations import read_annotations, read_frame_counts
from ffplug_fpnmaa.datasets.samplers import balance_weights
from ffplug_fpnmaa.datasets.teachers import write_teacher_labels
from ffplug_fpnmaa.datasets.transforms import crop_face
from ffplug_fpnmaa.distillation import teacher_labels
from ffplug_fpnmaa.models import AffectFPN

from ffplug.cli import cli, run
from ffplug.datasets import MixDataset, write_image
from ffplug.datasets.procedural import Recipe, write_procedural
from ffplug.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets")
    for layout, frames in (("affwild2", 24), ("affectnet", 4), ("expw", 4)):
        write_procedural(Recipe(layout, scenes=3, frames=frames, size=(32, 32), textures="analytic"), folder / layout)
    return folder


@pytest.fixture
def affwild2(sets, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(sets / "affwild2", tmp_path / "affwild2")


def labels_file(root, task="VA_Set", split="Train_Set", video="train002"):
    return root / "annotations" / task / split / f"{video}.txt"


def test_affwild2_as_it_lies(sets):
    data = AffWild2Dataset(str(sets / "affwild2"))
    videos = {entry["sequence"] for entry in map(data.get_data_info, range(len(data)))}
    assert videos == {"train001_left", "train001_right", "train002", "train003"}
    assert data.skipped["lines of labels without a picture"] > 0
    known = {task: [label is not None for label in data.labels(task)] for task in ("va", "expr", "au")}
    assert all(0 < sum(flags) < len(data) for flags in known.values())
    # train002 has no action units, train003 no expressions, and what is unknown is absent
    for place, entry in enumerate(map(data.get_data_info, range(len(data)))):
        sample = data[place]["data_samples"]
        assert ("gt_au" in sample) == known["au"][place] and ("gt_expr" in sample) == known["expr"][place]
        assert not (entry["sequence"] == "train002" and known["au"][place])
        assert not (entry["sequence"] == "train003" and known["expr"][place])
        if place > 40:
            break
    item = data[0]
    assert item["inputs"].shape == (3, 128, 128) and item["data_samples"].get("sample_id") == "train001_left/00001"
    assert item["data_samples"].source == "procedural, not Aff-Wild2/train"
    first = labels_file(sets / "affwild2", video="train001_left").read_text().splitlines()[1]
    if "-5" not in first:
        np.testing.assert_allclose(item["data_samples"].gt_va, [float(part) for part in first.split(",")], rtol=1e-6)
    validation = AffWild2Dataset(str(sets / "affwild2"), split="validation", tasks="expr")
    assert set(validation[0]["data_samples"].keys()) == {"gt_expr"}
    test = AffWild2Dataset(str(sets / "affwild2"), split="test")
    assert len(test) > len(validation) and not set(test[0]["data_samples"].keys())


def test_a_check_counts_faces(sets, capsys):
    assert run(cli, ["data", "check", str(sets / "expw")], "ffplug") == 0
    told = capsys.readouterr().out
    assert "12 faces, 6 files" in told and "pairs" not in told


def test_parts_by_video_and_thinning(sets):
    root = str(sets / "affwild2")
    parts = {
        by: [
            {(e["sequence"], e["frame"]) for e in map(d.get_data_info, range(len(d)))}
            for d in (
                AffWild2Dataset(root, subset=subset, share=0.5, held_out_by=by, seed=3)
                for subset in ("train", "held_out")
            )
        ]
        for by in ("sequence", "sample")
    }
    everything = len(AffWild2Dataset(root))
    for train, held_out in parts.values():
        assert not train & held_out and len(train) + len(held_out) == everything
    assert not {v for v, _ in parts["sequence"][0]} & {v for v, _ in parts["sequence"][1]}
    assert {v for v, _ in parts["sample"][0]} & {v for v, _ in parts["sample"][1]}
    fifth = AffWild2Dataset(root, every=5)
    assert {fifth.get_data_info(i)["frame"] % 5 for i in range(len(fifth))} == {0}
    expressions = AffWild2Dataset(root, tasks="expr").labels("expr")
    commonest = max(set(expressions), key=expressions.count)
    from ffplug_fpnmaa.labels import EXPRESSIONS

    thinned = AffWild2Dataset(root, tasks="expr", thin={EXPRESSIONS[commonest]: 10}).labels("expr")
    assert thinned.count(commonest) == -(-expressions.count(commonest) // 10)
    assert len(thinned) - thinned.count(commonest) == len(expressions) - expressions.count(commonest)
    with pytest.raises(ConfigError, match="did you mean 'happiness'"):
        AffWild2Dataset(root, thin=dict(hapiness=2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [*lines[:3], "0.1", *lines[4:]], r"train002\.txt, line 4: 1 columns, expected 2"),
        (lambda lines: [*lines[:3], "0.1,0.2,0.3", *lines[4:]], r"line 4: 3 columns"),
        (lambda lines: [*lines[:5], "0.1,x", *lines[6:]], r"line 6: not numbers"),
        (lambda lines: [*lines[:5], "0.1,-1.5", *lines[6:]], r"line 6: -1\.5, expected -1\.\.1, or -5"),
        (lambda lines: [*lines[:5], "nan,0", *lines[6:]], r"line 6: nan, expected -1\.\.1"),
        (lambda lines: [lines[0] + ",dominance", *lines[1:]], r"line 1: the first line is 'valence,arousal,dominance'"),
        (lambda lines: [*lines[:5], "", *lines[6:]], r"line 6: empty; each line is a frame"),
        (lambda lines: lines[1:], r"line 1: the first line is .*expected the second release's valence,arousal"),
        (lambda lines: ["AU1,AU2,AU4,AU6,AU12,AU15,AU20,AU25", *lines[1:]], r"first release \(ABAW1\)"),
        (lambda lines: ["image,valence,arousal,expression,aus", *lines[1:]], r"several tasks in one file"),
        (lambda lines: ["Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise", *lines[1:]], r"of the task expr"),
    ],
)
def test_wrong_annotations_name_file_and_line(affwild2, change, message):
    path = labels_file(affwild2)
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(DataError, match=message):
        AffWild2Dataset(str(affwild2))


def test_codes_of_the_other_tasks(tmp_path):
    path = tmp_path / "video.txt"
    header = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise"
    path.write_text(f"{header}\n0\n-1\n6\n\n\n")
    assert read_annotations(str(path), "expr").tolist() == [0, -1, 6]
    path.write_text(f"{header}\n0\n-5\n")
    with pytest.raises(DataError, match=r"line 3: -5, expected a class 0\.\.6"):
        read_annotations(str(path), "expr")
    path.write_text(f"{header}\n7\n")
    with pytest.raises(DataError, match="set classes=8"):
        read_annotations(str(path), "expr")
    path.write_text(f"{header},Other\n7\n")
    with pytest.raises(DataError, match=r"after the second \(ABAW3 on\)"):
        read_annotations(str(path), "expr")
    assert read_annotations(str(path), "expr", classes=8).tolist() == [7]
    units = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26"
    path.write_text(f"{units}\n{','.join('01' * 6)}\n{','.join(['-1', *'01010101010'])}\n")
    found = read_annotations(str(path), "au")
    assert found[0].tolist() == [0, 1] * 6 and np.isnan(found[1]).all()  # one unit unknown: none is taken
    for wrong in ("-5", "0.5", "2"):
        path.write_text(f"{units}\n{','.join('01' * 6)}\n{','.join([wrong, *'01010101010'])}\n")
        with pytest.raises(DataError, match=rf"line 3: {wrong}, expected 0 or 1, or -1 where unknown"):
            read_annotations(str(path), "au")
    path.write_text("valence,arousal\n-5,-5\n-5,0.5\n-1,0.5\n")
    found = read_annotations(str(path), "va")
    assert np.isnan(found[:2, 0]).all() and found[2].tolist() == [-1, 0.5]  # -1 is a valence
    path.write_text("valence,arousal\n")
    assert read_annotations(str(path), "va").shape == (0, 2)
    path.write_bytes(b"\xff\xd8\xff\xe0 a picture")
    with pytest.raises(DataError, match="not a text file"):
        read_annotations(str(path), "va")
    path.write_text("one 12\ntwo twelve\n")
    with pytest.raises(DataError, match="line 2"):
        read_frame_counts(str(path))


def test_missing_and_surplus_frames(affwild2):
    before = len(AffWild2Dataset(str(affwild2), tasks="va", videos=["train002"]))
    pictures = affwild2 / "cropped_aligned" / "train002"
    last = labels_file(affwild2).read_text().splitlines()
    labels_file(affwild2).write_text("\n".join(last[:-4]) + "\n")
    write_image(pictures / "00003_3d.png", np.zeros((32, 32, 3), np.uint8))
    data = AffWild2Dataset(str(affwild2), tasks="va", videos=["train002"])
    assert before - 4 <= len(data) < before and data.skipped["pictures after the last line of labels"] > 0
    moved = affwild2 / "cropped_aligned_new_50_vids"
    moved.mkdir()
    shutil.move(pictures, moved / "train002")
    assert len(AffWild2Dataset(str(affwild2), tasks="va", videos=["train002"])) == len(data)
    shutil.rmtree(moved)
    with pytest.raises(DataError, match="frames of this annotated video are missing"):
        AffWild2Dataset(str(affwild2))
    with pytest.raises(DataError, match=r"no video 'train02'.*did you mean 'train002'"):
        AffWild2Dataset(str(affwild2), videos=["train02"])
    with pytest.raises(DataError, match=r"chosen\.txt: no such file"):
        AffWild2Dataset(str(affwild2), videos="chosen.txt")


def test_later_releases_and_damaged_pictures(affwild2):
    data = AffWild2Dataset(str(affwild2))
    path = Path(data.get_data_info(0)["image_path"])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=path.name):
        data[0]
    write_image(path, np.full((40, 30), 90, np.uint8))  # grey, and not square
    assert data[0]["inputs"].shape == (3, 128, 128)
    header = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(header + struct.pack(">I", zlib.crc32(header[12:])))  # says that it is huge
    with pytest.raises(DataError, match=path.name):
        data[0]
    (affwild2 / "annotations").rename(affwild2 / "old")
    (affwild2 / "annotations" / "EXPR_Classification_Challenge" / "Train_Set").mkdir(parents=True)
    with pytest.raises(DataError, match=r"later release \(ABAW3 on\)"):
        AffWild2Dataset(str(affwild2))


def test_affectnet_in_the_classes_of_affwild2(sets, tmp_path):
    root = sets / "affectnet"
    data = AffectNetDataset(str(root))
    assert len(data) == 12 and data.skipped == {"without a valid label": 1}
    assert len(AffectNetDataset(str(root), split="all")) == 16
    item = data[0]
    assert item["inputs"].shape == (3, 128, 128) and set(item["data_samples"].keys()) == {"gt_va", "gt_expr"}
    listed = root / "Manually_Annotated_file_lists" / "training.csv"
    happy = [
        line for line in listed.read_text().splitlines()[1:] if line.split(",")[6] == "1"
    ]  # AffectNet's 1 is happy, Aff-Wild2's 4
    assert data.labels("expr").count(4) == len(happy)
    broken = shutil.copytree(root, tmp_path / "affectnet")
    listed = broken / "Manually_Annotated_file_lists" / "training.csv"
    lines = listed.read_text().splitlines()
    listed.write_text("\n".join([*lines[:4], lines[4].replace(",32,32,", ",32,0,"), *lines[5:]]))
    with pytest.raises(DataError, match=r"training\.csv, line 5: a face box"):
        AffectNetDataset(str(broken))
    for change, message in (
        ((5, ""), r"line 5: 8 fields"),
        ((1, "nan"), r"line 5: face_x is 'nan', expected a number"),
        ((6, "11"), r"line 5: expression 11, expected 0\.\.10"),
        ((6, "1.5"), r"line 5: expression is '1.5', expected a whole number"),
    ):
        fields = lines[4].split(",")
        fields[change[0]] = change[1]
        wrong = ",".join(fields if change[1] else fields[:5] + fields[6:])
        listed.write_text("\n".join([*lines[:4], wrong, *lines[5:]]))
        with pytest.raises(DataError, match=message):
            AffectNetDataset(str(broken))
    listed.write_text("\n".join([*lines[:4], lines[4] + ",1", *lines[5:]]))
    with pytest.raises(DataError, match=r"line 5: 10 fields, the header has 9"):
        AffectNetDataset(str(broken))


def test_expw_tells_the_faces_of_a_picture_apart(sets, tmp_path):
    data = ExpWDataset(str(sets / "expw"))
    names = [data.get_data_info(place)["sample_id"] for place in range(len(data))]
    assert len(set(names)) == 12 and names[:2] == ["scene0000_000_0", "scene0000_000_1"]
    assert not torch.equal(data[0]["inputs"], data[1]["inputs"])
    assert len(ExpWDataset(str(sets / "expw"), confidence=62)) < 12
    broken = shutil.copytree(sets / "expw", tmp_path / "expw")
    lines = (broken / "label.lst").read_text().splitlines()
    (broken / "label.lst").write_text("\n".join([*lines[:2], lines[2].rsplit(" ", 1)[0] + " 9", *lines[3:]]))
    with pytest.raises(DataError, match=r"label\.lst, line 3: label 9"):
        ExpWDataset(str(broken))
    for wrong, message in (
        (lines[2].rsplit(" ", 1)[0], "line 3: 7 fields, expected 8"),
        (lines[2].replace(" 32 ", " x "), "line 3: not numbers"),
        (lines[1], "line 3: face scene0000_000_1 is listed twice"),
    ):
        (broken / "label.lst").write_text("\n".join([*lines[:2], wrong, *lines[3:]]))
        with pytest.raises(DataError, match=message):
            ExpWDataset(str(broken))
    (broken / "label.lst").write_text("\n".join(lines))
    picture = broken / "image" / "origin" / lines[0].split()[0]
    write_image(picture, np.zeros((16, 16, 3), np.uint8))  # another picture than the one that was labelled
    with pytest.raises(DataError, match=r"scene0000_000\.jpg: the face's box .* lies outside of the picture of 16×16"):
        ExpWDataset(str(broken))[1]
    picture.unlink()
    with pytest.raises(DataError, match=r"scene0000_000\.jpg: no such file"):
        ExpWDataset(str(broken))[1]


def test_a_list_of_ones_own(sets, tmp_path):
    data = AffWild2Dataset(str(sets / "affwild2"))
    index = sets / "affwild2" / "list.csv"
    assert write_index(data, index) == len(data)
    again = AffectIndexDataset(str(sets / "affwild2"), index="list.csv")
    assert len(again) == len(data)
    for task in ("va", "expr", "au"):
        for one, other in zip(again.labels(task), data.labels(task), strict=True):
            assert (one is None) == (other is None) and (one is None or one == pytest.approx(other, abs=1e-6))
    lines = index.read_text().splitlines()
    index.unlink()
    parts = lines[1].split(",")
    parts[9] = ""  # arousal
    if parts[8]:
        (sets / "affwild2" / "broken.csv").write_text("\n".join([lines[0], ",".join(parts)]))
        with pytest.raises(DataError, match=r"line 2: valence without arousal"):
            AffectIndexDataset(str(sets / "affwild2"), index="broken.csv")


def test_teachers_are_joined_by_name(sets, tmp_path):
    root = str(sets / "affwild2")
    data = AffWild2Dataset(root, unlabelled=True)
    names = [data.get_data_info(place)["sample_id"] for place in range(len(data))]
    said = np.random.default_rng(0).random((len(names), 12))
    order = np.random.default_rng(1).permutation(len(names))  # rows in any order
    write_teacher_labels(tmp_path / "au.csv", "au", ((names[i], said[i]) for i in order))
    taught = AffWild2Dataset(root, teachers=dict(au=tmp_path / "au.csv"), fill=True)
    assert len(taught) == len(data)
    places = {taught.get_data_info(place)["sample_id"]: place for place in range(len(taught))}
    for place, name in enumerate(names[:40]):
        sample = taught[places[name]]["data_samples"]
        np.testing.assert_allclose(sample.teacher_au, said[place], rtol=1e-5)
        truth = data[place]["data_samples"].get("gt_au")
        expected = torch.tensor(said[place] > 0.5).float() if truth is None else truth
        assert torch.equal(sample.gt_au, expected)  # the truth goes first
    logit = AffWild2Dataset(root, teachers=dict(au=tmp_path / "au.csv"), fill=True, threshold="logit")
    unknown = next(place for place, label in enumerate(data.labels("au")) if label is None)
    found = logit[places[names[unknown]]]["data_samples"].gt_au
    assert torch.equal(found, torch.tensor(said[unknown] > 0.6224593).float())
    with pytest.raises(DataError, match="names none of the samples"):
        write_teacher_labels(tmp_path / "other.csv", "au", [("elsewhere/00001", said[0])])
        AffWild2Dataset(root, teachers=dict(au=tmp_path / "other.csv"))


def test_a_teacher_that_tells_valence_and_arousal_in_bins(sets, tmp_path):
    torch.manual_seed(0)
    head = dict(type="ffplug_fpnmaa.MultiTaskAffectHead", channels=(3,), tasks=dict(va=2, au=12), va_bins=4)
    model = AffectFPN(dict(type=torch.nn.Identity), None, head)
    data = AffWild2Dataset(str(sets / "affwild2"), split="validation", unlabelled=True)
    told = dict(teacher_labels(model, data, "va"))
    path = tmp_path / "va.csv"
    assert write_teacher_labels(path, "va", told.items()) == len(data)
    taught = AffWild2Dataset(str(sets / "affwild2"), split="validation", teachers=dict(va=path), unlabelled=True)
    sample = taught[2]["data_samples"]
    name = sample.get("sample_id")
    np.testing.assert_allclose(sample.teacher_va, told[name][:2], atol=1e-5)
    np.testing.assert_allclose(sample.teacher_va_bins, told[name][2:].reshape(2, 4), atol=1e-5)
    assert sample.teacher_va_bins.sum(dim=1).numpy() == pytest.approx([1, 1], abs=1e-5)
    assert model(torch.rand(1, 3, 8, 8)).shape == (1, 14)
    text = path.read_text()
    path.write_text(text.replace("arousal_3", "arousal_4", 1))
    with pytest.raises(DataError, match=r"va\.csv, line 1: expected valence, arousal, and valence_0"):
        AffWild2Dataset(str(sets / "affwild2"), teachers=dict(va=path))
    path.write_text("sample_id,valence,arousal,valence_0,arousal_0\nv/1,0.5,-0.5,-0.1,1\n")
    with pytest.raises(DataError, match=r"va\.csv, line 2: valence_0 is -0\.1"):
        AffWild2Dataset(str(sets / "affwild2"), teachers=dict(va=path))


def test_mixtures_and_balance(sets):
    mixed = MixDataset(
        [
            dict(type="ffplug_fpnmaa.AffWild2Dataset", data_root=str(sets / "affwild2"), tasks="expr", every=5),
            dict(type="ffplug_fpnmaa.ExpWDataset", data_root=str(sets / "expw")),
            dict(type="ffplug_fpnmaa.AffectNetDataset", data_root=str(sets / "affectnet"), tasks="expr"),
        ],
        times=[1, 2, 1],
    )
    sampler = BalancedSampler(mixed, by="expr", seed=0)
    labels = np.array([int(mixed[place]["data_samples"].gt_expr) for place in range(len(mixed))])
    present, counts = np.unique(labels, return_counts=True)
    stream = iter(sampler)
    drawn = labels[[int(next(stream)) for _ in range(4000)]]
    shares = np.array([(drawn == label).mean() for label in present])
    np.testing.assert_allclose(shares, 1 / len(present), atol=0.04)
    assert counts.max() > 1.5 * counts.min()
    other = BalancedSampler(mixed, by="expr", seed=0)
    other.set_start(4000)
    assert int(next(iter(other))) == int(next(stream))  # goes on where it was cut
    units = balance_weights([[1, 0], [1, 0], [1, 1], [0, 0], None], "au")
    assert units[2] > units[0] == units[1] and units[4] == 1
    grid = balance_weights([[0.9, 0.9], [0.9, 0.8], [-0.9, 0]], "va")
    assert grid[2] == pytest.approx(2 * grid[0]) and grid.mean() == pytest.approx(1)


def test_boxes():
    picture = np.arange(10 * 20 * 3, dtype=np.uint8).reshape(10, 20, 3)
    np.testing.assert_array_equal(crop_face(picture, (4, 2, 6, 6)), picture[2:8, 4:10])
    assert crop_face(picture, (4, 2, 6, 3)).shape == (6, 6, 3)
    assert crop_face(picture, (4, 2, 6, 3), square=False).shape == (3, 6, 3)
    beyond = crop_face(picture, (-2, -2, 6, 6))
    np.testing.assert_array_equal(beyond[:3, :3], np.broadcast_to(picture[0, 0], (3, 3, 3)))
    with pytest.raises(DataError, match="lies outside"):
        crop_face(picture, (30, 2, 6, 6))
    with pytest.raises(DataError):
        LoadFace()(dict(image_path="nowhere.jpg"))

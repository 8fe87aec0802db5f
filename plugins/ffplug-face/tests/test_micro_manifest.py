"""The list of clips, and the data sets' own layouts."""

import csv

import numpy as np
import pytest
from ffplug_face.micro_expression.converters import (
    COMPOSITE,
    LABELS,
    convert,
    differences,
    normal_subject,
    read_sheet,
)
from ffplug_face.micro_expression.manifest import COLUMNS, Clip, count, read_manifest, write_manifest

from ffplug.datasets.formats import write_image
from ffplug.errors import DataError, PluginError


def write_frames(folder, name, numbers, grey=False):
    shape = (6, 5) if grey else (6, 5, 3)
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        write_image(folder / name.format(number), np.full(shape, number % 256, np.uint8))


def clip(number=0, **changes):
    folder = f"p{number}"
    values = dict(
        dataset="smic",
        subject="s01",
        clip=f"c{number}",
        label=number % 3,
        emotion="",
        onset=1,
        apex=2,
        offset=3,
        onset_path=f"{folder}/1.png",
        apex_path=f"{folder}/2.png",
        fps=100.0,
    )
    return Clip(**{**values, **changes})


def test_what_is_written_is_read(tmp_path):
    clips = [clip(0), clip(1, dataset="samm", subject="006", emotion='it\'s, "odd"')]
    for item in clips:
        write_frames(tmp_path / item.onset_path.split("/")[0], "{}.png", [1, 2])
    write_manifest(tmp_path / "m.csv", clips)
    assert read_manifest(tmp_path / "m.csv") == clips
    assert read_manifest(tmp_path / "m.csv", root=tmp_path) == clips
    assert clips[0].person == "smic/s01" and clips[0].key == "smic/s01/c0"


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (clip(1, onset=3), "onset 3, apex 2, offset 3: expected onset <= apex <= offset"),
        (clip(1, apex=4), "expected onset <= apex <= offset"),
        (clip(1, label=3), "label is 3, expected 0 to 2"),
        (clip(1, label="happy"), "label is 'happy', expected a number"),
        (clip(0), "the clip smic/s01/c0 stands in line 2 already"),
        (
            clip(1, onset_path="p0/1.png", apex_path="p0/2.png"),
            "pair of frames p0/1.png, p0/2.png stands in line 2",
        ),
        (clip(1, apex_path="p1/9.png"), "p1/9.png is missing, a frame of the clip smic/s01/c1"),
        (clip(1, subject=""), "subject is empty"),
        (clip(1, fps=0), "fps is 0, expected a positive"),
        (clip(1, clip="../x"), "a name without slash"),
        (clip(1, dataset=".."), "a name without slash"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, second, message):
    for folder in ("p0", "p1"):
        write_frames(tmp_path / folder, "{}.png", [1, 2])
    path = tmp_path / "m.csv"
    write_manifest(path, [clip(0), second])
    with pytest.raises(DataError) as error:
        read_manifest(path)
    assert f"{path}, line 3: " in str(error.value) and message in str(error.value)


def test_a_manifest_that_is_none(tmp_path):
    path = tmp_path / "m.csv"
    with pytest.raises(DataError, match="no such manifest"):
        read_manifest(path)
    path.write_text("dataset,subject\n")
    with pytest.raises(DataError, match="line 1: no column 'clip'"):
        read_manifest(path)
    path.write_text(",".join(COLUMNS) + "\na,b\n")
    with pytest.raises(DataError, match="line 2: 2 values for 11 columns"):
        read_manifest(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_manifest(path)
    path.write_text(",".join(COLUMNS) + "\n")
    with pytest.raises(DataError, match="lists no clip"):
        read_manifest(path)


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


CASME2 = [
    ["Subject", "Filename", "", "OnsetFrame", "ApexFrame", "OffsetFrame", "", "Action Units", "Estimated Emotion"],
    ["1", "EP02_01f", "", "46", "59", "86", "", "12", "happiness"],
    ["01", "EP03_02", "", "10", "/", "20", "", "4", "Disgust"],
    ["4", "EP12_01f", "", "10", "", "20", "", "4", "disgust"],
    ["17", "EP01_01", "", "30", "20", "40", "", "4", "repression"],
    ["17", "EP01_02", "", "1", "2", "3", "", "4", "others"],
    ["17", "EP01_03", "", "1", "2", "3", "", "1", "surprise"],
    ["17", "EP01_04", "", "1", "2", "3", "", "1", "surprise"],
]


@pytest.mark.parametrize("name", ["img{}.jpg", "reg_img{}.jpg"])
def test_casme2(tmp_path, name):
    root = tmp_path / "CASME2" / "RAW"
    write_frames(root / "sub01" / "EP02_01f", name, range(46, 87))
    write_frames(root / "sub01" / "EP03_02", name, range(10, 21))
    write_frames(root / "sub17" / "EP01_03", name, [1])
    found = convert("casme2", root.parent, tmp_path, write_csv(tmp_path / "c.csv", CASME2))
    assert [(c.key, c.label, c.onset, c.apex, c.offset, c.fps) for c in found.clips] == [
        ("casme2/sub01/EP02_01f", 1, 46, 59, 86, 200.0),
        ("casme2/sub01/EP03_02", 0, 10, 15, 20, 200.0),
    ]
    assert found.clips[0].apex_path == "CASME2/RAW/sub01/EP02_01f/" + name.format(59)
    assert "middle" in found.notes["sub01/EP03_02"]
    reasons = found.left_out
    assert reasons["sub04/EP12_01f"] == "it has no apex"
    assert "onset 30, apex 20" in reasons["sub17/EP01_01"]
    assert "'others'" in reasons["sub17/EP01_02"]
    assert "frame 2 is missing" in reasons["sub17/EP01_03"] and "no folder" in reasons["sub17/EP01_04"]
    write_manifest(tmp_path / "m.csv", found.clips)
    assert read_manifest(tmp_path / "m.csv") == found.clips


def test_casme2_repairs_only_what_is_broken(tmp_path):
    rows = [CASME2[0]] + [
        ["1", f"EP{k:02}", "", "70", "80", "75" if k == 60 else "90", "", "", "happiness"] for k in range(61)
    ]
    for k in range(61):
        write_frames(tmp_path / "sub01" / f"EP{k:02}", "img{}.jpg", [70, 80])
    found = convert("casme2", tmp_path, tmp_path, write_csv(tmp_path / "c.csv", rows))
    assert found.clips[60].offset == 91 and [*found.notes] == ["sub01/EP60"]
    rows[61][5] = "88"
    found = convert("casme2", tmp_path, tmp_path, write_csv(tmp_path / "c.csv", rows))
    assert found.clips[60].offset == 88 and not found.notes


def test_raw_and_cropped_side_by_side(tmp_path):
    for kind in ("Cropped", "RAW"):
        write_frames(tmp_path / kind / "sub01" / "EP02_01f", "img{}.jpg", [46, 59])
    with pytest.raises(DataError, match="both Cropped and RAW hold sub01/EP02_01f"):
        convert("casme2", tmp_path, tmp_path, write_csv(tmp_path / "c.csv", CASME2))


def test_smic(tmp_path):
    root = tmp_path / "SMIC" / "HS"
    for folder in ("s1/micro/negative/s1_ne_01", "s01/micro/surprise/s1_sur_01", "s20/micro/positive/s20_po_02"):
        write_frames(root / folder, "image{:06}.bmp", range(101, 120))
    write_frames(root / "s3/micro/negative/s3_ne_01", "image{:06}.bmp", [7])
    write_frames(root / "s1/non_micro/negative/s1_nm_01", "image{:06}.bmp", range(4))
    found = convert("smic", root, tmp_path)
    assert [(c.subject, c.clip, c.label, c.onset, c.apex, c.offset) for c in found.clips] == [
        ("s01", "s1_sur_01", 2, 101, 110, 119),
        ("s01", "s1_ne_01", 0, 101, 110, 119),
        ("s20", "s20_po_02", 1, 101, 110, 119),
    ]
    assert found.left_out == {"s03/s3_ne_01": "fewer than two frames"}


SAMM = [
    *([f"Line {k} of the preamble", "", ""] for k in range(13)),
    [
        "Subject", "Filename", "Inducement Code", "Onset Frame", "Apex Frame", "Offset Frame", "Duration", "Micro",
        "Action Units", "Estimated Emotion", "Objective Classes", "Notes",
    ],
    ["006", "006_1_2", "1", "5562", "5588", "5632", "71", "1/2", "4", "Anger", "4", ""],
    ["6", "006_1_3", "1", "100", "110", "120", "21", "1/2", "12", "Happiness", "4", ""],
    ["7", "007_3_1", "1", "100", "110", "120", "21", "1/2", "12", "Other", "4", ""],
]  # fmt: skip


def write_samm(tmp_path):
    root = tmp_path / "SAMM"
    write_frames(root / "006" / "006_1_2", "006_{:05}.jpg", (5562, 5588, 5632), grey=True)
    write_frames(root / "006" / "006_1_3", "006_{:05}.jpg", (100, 110, 120), grey=True)
    return root


def check_samm(found):
    assert [(c.key, c.label, c.emotion) for c in found.clips] == [
        ("samm/006/006_1_2", 0, "anger"),
        ("samm/006/006_1_3", 1, "happiness"),
    ]
    assert found.left_out["007/007_3_1"] == "emotion 'other' is none of the three classes"


def test_samm(tmp_path):
    check_samm(convert("samm", write_samm(tmp_path), tmp_path, write_csv(tmp_path / "s.csv", SAMM)))


def test_samm_from_its_spreadsheet(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in SAMM:
        book.active.append([int(cell) if cell.isdigit() else cell for cell in row])
    book.save(tmp_path / "s.xlsx")
    check_samm(convert("samm", write_samm(tmp_path), tmp_path, tmp_path / "s.xlsx"))
    (tmp_path / "cut.xlsx").write_bytes((tmp_path / "s.xlsx").read_bytes()[:200])
    with pytest.raises(DataError, match="damaged"):
        [*read_sheet(tmp_path / "cut.xlsx", ("subject",))]


def test_without_openpyxl_the_line_that_installs_it_is_given(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    (tmp_path / "s.xlsx").write_bytes(b"x")
    with pytest.raises(PluginError, match=r"pip install 'ffplug-face\[sheets\]'"):
        convert("samm", write_samm(tmp_path), tmp_path, tmp_path / "s.xlsx")


def test_casme3_numbers_clips_of_one_name(tmp_path):
    rows = [
        ["Subject", "Filename", "Onset", "Apex", "Offset", "AU", "Objective class", "emotion"],
        ["spNO.1", "a", "175", "180", "190", "4", "1", "Disgust"],
        ["spNO.1", "a", "275", "280", "290", "4", "1", "happy"],
        ["spNO.2", "b", "5", "3", "9", "4", "1", "surprise"],
    ]
    root = tmp_path / "part_A"
    write_frames(root / "spNO.1" / "a" / "color", "{}.jpg", (175, 180, 275, 280))
    found = convert("casme3", root, tmp_path, write_csv(tmp_path / "s.csv", rows))
    assert [(c.key, c.label) for c in found.clips] == [("casme3/spNO.1/a", 0), ("casme3/spNO.1/a_2", 1)]
    assert "spNO.2/b" in found.left_out


def test_what_cannot_be_converted(tmp_path):
    with pytest.raises(DataError, match="expected one of casme2, casme3, samm, smic"):
        convert("casme", tmp_path, tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        convert("smic", tmp_path / "x", tmp_path)
    with pytest.raises(DataError, match="needs its code sheet"):
        convert("samm", tmp_path, tmp_path)
    with pytest.raises(DataError, match="no line with the columns subject"):
        convert("samm", tmp_path, tmp_path, write_csv(tmp_path / "s.csv", [["a", "b"]]))
    with pytest.raises(DataError, match="no usable clip of smic"):
        convert("smic", tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("dataset", "texts", "expected"),
    [
        ("casme2", ("1", 1, "sub1", "sub01"), "sub01"),
        ("smic", ("s1", "s01", "S01"), "s01"),
        ("samm", ("6", 6, "006"), "006"),
        ("casme3", ("spNO.1", "1"), "spNO.1"),
    ],
)
def test_subjects_in_one_form(dataset, texts, expected):
    assert {normal_subject(dataset, text) for text in texts} == {expected}


def test_the_composite_s_counts(tmp_path):
    for key in ("subjects", "negative", "positive", "surprise", "clips"):
        assert sum(COMPOSITE[name][key] for name in ("casme2", "samm", "smic")) == COMPOSITE["all"][key]
    clips = []
    for name in ("casme2", "samm", "smic"):
        wanted = COMPOSITE[name]
        labels = [k for k, label in enumerate(("negative", "positive", "surprise")) for _ in range(wanted[label])]
        clips += [
            clip(index, dataset=name, subject=f"{index % wanted['subjects']}", label=label)
            for index, label in enumerate(labels)
        ]
    assert count(clips) == COMPOSITE and differences(clips) == []
    [line] = differences(clips[1:145])
    assert line.startswith("casme2: ") and "87 negative (composite 88)" in line
    assert {**LABELS["casme2"]} == {"disgust": 0, "repression": 0, "happiness": 1, "surprise": 2}

"""Scores of micro-expression recognition."""

import json
from pathlib import Path

import numpy as np
import pytest
from ffplug_face.micro_expression.metrics import (
    NAMES,
    Predictions,
    bootstrap,
    confusion_matrix,
    paired_bootstrap,
    scores,
    summary,
)
from hypothesis import given
from hypothesis import strategies as st

from ffplug.errors import DataError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "me_metrics" / "expected.json").read_text())


def check(found, expected):
    for key, name in (("UF1", "UF1"), ("UAR", "UAR"), ("UP", "UP"), ("Acc", "acc")):
        assert abs(found[key] - expected[name]) < 1e-9
    for key in ("f1", "recall", "precision"):
        np.testing.assert_allclose(found[key], expected[key], atol=1e-9)


@pytest.mark.parametrize("name", ["all", "casme2", "smic", "samm"])
def test_public_run(name):
    check(scores(np.array(GOLDEN[name]["confusion"])), GOLDEN[name])


def test_lists_of_classes():
    case = GOLDEN["synthetic"]
    confusion = confusion_matrix(case["truth"], case["pred"])
    assert confusion.tolist() == case["metrics"]["confusion"]
    check(scores(confusion), case["metrics"])


def test_absent_classes_count_as_zero():
    only = scores(confusion_matrix([0, 0, 0], [0, 0, 0]))
    assert only["UF1"] == pytest.approx(1 / 3) and only["UAR"] == pytest.approx(1 / 3) and only["Acc"] == 1
    never = scores(confusion_matrix([0, 1, 2], [0, 1, 1]))
    assert never["precision"][2] == 0 and never["f1"][2] == 0 and never["recall"][2] == 0
    assert scores(np.zeros((3, 3)))["Acc"] == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40), st.randoms())
def test_the_order_of_clips_does_not_matter(pairs, random):
    before = confusion_matrix(*zip(*pairs, strict=True))
    random.shuffle(pairs)
    assert np.array_equal(before, confusion_matrix(*zip(*pairs, strict=True)))


def test_what_is_no_class():
    with pytest.raises(DataError, match=r"0\.\.2, found 0 to 3"):
        confusion_matrix([0, 3], [0, 0])
    with pytest.raises(DataError, match="2 true classes, but 1"):
        confusion_matrix([0, 1], [0])


def run(seed, accuracy, seeds=2, subjects=12, clips=10):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, subjects * clips)
    probabilities = np.zeros((seeds, len(truth), 3))
    for k in range(seeds):
        right = rng.random(len(truth)) < accuracy
        guess = np.where(right, truth, (truth + rng.integers(1, 3, len(truth))) % 3)
        probabilities[k, np.arange(len(truth)), guess] = 1
    names = [f"s{index // clips:02}" for index in range(len(truth))]
    sets = tuple("A" if name < "s06" else "B" for name in names)
    return Predictions(tuple(map(str, range(len(truth)))), sets, tuple(names), truth, probabilities)


def test_summary_agrees_with_the_pooled_matrices():
    predictions = run(0, 0.7)
    found = summary(predictions, 200)
    assert set(found) == {"all", "A", "B"} and found["A"]["subjects"] == 6 and found["B"]["clips"] == 60
    values = [float(scores(matrix)["UF1"]) for matrix in predictions.confusion()]
    assert found["all"]["UF1"]["seeds"] == pytest.approx(values)
    assert found["all"]["UF1"]["deviation"] == pytest.approx(np.std(values, ddof=1))
    low, high = found["all"]["UF1"]["interval"]
    assert low < found["all"]["UF1"]["mean"] < high
    assert np.array(found["all"]["confusion"]).sum() == 240
    pooled = np.array(found["A"]["confusion"]) + np.array(found["B"]["confusion"])
    assert np.array_equal(pooled, found["all"]["confusion"])


def test_bootstrap_draws_whole_subjects():
    """With two subjects, one all right and one all wrong, only three accuracies can come out."""
    truth = np.zeros(10, np.int64)
    probabilities = np.zeros((1, 10, 3))
    probabilities[0, :5, 0] = probabilities[0, 5:, 1] = 1
    clips = Predictions(tuple("abcdefghij"), ("A",) * 10, ("x",) * 5 + ("y",) * 5, truth, probabilities)
    assert set(bootstrap(clips, 400)["Acc"]) == {0.0, 0.5, 1.0}


def test_paired_bootstrap_is_narrower_and_finds_the_better():
    worse = run(1, 0.55)
    better = Predictions(worse.clips, worse.datasets, worse.subjects, worse.truth, worse.probabilities.copy())
    wrong = np.flatnonzero(better.probabilities[0].argmax(-1) != better.truth)[::3]
    better.probabilities[:, wrong] = np.eye(3)[better.truth[wrong]]
    found = paired_bootstrap(worse, better)
    assert found["UF1"]["difference"] > 0.05 and found["UF1"]["interval"][0] > 0 and found["UF1"]["p"] < 0.05
    single = np.quantile(bootstrap(worse)["UF1"], [0.025, 0.975])
    assert np.diff(found["UF1"]["interval"]) < np.diff(single)
    same = paired_bootstrap(worse, worse)
    assert all(same[key]["difference"] == 0 and same[key]["p"] == 1 for key in NAMES)
    with pytest.raises(DataError, match="differ in their clips"):
        paired_bootstrap(worse, worse.subset("A"))

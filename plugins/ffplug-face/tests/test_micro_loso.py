"""Leave one subject out: what is learned, what is kept from the learner, and going on after a stop."""

import csv
import json

import numpy as np
import pytest
import torch
from ffplug_face.crops import NoFaceError
from ffplug_face.micro_expression.learners import mirror
from ffplug_face.micro_expression.loso import LeaveOneSubjectOut, folds, oracle_epochs, read_run
from ffplug_face.micro_expression.manifest import Clip, read_manifest, write_manifest
from ffplug_face.micro_expression.metrics import scores
from ffplug_face.micro_expression.procedural import write_example

from ffplug.errors import ConfigError, DataError, FFPlugError, PluginError
from ffplug.registry import DATASETS, MODELS

GRID = dict(type="ffplug_face.GridBaseline")


def network(**changes):
    config = dict(type="ffplug_face.NetworkLearner", network=dict(type="ffplug_face.STSTNet"), epochs=2)
    return {**config, **changes}


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("micro") / "set"
    write_example(folder, subjects=6, clips=9, size=64, intensity=(0.15, 0.5), frames=3)
    return folder


def dataset(root, **feature):
    config = dict(type="ffplug_face.FlowFeature", flow_root="flow")
    return DATASETS.build(
        dict(type="ffplug_face.MicroExpressionDataset", data_root=str(root), feature={**config, **feature})
    )


def score(folder):
    predictions, _ = read_run(folder)
    return float(scores(predictions.confusion())["UF1"].mean())


def test_exact_flow_is_recognised_and_nothing_is_not(example, tmp_path):
    exact = dataset(example)
    LeaveOneSubjectOut(exact, GRID, tmp_path / "exact").run()
    assert score(tmp_path / "exact") >= 0.9
    zero = dataset(example)
    zero.features = lambda index: torch.zeros(3, 28, 28)
    LeaveOneSubjectOut(zero, GRID, tmp_path / "zero").run()
    assert score(tmp_path / "zero") == pytest.approx(1 / 6, abs=0.05)  # one class of three, all the time
    noisy = dataset(example)
    rng = torch.Generator().manual_seed(0)
    strength = torch.tensor([2.0, 2.0, 0.2]).view(3, 1, 1)
    noisy.features = lambda index: exact.features(index) + strength * torch.randn(3, 28, 28, generator=rng)
    LeaveOneSubjectOut(noisy, GRID, tmp_path / "noisy").run()
    assert score(tmp_path / "zero") + 0.1 < score(tmp_path / "noisy") < score(tmp_path / "exact") - 0.05


def test_shuffled_labels_score_at_chance(example, tmp_path):
    shuffled = dataset(example)
    labels = np.random.default_rng(1).permutation([clip.label for clip in shuffled.clips])
    shuffled.clips = [
        Clip(**{**vars(clip), "label": int(label)}) for clip, label in zip(shuffled.clips, labels, strict=True)
    ]
    LeaveOneSubjectOut(shuffled, GRID, tmp_path, seeds=(0,)).run()
    assert score(tmp_path) < 0.5  # chance is 1/3, its deviation over 54 clips 0.064


def test_a_network_learns(example, tmp_path):
    config = network(epochs=40, batch_size=16, optimizer=dict(type="Adam", lr=3e-3), mirror=False)
    LeaveOneSubjectOut(dataset(example), config, tmp_path).run()
    assert score(tmp_path) > 0.7


@pytest.mark.parametrize("learner", [GRID, network()])
def test_labels_of_the_test_clips_change_nothing(example, tmp_path, learner):
    """Permute the labels of one person: the fold that leaves this person out gives the same digits."""
    honest, lying = dataset(example), dataset(example)
    person = honest.clips[0].person
    lying.clips = [
        Clip(**{**vars(clip), "label": (clip.label + 1) % 3}) if clip.person == person else clip for clip in lying.clips
    ]
    texts = {}
    for name, clips in (("honest", honest), ("lying", lying)):
        run = LeaveOneSubjectOut(clips, learner, tmp_path / name)
        run.folds = run.folds[:2]
        run.run()
        texts[name] = [(tmp_path / name / fold.file).read_text() for fold in run.folds]
    assert run.folds[0].person == person
    assert texts["honest"][0] == texts["lying"][0] and texts["honest"][1] != texts["lying"][1]


def test_predictions_hold_no_truth(example, tmp_path):
    run = LeaveOneSubjectOut(dataset(example), GRID, tmp_path)
    run.run()
    with open(tmp_path / run.folds[0].file, newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [*rows[0]] == ["clip", "prob0", "prob1", "prob2", "seed", "fold"]
    assert len(rows) == 9 and sum(float(rows[0][f"prob{k}"]) for k in range(3)) == pytest.approx(1)


def clip(dataset, subject, number, label=0):
    paths = (f"{dataset}/{subject}/{number}/1.png", f"{dataset}/{subject}/{number}/2.png")
    return Clip(dataset, subject, str(number), label, "", 1, 2, 3, *paths, 100.0)


def test_one_id_in_two_sets_is_two_people():
    clips = [clip("smic", "s01", 0), clip("samm", "s01", 0), clip("samm", "s01", 1), clip("samm", "s02", 0)]
    found = folds(clips, (0, 7))
    assert [(fold.seed, fold.person, fold.train, fold.test) for fold in found[:3]] == [
        (0, "samm/s01", (0, 3), (1, 2)),
        (0, "samm/s02", (0, 1, 2), (3,)),
        (0, "smic/s01", (1, 2, 3), (0,)),
    ]
    assert len(found) == 6 and len({fold.own_seed for fold in found}) == 6
    with pytest.raises(DataError, match="only smic/s01"):
        folds(clips[:1], (0,))


def test_processes_give_what_one_gives_and_a_run_goes_on(example, tmp_path):
    here = LeaveOneSubjectOut(dataset(example), network(), tmp_path / "here", seeds=(0,))
    here.run()
    there = LeaveOneSubjectOut(dataset(example), network(), tmp_path / "there", seeds=(0,))
    kept = tmp_path / "there" / here.folds[0].file
    there.run(workers=2)
    for fold in here.folds:
        assert (tmp_path / "here" / fold.file).read_text() == (tmp_path / "there" / fold.file).read_text()
    stamp = kept.stat().st_mtime_ns
    (tmp_path / "there" / here.folds[1].file).unlink()
    seen = []
    again = LeaveOneSubjectOut(dataset(example), network(), tmp_path / "there", seeds=(0,))
    with pytest.raises(DataError, match="seed 0 lacks 9 of 54 clips, such as procedural/p01/00"):
        read_run(tmp_path / "there")
    again.run(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(5, 6), (6, 6)] and kept.stat().st_mtime_ns == stamp
    with pytest.raises(DataError, match="another run \\(its learner differ"):
        LeaveOneSubjectOut(dataset(example), network(epochs=3), tmp_path / "there")


def test_a_fold_without_a_class_is_told(example, tmp_path):
    clips = read_manifest(example / "manifest.csv")
    kept = [item for item in clips if item.label < 2 or item.subject == "p00"]
    for name in ("frames", "flow"):
        (tmp_path / name).symlink_to(example / name)
    write_manifest(tmp_path / "manifest.csv", kept)
    for learner in (GRID, network()):
        folder = tmp_path / learner["type"]
        notes = LeaveOneSubjectOut(dataset(tmp_path), learner, folder).run()
        assert notes == ["fold procedural/p00: no training clip of class 2"]
        assert read_run(folder)[1]["notes"] == notes
        assert read_run(folder)[0].probabilities.sum(-1) == pytest.approx(1, abs=1e-5)


def test_failed_folds_are_told_and_the_others_kept(example, tmp_path):
    odd = network(network=dict(type="ffplug_face.RCNA"))
    with pytest.raises(FFPlugError, match=r"6 of 6 folds failed, first .*RCNA takes 60 pixels, the features have 28"):
        LeaveOneSubjectOut(dataset(example), odd, tmp_path).run()
    with pytest.raises(DataError, match="no fold is done"):
        read_run(tmp_path)


def test_clips_without_a_face_are_left_out_and_listed(example, tmp_path):
    """They neither train nor test: the folds give the digits of a manifest without them."""
    clips = dataset(example)
    gone = [clips.clips[1].key, *(item.key for item in clips.clips if item.subject == "p05")]
    kept = dataset(example)
    kept.clips = [item for item in kept.clips if item.key not in gone]
    plain = clips.features

    def features(index):
        if clips.clips[index].key in gone:
            raise NoFaceError(f"{clips.clips[index].onset_path}: no face found")
        return plain(index)

    clips.features = features
    notes = LeaveOneSubjectOut(clips, GRID, tmp_path / "gone").run()
    assert notes[0] == "10 of 54 clips left out" and len(notes) == 11
    assert notes[1] == "left out procedural/p00/01: frames/p00/01/00.png: no face found"
    LeaveOneSubjectOut(kept, GRID, tmp_path / "kept").run()
    (found, about), (expected, _) = (read_run(tmp_path / name) for name in ("gone", "kept"))
    assert found.clips == expected.clips and np.array_equal(found.probabilities, expected.probabilities)
    assert [*about["left_out"]] == gone
    again = LeaveOneSubjectOut(clips, GRID, tmp_path / "gone")
    assert len(again.folds) == 5 and again.run() == notes
    gone[:] = [item.key for item in clips.clips]
    with pytest.raises(DataError, match="no face in any of 54 clips"):
        LeaveOneSubjectOut(clips, GRID, tmp_path / "none").run()


def test_people_whose_names_run_together_are_two(tmp_path):
    clips = [clip("a_b", "c", 0), clip("a", "b_c", 0, 1), clip("a", "d", 0, 2)]
    assert len({fold.file for fold in folds(clips, (0,))}) == 3


def test_a_training_that_diverged_is_told(example, tmp_path):
    wild = network(optimizer=dict(type="SGD", lr=1e30))
    with pytest.raises(FFPlugError, match=r"6 of 6 folds failed.*the training diverged"):
        LeaveOneSubjectOut(dataset(example), wild, tmp_path).run()


def test_runs_that_are_none(tmp_path):
    with pytest.raises(DataError, match="no run of `ffplug micro run`"):
        read_run(tmp_path)
    for text in ("{", "{}", "[]"):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(DataError, match="damaged"):
            read_run(tmp_path)
    with pytest.raises(ConfigError, match="epochs=0"):
        MODELS.build(network(epochs=0))


def test_the_oracle_only_flatters(example, tmp_path):
    """On features of pure noise, where there is nothing to learn, the best test epoch looks like learning."""
    noise = torch.randn(54, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    clips, others = dataset(example), dataset(example)
    clips.features = others.features = noise.__getitem__
    run = LeaveOneSubjectOut(clips, network(epochs=6), tmp_path, oracle=True)
    run.run()
    predictions, about = read_run(tmp_path)
    chosen = oracle_epochs(tmp_path)
    truth = predictions.truth
    right = [(p.probabilities[0].argmax(-1) == truth).sum() for p in (predictions, chosen)]
    assert right[1] > right[0]
    stored = np.load(tmp_path / "epochs" / run.folds[0].file.with_suffix(".npy"))
    assert stored.shape == (6, 9, 3)
    np.testing.assert_allclose(stored[-1], predictions.probabilities[0, :9], atol=1e-6)
    assert json.loads(json.dumps(about))["procedural"] is True
    plain = LeaveOneSubjectOut(others, network(epochs=6), tmp_path / "plain")
    plain.run()
    assert (tmp_path / "plain" / plain.folds[0].file).read_text() == (tmp_path / run.folds[0].file).read_text()
    with pytest.raises(DataError, match="--oracle-epoch"):
        oracle_epochs(tmp_path / "plain")


def test_mirrored_features():
    features = torch.randn(2, 3, 4, 5)
    twice = mirror(mirror(features))
    assert torch.equal(twice, features)
    assert torch.equal(mirror(features)[:, 0], -features[:, 0].flip(-1))
    assert torch.equal(mirror(features)[:, 1:], features[:, 1:].flip(-1))


def test_without_scikit_learn_the_line_that_installs_it_is_given(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.linear_model", None)
    with pytest.raises(PluginError, match=r"pip install 'ffplug-face\[baseline\]'"):
        MODELS.build(GRID).fit(torch.zeros(2, 3, 28, 28), torch.tensor([0, 1]), ["", ""], 3, 0)

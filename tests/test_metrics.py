from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.evaluator import Evaluator

from ffplug.errors import DataError
from ffplug.evaluation import (
    FlowMetric,
    PairRecord,
    add_sums,
    epe_map,
    figures,
    flow_statistics,
    flow_sums,
    measure_pair,
    occlusion_boundary_distance,
    read_metrics,
    summarise,
)
from ffplug.structures import FlowDataSample

GOLDEN = Path(__file__).parent / "golden" / "flow_data"


def make_sample(seed: int, sample_id: str, *, sequence: str = "a", size=(13, 17), procedural=False, **fields):
    rng = np.random.default_rng(seed)
    gt = rng.normal(0, 20, (2, *size)).astype(np.float32)
    sample = FlowDataSample(
        gt_flow=torch.from_numpy(gt),
        gt_valid=torch.from_numpy((rng.random(size) < 0.8).astype(np.float32)),
        gt_occlusion=torch.from_numpy(rng.random(size) < 0.2),
        pred_flow=torch.from_numpy(gt + rng.normal(0, 4, gt.shape).astype(np.float32)),
    )
    sample.set_metainfo(
        dict(sample_id=sample_id, sequence=sequence, frame=seed, dataset="Sintel/clean", procedural=procedural)
    )
    for name, value in fields.items():
        setattr(sample, name, value)
    return sample


def test_golden_figures_of_the_raft_line():
    data, expected = np.load(GOLDEN / "case1.npz"), json.loads((GOLDEN / "case1.json").read_text())["loss"]
    pred, gt, valid = data["loss_preds"][-1], data["loss_gt"], data["loss_valid"]
    pairs = [[torch.from_numpy(a[i]) for a in (pred, gt, valid)] for i in range(len(gt))]

    dense = figures(add_sums(flow_sums(p, g) for p, g, _ in pairs)["all"])
    assert dense["EPE"] == pytest.approx(expected["sintel_epe"], rel=1e-6)
    for name in ("1", "3", "5"):
        assert dense[f"{name}px"] == pytest.approx(expected[f"px{name}"], rel=1e-6)

    sparse = [
        PairRecord("KITTI", str(i), "", i, False, (None, None), flow_sums(p, g, v)) for i, (p, g, v) in enumerate(pairs)
    ]
    summary = summarise(sparse)["summary"]
    assert summary["EPE_image"] == pytest.approx(expected["kitti_epe_mean_of_image_means"], rel=1e-6)
    assert summary["Fl_all"] == pytest.approx(expected["kitti_fl_pooled_percent"], rel=1e-6)

    limited = [(p, g, v.bool() & (g.norm(dim=0) < 400)) for p, g, v in pairs]
    trained = figures(add_sums(flow_sums(*pair) for pair in limited)["all"])
    for name in ("1px", "3px", "5px"):
        assert trained[name] == pytest.approx(expected["metrics"][name], rel=1e-6)
    assert trained["EPE"] == pytest.approx(expected["metrics"]["epe"], rel=1e-6)


def brute_force(pred, gt, mask):
    """The definitions, pixel by pixel in Python."""
    errors, speeds = [], []
    for y, x in zip(*np.nonzero(mask), strict=True):
        u, v = (float(c) for c in gt[:, y, x])
        pu, pv = (float(c) for c in pred[:, y, x])
        errors.append(math.hypot(pu - u, pv - v))
        speeds.append(math.hypot(u, v))
    n = len(errors)
    if not n:
        return None
    weights = [1 - (i - 1) / 100 for i in range(1, 101)]
    shares = [sum(e <= i / 20 for e in errors) / n for i in range(1, 101)]
    return {
        "EPE": sum(errors) / n,
        "EPE_zero": sum(speeds) / n,
        "EPE_ratio": sum(errors) / sum(speeds),
        "1px": sum(e < 1 for e in errors) / n,
        "3px": sum(e < 3 for e in errors) / n,
        "5px": sum(e < 5 for e in errors) / n,
        "1px_outliers": 100 * sum(e >= 1 for e in errors) / n,
        "Fl": 100 * sum(e > 3 and (s == 0 or e / s > 0.05) for e, s in zip(errors, speeds, strict=True)) / n,
        "WAUC": 100 * sum(w * s for w, s in zip(weights, shares, strict=True)) / sum(weights),
        "pixels": n,
        "nonfinite_pixels": 0,
    }


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), noise=st.sampled_from([0.3, 3.0, 30.0]), filled=st.sampled_from([0.0, 0.1, 1.0]))
def test_every_region_follows_its_definition(seed, noise, filled):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(1, 12)), int(rng.integers(1, 12)))
    gt = rng.normal(0, 25, (2, *shape)).astype(np.float32)
    gt[:, rng.random(shape) < 0.1] = np.nan
    pred = gt + rng.normal(0, noise, gt.shape).astype(np.float32)
    pred[:, np.isnan(gt[0])] = 7
    valid, occluded, noc, front = rng.random(shape) < filled, *(rng.random((3, *shape)) < 0.4)
    known = valid & np.isfinite(gt).all(axis=0)
    speed = np.hypot(*gt.astype(np.float64))
    expected = {
        "all": known,
        "s0-10": known & (speed < 10),
        "s10-40": known & (speed >= 10) & (speed < 40),
        "s40+": known & (speed >= 40),
        "matched": known & ~occluded,
        "unmatched": known & occluded,
        "noc": known & noc,
        "fg": known & front,
        "bg": known & ~front,
    }
    found = flow_statistics(
        torch.from_numpy(pred), torch.from_numpy(gt), valid, torch.from_numpy(occluded), noc=noc, foreground=front
    )
    assert set(found) - {"d0-10", "d10-60", "d60-140"} == set(expected)
    for region, mask in expected.items():
        wanted = brute_force(pred, gt, mask)
        if wanted is None:
            assert found[region]["pixels"] == 0
            assert all(value is None for name, value in found[region].items() if "pixels" not in name)
        else:
            assert found[region] == pytest.approx(wanted, rel=1e-9)


def test_motionless_pixels_are_outliers_above_three_pixels_and_give_no_ratio():
    gt = np.zeros((1, 3, 2), np.float32)
    pred = np.array([[[0, 0], [2, 0], [0, 4]]], np.float32)
    values = flow_statistics(pred, gt)["all"]
    assert values["EPE"] == 2 and values["EPE_zero"] == 0 and values["EPE_ratio"] is None
    assert values["Fl"] == pytest.approx(100 / 3)
    assert values["3px"] == pytest.approx(2 / 3)


def test_prediction_that_is_not_finite_counts_as_infinite_error():
    gt = np.full((2, 2, 2), 3.0, np.float32)
    pred = gt.copy()
    pred[0, 0] = np.nan
    values = flow_statistics(pred, gt)["all"]
    assert values["EPE"] == math.inf
    assert (values["1px"], values["Fl"], values["WAUC"], values["nonfinite_pixels"]) == (0.75, 25, 75, 1)
    gt[0, 1] = np.nan
    assert np.isnan(epe_map(pred, gt)[0, 1]) and epe_map(pred, gt)[0, 0] == math.inf


def test_best_of_two_by_two_true_values():
    rng = np.random.default_rng(0)
    double = rng.normal(0, 5, (8, 12, 2)).astype(np.float32)
    double[2:4, 4:6] = np.nan
    double[0, 0] = np.nan
    pred = rng.normal(0, 5, (4, 6, 2)).astype(np.float32)
    pred[0, 1] = np.nan
    values = flow_statistics(pred, double[::2, ::2], gt_double=double)["all"]
    pred[0, 1] = 0
    errors, speeds = [], []
    for y in range(4):
        for x in range(6):
            block = double[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(4, 2).astype(np.float64)
            block = block[np.isfinite(block).all(axis=1)]
            if len(block):
                errors.append(np.linalg.norm(block - pred[y, x], axis=1).min())
                speeds.append(np.linalg.norm(block, axis=1).min())
    assert values["pixels"] == 23 and values["nonfinite_pixels"] == 1
    assert values["EPE_zero"] == pytest.approx(np.mean(speeds))
    pred_finite = flow_statistics(pred, double[::2, ::2], gt_double=double)["all"]
    assert pred_finite["EPE"] == pytest.approx(np.mean(errors))


def test_distance_to_the_occlusion_boundary():
    occluded = np.zeros((9, 60), bool)
    occluded[:, 30:] = True
    distance = occlusion_boundary_distance(occluded)
    assert np.array_equal(distance[4], [max(29 - x, x - 30, 0) for x in range(60)])
    assert np.isinf(occlusion_boundary_distance(np.ones((3, 3), bool))).all()
    values = flow_statistics(np.ones((9, 60, 2)), np.zeros((9, 60, 2)), None, occluded)
    assert [values[d]["pixels"] for d in ("d0-10", "d10-60", "d60-140")] == [9 * 20, 9 * 40, 0]


@pytest.mark.parametrize(
    ("pred", "valid", "message"),
    [
        (np.zeros((4, 6, 2)), None, "padding must be cropped"),
        (np.zeros((4, 5, 3)), None, "H×W×2"),
        (torch.zeros(4, 5, 2), None, "2×H×W"),
        (np.zeros((4, 5, 2)), np.ones((5, 4)), "valid mask"),
    ],
)
def test_shapes_that_do_not_agree_are_named(pred, valid, message):
    with pytest.raises(DataError, match=message):
        flow_sums(pred, np.zeros((4, 5, 2)), valid)


@pytest.mark.parametrize("missing", ["pred_flow", "gt_flow", "sample_id"])
def test_incomplete_samples_are_refused(missing):
    sample = {key: value for key, value in make_sample(0, "one").to_dict().items() if key != missing}
    with pytest.raises(DataError, match="true flow" if missing == "gt_flow" else missing):
        measure_pair(sample)


def run_metric(samples, **arguments):
    evaluator = Evaluator(dict(type="ffplug.FlowMetric", **arguments))
    evaluator.process(samples)
    return evaluator.evaluate(len(samples))


def test_metric_names_prefixes_and_json(tmp_path):
    out = tmp_path / "deep" / "metrics.json"
    samples = [make_sample(i, f"s{i}", sequence="ab"[i % 2], procedural=True) for i in range(4)]
    samples[3].set_metainfo(dict(dataset="Sintel/final"))
    logged = run_metric(samples, out_file=out)
    assert {"sintel_clean/EPE", "sintel_clean/EPE_zero", "sintel_clean/EPE_ratio", "sintel_final/EPE"} <= set(logged)
    assert {"sintel_clean/EPE_matched", "sintel_clean/EPE_s40+", "sintel_clean/Fl_all"} <= set(logged)
    assert "sintel_clean/EPE_d60-140" not in logged
    assert all(isinstance(value, (int, float)) and math.isfinite(value) for value in logged.values())

    clean = read_metrics(out)["test"]["sintel_clean"]
    assert clean["source"] == "procedural, not Sintel/clean" and clean["procedural"] is True
    assert clean["pairs"] == 3 and [s["sample_id"] for s in clean["samples"]] == ["s0", "s1", "s2"]
    assert clean["regions"]["d60-140"]["EPE"] is None and clean["regions"]["d60-140"]["pixels"] == 0
    assert clean["sequences"]["a"]["pairs"] == 2
    assert clean["summary"]["EPE"] == logged["sintel_clean/EPE"]
    pooled = sum(s["EPE"] * s["pixels"] for s in clean["samples"]) / sum(s["pixels"] for s in clean["samples"])
    assert clean["summary"]["EPE"] == pytest.approx(pooled)

    pooled_all = run_metric(samples, prefix="mine", out_file=out)
    assert pooled_all["mine/pairs"] == 4
    assert set(read_metrics(out)["test"]) == {"sintel_clean", "sintel_final", "mine"}


def test_json_stays_valid_when_the_prediction_diverged(tmp_path):
    sample = make_sample(0, "bad")
    sample.pred_flow[:, 0, 0] = torch.nan
    sample.gt_valid[0, 0] = 1
    logged = run_metric([sample], out_file=tmp_path / "m.json")
    assert logged["sintel_clean/EPE"] == math.inf
    values = json.loads((tmp_path / "m.json").read_text(), parse_constant=pytest.fail)
    values = values["evaluations"]["test"]["sintel_clean"]["summary"]
    assert values["EPE"] is None


@pytest.mark.parametrize("world", [1, 2, 3])
def test_figures_do_not_depend_on_ranks_order_or_repeats(world, tmp_path):
    samples = [make_sample(i, f"s{i:02}", sequence="abc"[i % 3], size=(9 + i, 12)) for i in range(7)]
    metric = FlowMetric()
    single = metric.compute_metrics([measure_pair(sample) for sample in samples])
    padded = samples + samples[: -len(samples) % world]
    parts = [[measure_pair(sample) for sample in padded[rank::world]] for rank in range(world)]
    merged = metric.compute_metrics([record for part in reversed(parts) for record in part])
    assert merged == single


def test_two_processes_give_exactly_the_figures_of_one(tmp_path):
    import torch.multiprocessing as mp

    single = run_metric([make_sample(i, f"s{i}") for i in range(5)])
    mp.start_processes(_evaluate_on_rank, args=(str(tmp_path),), nprocs=2, start_method="fork")
    for rank in range(2):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == single


def _evaluate_on_rank(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    mine = [i % 5 for i in range(rank, 6, 2)]
    figures = run_metric([make_sample(i, f"s{i}") for i in mine], out_file=f"{folder}/metrics.json")
    (Path(folder) / f"{rank}.json").write_text(json.dumps(figures))
    torch.distributed.destroy_process_group()

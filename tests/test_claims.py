"""The harness of the claims in miniature: what its tables say, and that every claim is about what it measures."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def claims():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield importlib.import_module("claims")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ([0.3, 0.2, 0.25], "holds (3 of 3 seeds)"),
        ([-0.3, -0.2, -0.25], "does not hold (0 of 3 seeds)"),
        ([0.3, -0.2, 0.1], "within the spread (2 of 3 seeds)"),
        ([0.3], "within the spread (1 of 1 seeds)"),
    ],
)
def test_a_verdict_weighs_the_mean_against_the_spread(claims, gains, expected):
    assert claims.verdict(gains) == expected


@pytest.mark.parametrize(("better", "expected"), [("lower", "does not hold"), ("higher", "holds")])
def test_a_comparison_is_paired_and_signed_by_what_is_better(claims, better, expected):
    claim = claims.Claim(
        "", "", "", {"a": "", "b": ""}, {"m": claims_metric(better)}, [claims.Comparison("m", "a", "b", "told")]
    )
    # the seeds differ widely, the pairs do not
    results = {"a": {1: {"m": 5.5}, 0: {"m": 1.4}}, "b": {0: {"m": 1.0}, 1: {"m": 5.0}}}
    row = claims.compared(claim, claim.comparisons[0], results)
    assert "| 0.45 ± 0.07 | +15.0 % |" in row
    assert f"| {expected} (" in row
    assert row.endswith("| told |")


def claims_metric(better):
    return importlib.import_module("claim_cases").Metric("m", better=better, digits=2)


def test_each_claim_compares_what_it_measures(claims):
    import claim_cases

    for module in pkgutil.iter_modules(claim_cases.__path__):
        claim = claims.load(module.name).CLAIM
        assert claim.comparisons, module.name
        for comparison in claim.comparisons:
            assert comparison.metric in claim.metrics, module.name
            assert {comparison.variant, comparison.than} <= claim.variants.keys(), module.name


def test_finished_runs_are_not_done_again(claims, tmp_path, monkeypatch):
    done = []

    class Case:
        CLAIM = claims.Claim("", "", "", {"a": ""}, {"m": claims_metric("lower")}, [])

        @staticmethod
        def measure(variant, seed, folder, shared):
            done.append((variant, seed))
            return {"m": seed}

    monkeypatch.setattr(claims, "load", lambda name: Case)
    claims.run_one("case", "a", 0, tmp_path / "a/seed0", tmp_path)
    assert claims.run("case", 1, 1, tmp_path) == {"a": {0: {"m": 0.0}}}
    assert done == [("a", 0)]


def test_an_undeclared_metric_is_told(claims, tmp_path, monkeypatch):
    class Case:
        CLAIM = claims.Claim("", "", "", {"a": ""}, {"m": claims_metric("lower")}, [])
        measure = staticmethod(lambda *arguments: {"n": 1.0})

    monkeypatch.setattr(claims, "load", lambda name: Case)
    with pytest.raises(ValueError, match=r"\['m', 'n'\]"):
        claims.run_one("case", "a", 0, tmp_path / "a", tmp_path)
    assert not (tmp_path / "a" / "result.json").exists()

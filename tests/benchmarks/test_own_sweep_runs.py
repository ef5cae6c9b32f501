"""The comparison with a sweep of one's own rate runs, at a tiny scale."""

from __future__ import annotations

from tests.benchmarks.own_sweep import TINY, measured, page


def test_a_tiny_comparison_has_both_sides_of_every_task() -> None:
    found = measured(TINY)

    (outcome,) = found
    assert len(outcome.swept) == len(outcome.ours) == TINY.trainings
    assert outcome.cost <= 4.0
    assert "| segment | 24 |" in page(found, TINY)

"""The overhead benchmark runs and makes its page. No time is asserted."""

from __future__ import annotations

import pytest

from tests.benchmarks.overhead import BARE, BARE_IN_MEMORY, LR_FINDER, NESTED, TRIAL, Scale, measure, page


@pytest.fixture(scope="module")
def tiny() -> str:
    scale = Scale(
        widths={"tiny": 4, "small": 8},
        steps=4,
        validation=2,
        repetitions=1,
        training=8,
        block=4,
        pairs=1,
        updates=2,
        turns=2,
    )
    trials, pairs = measure(scale)
    assert all(set(size.seconds) == {TRIAL, BARE, BARE_IN_MEMORY, NESTED, LR_FINDER} for size in trials)
    return page(scale, trials, pairs, 1.0)


@pytest.mark.parametrize(
    "row", ["| 108 | ", "| 244 | ", "| training after the search, tiny", "| composite step (muon, adamw), tiny"]
)
def test_the_page_has_its_rows(tiny: str, row: str) -> None:
    assert f"\n{row}" in tiny

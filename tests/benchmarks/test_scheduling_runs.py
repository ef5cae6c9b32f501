"""The scheduler's benchmark runs and makes its page. No time is asserted."""

from __future__ import annotations

import pytest

from tests.benchmarks.scheduling import Scale, page


@pytest.fixture(scope="module")
def tiny() -> str:
    return page(
        Scale(width=4, batch=4, steps=8, budgets=(4.0,), repetitions=1, suggestions=1, finished=12, judged=(3,))
    )


@pytest.mark.parametrize(
    "row", ["| 4 | memory | ", "| 4 | journal | ", "| 4 | SQLite | ", "| 3 | ", "Reading a study of 12 "]
)
def test_the_page_has_its_rows(tiny: str, row: str) -> None:
    assert f"\n{row}" in tiny

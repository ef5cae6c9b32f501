"""The benchmark of several workers runs and makes its page. No time of this machine is asserted."""

from __future__ import annotations

import pytest

from tests.benchmarks.workers import Scale, a_second, page, run_wide
from tests.support.fleet import Ran


@pytest.fixture(scope="module")
def tiny() -> str:
    return page(
        Scale(wide=((1, 6), (2, 6)), storages=("memory", "SQLite"), trainings=(1.0,), workers=(1, 2), finished=(5,))
    )


@pytest.mark.parametrize("row", ["| 1 | 6 | ", "| 2 | 6 | ", "| memory | ", "| SQLite | ", "| 1 | ", "| 5 | "])
def test_the_page_has_its_rows(tiny: str, row: str) -> None:
    assert f"\n{row}" in tiny


def test_four_workers_do_nearly_four_times_the_jobs_of_one_where_a_stage_has_so_many() -> None:
    def pace(ran: Ran) -> float:
        return len(ran.runs) / ran.seconds

    one, four = (run_wide(workers, 200, a_second, real=False) for workers in (1, 4))

    assert pace(four) >= 3.6 * pace(one)

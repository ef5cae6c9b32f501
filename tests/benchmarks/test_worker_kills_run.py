"""The script that kills workers runs, and the search of the others ends as that of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.worker_kills import BUDGET, compare, places


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["journal", pytest.param("postgres", marks=pytest.mark.full)])
def test_a_search_of_which_a_worker_was_killed_ends_as_that_of_one(storage: str, tmp_path: Path) -> None:
    with places(storage) as place:
        _, found = compare(place, workers=2, kills=1, seed=0, root=tmp_path)

    assert [plan["same"] for plan in found.plans] == [True] * len(found.plans)
    assert len(found.plans) >= 2
    assert (found.killed, found.twice, found.running) == (1, 0, 0)
    assert found.spent <= BUDGET

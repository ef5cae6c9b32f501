"""The script that kills trainings runs, and a killed search ends as one that was left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.kills import Comparison, compare


@pytest.mark.slow
def test_a_search_struck_once_ends_as_one_left_alone(tmp_path: Path) -> None:
    found = compare("search", "journal", kills=1, seed=0, root=tmp_path)

    assert found == Comparison(
        killed=found.killed, rounds=found.rounds, same_plan=found.rounds, same_weights=found.rounds
    )
    assert found.killed.total() == 1

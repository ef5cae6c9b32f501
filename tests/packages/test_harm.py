"""The measurement goes on where it stopped, and its page says what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packages.harm import DEFAULT, FOLDER, OWN, PAGE, Row, compared, measure, measured, page
from tests.packages.running import importable

pytestmark = pytest.mark.packages


def row(seed: int, budget: str, loss: float | None) -> Row:
    return Row(
        package="timm",
        version="1",
        seed=seed,
        budget=budget,
        epochs=2,
        loss=loss,
        steps=10,
        search_steps=0 if budget == OWN else 15,
        seconds=1.0,
        chosen="its own" if budget == OWN else "adam",
    )


def test_the_committed_page_says_what_was_measured() -> None:
    assert PAGE.read_text("utf-8") == page(measured(FOLDER))


def test_a_measurement_runs_nothing_twice(tmp_path: Path) -> None:
    measure(importable()[:1], [0], [], [1], tmp_path)
    first = measured(tmp_path)

    measure(importable()[:1], [0], [], [1], tmp_path)

    assert len(first) == 1
    assert measured(tmp_path) == first


def test_differences_are_those_of_the_same_seed() -> None:
    rows = [row(0, OWN, 1.0), row(0, DEFAULT, 0.5), row(1, OWN, 3.0), row(1, DEFAULT, 3.5)]

    (found,) = compared(rows)

    assert found.differences == [-0.5, 0.5]
    assert found.error == pytest.approx(0.5)
    assert found.search == 1.5
    assert found.row == "| timm | 10 | default | 2 | 2 | 2 | +0 | 0.5 | 1 / 1 | 0 | 1.5 |"


def test_what_ended_in_an_error_is_named_and_not_compared() -> None:
    rows = [row(0, OWN, 1.0), row(0, DEFAULT, None)]

    assert compared(rows) == []
    assert "- timm, 2 epochs, seed 0, default ended in an error: adam" in page(rows)

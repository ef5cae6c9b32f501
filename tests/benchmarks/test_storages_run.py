"""The benchmark of the storages runs and makes its table. No time is asserted."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.storages import BEGINS, ENDS, PAGE, Scale, measure, storages, table


@pytest.mark.slow
def test_the_table_has_a_row_for_every_storage(postgres: object, tmp_path: Path) -> None:
    scale = Scale(trials=3, workers=2, reports=2, loaded=5)

    with storages(tmp_path) as kinds:
        told = table(scale, [measure(name, new, scale) for name, new in kinds.items()])

    for name in ("journal", "SQLite", "PostgreSQL", "gRPC over PostgreSQL"):
        assert f"\n| {name} | " in told


def test_the_page_has_a_place_for_the_table() -> None:
    begins, ends = (PAGE.read_text().index(mark) for mark in (BEGINS, ENDS))

    assert begins < ends

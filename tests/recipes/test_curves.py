"""Recorded curves: whole trainings, judged on the way, that are run once; and the package's own record of its tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optselect.configuration import Configuration
from optselect.recipes.bench import curves
from optselect.recipes.bench.curves import Curve
from optselect.recipes.bench.strange import STRANGE
from optselect.recipes.bench.task import Splits, Task
from optselect.recipes.bench.tasks import TASKS, UNSEEN
from optselect.recipes.bench.training import Lines, configured, train
from optselect.recipes.cli.commands import main

DIGITS = TASKS["digits"].lasting(6)
RECORDED: Mapping[str, Task] = {**TASKS, **UNSEEN, **STRANGE}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Splits:
    return DIGITS.splits(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def folder(data: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a record of one short task."""
    folder = tmp_path_factory.mktemp("record")
    curves.record(DIGITS, data, 0, Lines(folder / curves.FILE), say=lambda _: None)
    return folder


@pytest.fixture(scope="module")
def short(folder: Path) -> dict[str, Curve]:
    return {curve.label: curve for curve in curves.read(folder)}


@pytest.fixture(scope="module")
def packed() -> list[Curve]:
    return curves.read()


# --- to record --------------------------------------------------------------------------------------------


def test_a_record_that_was_stopped_goes_on_where_it_was_and_runs_nothing_twice(
    folder: Path, data: Splits, tmp_path: Path
) -> None:
    rows = (folder / curves.FILE).read_text().splitlines(keepends=True)
    (tmp_path / curves.FILE).write_text("".join(rows[:-2]) + rows[-2][:40])
    ran: list[str] = []

    curves.record(DIGITS, data, 0, Lines(tmp_path / curves.FILE), say=ran.append)

    again = (tmp_path / curves.FILE).read_text().splitlines()
    assert len(ran) == 2
    assert [untimed(json.loads(row)) for row in again] == [untimed(json.loads(row)) for row in rows]


def untimed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "seconds_per_step"}


def test_the_arms_of_the_race_are_recorded_with_other_rates_of_the_baseline_and_neighbours(
    short: Mapping[str, Curve],
) -> None:
    (baseline,) = (curve for curve in short.values() if curve.baseline)

    rates = {label: curve.rate for label, curve in short.items()}

    assert {"arm0", "arm1", "arm2", "own x3.16", "own x10", "own x0.316", "arm2 x3.16"} <= rates.keys()
    assert rates["own x10"] == pytest.approx(10 * (baseline.rate or 0))
    assert len({(curve.describe, curve.schedule, curve.rate) for curve in short.values()}) == len(short)


def test_a_training_is_judged_at_every_fraction_and_untrained(short: Mapping[str, Curve]) -> None:
    curve = short["arm0"]

    assert list(curve.values) == [0, 1, 2, 3, 4, 5, 6]
    assert curve.weights == (64, 64, 64, 64, 44)
    assert curve.at(1.0) == curve.at(0.99)
    assert curve.untrained == short["arm1"].untrained


def test_looks_on_the_way_do_not_change_a_training(short: Mapping[str, Curve], data: Splits) -> None:
    (baseline,) = (curve for curve in short.values() if curve.baseline)
    alone = configured(Configuration(optimizer="adamw", hyperparameters={"lr": 1e-3, "weight_decay": 0.01}))

    run = train(DIGITS, data, alone, seed=0)

    assert baseline.test == pytest.approx(run.test, rel=1e-3)


def test_a_curve_ends_where_its_loss_is_no_number(short: Mapping[str, Curve]) -> None:
    whole = short["arm0"]

    ended = replace(whole, values={step: of for step, of in whole.values.items() if step <= 3}, test=None)

    assert ended.at(0.5) == whole.at(0.5)
    assert ended.at(1.0) is None


def test_a_record_survives_packing(folder: Path, tmp_path: Path) -> None:
    rows = Lines(folder / curves.FILE).rows
    for name in ("one.gz", "other.gz"):
        curves.pack(rows, tmp_path / name)

    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "other.gz").read_bytes()
    assert [curve.to_dict() for curve in curves.read(folder)] == rows


def test_the_command_records_and_packs(tmp_path: Path) -> None:
    line = ["bench", "--curves", "--tiny", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]

    status = main(line)

    assert status == 0
    assert (tmp_path / "out" / curves.PACKED).exists()
    assert {curve.task for curve in curves.read(tmp_path / "out")} == {"digits"}


# --- the package's own ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDED)
def test_the_packages_record_is_of_the_tasks_as_they_are(name: str, packed: list[Curve]) -> None:
    task = RECORDED[name]
    own = [curve for curve in packed if curve.task == name]

    assert {curve.seed for curve in own} == {0, 1}
    assert {(curve.steps, curve.batch_size) for curve in own} == {(task.steps, task.batch_size)}
    assert {sum(curve.weights) for curve in own} == {task.sizes[1]}


def test_every_search_of_the_packages_record_has_one_baseline_and_all_fractions(packed: list[Curve]) -> None:
    searches = {(curve.task, curve.seed) for curve in packed}
    ended = [curve for curve in packed if curve.test is not None]

    assert sorted((curve.task, curve.seed) for curve in packed if curve.baseline) == sorted(searches)
    assert all(curve.at(fraction) is not None for curve in ended for fraction in curves.FRACTIONS)

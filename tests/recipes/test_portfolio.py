"""`optselect portfolio`: what is recorded, what is made of it, and how it is judged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
import torch

from optselect.profile import Profile
from optselect.recipes.cli.commands import main
from optselect.recipes.portfolio import build, judge, record
from optselect.recipes.portfolio.build import Outcome
from optselect.recipes.portfolio.grid import AT_LENGTH, BASELINE, GRID, SPARSE, points_of
from optselect.recipes.portfolio.record import Job, Training, profiles_missing, trainings_missing
from optselect.recipes.portfolio.workloads import LONGER, WORKLOADS
from optselect.rules.portfolio import FILE, portfolio
from optselect.testing import PROFILES

PERCEPTRON = PROFILES["small perceptron"]
MUON = "muon 0.01 cosine"


def training(point: str, test: float | None, workload: str = "ring", *, values: tuple[float, ...] = (2.0,)) -> Training:
    return Training(job=Job(workload=workload, point=point), values=values, test=test, seconds=0.001)


def outcome(name: str, family: str, losses: Mapping[str, float | None], profile: Profile = PERCEPTRON) -> Outcome:
    """Every point ends at 1.0 unless told otherwise, and looks like its end all along."""
    ends = {point: losses.get(point, 1.0) for point in GRID}
    trainings = {
        point: training(point, end, name, values=(2.0, *([end] * 20 if end is not None else [])))
        for point, end in ends.items()
    }
    return Outcome(name=name, family=family, length=1, profile=profile, trainings=trainings)


# --- the workloads


def test_there_are_enough_workloads_of_enough_families() -> None:
    assert (len(WORKLOADS) >= 48, len({task.family for task in WORKLOADS.values()}) >= 14) == (True, True)


def test_a_third_of_the_workloads_is_recorded_at_other_lengths() -> None:
    assert set(LONGER) <= set(WORKLOADS)
    assert len(LONGER) >= len(WORKLOADS) / 3


def test_points_have_names_of_their_own_and_are_many() -> None:
    assert all(point.name == name for name, point in {**GRID, **SPARSE}.items())
    assert len(GRID) >= 24


def test_momentum_is_not_recorded_on_sparse_gradients() -> None:
    assert [name for name in points_of(sparse=True) if name.startswith("momentum")] == []


def test_what_is_recorded_at_other_lengths_is_recorded_at_its_own() -> None:
    assert {point for points in AT_LENGTH.values() for point in points} <= set(GRID)


# --- what is missing


def test_nothing_that_is_known_is_missing() -> None:
    known = [training(point, 1.0) for point in GRID]

    missing = trainings_missing(known, ["ring"], sparse=())

    assert {job.seed for job in missing} == {1}


def test_the_best_quarter_is_trained_with_a_second_seed() -> None:
    known = [training(point, float(place)) for place, point in enumerate(GRID)]

    again = [job.point for job in trainings_missing(known, ["ring"], sparse=())]

    assert again == [*GRID][: -(-len(GRID) // 4)]


def test_profiles_are_measured_at_each_length() -> None:
    missing = profiles_missing([], ["satellite", "ring"])

    assert [(job.workload, job.length) for job in missing] == [
        ("satellite", 1),
        ("ring", 1),
        *(("satellite", length) for length in AT_LENGTH),
    ]


def test_a_training_is_json_both_ways() -> None:
    known = training(MUON, 0.25, values=(2.0, 1.5))

    assert Training.from_dict(json.loads(json.dumps(known.to_dict()))) == known


# --- to record


def test_a_workload_is_recorded_from_scratch_and_not_twice(tmp_path: Path) -> None:
    said: list[str] = []
    points = [BASELINE.name, MUON]

    for _ in range(2):
        record.record(tmp_path, names=["libras"], points=points, say=said.append)

    (found,) = build.read(tmp_path)
    assert set(found.trainings) == set(points)
    assert {len(each.values) for each in found.trainings.values()} == {21}
    assert len([line for line in said if "seed" in line]) == len(points)


def test_what_was_packed_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"workload": "ring", "length": 1, "seed": 0, "point": "", "family": "tables", "profile": PERCEPTRON.to_dict()}
    known = training(BASELINE.name, 0.5)
    record.pack([row], [known.to_dict()], tmp_path / record.PACKED)
    monkeypatch.setattr(resources, "files", lambda _: tmp_path)

    (found,) = build.read()

    assert (found.name, found.family, found.profile, dict(found.trainings)) == (
        "ring",
        "tables",
        PERCEPTRON,
        {BASELINE.name: known},
    )


def test_equal_rows_in_any_order_make_equal_files(tmp_path: Path) -> None:
    rows = [training(point, 0.5).to_dict() for point in GRID]
    for name, order in (("one", rows), ("other", rows[::-1])):
        record.pack([], order, tmp_path / name)

    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


# --- to build


def test_the_best_has_no_regret_and_the_baseline_has_one() -> None:
    found = outcome("ring", "tables", {MUON: 0.5, BASELINE.name: 1.5})

    assert (found.regret(MUON), found.regret(BASELINE.name), found.regret("adamw 0.01 cosine")) == (0.0, 1.0, 0.5)


def test_what_diverges_is_as_bad_as_the_untrained_model() -> None:
    found = outcome("ring", "tables", {MUON: None})

    assert found.loss(MUON) == found.untrained


def test_a_gap_that_is_mostly_noise_counts_as_a_fiftieth_of_what_was_learned() -> None:
    found = outcome("ring", "tables", {MUON: 0.9999, BASELINE.name: 1.0})

    assert found.regret(BASELINE.name) == pytest.approx(0.0001 / (0.02 * 1.0001))


def test_a_workload_that_was_not_run_with_every_point_does_not_count() -> None:
    whole = outcome("ring", "tables", {MUON: 0.5})
    part = replace(whole, name="spam", trainings={BASELINE.name: whole.trainings[BASELINE.name]})

    assert [each.name for each in build.build([whole, part]).trainings] == ["ring"]


def test_the_package_s_portfolio_is_rebuilt_out_of_the_records_byte_for_byte(tmp_path: Path) -> None:
    build.write(build.build(build.read()), tmp_path / FILE)

    assert (tmp_path / FILE).read_bytes() == (resources.files("optselect.rules") / FILE).read_bytes()


def test_the_records_are_small() -> None:
    file = resources.files("optselect.recipes.portfolio") / record.PACKED

    assert len(file.read_bytes()) < 3_000_000


# --- to judge

ALIKE = [
    outcome(name, family, {MUON: 0.2, BASELINE.name: 1.2})
    for name, family in (("ring", "tables"), ("spam", "tables"), ("adding", "recurrent"), ("chain", "language"))
]


def test_no_workload_is_judged_by_its_own_family() -> None:
    seen: list[tuple[str, set[str]]] = []

    def way(known: Sequence[Outcome]) -> judge.Order:
        def order(each: Outcome) -> list[str]:
            seen.append((each.family, {other.family for other in known}))
            return [MUON]

        return order

    judge.judged(ALIKE, {"spying": way})

    assert len(seen) == len(ALIKE)
    assert [family for family, others in seen if family in others] == []


@pytest.mark.parametrize("way", [judge.greedy, judge.neighbours, judge.gaussian])
def test_what_is_best_everywhere_comes_first(way: judge.Way) -> None:
    assert way(ALIKE[1:])(ALIKE[0])[0] == MUON


@pytest.mark.parametrize("design", judge.DESIGNS, ids=lambda design: str(design.budget))
def test_what_leads_all_along_is_chosen(design: judge.Design) -> None:
    assert judge.chosen(ALIKE[0], [MUON, "adamw 0.01 cosine"], design) == MUON


def test_a_look_on_the_way_ends_it_where_the_lead_is_sure() -> None:
    design = judge.Design(budget=1.0, stages=((1, 0.5),), look=0.25)

    (score,) = judge.judged(ALIKE, {"muon": lambda _: lambda _: [MUON]}, [design])

    assert (score.early, score.spent) == (1.0, 0.5)


@pytest.mark.parametrize("design", judge.DESIGNS[1:], ids=lambda design: str(design.budget))
def test_what_leads_nowhere_leaves_the_baseline(design: judge.Design) -> None:
    behind = outcome("ring", "tables", {BASELINE.name: 0.5})

    assert judge.chosen(behind, [MUON, "adamw 0.01 cosine"], design) == BASELINE.name


def test_a_configuration_of_the_rules_is_the_nearest_point_of_its_optimizer() -> None:
    assert judge.nearest(GRID["muon 0.01 wsd"].configuration(100).at_rate(0.012)) == MUON


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    with torch.random.fork_rng():
        main(["portfolio", "judge"])

    assert "| neighbours | 0 |" in capsys.readouterr().out
    assert portfolio().trainings

"""The calibration: its constants are found again, and what it calls sure is so on families it was not fitted on."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from optselect.recipes.bench import calibration, curves, plot
from optselect.recipes.bench.calibration import DESIGNS, FAMILIES, FITTED_ON, OTHERS, Count, Sighting
from optselect.recipes.bench.calibration_tables import (
    FRACTIONS,
    KINDS,
    Calibration,
    budgets,
    sure_calls,
    tables,
)
from optselect.recipes.bench.calibration_tables import calibration as calibration_of
from optselect.recipes.bench.curves import Curve
from optselect.recipes.cli.commands import main
from optselect.search.forecast import PREFIX_ERROR, PrefixError, prefix_error
from optselect.search.lead import Lead
from optselect.settings import RISK

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "calibration.md"
LEAD = Lead(rung=25, values=(1.0, 0.95), difference=0.05, error=0.01, progress=(0.95, 1.0))
SIGHTING = Sighting(task="digits", seed=0, label="arm2", fraction=0.25, lead=LEAD, end=0.05, noise_end=0.01)
BASE = Curve(
    task="digits",
    seed=0,
    label="arm1",
    baseline=True,
    optimizer="adamw",
    rate=1e-3,
    schedule="constant",
    describe="adamw",
    steps=100,
    batch_size=10,
    passes=1.0,
    seconds_per_step=0.0,
    weights=(10.0, 10.0),
    values={},
    test=1.0,
)


@pytest.fixture(scope="module")
def found() -> Calibration:
    """The calibration on the package's own record."""
    return calibration_of(curves.read())


def field(**losses: tuple[float, float]) -> calibration.Field:
    """One task: what each label is judged at on the way, and its test loss; the untrained model is at 2."""
    steps = [curves.step_at(fraction, 100) for fraction in curves.FRACTIONS]
    made = {
        label: replace(
            BASE,
            label=label,
            baseline=label == "arm1",
            values={0: (1.9, 2.1), **dict.fromkeys(steps, (value - 0.001, value + 0.001 * (label != "arm1")))},
            test=test,
        )
        for label, (value, test) in losses.items()
    }
    return calibration.fields(made.values())[0]


def drawn(label: str, errors: PrefixError) -> list[Sighting]:
    """Draw looks at a rival that end as `errors` has it."""
    draw, seen = random.Random(0), []
    for _ in range(20_000):
        fraction, noise, share = draw.choice(calibration.FITTED_AT), 0.005, draw.uniform(0.0, 0.2)
        spread = math.hypot(noise, prefix_error(fraction, first_choice=label == "arm0", of=errors))
        lead = replace(LEAD, difference=share, error=noise)
        end = share + draw.gauss(0.0, spread)
        seen.append(replace(SIGHTING, label=label, fraction=fraction, lead=lead, end=end, noise_end=noise))
    return seen


# --- the model --------------------------------------------------------------------------------------------


def test_the_score_that_is_fitted_is_that_of_the_chances_the_search_goes_by() -> None:
    seen = [each for label in ("arm0", "arm2") for each in drawn(label, PREFIX_ERROR)[:500]]

    score = calibration.brier_scores(seen, [PREFIX_ERROR])[0]

    assert score == pytest.approx(
        statistics.fmean((calibration.sureness(each, PREFIX_ERROR) - (not each.behind)) ** 2 for each in seen)
    )


def test_the_first_choice_is_judged_by_its_own_constant() -> None:
    rival, first = (replace(SIGHTING, label=label, fraction=0.05) for label in ("arm2", "arm0"))

    chances = [calibration.sureness(each, PREFIX_ERROR) for each in (rival, first)]

    assert chances[0] < chances[1]


def test_a_baseline_that_has_lost_makes_no_lead_larger_than_all() -> None:
    lost = replace(LEAD, values=(9.0, 2.0), difference=7.0, progress=(-6.9, 0.1))

    assert replace(SIGHTING, lead=lost).share == pytest.approx(1.0)


@pytest.mark.parametrize("wrong, total, interval", [(0, 10, (0.0, 0.2775)), (1, 10, (0.0179, 0.4042))])
def test_an_interval_is_wilsons(wrong: int, total: int, interval: tuple[float, float]) -> None:
    assert Count(wrong=wrong, of=total).interval == pytest.approx(interval, abs=1e-4)


# --- to fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["arm0", "arm2"])
@pytest.mark.parametrize("constant", [0.01, 0.03])
def test_a_constant_is_found_again(label: str, constant: float) -> None:
    # So large a one of any rival that the first choice's own is the less at every fraction.
    errors = PrefixError(any_rival=1.0 if label == "arm0" else constant, first_choice=constant)

    fitted = calibration.fit([*drawn("arm2", errors), *drawn("arm0", errors)])

    assert (fitted.first_choice if label == "arm0" else fitted.any_rival) == pytest.approx(constant, rel=0.25)


def test_every_task_is_of_one_family() -> None:
    named = [task for tasks in FAMILIES.values() for task in tasks]

    assert sorted(named) == sorted([*FITTED_ON, *OTHERS])


def test_no_task_is_judged_by_constants_of_its_own_family(found: Calibration) -> None:
    tables_alone = calibration.without(found.seen, FAMILIES["tables"])

    assert found.by_task["letter"] == calibration.fit(tables_alone)


# --- to choose --------------------------------------------------------------------------------------------

DESIGN = DESIGNS[2]


@pytest.mark.parametrize(
    "losses, choice",
    [
        ({"arm0": (1.0, 1.0), "arm1": (1.0, 1.0)}, None),
        ({"arm0": (0.5, 1.0), "arm1": (1.0, 1.0)}, "arm0"),
        ({"arm0": (0.5, 1.0), "arm1": (1.0, 1.0), "arm2": (0.49, 1.0)}, "arm0"),
        ({"arm0": (0.5, 1.0), "arm1": (1.0, 1.0), "arm2": (0.1, 1.0)}, "arm2"),
    ],
)
def test_a_later_rival_takes_the_place_only_where_it_is_apart(
    losses: Mapping[str, tuple[float, float]], choice: str | None
) -> None:
    made = calibration.choose(field(**losses), DESIGN, PREFIX_ERROR)

    assert made.label == choice


def test_the_baseline_goes_to_the_end_with_the_leader() -> None:
    losses = {"arm0": (0.5, 0.5), "arm1": (1.5, 1.5), "arm2": (0.6, 0.6), "arm3": (0.7, 0.7), "arm4": (0.8, 0.8)}

    made = calibration.choose(field(**losses), DESIGNS[3], PREFIX_ERROR)

    assert made.end is not None
    assert (made.label, made.end.fraction) == ("arm0", 1.0)


# --- on the package's record ------------------------------------------------------------------------------


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: f"{design.budget:g}")
def test_of_choices_by_constants_that_never_saw_the_family_no_more_end_behind_than_the_risk(
    design: calibration.Design, found: Calibration
) -> None:
    count = budgets(found, found.unseen)[design]

    assert count.interval[0] <= RISK


_EARLY = pytest.mark.xfail(
    strict=True, reason="over all rivals early calls are too sure: docs/reference/calibration.md"
)


@pytest.mark.parametrize(
    "kind, fraction",
    [
        *((kind, fraction) for kind in KINDS[1:] for fraction in FRACTIONS),
        *(pytest.param(KINDS[0], each, marks=[_EARLY] if each in (0.02, 0.125, 0.25) else []) for each in FRACTIONS),
    ],
)
def test_of_sure_calls_by_constants_that_never_saw_the_family_no_more_end_behind_than_the_risk(
    kind: str, fraction: float, found: Calibration
) -> None:
    count = sure_calls(found, found.unseen, kind)[fraction]

    assert count.interval[0] <= RISK


@pytest.mark.parametrize("first_choice", [False, True], ids=["C", "C1"])
def test_the_packages_constants_score_as_those_that_fit_best(first_choice: bool, found: Calibration) -> None:
    seen = [each for each in found.seen if each.is_first == first_choice]

    package, fitted = calibration.brier_scores(seen, [PREFIX_ERROR, calibration.fit(found.seen)])

    assert package == pytest.approx(fitted, rel=0.005)


def test_the_page_shows_what_the_packages_record_gives(found: Calibration) -> None:
    page = PAGE.read_text("utf-8")

    missing = [title for title, table in tables(found).items() if table not in page]

    assert missing == []


def test_the_command_writes_tables_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["bench", "--calibration", "--out", str(tmp_path)])

    assert status == 0
    assert "| left out | C, home and unseen |" in capsys.readouterr().out
    assert (tmp_path / "calibration.md").exists()


def test_the_picture_is_drawn_where_matplotlib_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")

    plot.reliability({"other kinds": [(0.7, Count(wrong=3, of=10)), (0.97, Count(wrong=0, of=9))]}, tmp_path / "a.svg")

    assert "other kinds" in (tmp_path / "a.svg").read_text()


def test_a_record_with_nothing_to_check_on_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / curves.FILE).write_text("")

    status = main(["bench", "--calibration", "--out", str(tmp_path)])

    assert status == 2
    assert "--curves --tasks digits other" in capsys.readouterr().err

"""The calibration: its constants are found again, and what it calls sure is so on tasks it was not fitted on."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from optselect.recipes.bench import calibration, curves, plot
from optselect.recipes.bench.calibration import DESIGNS, FAMILIES, FITTED_ON, OTHERS, Constants, Count, Sighting
from optselect.recipes.bench.calibration_tables import (
    FRACTIONS,
    Calibration,
    budgets,
    sure_calls,
    tables,
)
from optselect.recipes.bench.calibration_tables import calibration as calibration_of
from optselect.recipes.bench.curves import Curve
from optselect.recipes.cli.commands import main

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "calibration.md"
SIGHTING = Sighting(
    task="digits", seed=0, label="arm2", fraction=0.25, share=0.05, noise=0.01, end=0.05, noise_end=0.01
)
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


# --- the model --------------------------------------------------------------------------------------------


def test_a_chance_is_even_where_a_rival_is_behind_by_its_noise_and_grows_with_the_lead() -> None:
    chances = [calibration.sureness(replace(SIGHTING, share=share), Constants(drift=0.02)) for share in (0.01, 0.1)]

    assert 0.5 < chances[0] < chances[1] < 1


def test_what_does_not_lead_is_never_sure() -> None:
    assert calibration.sureness(replace(SIGHTING, share=0.0), Constants(drift=0.02)) == 0


def test_a_later_look_is_surer() -> None:
    looks = [replace(SIGHTING, fraction=fraction) for fraction in (0.02, 0.25, 1.0)]

    chances = [calibration.sureness(look, Constants(drift=0.02)) for look in looks]

    assert chances == sorted(chances)


def test_a_prior_speaks_for_the_first_choice_alone_and_the_less_the_surer_a_look_is() -> None:
    constants = Constants(drift=0.02, prior=(0.05, 0.05))
    early, late = (replace(SIGHTING, label="arm0", share=0.2, fraction=fraction) for fraction in (0.02, 0.75))

    means = [calibration.expected(look, constants)[0] for look in (early, late, replace(early, label="arm2"))]

    assert means[0] < means[1] < means[2] == 0.2


def test_the_search_judges_by_the_model_that_is_calibrated() -> None:
    forecast = pytest.importorskip("optselect.search.forecast")
    lead = pytest.importorskip("optselect.search.lead").Lead(
        rung=25, values=(1.0, 0.9), difference=0.1, error=0.02, progress=(1.9, 2.0)
    )
    look = replace(SIGHTING, share=0.1 / 2.0, noise=0.02 / 2.0)

    chance = forecast.chance_behind(lead, look.fraction)

    assert chance == pytest.approx(1 - calibration.sureness(look, Constants(drift=forecast.PREFIX_ERROR)))


@pytest.mark.parametrize("wrong, total, interval", [(0, 10, (0.0, 0.2775)), (1, 10, (0.0179, 0.4042))])
def test_an_interval_is_wilsons(wrong: int, total: int, interval: tuple[float, float]) -> None:
    assert Count(wrong=wrong, of=total).interval == pytest.approx(interval, abs=1e-4)


# --- to fit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drift", [0.01, 0.03])
def test_a_drift_is_found_again(drift: float) -> None:
    draw = random.Random(0)
    seen = []
    for _ in range(20_000):
        fraction, noise = draw.choice(calibration.FITTED_AT), 0.005
        share = draw.uniform(0.0, 0.2)
        end = share + draw.gauss(0.0, math.hypot(noise, drift * (1 - fraction) / fraction))
        seen.append(replace(SIGHTING, fraction=fraction, share=share, noise=noise, end=end, noise_end=noise))

    assert calibration.fitted_drift(seen) == pytest.approx(drift, rel=0.25)


def test_a_prior_is_the_median_of_the_first_choices_ends() -> None:
    ends = [replace(SIGHTING, label="arm0", fraction=1.0, share=share) for share in (0.0, 0.1, 0.2, 9.0)]

    assert calibration.fitted_prior([*ends, replace(SIGHTING, fraction=1.0, share=5.0)]) == pytest.approx(
        (0.15, 0.1 * 1.4826)
    )


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
    made = calibration.choose(field(**losses), DESIGN, Constants(drift=0.02))

    assert made.label == choice


def test_the_baseline_goes_to_the_end_with_the_leader() -> None:
    losses = {"arm0": (0.5, 0.5), "arm1": (1.5, 1.5), "arm2": (0.6, 0.6), "arm3": (0.7, 0.7), "arm4": (0.8, 0.8)}

    made = calibration.choose(field(**losses), DESIGNS[3], Constants(drift=0.02))

    assert made.end is not None
    assert (made.label, made.end.fraction) == ("arm0", 1.0)


# --- on the package's record ------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_of_what_is_sure_on_tasks_that_nothing_was_fitted_on_no_more_ends_behind_than_the_risk(
    fraction: float, found: Calibration
) -> None:
    count = sure_calls(found, found.trials()[0])[fraction]

    assert count.interval[0] <= calibration.RISK


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: f"{design.budget:g}")
def test_of_choices_on_tasks_that_nothing_was_fitted_on_no_more_end_behind_than_the_risk(
    design: calibration.Design, found: Calibration
) -> None:
    count = budgets(found, found.trials()[0])[design]

    assert count.interval[0] <= calibration.RISK


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

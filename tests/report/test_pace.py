"""How long a step took beside the baseline's, in the tables of trials."""

from __future__ import annotations

from dataclasses import replace

from optselect import OptimizerPlan
from optselect.report.page import as_html
from optselect.report.trials import is_baseline, relative_pace
from tests.support.plans import searched


def timed(own: float | None, base: float | None) -> OptimizerPlan:
    plan = searched()
    trials = (replace(trial, pace=base if is_baseline(plan, trial) else own) for trial in plan.trials)
    return replace(plan, trials=tuple(trials))


def cells(plan: OptimizerPlan) -> set[tuple[bool, str]]:
    return {(is_baseline(plan, trial), relative_pace(plan, trial)) for trial in plan.trials}


def test_a_step_is_measured_by_the_baselines() -> None:
    assert cells(timed(0.014, 0.01)) == {(True, "1.0 ×"), (False, "1.4 ×")}
    assert cells(timed(0.25, 0.01)) == {(True, "1.0 ×"), (False, "25 ×")}
    assert cells(timed(0.005, 0.01)) == {(True, "1.0 ×"), (False, "0.5 ×")}


def test_what_is_not_known_is_an_empty_cell() -> None:
    assert cells(timed(None, 0.01)) == {(True, "1.0 ×"), (False, "")}
    assert cells(timed(0.014, None)) == {(True, ""), (False, "")}
    assert cells(timed(0.014, 0.0)) == {(True, ""), (False, "")}


def test_both_tables_show_it() -> None:
    plan = timed(0.014, 0.01)
    tried = [trial.configuration.describe() for trial in plan.trials if not is_baseline(plan, trial)]

    said = plan.explain().splitlines()

    assert all(any("1.4 ×" in line and words[:20] in line for line in said) for words in tried)
    assert as_html(plan).count("1.4 ×") == len(tried)


def test_the_text_has_no_room_for_it_where_nothing_is_known() -> None:
    plan = timed(None, None)

    assert "×" not in "".join(line for line in plan.explain().splitlines() if "after" in line and "micro" not in line)

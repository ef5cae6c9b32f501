"""What a notebook shows of a plan and a profile, and what `print` does."""

from __future__ import annotations

import html

from optselect.report.explanation import because, headline
from tests.support.plans import searched


def test_a_plan_shows_its_choice_its_reasons_and_its_groups() -> None:
    plan = searched()

    page = html.unescape(plan._repr_html_())

    assert headline(plan) in page
    assert all(reason.text in page for reason in because(plan))
    assert all(f">{group.name}</td>" in page for group in plan.param_groups)


def test_the_short_form_of_a_plan_and_of_a_profile_is_one_line() -> None:
    plan = searched()

    assert repr(plan).startswith(f"OptimizerPlan({plan.configuration.describe()}")
    assert repr(plan).endswith(f"{len(plan.trials)} trials)")
    assert plan.profile is not None
    assert f"{plan.profile.model.parameters:,} parameters" in repr(plan.profile)
    assert "\n" not in repr(plan) + repr(plan.profile)


def test_a_profile_shows_its_lines_as_a_table() -> None:
    profile = searched().profile
    assert profile is not None

    page = profile._repr_html_()

    assert all(f">{title}</th>" in page for title in ("data", "targets", "model", "gradients", "training"))

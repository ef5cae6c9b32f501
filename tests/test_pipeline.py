"""The whole choice on a plain PyTorch training."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optselect import Budget, OptimizerPlan
from optselect.configuration import USER
from optselect.configuration.policy import FineTuning
from optselect.errors import (
    BudgetError,
    ConfigurationError,
    MissingExtraError,
    SearchError,
    StorageError,
    UnknownOptimizerError,
    UnsupportedModuleError,
)
from optselect.pipeline import make_selection
from optselect.search.progress import Silent
from optselect.settings import Settings
from optselect.workload.rng import rng_state
from tests.support.searches import Meter, choose, training
from tests.support.small import net

# --- candidates -----------------------------------------------------------------------------


def test_only_the_candidates_and_the_baseline_are_tried() -> None:
    plan = choose(training(), Budget(steps=200), candidates=["sgd", "momentum"])

    assert {trial.configuration.optimizer for trial in plan.trials} == {"sgd", "momentum", "adamw"}


def hopeless(model: nn.Module) -> Any:
    return torch.optim.SGD(model.parameters(), lr=1e-9), None


def test_the_users_optimizer_gives_way_to_one_that_beats_it() -> None:
    plan = choose(training(user_optimizer=hopeless), Budget(steps=150))

    assert plan.optimizer != USER
    assert "yours: SGD lr=1e-09" in " ".join(map(str, plan.reasons))
    assert any(trial.configuration.optimizer == USER for trial in plan.trials)


def test_the_users_optimizer_stays_when_it_is_the_only_one_that_runs() -> None:
    def mine(model: nn.Module) -> Any:
        return torch.optim.AdamW(model.parameters(), lr=0.02), None

    class Tied(nn.Module):
        """Learns the same whatever the optimizer: nothing."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, inputs: Tensor) -> Tensor:
            return inputs[:, :3] + 0.0 * self.weight

    plan = choose(training(model=Tied(), user_optimizer=mine), Budget(steps=150))

    assert plan.optimizer == USER
    assert plan.param_groups == ()
    assert plan.reasons


def test_the_users_optimizer_stays_until_the_budget_pays_for_a_comparison() -> None:
    for limit in range(1, 24):
        plan = choose(training(user_optimizer=hopeless), Budget(steps=limit))

        judged = {trial.configuration.optimizer == USER for trial in plan.trials if trial.value is not None}
        assert plan.optimizer == USER or judged == {True, False}


def test_the_user_is_a_candidate_only_with_an_optimizer() -> None:
    with pytest.raises(ConfigurationError, match="brings no optimizer of its own"):
        choose(training(), candidates=["user", "sgd"])


# --- bad input ------------------------------------------------------------------------------

BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "negative": ({"budget": -1}, BudgetError, "0 or more"),
    "text": ({"budget": "much"}, BudgetError, "'much'"),
    "unknown": ({"candidates": ["loin"]}, UnknownOptimizerError, "Did you mean 'lion'"),
    "bare": ({"candidates": "sgd"}, ConfigurationError, r"write \['sgd'\]"),
    "empty": ({"candidates": []}, ConfigurationError, "empty"),
    "rules": ({"rules": "modern"}, ConfigurationError, "modern"),
    "forbidden": ({"candidates": ["sparse_adam"]}, UnsupportedModuleError, "sparse_adam"),
    "storage": ({"storage": "/proc/none/study.journal"}, StorageError, "/proc/none"),
}


@pytest.mark.parametrize("options, error, words", BAD.values(), ids=BAD.keys())
def test_bad_input_is_a_named_error_and_changes_nothing(
    options: dict[str, Any], error: type[Exception], words: str
) -> None:
    model = net()
    before, state = [tensor.clone() for tensor in model.state_dict().values()], rng_state()

    with pytest.raises(error, match=words):
        choose(training(model=model), **options)

    assert all(map(torch.equal, model.state_dict().values(), before))
    assert torch.equal(rng_state().torch, state.torch)
    assert model.calls == 0


@pytest.mark.parametrize("name", ["negative", "text", "unknown", "bare", "empty", "rules"])
def test_what_cannot_be_meant_is_refused_before_anything_runs(name: str) -> None:
    meter = Meter()
    options, error, _ = BAD[name]

    with pytest.raises(error):
        choose(training(meter), **options)

    assert meter.cost == 0


def test_an_optimizer_whose_package_is_missing_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pytorch_optimizer", None)

    with pytest.raises(MissingExtraError, match=r"optselect\[plugins\]"):
        choose(training(), candidates=["lion"])


# --- trials that fail -----------------------------------------------------------------------


class Boom(Exception):  # noqa: N818  # stands for the user's own
    """The model's own."""


class Sensitive(nn.Module):
    """Raises once a weight has moved by more than so much."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        nn.init.zeros_(self.layer.weight)
        self.limit = limit

    def forward(self, inputs: Tensor) -> Tensor:
        if float(self.layer.weight.detach().abs().max()) > self.limit:
            raise Boom("too far")
        output: Tensor = self.layer(inputs)
        return output


def test_an_exception_that_hits_every_trial_is_raised_as_it_is() -> None:
    model = Sensitive(limit=0.0)
    state = rng_state().torch

    with pytest.raises(Boom, match="too far"):
        choose(training(model=model))

    assert not model.layer.weight.any()
    assert torch.equal(rng_state().torch, state)


@pytest.mark.parametrize("limit", [15, 30, 60, 100])
def test_it_is_raised_as_it_is_however_few_trials_the_budget_pays_for(limit: int) -> None:
    meter = Meter()

    with pytest.raises(Boom):
        choose(training(meter, model=Sensitive(limit=0.0)), Budget(steps=limit))

    assert meter.cost <= limit


def test_an_exception_at_the_first_batch_is_raised_as_it_is() -> None:
    with pytest.raises(Boom):
        choose(training(Meter(raises={1: Boom()})))


def test_an_exception_of_some_trials_fails_these_and_the_search_goes_on() -> None:
    meter = Meter()

    plan = choose(training(meter, model=Sensitive(limit=0.3)), Budget(steps=300))

    failed = [trial for trial in plan.trials if "Boom" in trial.note]
    assert failed
    assert len(failed) < len(plan.trials)
    assert all(trial.value is None for trial in failed)
    assert plan.configuration not in [trial.configuration for trial in failed]
    assert meter.cost <= 300


class Fragile(nn.Module):
    """Gives NaN once a weight has moved too far."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        nn.init.zeros_(self.layer.weight)
        self.limit = limit

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.layer(inputs)
        return output * torch.nan if float(self.layer.weight.detach().abs().max()) > self.limit else output


def test_a_trial_whose_loss_is_not_finite_has_diverged_and_is_not_chosen() -> None:
    plan = choose(training(model=Fragile(limit=0.3)), Budget(steps=300))

    diverged = [trial for trial in plan.trials if "diverged" in trial.note]
    assert diverged
    assert all(trial.value is None for trial in diverged)
    assert plan.configuration not in [trial.configuration for trial in diverged]


def test_a_training_that_is_never_finite_is_an_error_that_says_so() -> None:
    model = Fragile(limit=-1.0)

    with pytest.raises(SearchError, match=r"all \d+ trials diverged or failed"):
        choose(training(model=model), Budget(steps=300))

    assert not model.layer.weight.any()


def test_an_interrupt_passes_through_and_everything_is_put_back() -> None:
    model = net()
    before = [tensor.clone() for tensor in model.state_dict().values()]

    with pytest.raises(KeyboardInterrupt):
        choose(training(Meter(raises={40: KeyboardInterrupt()}), model=model))

    assert all(map(torch.equal, model.state_dict().values(), before))


# --- what comes with a choice ---------------------------------------------------------------


def test_a_selection_keeps_the_profile_and_the_study() -> None:
    selection = make_selection(training(), Settings(budget=Budget(steps=100)), progress=Silent())

    assert selection.study is not None
    assert len(selection.study.trials()) == len(selection.plan.trials) > 0
    assert selection.plan.profile == selection.profile
    assert selection.study.study.user_attrs["monitor"] == "validation loss"


def test_where_the_stream_has_no_length_the_steps_of_the_training_say_it() -> None:
    plan = choose(training(steps=8), Budget(steps=100))

    assert plan.total_steps == 8
    assert plan.search_steps <= 100


# --- a model that is trained already --------------------------------------------------------------


def policies_of(plan: OptimizerPlan) -> set[str]:
    return {(trial.configuration.fine_tuning or FineTuning()).describe() for trial in plan.trials}


def test_the_parts_of_a_trained_model_are_trained_in_several_ways() -> None:
    plan = choose(training(), 20, candidates=["adamw"], fine_tuning=True)

    assert policies_of(plan) == {"all parameters alike", "layer decay 0.9"}
    if plan.fine_tuning is not None:
        assert any(plan.fine_tuning.describe() in str(reason) for reason in plan.reasons)


def test_the_parts_of_a_new_model_are_trained_alike() -> None:
    plan = choose(training(), 4, candidates=["adamw"], fine_tuning=False)

    assert policies_of(plan) == {"all parameters alike"}


def test_policies_that_do_not_fit_the_model_are_not_tried() -> None:
    headless = nn.Sequential(nn.Linear(6, 3, bias=False))

    plan = choose(training(model=headless), 4, candidates=["adamw"], fine_tuning=True)

    assert policies_of(plan) <= {"all parameters alike", "layer decay 0.9"}


def test_a_policy_of_the_users_is_that_of_every_trial() -> None:
    policy = FineTuning(head_lr_ratio=3.0)

    plan = choose(training(), 4, candidates=["adamw"], fine_tuning=policy)

    assert policies_of(plan) == {policy.describe()}

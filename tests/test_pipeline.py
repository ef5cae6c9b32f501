"""The whole choice on a plain PyTorch training."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from optselect import Budget, OptimizerPlan, TorchWorkload, select
from optselect.briefing import METHOD
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
from optselect.optim.composite import CompositeOptimizer
from optselect.pipeline import make_selection
from optselect.search.progress import Silent
from optselect.settings import Settings
from optselect.workload.rng import rng_state, set_rng_state
from tests.support.small import loader, net, sentences, vectors, words

LOSS = nn.functional.cross_entropy
STEPS = 24


@dataclass
class Meter:
    """A loss that counts what it was asked for, in micro-batches."""

    training: int = 0
    forward: int = 0
    raises: dict[int, BaseException] = field(default_factory=dict)

    @property
    def cost(self) -> float:
        return self.training + self.forward / 3

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.training += 1
        else:
            self.forward += 1
        if error := self.raises.get(self.training + self.forward):
            raise error
        return LOSS(output, target)


def training(loss: Any = LOSS, *, model: nn.Module | None = None, steps: int = STEPS, **options: Any) -> TorchWorkload:
    return TorchWorkload(model or net(), loss, loader(), loader(vectors(48), shuffle=False), steps=steps, **options)


def choose(workload: TorchWorkload, budget: Any = None, **options: Any) -> OptimizerPlan:
    return select(workload, budget, progress=Silent(), **options)


def same_choice(one: OptimizerPlan, other: OptimizerPlan) -> bool:
    return plain(one) == plain(other)


def plain(plan: OptimizerPlan) -> dict[str, Any]:
    """Without the memory that is free just now."""
    data = plan.to_dict()
    del data["profile"]["model"]["memory_free"]
    return data


# --- no trace -------------------------------------------------------------------------------


def train(model: nn.Module, plan: OptimizerPlan, data: DataLoader[Any], epochs: int = 2) -> list[float]:
    optimizer, scheduler = plan.build(model, total_steps=STEPS)
    losses = []
    for _, (inputs, target) in itertools.product(range(epochs), data):
        optimizer.zero_grad()
        loss = LOSS(model(inputs), target)
        loss.backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        losses.append(loss.item())
    return losses


def shuffled() -> DataLoader[Any]:
    return DataLoader(vectors(), batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("data", [loader, shuffled], ids=["global", "generator"])
@pytest.mark.parametrize("budget", [0, Budget(steps=150)])
def test_training_after_a_search_is_training_without_one_bit_for_bit(budget: Any, data: Callable[[], Any]) -> None:
    def prepared() -> tuple[nn.Module, DataLoader[Any]]:
        torch.manual_seed(5)
        np.random.seed(5)  # noqa: NPY002  # what trainings draw from
        model, batches = net(), data()
        model.body.eval()
        model(torch.randn(4, 6)).sum().backward()
        return model, batches

    model, batches = prepared()
    held = [*model.parameters(), *model.buffers(), *(parameter.grad for parameter in model.parameters())]
    contents = [tensor.detach().clone() for tensor in held if tensor is not None]
    state = rng_state()
    attributes = {name: dict(vars(module)) for name, module in model.named_modules()}

    plan = choose(TorchWorkload(model, LOSS, batches, loader(vectors(48)), steps=STEPS), budget)

    after = rng_state()
    now = [*model.parameters(), *model.buffers(), *(parameter.grad for parameter in model.parameters())]
    assert all(one is other for one, other in zip(now, held, strict=True))
    assert all(map(torch.equal, [tensor for tensor in now if tensor is not None], contents))
    assert torch.equal(after.torch, state.torch)
    assert (after.python, after.numpy[2:]) == (state.python, state.numpy[2:])
    assert np.array_equal(after.numpy[1], state.numpy[1])
    assert {name: dict(vars(module)) for name, module in model.named_modules()} == attributes

    untouched, fresh = prepared()
    set_rng_state(state)
    by_hand = train(untouched, plan, fresh)
    set_rng_state(state)
    assert train(model, plan, batches) == by_hand
    assert all(map(torch.equal, model.state_dict().values(), untouched.state_dict().values()))


def test_two_searches_from_the_same_state_choose_the_same() -> None:
    plans = []
    for _ in range(2):
        torch.manual_seed(1)
        plans.append(choose(training(), Budget(steps=120)))

    assert same_choice(*plans)


def test_the_plan_of_a_sparse_model_trains_it_in_a_plain_loop() -> None:
    model = words()
    data = loader(sentences())
    workload = TorchWorkload(model, LOSS, data, loader(sentences(48)), steps=STEPS)

    plan = choose(workload, Budget(steps=120), candidates=["sparse_adam"])

    losses = train(model, plan, data, epochs=4)
    assert plan.sparse == ("table.weight",)
    assert np.mean(losses[-6:]) < np.mean(losses[:6])
    if plan.optimizer == "sparse_adam":
        assert isinstance(plan.build(model)[0], CompositeOptimizer)


def test_a_plan_from_a_file_builds_what_the_plan_builds(tmp_path: Path) -> None:
    plan = choose(training(), Budget(steps=120))
    plan.save(tmp_path / "plan.json")

    again = OptimizerPlan.load(tmp_path / "plan.json")

    torch.manual_seed(0)
    one = train(net(), plan, loader())
    torch.manual_seed(0)
    assert train(net(), again, loader()) == one


# --- the budget -----------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 5, 8, 9, 12, 15, 20, 31, 48, 77, 100, 150, 333, 600])
def test_the_budget_is_held_to_profile_and_validation_included(limit: int) -> None:
    meter = Meter()

    plan = choose(training(meter), Budget(steps=limit))

    assert meter.cost <= limit
    assert plan.search_steps <= limit
    assert meter.cost <= plan.search_steps + 1


@pytest.mark.parametrize("model", [words, lambda: nn.Linear(6, 3)])
@pytest.mark.parametrize("validated", [True, False])
def test_the_stated_cost_is_what_was_spent(model: Callable[[], nn.Module], validated: bool) -> None:
    meter, module = Meter(), model()
    data = sentences if isinstance(module, type(words())) else vectors
    val = loader(data(48)) if validated else None
    workload = TorchWorkload(module, meter, loader(data(320)), val, steps=STEPS)

    plan = choose(workload, Budget(steps=200))

    # A trial that diverged is counted as judged, though it was not.
    unjudged = sum(trial.value is None for trial in plan.trials) * workload.validation_batches / 3
    assert plan.search_steps - unjudged - 1 <= meter.cost <= plan.search_steps + 1
    assert meter.cost <= 200
    assert f"the choice cost {plan.search_steps} micro-batches" in str(plan.reasons[-1])


def test_a_model_too_large_to_be_put_aside_is_held_to_the_budget_too() -> None:
    meter, settings = Meter(), Settings(budget=Budget(steps=400))

    plan = make_selection(training(meter), settings, progress=Silent(), method=replace(METHOD, paused_bytes=0)).plan

    assert meter.cost <= 400
    assert meter.cost == pytest.approx(plan.search_steps, abs=1)
    assert any(trial.micro_batches > STEPS // 4 for trial in plan.trials)


@pytest.mark.parametrize("limit", [60, 300])
def test_ones_own_optimizer_that_evaluates_the_loss_again_is_held_to_the_budget_too(limit: int) -> None:
    def lbfgs(model: nn.Module) -> tuple[torch.optim.Optimizer, None]:
        return torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3), None

    meter = Meter()

    plan = choose(training(meter, user_optimizer=lbfgs), Budget(steps=limit))

    assert meter.cost <= plan.search_steps + 1 <= limit + 1
    assert any(trial.configuration.optimizer == USER and trial.value is not None for trial in plan.trials)


def test_a_budget_of_zero_takes_the_rules_at_their_word_for_at_most_five_passes() -> None:
    meter = Meter()

    plan = choose(training(meter), 0)

    assert meter.cost <= 5
    assert plan.search_steps == meter.cost
    assert plan.trials == ()
    assert "without evidence from trials" in str(plan.reasons[0])


@pytest.mark.parametrize("trials", [1, 2, 3, 7])
def test_no_more_trials_are_begun_than_allowed(trials: int) -> None:
    plan = choose(training(), Budget(steps=600, trials=trials))

    assert len(plan.trials) == trials


def test_a_search_ends_when_its_time_is_over() -> None:
    plan = choose(training(), Budget(seconds=1e-9))

    assert plan.trials == ()
    assert "no trial gave a value" in str(plan.reasons[0])


def test_a_share_of_the_training_is_spent_at_most() -> None:
    meter = Meter()

    choose(training(meter), 3.0)

    assert meter.cost <= 3 * STEPS


def test_more_budget_lets_trials_go_deeper() -> None:
    deepest = [max(t.micro_batches for t in choose(training(), Budget(steps=steps)).trials) for steps in (60, 600)]

    assert deepest[0] <= STEPS // 4 < deepest[1] == STEPS


# --- candidates -----------------------------------------------------------------------------


def test_only_the_candidates_and_the_baseline_are_tried() -> None:
    plan = choose(training(), Budget(steps=200), candidates=["sgd", "momentum"])

    assert {trial.configuration.optimizer for trial in plan.trials} == {"sgd", "momentum", "adamw"}


def hopeless(model: nn.Module) -> Any:
    return torch.optim.SGD(model.parameters(), lr=1e-9), None


def test_the_users_optimizer_gives_way_to_one_that_beats_it() -> None:
    plan = choose(training(user_optimizer=hopeless), Budget(steps=150))

    assert plan.optimizer != USER
    assert "your own optimizer" in " ".join(map(str, plan.reasons))
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

"""One trial: what it gives, what it costs, when it ends early."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optselect import TorchWorkload
from optselect.configuration import USER, Configuration, paired
from optselect.configuration.policy import FineTuning, Thaw
from optselect.configuration.schedule import Schedule
from optselect.parameters.anatomy import anatomy_of
from optselect.search.outcome import Outcome
from optselect.search.race import Race
from optselect.search.runner import TrialRunner
from tests.support.small import loader, sentences, vectors, words

SGD = Configuration(optimizer="sgd", hyperparameters={"lr": 0.1, "weight_decay": 1e-7})
WARM = Configuration(
    optimizer="sgd", hyperparameters={"lr": 0.3, "weight_decay": 1e-7}, schedule=Schedule(kind="linear", warmup_steps=5)
)


class Losses:
    """Cross entropy, or at certain training calls something else."""

    def __init__(self, **special: Any) -> None:
        self.special = {int(call[1:]): what for call, what in special.items()}
        self.training = self.forward = 0

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(output, target)
        if not torch.is_grad_enabled():
            self.forward += 1
            return loss
        self.training += 1
        what = self.special.get(self.training, 1.0)
        if isinstance(what, BaseException):
            raise what
        scaled: Tensor = loss * what
        return scaled


@contextmanager
def trials(
    loss: Any = None, *, model: nn.Module | None = None, data: Any = vectors, **options: Any
) -> Iterator[TrialRunner]:
    torch.manual_seed(0)
    workload = TorchWorkload(
        model or nn.Linear(6, 3), loss or Losses(), loader(data()), loader(data(48)), steps=100, **_own(options)
    )
    with workload.borrowed():
        yield TrialRunner(workload, **options)


def _own(options: dict[str, Any]) -> dict[str, Any]:
    return {"user_optimizer": options.pop("user")} if "user" in options else {}


def value(outcome: Outcome) -> float:
    assert outcome.value is not None, outcome.error
    return outcome.value


def test_a_trial_costs_its_steps_and_a_third_of_each_validation_batch() -> None:
    loss = Losses()
    with trials(loss) as runner:
        outcome = runner.run(SGD, 0, 25)

    assert (loss.training, loss.forward) == (25, 3)
    assert (outcome.cost, outcome.reached, outcome.error) == (26.0, 25, None)
    assert runner.validation_cost == 1.0


def test_a_continued_trial_equals_an_uninterrupted_one_and_costs_only_the_rest() -> None:
    with trials() as runner:
        runner.run(WARM, 0, 15)
        runner.run(SGD, 0, 15)
        continued = runner.run(WARM, 0, 45)
    with trials() as runner:
        whole = runner.run(WARM, 0, 45)

    assert continued.value == whole.value
    assert (continued.cost, whole.cost) == (31.0, 46.0)


def test_a_trial_that_was_not_put_aside_starts_over_with_the_same_result() -> None:
    with trials(paused_bytes=0) as runner:
        runner.run(WARM, 0, 15)
        again = runner.run(WARM, 0, 45)
        assert runner.position(WARM, 0) == 0
    with trials() as runner:
        whole = runner.run(WARM, 0, 45)
        assert runner.position(WARM, 0) == 45

    assert again == whole


def test_trials_are_paired_by_seed() -> None:
    with trials() as runner:
        one, other = runner.run(SGD, 1, 10), runner.run(SGD, 2, 10)
    with trials() as runner:
        again = runner.run(SGD, 1, 10)

    assert one == again
    assert one.value != other.value


def test_the_schedule_is_the_real_one_cut_off() -> None:
    seen = []

    def watching(output: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(output, target)

    with trials(watching) as runner:
        runner.run(WARM, 0, 10)
        optimizer = runner._workload._training.optimizers[0]  # type: ignore[attr-defined]
        seen = [group["lr"] for group in optimizer.param_groups]

    # Step 10 of a line from 5 to 100, not to 10.
    assert seen == [pytest.approx(0.3 * 90 / 95)] * 2


@pytest.mark.parametrize("steps, joins_after", [(None, 50), (40, 20)])
def test_a_thaw_comes_at_the_same_share_of_a_schedule_laid_out_for_fewer_steps(
    steps: int | None, joins_after: int
) -> None:
    policy = FineTuning(head=r"^1\.", thaw=Thaw(step=50))
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3))
    trained = []

    with trials(model=model, steps=steps) as runner:
        for until in (joins_after - 1, joins_after):
            runner.run(replace(WARM, fine_tuning=policy), 0, until)
            groups = runner._workload._training.optimizers[0].param_groups  # type: ignore[attr-defined]
            trained.append(sum(len(group["params"]) for group in groups))

    assert trained == [2, 4]


def test_the_users_optimizer_is_built_by_the_user() -> None:
    built = []

    def user(model: nn.Module) -> Any:
        built.append(torch.optim.Adam(model.parameters()))
        return built[-1], None

    with trials(user=user) as runner:
        outcome = runner.run(Configuration(optimizer=USER), 0, 5)

    # Once for a look at it, when the model was borrowed.
    assert len(built) == 3  # two of them to see whether it is always the same
    assert value(outcome) > 0


def test_sparse_parameters_get_an_optimizer_that_takes_them() -> None:
    adam = Configuration(optimizer="adam", hyperparameters={"lr": 0.01})
    model = words()
    with trials(model=model, data=sentences, anatomy=anatomy_of(model, sparse=("table.weight",))) as runner:
        outcome = runner.run(adam, 0, 5)

    assert outcome.error is None


def test_the_untrained_value_is_that_of_the_borrowed_weights() -> None:
    model = nn.Linear(6, 3)
    data = vectors(48)
    with torch.no_grad():
        expected = nn.functional.cross_entropy(model(data.tensors[0]), data.tensors[1]).item()

    with trials(model=model) as runner:
        runner.run(SGD, 0, 10)

        assert runner.untrained().value == pytest.approx(expected)


def test_trials_are_judged_on_the_same_batches_as_the_untrained_model() -> None:
    with trials(data=vectors) as runner:
        untrained = runner.untrained()
        outcome = runner.run(SGD, 0, 20)

    assert outcome.evaluation is not None
    difference = paired(outcome.evaluation, untrained)
    assert difference is not None
    assert difference[0] == pytest.approx(value(outcome) - untrained.value)
    assert difference[0] < -2 * difference[1] < 0


# --- ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [1, 2, 20, 21, 25])
def test_an_exception_ends_the_trial_and_never_costs_more_than_is_counted(call: int) -> None:
    loss = Losses(**{f"c{call}": ZeroDivisionError("mine")})
    with trials(loss) as runner:
        outcome = runner.run(SGD, 0, 25)

        assert isinstance(outcome.error, ZeroDivisionError)
        assert outcome.value is None
        assert call <= outcome.cost <= 25
        assert outcome.reached == outcome.cost
        assert runner.position(SGD, 0) == 0
        assert value(runner.run(SGD, 1, 5)) > 0


def test_an_optimizer_that_cannot_be_built_fails_its_trial_at_no_cost() -> None:
    with trials() as runner:
        outcome = runner.run(Configuration(optimizer="sgd", hyperparameters={"lr": -1.0}), 0, 5)

    assert isinstance(outcome.error, ValueError)
    assert outcome.cost == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_is_no_error_passes_through(error: type[BaseException]) -> None:
    with pytest.raises(error), trials(Losses(c3=error())) as runner:
        runner.run(SGD, 0, 5)


def test_a_loss_that_stays_not_finite_has_diverged_after_a_chunk_or_two() -> None:
    loss = Losses(c5=math.nan)
    with trials(loss) as runner:
        outcome = runner.run(SGD, 0, 100)

    assert outcome.value is None
    assert outcome.error is None
    assert outcome.cost == loss.training <= 40
    assert loss.forward == 0


def test_a_loss_that_is_skipped_once_has_not_diverged() -> None:
    with trials(Losses(c5=0.0)) as runner:
        assert value(runner.run(SGD, 0, 40)) > 0


def test_a_loss_three_times_the_initial_one_has_diverged_after_the_warmup_only() -> None:
    high = {f"c{call}": 5.0 for call in range(6, 60)}
    slow = Configuration(
        optimizer="sgd", hyperparameters={"lr": 1e-3, "weight_decay": 1e-7}, schedule=Schedule(warmup_steps=50)
    )
    short = Configuration(optimizer="sgd", hyperparameters=slow.hyperparameters)

    with trials(Losses(**high)) as runner:
        assert runner.run(short, 0, 40).reached == 20
    with trials(Losses(**high)) as runner:
        assert runner.run(slow, 0, 40).reached == 40
    with trials(Losses(**high)) as runner:
        assert runner.run(slow, 0, 100).reached == 60


def test_divergence_does_not_depend_on_which_trial_came_first() -> None:
    high = {f"c{call}": 5.0 for call in range(6, 400)}

    with trials(Losses(**high)) as runner:
        alone = runner.run(SGD, 0, 40)
    with trials(Losses()) as runner:
        runner.run(Configuration(optimizer="sgd", hyperparameters={"lr": 1e-3}), 0, 10)
        runner._workload._loss_fn = Losses(**high)  # type: ignore[attr-defined]
        second = runner.run(SGD, 0, 40)

    assert alone == second


def test_a_loss_is_measured_by_the_given_initial_one_where_that_is_larger() -> None:
    high = {f"c{call}": 5.0 for call in range(6, 60)}

    with trials(Losses(**high), initial_loss=1e3) as runner:
        assert value(runner.run(SGD, 0, 40)) > 0


def test_a_loss_that_is_ramped_up_over_the_first_steps_has_not_diverged() -> None:
    ramp = {f"c{call}": call / 10 for call in range(1, 10)}

    with trials(Losses(**ramp), initial_loss=0.1) as runner:
        assert value(runner.run(SGD, 0, 10)) > 0


# --- a loss that rises by design ----------------------------------------------------------------

BASE = Configuration(optimizer="sgd", hyperparameters={"lr": 1e-3, "weight_decay": 1e-7})


class Ramp:
    """Cross entropy, its weight ramped up over a trial's first 50 micro-batches."""

    def __init__(self, model: Any) -> None:
        self.model = model
        model.register_buffer("steps", torch.zeros(()))

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(output, target)
        if torch.is_grad_enabled():
            self.model.steps += 1
            loss = loss * min(1.0, float(self.model.steps) / 50)
        return loss


@contextmanager
def racing() -> Iterator[TrialRunner]:
    model = nn.Linear(6, 3)
    with trials(Ramp(model), model=model, initial_loss=0.02) as runner:
        runner.take_up(Race(arms=(BASE, SGD), baseline=BASE, horizon=100, steps=1_000), None)
        yield runner


@pytest.mark.parametrize("order", [(BASE, SGD), (SGD, BASE)])
def test_neither_the_baseline_nor_a_rival_has_diverged_where_the_loss_is_ramped_up(
    order: tuple[Configuration, ...],
) -> None:
    with racing() as runner:
        outcomes = [runner.run(each, 0, until) for until in (25, 50, 100) for each in order]

    assert all(outcome.value is not None for outcome in outcomes)


def test_a_rival_that_rises_three_times_as_high_as_the_baseline_has_diverged() -> None:
    wild = replace(SGD, hyperparameters={"lr": 300.0, "weight_decay": 1e-7})

    with racing() as runner:
        runner.run(BASE, 0, 50)

        assert runner.run(wild, 0, 50).value is None


def test_whoever_is_told_the_course_of_the_baseline_judges_as_the_one_who_ran_it() -> None:
    wild = replace(SGD, hyperparameters={"lr": 300.0, "weight_decay": 1e-7})
    with racing() as runner:
        course = {**runner.run(BASE, 0, 25).course, **runner.run(BASE, 0, 50).course}
        whole = runner.run(wild, 0, 50), runner.run(SGD, 0, 50)
    with racing() as runner:
        runner.guide(course)
        after = runner.run(wild, 0, 50), runner.run(SGD, 0, 50)

    assert after == whole
    assert whole[0].value is None


def test_a_validation_that_is_not_finite_gives_no_value() -> None:
    def only_judged(output: Tensor, target: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(output, target)
        return loss if torch.is_grad_enabled() else loss * math.inf

    with trials(only_judged) as runner:
        outcome = runner.run(SGD, 0, 5)

    assert (outcome.value, outcome.error, outcome.cost) == (None, None, 6.0)


def test_the_users_own_optimizer_gets_a_value_though_its_loss_rises() -> None:
    high = {f"c{call}": 5.0 for call in range(6, 60)}
    own = Configuration(optimizer=USER)

    with trials(Losses(**high), user=lambda model: (torch.optim.SGD(model.parameters(), lr=1e-3), None)) as runner:
        assert value(runner.run(own, 0, 40)) > 0


def test_a_failed_trial_holds_on_to_nothing() -> None:
    held: list[weakref.ref[Tensor]] = []

    def out_of_memory(output: Tensor, target: Tensor) -> Tensor:
        activation = torch.zeros(10)
        held.append(weakref.ref(activation))
        raise torch.OutOfMemoryError("CUDA out of memory")

    with trials(out_of_memory) as runner:
        outcome = runner.run(SGD, 0, 40)

    assert isinstance(outcome.error, torch.OutOfMemoryError)
    assert held[0]() is None

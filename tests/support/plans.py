"""Plans to show: as a search writes them, by hand, and with whatever a user may put into a name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from optselect import Budget, OptimizerPlan, TorchWorkload, select
from optselect.configuration import Configuration
from optselect.configuration.schedule import Schedule
from optselect.plan import Ended, ModelFingerprint, Neighbour, ParamGroup, Reason
from optselect.rules import Evidence, Proposal, Vote
from tests.support.small import loader, net, sentences, vectors, words

HOSTILE = (
    "</script></style><script>alert('1')</script>\"><img src=x onerror=alert(2)>&amp; $x^2_ {0} %s \\n "
    "\x00\x1b 😀 汉字 "
)


@functools.cache
def searched() -> OptimizerPlan:
    """Sparse gradients, so that the plan is one of two optimizers; trials at several rungs."""
    torch.manual_seed(0)
    workload = TorchWorkload(words(), nn.CrossEntropyLoss(), loader(sentences()), loader(sentences(48)), steps=40)
    # A baseline that has learned next to nothing is no measure of a lead.
    return replace(select(workload, Budget(steps=200), risk=0.9), lead=0.37)


@functools.cache
def unsearched() -> OptimizerPlan:
    """At the rules' word: no trial, no lead."""
    torch.manual_seed(0)
    return select(TorchWorkload(net(), nn.CrossEntropyLoss(), loader(vectors()), steps=40), 0)


def bare() -> OptimizerPlan:
    """Written by hand: nothing was measured, proposed or tried."""
    return OptimizerPlan(
        configuration=Configuration(optimizer="sgd", hyperparameters={"lr": 0.1}),
        model_fingerprint=ModelFingerprint.of(nn.Linear(3, 2)),
        param_groups=(
            ParamGroup(name="sgd", optimizer="sgd", parameters=("weight", "bias"), hyperparameters={"lr": 0.1}),
        ),
    )


def own() -> OptimizerPlan:
    """The user's own optimizer stayed."""
    plan = searched()
    trials = tuple(
        replace(trial, configuration=replace(trial.configuration, optimizer="user", hyperparameters={}))
        if trial.configuration == plan.baseline
        else trial
        for trial in plan.trials
    )
    user = next(trial.configuration for trial in trials if trial.configuration.optimizer == "user")
    return replace(
        plan,
        configuration=user,
        param_groups=(),
        trials=trials,
        baseline=user,
        lead=None,
    )


def failed() -> OptimizerPlan:
    """All diverged but one, and that one has no rate; larger is better."""
    plan = searched()
    first, *others = plan.trials
    prodigy = replace(first.configuration, optimizer="prodigy", hyperparameters={"d_coef": 1.0})
    lost = (replace(each, values={}, note="diverged after 3 micro-batches") for each in others)
    return replace(plan, mode="max", trials=(replace(first, configuration=prodigy), *lost))


def extreme() -> OptimizerPlan:
    """Values at both ends of what a float can be, next to none and next to nothing."""
    plan = searched()
    assert plan.profile is not None
    values = (1.7e308, 5e-324, -1e-9, 0.0, 1e30, None)
    rates = (1e-300, 1e300, 0.0, -1.0, 1e-3, 1.0)
    trials = tuple(
        replace(
            trial,
            values={1: -1.0, 10**6: 1e30, **({} if value is None else {max(trial.values): value})},
            configuration=replace(trial.configuration, hyperparameters={"lr": rate}),
        )
        for trial, value, rate in zip(plan.trials, values, rates, strict=False)
    )
    gradient = replace(plan.profile.gradient, norms=(0.0, 1e-30, 1e30), relative_norms={"one": 1e-300, "two": 1e20})
    data = replace(plan.profile.data, class_counts=(10**9, *[1] * 999))
    return replace(
        plan,
        trials=trials,
        profile=replace(plan.profile, gradient=gradient, data=data),
        configuration=replace(plan.configuration, schedule=Schedule(kind="wsd", warmup_steps=3, decay=1.0)),
        total_steps=1,
    )


def hostile() -> OptimizerPlan:
    """Names, sentences and values of which each could end a tag, a string or a formula."""
    plan = searched()
    assert plan.profile is not None
    gradient = replace(
        plan.profile.gradient,
        relative_norms={f"{number}{HOSTILE}{'layer.' * 20}": 0.1 * number for number in (1, 2, 3)},
    )
    vote = Vote(
        optimizer=HOSTILE,
        because=Evidence(quantity=HOSTILE, value=HOSTILE),
        rule=HOSTILE,
        mechanism=HOSTILE,
        cites=HOSTILE,
        counter=HOSTILE,
    )
    group = ParamGroup(
        name=HOSTILE, optimizer="sgd", parameters=(HOSTILE, HOSTILE * 5), hyperparameters={"lr": 0.1, HOSTILE: HOSTILE}
    )
    configuration = replace(plan.trials[0].configuration, optimizer=HOSTILE)
    return replace(
        plan,
        configuration=replace(plan.configuration, optimizer=HOSTILE, hyperparameters={"lr": 0.1, HOSTILE: HOSTILE}),
        param_groups=(group,),
        reasons=(
            Reason(kind="trial", text=HOSTILE),
            Reason(kind="vote", text=HOSTILE, cites=HOSTILE),
            *plan.reasons,
        ),
        profile=replace(plan.profile, gradient=gradient),
        proposals=(
            Proposal(configuration=Configuration(optimizer=HOSTILE, hyperparameters={HOSTILE: HOSTILE}), votes=(vote,)),
        ),
        neighbours=(
            Neighbour(
                name=HOSTILE,
                family=HOSTILE,
                summary=HOSTILE,
                weight=0.5,
                best=(Ended(optimizer=HOSTILE, lr=0.1, schedule="cosine", others={HOSTILE: HOSTILE}, regret=0.0),),
            ),
        ),
        trials=(replace(plan.trials[0], configuration=configuration, note=HOSTILE), *plan.trials[1:]),
        monitor=HOSTILE,
        versions={HOSTILE: HOSTILE},
        model_fingerprint=replace(plan.model_fingerprint, shapes={HOSTILE: (2, 3)}, frozen=frozenset({HOSTILE + "f"})),
    )


def scaled() -> OptimizerPlan:
    """The user's own optimizer at another rate, out of a search that tried nothing else."""
    plan = own()
    user = next(trial for trial in plan.trials if trial.configuration.optimizer == "user")
    trials = tuple(
        replace(
            user,
            configuration=user.configuration.at_rate(rate),
            values={**user.values, max(user.values): 1 + abs(rate - 2)},
        )
        for rate in (1, 0.5, 2, 4)
    )
    return replace(plan, configuration=plan.configuration.at_rate(2), trials=trials, lead=0.5, proposals=())


PLANS: dict[str, Callable[[], OptimizerPlan]] = {
    "searched": searched,
    "unsearched": unsearched,
    "bare": bare,
    "own": own,
    "scaled": scaled,
    "failed": failed,
    "extreme": extreme,
    "hostile": hostile,
}

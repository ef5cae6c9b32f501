"""A trial as a value: what it measured, what it counts as, and how it ended."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from optselect.configuration import Configuration, Evaluation, Trial

SGD = Configuration(optimizer="sgd", hyperparameters={"lr": 0.1})
JUDGED = Trial(configuration=SGD, values={10: 1.2, 25: 1.0, 50: 0.8}, reached=50, state="complete")
DIVERGED = Trial(
    number=3,
    configuration=SGD,
    seed=1,
    values={10: 1.2},
    reached=17,
    state="pruned",
    note="diverged after 17 micro-batches",
    cap=(25, 9.0),
    cost=17.5,
    seconds=0.25,
)


def test_the_value_of_a_trial_is_the_deepest_and_one_that_diverged_has_none() -> None:
    assert (JUDGED.micro_batches, JUDGED.value, JUDGED.ending) == (50, 0.8, "complete")
    assert (DIVERGED.micro_batches, DIVERGED.value, DIVERGED.ending) == (17, None, "diverged after 17 micro-batches")


def test_a_cap_is_what_it_counts_as_and_no_value() -> None:
    assert DIVERGED.values == {10: 1.2}
    assert DIVERGED.judged == {10: 1.2, 25: 9.0}
    assert JUDGED.judged == JUDGED.values


def test_a_trial_that_was_never_judged_has_no_value() -> None:
    trial = Trial(configuration=SGD)

    assert (trial.value, trial.micro_batches, trial.diverged) == (None, 0, False)


@pytest.mark.parametrize("trial", [JUDGED, DIVERGED, Trial(configuration=SGD)])
def test_a_trial_survives_json(trial: Trial) -> None:
    assert Trial.from_dict(json.loads(json.dumps(trial.to_dict(), allow_nan=False))) == trial


def test_a_trial_says_what_it_was_judged_at_with_its_parts() -> None:
    parts = ((0.7, 8.0), (1.2, 2.0))
    trial = replace(JUDGED, batches={50: parts})

    assert trial.evaluation(50) == Evaluation(value=0.8, batches=parts)
    assert trial.evaluation(25) == Evaluation(value=1.0)
    with pytest.raises(KeyError):
        trial.evaluation(75)


def test_parts_are_in_no_json_and_make_no_other_trial() -> None:
    trial = replace(JUDGED, batches={50: ((0.8, 8.0),)})

    assert trial.to_dict() == JUDGED.to_dict()
    assert trial == JUDGED

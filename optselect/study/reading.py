"""Reading the trials of a search back: several of Optuna's may be one of ours."""

from __future__ import annotations

import functools
import gc
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from optselect.configuration.configuration import Configuration
from optselect.configuration.evaluation import Evaluation
from optselect.configuration.trial import State, Trial
from optselect.study.batches import unpacked

CONFIGURATION, SEED = "optselect:configuration", "optselect:seed"
"""Attributes of a trial: what it trains, and the seed of its batches."""
AT = "optselect:at {}"
"""What belongs to the value at a micro-batch: one attribute for each, so that a kill between it and the value leaves
something that nobody looks at."""

Key = tuple[str, int]
"""What trials of one configuration and seed are known by."""


@dataclass(frozen=True, kw_only=True)
class OpenTrial:
    """A trial that somebody runs, or has run until they were lost.

    number         its place in the study
    configuration  what it trains
    seed           of its batches
    claim          who runs it, and what, as `begin` or `take` was told (None: nobody has said so yet)
    """

    number: int
    configuration: Configuration
    seed: int
    claim: Mapping[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Look:
    """All that a study holds of a search at one moment.

    trials  what is known of each configuration and seed, in the order they were begun
    open    trials that somebody runs
    lost    trials that were given back, because whoever ran them was lost
    free    the number of each trial that nobody runs and that may go on
    latest  the number of the last trial, of whomever (-1: there is none)
    """

    trials: Sequence[Trial] = ()
    open: Sequence[OpenTrial] = ()
    lost: Sequence[OpenTrial] = ()
    free: Mapping[Key, int] = field(default_factory=dict)
    latest: int = -1


_STATES: Mapping[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def configuration_of(trial: FrozenTrial) -> Configuration:
    """Read what a trial trains. Raises some error for what was not written so."""
    return _configuration(trial.user_attrs[CONFIGURATION])


@functools.lru_cache(maxsize=1 << 16)
def _configuration(written: str) -> Configuration:
    """Read a configuration once: who asks again has the same one, and with it the key that it is known by."""
    return Configuration.from_dict(json.loads(written))


def seed_of(trial: FrozenTrial) -> int:
    """Read the seed of a trial's batches. Raises `TypeError` for what is none."""
    seed = trial.user_attrs[SEED]
    if not isinstance(seed, int) or isinstance(seed, bool):
        raise TypeError(f"its seed is {seed!r}")
    return seed


def not_given_back(group: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Leave out those that were given back before anything was judged: they say nothing."""
    return [trial for trial in group if trial.state != TrialState.FAIL or trial.intermediate_values]


def trial_of(group: Sequence[FrozenTrial], configuration: Configuration, seed: int) -> Trial:
    """Read as one the trials of a configuration and seed, by their numbers.

    Of what was judged twice the first counts, which is what whoever looked earlier has seen.
    """
    judged: dict[int, float] = {}
    about: dict[int, Mapping[str, Any]] = {}
    for trial in group:
        for step, value in trial.intermediate_values.items():
            # Where a storage is read in the midst of a report, there may be a value and nothing beside it: not yet.
            if step not in judged and AT.format(step) in trial.user_attrs:
                judged[step], about[step] = value, _report(trial.user_attrs[AT.format(step)])
    judged = dict(sorted(judged.items()))
    reports = [about[step] for step in judged]
    if min(judged, default=0) < 0:
        raise ValueError(f"its first micro-batch is {min(judged)}")
    note = reports[-1]["note"] if reports else ""
    if judged and not math.isfinite(judged[max(judged)]):
        # No search writes one: what it should say, nobody knows, and to run it again would end no search.
        note = note or f"its value in the study is {judged[max(judged)]}"
    judged = {step: value for step, value in judged.items() if math.isfinite(value)}
    cap = None
    if judged and note and reports[-1]["note"]:
        # The last is what a trial that diverged counts as, not a measurement.
        last = max(judged)
        cap = (last, judged.pop(last))
    # A study of before has values alone.
    evaluations = {
        step: Evaluation.of(value, unpacked(about[step].get("batches", ""))) for step, value in judged.items()
    }
    return Trial(
        number=group[-1].number,
        configuration=configuration,
        seed=seed,
        values=judged,
        batches={step: evaluation.batches for step, evaluation in evaluations.items() if evaluation.batches},
        reached=reports[-1]["reached"] if reports else 0,
        state=_state(group, note),
        note=note,
        cap=cap,
        cost=sum(report["cost"] for report in reports),
        seconds=sum(report.get("seconds", 0.0) for report in reports),
        pace=next((report["pace"] for report in reversed(reports) if "pace" in report), None),
        turns={step: report["turn"] for step, report in about.items() if "turn" in report},
        course={int(end): float(loss) for report in reports for end, loss in report.get("course", ())},
    )


def _state(group: Sequence[FrozenTrial], note: str) -> State:
    last = _STATES[group[-1].state]
    # A worker that was lost says nothing of the training.
    return "running" if last == "failed" and not note else last


def _report(about: Any) -> Mapping[str, Any]:
    """Read what is kept beside a value. Raises `ValueError` for what `TrialStudy.report` does not write."""
    numbers = {name: about.get(name, 0.0) if name in _NEWER else about[name] for name in _COUNTED}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"its {name} is {value!r}, which is a number of 0 or more")
    if not isinstance(about.get("turn", 0), int):
        raise TypeError(f"its turn is {about['turn']!r}")
    if not isinstance(about["reached"], int) or not isinstance(about["note"], str):
        raise TypeError(f"it reached {about['reached']!r}, with the note {about['note']!r}")
    return about  # type: ignore[no-any-return]  # checked above


@contextmanager
def without_collecting() -> Iterator[None]:
    """Put off the search for garbage in cycles inside: where many objects are made to stay it takes a third."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def number_in(value: Any) -> float:
    """Read a finite number. Raises `ValueError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"its value is {value!r}")
    return float(value)


_COUNTED = ("cost", "reached", "seconds", "pace")
# Studies of before, and trials that ended before they trained, have none.
_NEWER = ("seconds", "pace")

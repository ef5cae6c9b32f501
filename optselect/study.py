"""The trials of one search, in an ordinary Optuna study that survives a kill."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from optselect.configuration import Configuration
from optselect.errors import StorageError
from optselect.redaction import without_passwords
from optselect.schedules import ScheduleKind
from optselect.space import Value
from optselect.workload import Mode

State = Literal["running", "complete", "pruned", "failed"]

_CONFIGURATION, _SEED = "optselect:configuration", "optselect:seed"
# What belongs to the value at a micro-batch: one attribute for each, so that a kill between it and the value
# leaves something that nobody looks at.
_AT = "optselect:at {}"
_USED = "optselect:used"
_ENDED = "optselect:ended"
_IDENTITY = "optselect:identity"
# One fixed set of parameters for every trial, whatever its optimizer, so that samplers and
# optuna-dashboard see a single space.
_LR = FloatDistribution(1e-8, 1e3, log=True)
# How every line of a journal file begins.
_JOURNAL_HEAD = b'{"op_code":'
_STATES: Mapping[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One trial so far.

    values   what it was judged at, by micro-batches trained (a diverged one: the cap it was given)
    cost     micro-batches it has spent, validation included at a third
    reached  micro-batches of training behind it
    note     why it failed or diverged (empty: it did not)
    """

    number: int
    configuration: Configuration
    seed: int
    values: Mapping[int, float]
    cost: float
    reached: int
    state: State
    note: str = ""

    @property
    def diverged(self) -> bool:
        """Whether its last value is a cap, not a measurement."""
        return bool(self.note)


class TrialStudy:
    """Trials kept in an Optuna study: intermediate values at micro-batches, configurations as user attributes."""

    def __init__(self, study: optuna.Study) -> None:
        self.study = study

    def evaluations(self) -> list[Evaluation]:
        """All trials of ours, in the order they were begun."""
        trials = self.study.get_trials(deepcopy=False)
        found = [_evaluation(trial) for trial in trials if _CONFIGURATION in trial.user_attrs]
        # One that was taken up again in a new trial counts once, where it was begun.
        return list({(e.configuration.key, e.seed): e for e in found}.values())

    def begin(
        self,
        configuration: Configuration,
        seed: int,
        optimizers: Sequence[str],
        values: Mapping[int, float] | None = None,
    ) -> int:
        """A new running trial; returns its number. `values` are those of the trial that it takes up."""
        values = values or {}
        parameters: dict[str, Value] = {
            "optimizer": configuration.optimizer,
            "schedule": configuration.schedule.kind,
            "lr": float(configuration.hyperparameters.get("lr", 1.0)),
        }
        # Added as a whole, not enqueued and asked for: a kill in between would leave a waiting trial behind.
        self.study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params=parameters,
                distributions={
                    "optimizer": CategoricalDistribution(tuple(optimizers)),
                    "schedule": CategoricalDistribution(get_args(ScheduleKind)),
                    "lr": _LR,
                },
                intermediate_values=dict(values),
                user_attrs={
                    _CONFIGURATION: json.dumps(configuration.to_dict()),
                    _SEED: seed,
                    **{_AT.format(until): {"cost": 0.0, "reached": until, "note": ""} for until in values},
                },
            )
        )
        return self.study.get_trials(deepcopy=False)[-1].number

    def report(self, number: int, *, until: int, reached: int, value: float, cost: float, note: str = "") -> None:
        """The value a trial is judged at for micro-batch `until`, and what it has cost since the last report.

        `reached` is less than `until` for a trial that ended early; `note` says why.
        """
        trial = self._live(number)
        trial.set_user_attr(_AT.format(until), {"cost": cost, "reached": reached, "note": note})
        # Last: a trial with a value at `until` is done with that rung.
        trial.report(value, until)

    def finish(self, number: int, state: State, value: float | None = None) -> None:
        """End a trial as complete (with its value), pruned or failed."""
        ends = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        self.study.tell(number, value if state == "complete" else None, state=ends[state])

    def mark_used(self) -> None:
        """The training this search was for has ended: a later run of the same training searches anew."""
        self.study.set_user_attr(_USED, True)

    def mark_ended(self, limits: str) -> None:
        """The search has ended at these limits: with the same ones there is nothing more to run."""
        self.study.set_user_attr(_ENDED, limits)

    def ended_with(self, limits: str) -> bool:
        """Whether a search has ended at these limits."""
        return bool(self.study.user_attrs.get(_ENDED) == limits)

    def _live(self, number: int) -> optuna.Trial:
        return optuna.Trial(self.study, self.study.get_trials(deepcopy=False)[number]._trial_id)  # noqa: SLF001  # Optuna's own way to take up a trial by number goes by this id


def open_study(
    *,
    storage: str | os.PathLike[str] | BaseStorage | None,
    name: str,
    mode: Mode,
    facts: Mapping[str, Any],
    identity: str = "",
    exact_name: bool = False,
) -> TrialStudy:
    """The unfinished study called `name`, or a new one.

    `storage` is a path (an Optuna journal file), an Optuna URL, a storage object, or None for memory.
    A study whose training has ended is not continued: the next free `name-2`, `name-3`, … is taken,
    unless `exact_name`. Raises `StorageError` when the storage cannot be opened, and when the study is of
    another training than `identity` says.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        opened = _storage(storage) or optuna.storages.InMemoryStorage()
        taken = {summary.study_name: summary for summary in optuna.get_all_study_summaries(opened)}
        chosen, count = name, 1
        while not exact_name and chosen in taken and taken[chosen].user_attrs.get(_USED):
            count += 1
            chosen = f"{name}-{count}"
        study = optuna.create_study(
            storage=opened,
            study_name=chosen,
            direction="minimize" if mode == "min" else "maximize",
            load_if_exists=True,
        )
        known = study.user_attrs
        for key, value in {**facts, _IDENTITY: identity}.items():
            if key not in known:
                study.set_user_attr(key, value)
    except Exception as error:
        where = storage if isinstance(storage, str | os.PathLike) else type(storage).__name__
        told = isinstance(error, ImportError) or (isinstance(error, ValueError | OSError) and "://" not in str(where))
        # Optuna hides which driver is missing; its cause names it.
        why = f": {error.__cause__ or error}" if told else ""
        raise StorageError(
            f"the study cannot be opened in {without_passwords(str(where))} ({type(error).__name__}{why}); "
            "check the path or the URL and its permissions, or pass another storage="
        ) from error
    if known.get(_IDENTITY, identity) != identity:
        raise StorageError(
            f"the study {chosen!r} is of another training (its model, data, length, candidates, rules or seed "
            "differ), so its trials say nothing about this one; pass another study_name"
        )
    return TrialStudy(study)


def journal_storage(path: str | os.PathLike[str]) -> JournalStorage:
    """Optuna's journal file at `path`, a torn last line cut off first.

    After a full disk or a power cut the file may end in half a line; the next append would join it and
    make the file unreadable for good (measured on Optuna 5.0).
    """
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.exists():
        content = file.read_bytes()
        head = content[: len(_JOURNAL_HEAD)]
        if head != _JOURNAL_HEAD[: len(head)]:
            # Above all not to be cut: it may be a database, or anything else of the user's.
            raise ValueError("not an Optuna journal file; for a database, pass its URL, as in sqlite:///path")
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with file.open("r+b") as handle:
                handle.truncate(len(whole))
    return JournalStorage(JournalFileBackend(str(file)))


def _storage(storage: str | os.PathLike[str] | BaseStorage | None) -> str | BaseStorage | None:
    if isinstance(storage, str) and "://" not in storage:
        return journal_storage(storage)
    return journal_storage(storage) if isinstance(storage, os.PathLike) else storage


def _evaluation(trial: FrozenTrial) -> Evaluation:
    attributes = trial.user_attrs
    values = {step: value for step, value in sorted(trial.intermediate_values.items()) if math.isfinite(value)}
    reports = [attributes[_AT.format(step)] for step in values]
    return Evaluation(
        number=trial.number,
        configuration=Configuration.from_dict(json.loads(attributes[_CONFIGURATION])),
        seed=attributes[_SEED],
        values=values,
        cost=sum(report["cost"] for report in reports),
        reached=reports[-1]["reached"] if reports else 0,
        state=_STATES[trial.state],
        note=reports[-1]["note"] if reports else "",
    )

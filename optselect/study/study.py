"""The trials of one search, in an ordinary Optuna study that survives a kill."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState

from optselect.configuration.configuration import Configuration
from optselect.configuration.evaluation import Batches, Evaluation
from optselect.configuration.schedule import ScheduleKind
from optselect.configuration.trial import State, Trial
from optselect.errors import StorageError
from optselect.space import Value
from optselect.study.batches import packed, unpacked
from optselect.study.storage import backend_of, file_of, storage_errors, together

BIRTHMARK, USED = "optselect:birthmark", "optselect:used"
"""Attributes of a study: made up with it, so that it is known from any other of its name; its training has ended."""

_CONFIGURATION, _SEED = "optselect:configuration", "optselect:seed"
# In words, for those who look at the study with other tools.
_CANDIDATE = "candidate"
# What belongs to the value at a micro-batch: one attribute for each, so that a kill between it and the value
# leaves something that nobody looks at.
_AT = "optselect:at {}"
_ENDED = "optselect:ended"
_COURSE = "optselect:course"
_UNTRAINED = "optselect:untrained"
# One fixed set of parameters for every trial, whatever its optimizer, so that samplers and
# optuna-dashboard see a single space.
_LR = FloatDistribution(1e-8, 1e3, log=True)
_log = logging.getLogger("optselect")

_STATES: Mapping[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


class TrialStudy:
    """Trials kept in an Optuna study: intermediate values at micro-batches, configurations as user attributes."""

    def __init__(self, study: optuna.Study, where: str = "memory") -> None:
        self.study = study
        # Optuna has no public way to these two, and its own ways to begin a trial and to report read the whole study.
        self._storage, self._id = study._storage, study._study_id  # noqa: SLF001  # as the line above says
        self._where = where
        # What has ended stays as it is: a study of thousands is read again before every job.
        self._ended: dict[int, Trial] = {}
        self._told_of: set[int] = set()

    def trials(self) -> list[Trial]:
        """Return all trials of ours, in the order they were begun."""
        found = [self._read(trial) for trial in self._frozen() if self._is_ours(trial)]
        # One that was taken up again in a new trial counts once, where it was begun.
        return list({(trial.configuration.key, trial.seed): trial for trial in found}.values())

    def _is_ours(self, trial: FrozenTrial) -> bool:
        if _CONFIGURATION not in trial.user_attrs:
            return False
        # optselect writes none: what is not finite counts as the worst value seen.
        foreign = [value for value in trial.intermediate_values.values() if not math.isfinite(value)]
        if foreign and trial.number not in self._told_of:
            self._told_of.add(trial.number)
            name = self.study.study_name
            _log.warning("trial %d of study %s was judged at %s, which counts as failed", trial.number, name, foreign)
        return True

    @property
    def place(self) -> str:
        """Where it is kept, in words and without passwords."""
        return self._where

    def _read(self, trial: FrozenTrial) -> Trial:
        known = self._ended.get(trial.number)
        if known is None:
            try:
                known = _as_trial(trial)
            except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
                raise StorageError(
                    f"trial {trial.number} of the study {self.study.study_name!r} in {self._where} is not as optselect "
                    f"wrote it ({type(error).__name__}: {error}), so it may have been edited; pass another study_name "
                    "or storage= to search anew"
                ) from error
            if trial.state.is_finished():
                self._ended[trial.number] = known
        return known

    def _frozen(self) -> list[FrozenTrial]:
        with storage_errors(self.study, self._where):
            return self.study.get_trials(deepcopy=False)

    def begin(
        self,
        configuration: Configuration,
        seed: int,
        optimizers: Sequence[str],
        values: Mapping[int, float] | None = None,
        batches: Mapping[int, Batches] | None = None,
    ) -> int:
        """Begin a new running trial and return its number. `values` and `batches` are those of the one it takes up."""
        values, batches = values or {}, batches or {}
        parameters: dict[str, Value] = {
            "optimizer": configuration.optimizer,
            "schedule": configuration.schedule.kind,
            "lr": 1.0 if configuration.rate is None else configuration.rate,
        }
        parts = {until: packed(batches.get(until, ())) for until in values}
        known = {_AT.format(at): {"cost": 0.0, "reached": at, "note": "", "batches": parts[at]} for at in values}
        # Added as a whole, not enqueued and asked for: a kill in between would leave a waiting trial behind.
        trial = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=parameters,
            distributions={
                "optimizer": CategoricalDistribution(tuple(optimizers)),
                "schedule": CategoricalDistribution(get_args(ScheduleKind)),
                "lr": _LR,
            },
            intermediate_values=dict(values),
            user_attrs={
                _CANDIDATE: configuration.describe(),
                _CONFIGURATION: json.dumps(configuration.to_dict()),
                _SEED: seed,
                **known,
            },
        )
        with storage_errors(self.study, self._where):
            return self._storage.get_trial_number_from_id(self._storage.create_new_trial(self._id, trial))

    def report(
        self,
        number: int,
        *,
        until: int,
        reached: int,
        value: float,
        cost: float,
        batches: Batches = (),
        note: str = "",
        seconds: float = 0.0,
        pace: float | None = None,
    ) -> None:
        """Store the value a trial is judged at for micro-batch `until`, and what it has cost since the last report.

        `batches` are its parts, which are kept in single precision. `reached` is less than `until` for a trial that
        ended early; `note` says why. `pace`: seconds per micro-batch, where they are known.
        """
        about = {"cost": cost, "reached": reached, "note": note, "seconds": round(seconds, 3)}
        # Three digits: the next run would have others.
        about |= {"pace": float(f"{pace:.3g}")} if pace is not None else {}
        with storage_errors(self.study, self._where):
            trial = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
            with together(self._storage):
                self._storage.set_trial_user_attr(trial, _AT.format(until), {**about, "batches": packed(batches)})
                # Last, where the two are not one: a trial with a value at `until` is done with that rung.
                self._storage.set_trial_intermediate_value(trial, until, value)
            # Where another has ended it meanwhile, a journal says so only now.
            self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def finish(self, number: int, state: State, value: float | None = None) -> None:
        """End a trial as complete (with its value), pruned or failed."""
        ends = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        with storage_errors(self.study, self._where):
            self.study.tell(number, value if state == "complete" else None, state=ends[state])

    @property
    def file(self) -> str | None:
        """The file that it is kept in; None for a storage that is not a file here."""
        return file_of(backend_of(self._storage))

    def birthmarks(self) -> set[str]:
        """Collect the birthmarks of all studies in its storage."""
        with storage_errors(self.study, self._where):
            studies = self._storage.get_all_studies()
        return {str(study.user_attrs.get(BIRTHMARK)) for study in studies}

    @property
    def birthmark(self) -> str:
        """Made up with the study: what lies beside the storage under this name is of this study alone."""
        with storage_errors(self.study, self._where):
            return str(self.study.user_attrs[BIRTHMARK])

    def remember(self, name: str, value: float) -> float:
        """Store and return `value`, or return what an earlier process of the same search stored as `name`."""
        with storage_errors(self.study, self._where):
            known = self.study.user_attrs
            if name not in known:
                self.study.set_user_attr(name, value)
            try:
                remembered = float(known.get(name, value))
            except (TypeError, ValueError):
                remembered = math.nan
        if not math.isfinite(remembered) or remembered < 0:
            raise StorageError(
                f"the study {self.study.study_name!r} in {self._where} remembers {known.get(name)!r} as {name}, which "
                "is a number of 0 or more; pass another study_name or storage= to search anew"
            )
        return remembered

    def keep_course(self, losses: Mapping[int, float]) -> None:
        """Keep the baseline's training losses, by the micro-batch that each is of."""
        with storage_errors(self.study, self._where):
            self.study.set_user_attr(_COURSE, [[end, loss] for end, loss in sorted(losses.items())])

    def course(self) -> dict[int, float]:
        """Return what was kept of the baseline's training losses."""
        with storage_errors(self.study, self._where):
            return {int(end): float(loss) for end, loss in self.study.user_attrs.get(_COURSE, ())}

    def keep_untrained(self, evaluation: Evaluation) -> None:
        """Keep what the untrained model is judged at, its parts in single precision."""
        # JSON, which other tools read, has no NaN.
        value = evaluation.value if math.isfinite(evaluation.value) else None
        with storage_errors(self.study, self._where):
            self.study.set_user_attr(_UNTRAINED, {"value": value, "batches": packed(evaluation.batches)})

    def untrained(self) -> Evaluation | None:
        """Return what was kept of the untrained model, NaN where that was no finite number; None: nothing was."""
        with storage_errors(self.study, self._where):
            kept = self.study.user_attrs.get(_UNTRAINED)
        if kept is None:
            return None
        try:
            value = math.nan if kept["value"] is None else _number(kept["value"])
            return Evaluation.of(value, unpacked(kept["batches"]))
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise StorageError(
                f"the study {self.study.study_name!r} in {self._where} remembers {kept!r} of the untrained model "
                f"({type(error).__name__}: {error}), so it may have been edited; pass another study_name or "
                "storage= to search anew"
            ) from error

    def mark_used(self) -> None:
        """Note that the training this search was for has ended: a later run of the same training searches anew."""
        with storage_errors(self.study, self._where):
            self.study.set_user_attr(USED, True)

    def mark_ended(self, limits: str) -> None:
        """Note that the search has ended at these limits: with the same ones there is nothing more to run."""
        with storage_errors(self.study, self._where):
            self.study.set_user_attr(_ENDED, limits)

    def ended_with(self, limits: str) -> bool:
        """Tell whether a search has ended at these limits."""
        with storage_errors(self.study, self._where):
            return bool(self.study.user_attrs.get(_ENDED) == limits)


def _as_trial(trial: FrozenTrial) -> Trial:
    attributes = trial.user_attrs
    judged = dict(sorted(trial.intermediate_values.items()))
    reports = [_report(attributes[_AT.format(step)]) for step in judged]
    seed = attributes[_SEED]
    if not isinstance(seed, int) or isinstance(seed, bool) or min(judged, default=0) < 0:
        raise ValueError(f"its seed is {seed!r} and its first micro-batch {min(judged, default=0)}")
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
        step: Evaluation.of(value, unpacked(attributes[_AT.format(step)].get("batches", "")))
        for step, value in judged.items()
    }
    return Trial(
        number=trial.number,
        configuration=Configuration.from_dict(json.loads(attributes[_CONFIGURATION])),
        seed=seed,
        values=judged,
        batches={step: evaluation.batches for step, evaluation in evaluations.items() if evaluation.batches},
        reached=reports[-1]["reached"] if reports else 0,
        state=_STATES[trial.state],
        note=note,
        cap=cap,
        cost=sum(report["cost"] for report in reports),
        seconds=sum(report.get("seconds", 0.0) for report in reports),
        pace=next((report["pace"] for report in reversed(reports) if "pace" in report), None),
    )


def _report(about: Any) -> Mapping[str, Any]:
    """Read what is kept beside a value. Raises `ValueError` for what `TrialStudy.report` does not write."""
    numbers = {name: about.get(name, 0.0) if name in _NEWER else about[name] for name in _COUNTED}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"its {name} is {value!r}, which is a number of 0 or more")
    if not isinstance(about["reached"], int) or not isinstance(about["note"], str):
        raise TypeError(f"it reached {about['reached']!r}, with the note {about['note']!r}")
    return about  # type: ignore[no-any-return]  # checked above


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"its value is {value!r}")
    return float(value)


_COUNTED = ("cost", "reached", "seconds", "pace")
# Studies of before, and trials that ended before they trained, have none.
_NEWER = ("seconds", "pace")

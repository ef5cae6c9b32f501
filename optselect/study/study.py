"""The trials of one search, in an ordinary Optuna study that survives a kill."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
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
from optselect.study.artifacts import Artifacts
from optselect.study.backend import backend_of, file_of, together
from optselect.study.batches import packed, unpacked
from optselect.study.reading import (
    AT,
    CONFIGURATION,
    SEED,
    Key,
    Look,
    OpenTrial,
    configuration_of,
    not_given_back,
    number_in,
    seed_of,
    trial_of,
    without_collecting,
)
from optselect.study.storage import TrialEndedError, storage_errors, take_waiting

BIRTHMARK, USED = "optselect:birthmark", "optselect:used"
"""Attributes of a study: made up with it, so that it is known from any other of its name; its training has ended."""

# Who runs a trial, what, and that it is still at it; None: nobody does.
_CLAIM = "optselect:claim"
# In the first trial of a search: what its race was laid out by.
_BASIS = "optselect:basis"
_ENDED = frozenset(state for state in TrialState if state.is_finished())
# In words, for those who look at the study with other tools.
_CANDIDATE = "candidate"
_UNTRAINED = "optselect:untrained"
# One fixed set of parameters for every trial, whatever its optimizer, so that samplers and
# optuna-dashboard see a single space.
_LR = FloatDistribution(1e-8, 1e3, log=True)
_log = logging.getLogger("optselect")


class TrialStudy:
    """Trials kept in an Optuna study: intermediate values at micro-batches, configurations as user attributes.

    A trial runs while a worker is at it, waits between its rungs, and ends with the search. One whose worker was lost
    ends as failed, with nothing to say why; what goes on in its place is a new one, and the two are read as one.
    """

    def __init__(self, study: optuna.Study, where: str = "memory", artifacts: Artifacts = None) -> None:
        self.study = study
        self.artifacts = artifacts
        # Optuna has no public way to these two, and its own ways to begin a trial and to report read the whole study.
        self._storage, self._id = study._storage, study._study_id  # noqa: SLF001  # as the line above says
        self._where = where
        # A study of thousands is looked at before every job, and few of its trials have changed since. Storages put
        # another object in the place of a trial that is written to, so the same object says the same.
        self._looking = threading.Lock()
        self._seen: dict[int, FrozenTrial] = {}
        self._keys: dict[int, Key] = {}
        self._groups: dict[Key, dict[int, FrozenTrial]] = {}
        self._known: dict[Key, Trial] = {}
        self._lost: dict[int, OpenTrial] = {}
        self._told_of: set[int] = set()
        self._basis: Mapping[str, Any] | None = None
        self._own: dict[str, Any] = {}

    def trials(self) -> list[Trial]:
        """Return all trials of ours, in the order they were begun."""
        return list(self.look().trials)

    def look(self) -> Look:
        """Read all that it holds."""
        # The thread that renews a claim looks, too.
        with self._looking, nullcontext() if self._seen else without_collecting():
            return self._looked()

    def _looked(self) -> Look:
        frozen = self._frozen()
        changed = [trial for trial in frozen if self._seen.get(trial.number) is not trial]
        for key in dict.fromkeys(key for trial in changed if (key := self._filed(trial)) is not None):
            self._read(key)
        self._seen |= {trial.number: trial for trial in changed}
        going = [trial for trial in frozen if trial.state not in _ENDED and CONFIGURATION in trial.user_attrs]
        return Look(
            trials=[self._known[key] for key in self._groups if key in self._known],
            open=[_open(trial) for trial in going if trial.state == TrialState.RUNNING and _CLAIM in trial.user_attrs],
            lost=[self._lost[number] for number in sorted(self._lost)],
            free={self._key(trial): trial.number for trial in reversed(going) if trial.state == TrialState.WAITING},
            latest=frozen[-1].number if frozen else -1,
        )

    def _filed(self, trial: FrozenTrial) -> Key | None:
        """Put what was not seen before to the trials of its configuration and seed; None: it is not ours."""
        if CONFIGURATION not in trial.user_attrs:
            return None
        key = self._key(trial)
        self._groups.setdefault(key, {})[trial.number] = trial
        if trial.state == TrialState.FAIL and _is_lost(trial):
            self._lost[trial.number] = _open(trial)
        return key

    def _tell_of_foreign(self, trial: FrozenTrial) -> None:
        """Say what optselect does not write: what is not finite counts as the worst value seen."""
        foreign = [value for value in trial.intermediate_values.values() if not math.isfinite(value)]
        if foreign and trial.number not in self._told_of:
            self._told_of.add(trial.number)
            name = self.study.study_name
            _log.warning("trial %d of study %s was judged at %s, which counts as failed", trial.number, name, foreign)

    @property
    def place(self) -> str:
        """Where it is kept, in words and without passwords."""
        return self._where

    def _key(self, trial: FrozenTrial) -> Key:
        known = self._keys.get(trial.number)
        if known is None:
            with self._as_written(trial.number):
                known = self._keys[trial.number] = (configuration_of(trial).key, seed_of(trial))
        return known

    def _read(self, key: Key) -> None:
        """Read as one what was run of a configuration with a seed."""
        group = not_given_back([trial for _, trial in sorted(self._groups[key].items())])
        if not group:
            self._known.pop(key, None)
            return
        for trial in group:
            self._tell_of_foreign(trial)
        with self._as_written(group[-1].number):
            self._known[key] = trial_of(group, configuration_of(group[0]), seed_of(group[0]))

    @contextmanager
    def _as_written(self, number: int) -> Iterator[None]:
        """Raise `StorageError` for what cannot be read inside."""
        try:
            yield
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise StorageError(
                f"trial {number} of the study {self.study.study_name!r} in {self._where} is not as optselect wrote it "
                f"({type(error).__name__}: {error}), so it may have been edited; pass another study_name or storage= "
                "to search anew"
            ) from error

    def _frozen(self) -> list[FrozenTrial]:
        with storage_errors(self.study, self._where):
            return self._storage.get_all_trials(self._id, deepcopy=False)

    # --- one trial ----------------------------------------------------------------------------------

    def begin(
        self,
        configuration: Configuration,
        seed: int,
        optimizers: Sequence[str],
        values: Mapping[int, float] | None = None,
        batches: Mapping[int, Batches] | None = None,
        *,
        claim: Mapping[str, Any] | None = None,
    ) -> int:
        """Begin a new running trial and return its number, which is higher than that of any begun before.

        `values` and `batches` are those of the one that it takes up; `claim` says who runs it.
        """
        values, batches = values or {}, batches or {}
        parameters: dict[str, Value] = {
            "optimizer": configuration.optimizer,
            "schedule": configuration.schedule.kind,
            "lr": 1.0 if configuration.rate is None else configuration.rate,
        }
        parts = {until: packed(batches.get(until, ())) for until in values}
        known = {AT.format(at): {"cost": 0.0, "reached": at, "note": "", "batches": parts[at]} for at in values}
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
                CONFIGURATION: json.dumps(configuration.to_dict()),
                SEED: seed,
                _CLAIM: None if claim is None else dict(claim),
                **({_BASIS: self._own} if self._own and self.basis is None else {}),
                **known,
            },
        )
        with storage_errors(self.study, self._where):
            return self._storage.get_trial_number_from_id(self._storage.create_new_trial(self._id, trial))

    def take(self, number: int, claim: Mapping[str, Any]) -> bool:
        """Set a trial that nobody runs running again, and tell whether it was this call that did: of several, one."""
        with storage_errors(self.study, self._where):
            trial = self._trial_id(number)
            if not take_waiting(self._storage, trial):
                return False
            self._storage.set_trial_user_attr(trial, _CLAIM, dict(claim))
        return True

    def renew(self, number: int, claim: Mapping[str, Any]) -> None:
        """Say of a running trial who runs it. Raises `TrialEndedError` where another has given it back meanwhile."""
        with storage_errors(self.study, self._where):
            self._storage.set_trial_user_attr(self._trial_id(number), _CLAIM, dict(claim))

    def has(self, number: int, until: int) -> bool:
        """Tell whether a trial was judged at micro-batch `until`."""
        with storage_errors(self.study, self._where):
            return until in self._storage.get_trial(self._trial_id(number)).intermediate_values

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
        turn: int | None = None,
        course: Mapping[int, float] | None = None,
        aside: bool = False,
    ) -> None:
        """Store the value a trial is judged at for micro-batch `until`, and what it has cost since the last report.

        `batches` are its parts, which are kept in single precision. `reached` is less than `until` for a trial that
        ended early; `note` says why. `pace`: seconds per micro-batch, where they are known. `turn` is the place of this
        job in the search, and `course` what a baseline adds to its own. `aside`: the trial is put aside with it. Raises
        `TrialEndedError` for a trial that has ended.
        """
        about = {"cost": cost, "reached": reached, "note": note, "seconds": round(seconds, 3)}
        # Three digits: the next run would have others.
        about |= {"pace": float(f"{pace:.3g}")} if pace is not None else {}
        about |= {"turn": turn} if turn is not None else {}
        about |= {"course": [[end, loss] for end, loss in sorted(course.items())]} if course else {}
        with storage_errors(self.study, self._where):
            trial = self._trial_id(number)
            with together(self._storage):
                self._storage.set_trial_user_attr(trial, AT.format(until), {**about, "batches": packed(batches)})
                # Last, where these are not one: a trial with a value at `until` is done with that rung.
                self._storage.set_trial_intermediate_value(trial, until, value)
                if aside:
                    self._put_aside(trial)
            # Where another has ended it meanwhile, a journal says so only now.
            self._trial_id(number)

    def put_aside(self, number: int) -> None:
        """Let a trial wait until somebody runs it again. Raises `TrialEndedError` for one that has ended."""
        with storage_errors(self.study, self._where):
            self._put_aside(self._trial_id(number))

    def _put_aside(self, trial: int) -> None:
        self._storage.set_trial_user_attr(trial, _CLAIM, None)
        self._storage.set_trial_state_values(trial, TrialState.WAITING)

    def give_back(self, number: int) -> bool:
        """End a trial whose worker is lost, and tell whether it had not ended before; what was judged of it counts."""
        try:
            with storage_errors(self.study, self._where):
                self._storage.set_trial_state_values(self._trial_id(number), TrialState.FAIL)
        except TrialEndedError:
            return False
        return True

    def withdraw(self, number: int) -> None:
        """End a trial that another has begun, too."""
        with suppress(TrialEndedError), storage_errors(self.study, self._where):
            trial = self._trial_id(number)
            self._storage.set_trial_user_attr(trial, _CLAIM, None)
            self._storage.set_trial_state_values(trial, TrialState.FAIL)

    def finish(self, number: int, state: State, value: float | None = None) -> None:
        """End a trial as complete (with its value), pruned or failed. Raises `TrialEndedError` for one that has."""
        ends = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        with storage_errors(self.study, self._where):
            trial = self._trial_id(number)
            if state == "pruned":
                # As Optuna has it: the last value is that of the trial.
                judged = self._storage.get_trial(trial).intermediate_values
                value = judged[max(judged)] if judged and math.isfinite(judged[max(judged)]) else None
            values = None if value is None or state == "failed" else [value]
            self._storage.set_trial_state_values(trial, ends[state], values)

    def close(self, trials: Sequence[Trial], values: Mapping[Key, float]) -> None:
        """End what waits as `trials` say that it has ended, complete ones with their `values`. Any worker may."""
        states = {(trial.configuration.key, trial.seed): trial.state for trial in trials}
        for trial in self._frozen():
            if (
                trial.state.is_finished()
                or CONFIGURATION not in trial.user_attrs
                or trial.user_attrs.get(_CLAIM) is not None
            ):
                continue
            key = self._key(trial)
            # Begun, and never judged: there is no more to say of it.
            state = states.get(key, "failed")
            with suppress(TrialEndedError):
                self.finish(trial.number, "failed" if state == "running" else state, values.get(key))

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)

    # --- where it is --------------------------------------------------------------------------------

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

    # --- what all workers go by ---------------------------------------------------------------------

    @property
    def basis(self) -> Mapping[str, Any] | None:
        """What the race of this search was laid out by, as its first trial says; None: there is none that says so.

        Of workers that begin at once each begins a trial. All go by that with the lowest number, which every storage
        gives to one alone.
        """
        if self._basis is None:
            first = next((trial for trial in self._frozen() if CONFIGURATION in trial.user_attrs), None)
            if first is not None:
                told = first.user_attrs.get(_BASIS)
                # One of a study of before does not say.
                self._basis = told if isinstance(told, Mapping) else {}
        return self._basis

    @property
    def is_laid_out_otherwise(self) -> bool:
        """Whether the race of this search was laid out by something else than this process has gone by."""
        basis = self.basis or {}
        return any(name in basis and _written(basis[name]) != _written(fact) for name, fact in self._own.items())

    def keep(self, name: str, fact: Any) -> Any:
        """Return what this search goes by as `name`: `fact`, in JSON's words, unless another was kept before it."""
        if self.basis is not None and name in self.basis:
            fact = self.basis[name]
        self._own[name] = fact
        return fact

    def remember(self, name: str, value: float) -> float:
        """Store and return `value`, or return what an earlier process of the same search stored as `name`."""
        with storage_errors(self.study, self._where):
            known = self.study.user_attrs
            if name not in known:
                self.study.set_user_attr(name, value)
        told = self.keep(name, known.get(name, value))
        try:
            remembered = float(told)
        except (TypeError, ValueError):
            remembered = math.nan
        if not math.isfinite(remembered) or remembered < 0:
            raise StorageError(
                f"the study {self.study.study_name!r} in {self._where} remembers {told!r} as {name}, which "
                "is a number of 0 or more; pass another study_name or storage= to search anew"
            )
        return remembered

    def keep_untrained(self, evaluation: Evaluation) -> None:
        """Keep what the untrained model is judged at, its parts in single precision."""
        # JSON, which other tools read, has no NaN.
        value = evaluation.value if math.isfinite(evaluation.value) else None
        kept = {"value": value, "batches": packed(evaluation.batches)}
        with storage_errors(self.study, self._where):
            self.study.set_user_attr(_UNTRAINED, kept)
        self.keep(_UNTRAINED, kept)

    def untrained(self) -> Evaluation | None:
        """Return what was kept of the untrained model, NaN where that was no finite number; None: nothing was."""
        with storage_errors(self.study, self._where):
            kept = (self.basis or {}).get(_UNTRAINED) or self.study.user_attrs.get(_UNTRAINED)
        if kept is None:
            return None
        try:
            value = math.nan if kept["value"] is None else number_in(kept["value"])
            untrained = Evaluation.of(value, unpacked(kept["batches"]))
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise StorageError(
                f"the study {self.study.study_name!r} in {self._where} remembers {kept!r} of the untrained model "
                f"({type(error).__name__}: {error}), so it may have been edited; pass another study_name or "
                "storage= to search anew"
            ) from error
        self.keep(_UNTRAINED, kept)
        return untrained

    def mark_used(self) -> None:
        """Note that the training this search was for has ended: a later run of the same training searches anew."""
        with storage_errors(self.study, self._where):
            self.study.set_user_attr(USED, True)


def _open(trial: FrozenTrial) -> OpenTrial:
    return OpenTrial(
        number=trial.number,
        configuration=configuration_of(trial),
        seed=seed_of(trial),
        claim=trial.user_attrs[_CLAIM],
    )


def _is_lost(trial: FrozenTrial) -> bool:
    """Tell whether a trial that failed did so because of its worker."""
    claim = trial.user_attrs.get(_CLAIM)
    return isinstance(claim, Mapping) and claim.get("until") not in trial.intermediate_values


def _written(fact: Any) -> str:
    """Write `fact` as a storage does, which knows no tuples, so that two can be compared."""
    return json.dumps(fact, sort_keys=True)

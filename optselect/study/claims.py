"""Which worker is at which trial: taken by one of several, held by a lease, given back when its holder is lost.

Every step is one that all Optuna storages have, and that one of several wins. A new trial is begun running; where two
have begun the same one, that with the lower number counts. A trial that waits between its rungs is set running, which
the storage answers with False to the one who comes second. A trial whose holder is lost ends as failed, and what has
ended nobody writes to: a holder that was only slow learns of it by that.

No clock is compared with another machine's. The holder of a lease counts up in it, and whoever looks on measures by
its own clock for how long it has not done so.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from optselect.configuration import Configuration, Trial
from optselect.errors import StorageError
from optselect.study.process import is_dead, this_process
from optselect.study.reading import Look, OpenTrial
from optselect.study.storage import TrialEndedError
from optselect.study.study import TrialStudy

LEASE_SECONDS = 30.0
"""A worker that has not been heard of for so long is lost."""

_RENEWALS = 3
# A look that comes later than this after the one before says little: the storage, or the one who looks, was away.
_SHARE_OF_A_LOOK = 0.25
# Between setting a trial running and saying who runs it there is one write. One that takes longer loses the trial.
_UNSAID_SECONDS = 1.0
# What this process holds; of its threads and of searches in it that were left, nobody else could tell.
_held: set[str] = set()

_log = logging.getLogger("optselect")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A trial that a worker runs, and up to where.

    number         of the trial in the study
    configuration  what it trains
    seed           of its batches
    until          micro-batch that it is to be judged at
    turn           place of this job in the search
    stage          that asked for it
    worker         who runs it, as `this_process` says
    token          made up with the claim: no other is known by it
    renewals       how often its holder has said that it is still at it
    seconds        without renewal after which the holder is lost
    left           whether its holder has said that it goes
    """

    number: int
    configuration: Configuration
    seed: int
    until: int
    turn: int
    stage: str
    worker: Mapping[str, Any] = field(default_factory=this_process)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    renewals: int = 0
    seconds: float = LEASE_SECONDS
    left: bool = False

    @property
    def name(self) -> str:
        """Its worker, for people: the host and the process."""
        host = str(self.worker.get("machine", "")).partition(" ")[0]
        return f"{host or 'somewhere'}:{self.worker.get('pid', '?')}"

    def to_dict(self) -> dict[str, Any]:
        """Write what the trial does not say itself; inverse of `claim_on`."""
        names = ("until", "turn", "stage", "token", "renewals", "seconds", "left")
        return {"worker": dict(self.worker), **{name: getattr(self, name) for name in names}}


def claim_on(trial: OpenTrial) -> Claim | None:
    """Read the claim on an open trial; None: it does not say, or not yet, who runs it."""
    told = trial.claim
    try:
        return (
            None
            if told is None
            else Claim(
                number=trial.number,
                configuration=trial.configuration,
                seed=trial.seed,
                until=int(told["until"]),
                turn=int(told["turn"]),
                stage=str(told["stage"]),
                worker=dict(told["worker"]),
                token=str(told["token"]),
                renewals=int(told["renewals"]),
                seconds=float(told["seconds"]),
                left=bool(told["left"]),
            )
        )
    except (KeyError, TypeError, ValueError):
        return None


class Claims:
    """The claims on the trials of `study`, as one worker sees them.

    lease_seconds  after which its own claims count as lost where it does not renew them
    clock          seconds of this process, which never go back
    worker         how it calls itself
    on_look        is told at each look what others are at, and which claims were lost so far
    """

    def __init__(
        self,
        study: TrialStudy,
        *,
        lease_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        worker: Mapping[str, Any] | None = None,
        on_look: Callable[[Sequence[Claim], Sequence[Claim]], None] = lambda _running, _lost: None,
    ) -> None:
        self.study = study
        self._seconds = LEASE_SECONDS if lease_seconds is None else lease_seconds
        self._worker = this_process() if worker is None else worker
        self._watch = _Watch(self._seconds, clock)
        self._looked = False
        self._on_look = on_look
        self.lost: list[Claim] = []

    @property
    def look_seconds(self) -> float:
        """Seconds after which whoever waits has to look again, to see in time who is lost."""
        return _SHARE_OF_A_LOOK * self._seconds

    def look(self) -> tuple[Look, list[Claim | None]]:
        """Read the study, give back what was lost, and return what is left: all of it, and the claims on open trials.

        None stands for an open trial that does not say who runs it.
        """
        look = self.study.look()
        if not self._looked and self._put_aside_what_was_left(look):
            look = self.study.look()
        self._looked = True
        while [trial for trial in look.open if self._given_back(trial)]:
            look = self.study.look()
        claims = [claim_on(trial) for trial in look.open]
        self._on_look([claim for claim in claims if claim is not None and claim.token not in _held], self.lost)
        return look, claims

    def _put_aside_what_was_left(self, look: Look) -> bool:
        """Go on with the trials of a search that was left, where nobody else is at it: the study is as if none was."""
        left = [claim_on(trial) for trial in look.open]
        if not all(claim is not None and _is_left(claim) for claim in left):
            return False
        for trial in look.open:
            with suppress(TrialEndedError):
                self.study.put_aside(trial.number)
        return bool(left)

    def _given_back(self, trial: OpenTrial) -> bool:
        claim = claim_on(trial)
        if not self._watch.has_lost(trial, claim):
            return False
        if self.study.give_back(trial.number):
            told = f"of {claim.name}" if claim is not None else "of an unknown worker"
            _log.warning("the trial %s %s is given back: it was not heard of", trial.configuration.describe(), told)
        if claim is not None:
            self.lost.append(claim)
        return True

    def take(
        self,
        look: Look,
        configuration: Configuration,
        seed: int,
        *,
        until: int,
        turn: int,
        stage: str,
        optimizers: Sequence[str],
        known: Trial | None,
    ) -> Claim | None:
        """Take a job; None: it is another's, by `look` or meanwhile.

        `optimizers` are those of the search, and `known` is what was run of the trial before.
        """
        key = (configuration.key, seed)
        if any((trial.configuration.key, trial.seed) == key for trial in look.open):
            return None
        claim = Claim(
            number=-1,
            configuration=configuration,
            seed=seed,
            until=until,
            turn=turn,
            stage=stage,
            worker=self._worker,
            seconds=self._seconds,
        )
        _held.add(claim.token)
        try:
            waiting = look.free.get(key)
            if waiting is not None:
                claim = replace(claim, number=waiting)
                taken = self.study.take(waiting, claim.to_dict())
                # Since the look another may have run it, and put it aside again.
                if taken and self.study.has(waiting, until):
                    self.study.put_aside(waiting)
                    taken = False
            else:
                values, batches = ({}, {}) if known is None else (known.judged, known.batches)
                number = self.study.begin(configuration, seed, optimizers, values, batches, claim=claim.to_dict())
                claim = replace(claim, number=number)
                # Numbers are given out one after the other: where this is the next one, nobody was quicker.
                taken = number == look.latest + 1 or self._is_first(claim)
                if not taken:
                    self.study.withdraw(number)
        except TrialEndedError:
            taken = False
        except BaseException:
            _held.discard(claim.token)
            raise
        if taken:
            return claim
        _held.discard(claim.token)
        return None

    def _is_first(self, claim: Claim) -> bool:
        """Tell whether nobody else has begun or judged what `claim` is about."""
        look = self.study.look()
        mine = (claim.configuration.key, claim.seed)
        judged = any(
            claim.until in trial.judged for trial in look.trials if (trial.configuration.key, trial.seed) == mine
        )
        others = [each.number for each in look.open if (each.configuration.key, each.seed) == mine]
        return not judged and mine not in look.free and min(others, default=-1) == claim.number

    def renew(self, claim: Claim) -> Claim:
        """Say that its holder is still at it. Raises `TrialEndedError` where another has given it back."""
        renewed = replace(claim, renewals=claim.renewals + 1)
        self.study.renew(claim.number, renewed.to_dict())
        return renewed

    def let_go(self, claim: Claim) -> None:
        """Leave a trial where it is, for whoever comes: its holder goes."""
        _held.discard(claim.token)
        try:
            self.study.renew(claim.number, replace(claim, left=True).to_dict())
        except StorageError as error:
            _log.debug("a claim is left to its lease: %s", error)

    def done(self, claim: Claim) -> None:
        """Forget a claim whose trial was put aside, or has ended."""
        _held.discard(claim.token)


class Keeper:
    """Renews a claim while its trial runs, and gives back what others have lost meanwhile; a context manager.

    `lost` says whether the claim itself was given back by another.
    """

    def __init__(self, claims: Claims, claim: Claim) -> None:
        self._claims = claims
        self.claim = claim
        self.lost = False
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="optselect lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        self._thread.join()
        if kind is not None:
            self._claims.let_go(self.claim)

    def _keep(self) -> None:
        while not self._ends.wait(self.claim.seconds / _RENEWALS):
            try:
                self.claim = self._claims.renew(self.claim)
                self._claims.look()
            except TrialEndedError:
                self.lost = True
                return
            except StorageError as error:
                # It may come back; if not, whoever runs the trial will find out.
                _log.debug("the lease is not renewed: %s", error)


class _Watch:
    """For how long each claim has not been renewed, by this process's own clock."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        # By trial: what its claim was, for how long it has been so, and when that was looked at.
        self._seen: dict[int, tuple[Any, float, float]] = {}

    def has_lost(self, trial: OpenTrial, claim: Claim | None) -> bool:
        """Look at an open trial, and tell whether its holder is lost."""
        if claim is not None and _is_left(claim):
            return True
        now = self._clock()
        seconds = min(self._seconds, _UNSAID_SECONDS) if claim is None else claim.seconds
        what, silent, looked = self._seen.get(trial.number, (None, 0.0, now))
        mark = (None, None) if claim is None else (claim.token, claim.renewals)
        if what != mark:
            self._seen[trial.number] = (mark, 0.0, now)
            return False
        silent += min(now - looked, _SHARE_OF_A_LOOK * seconds)
        self._seen[trial.number] = (mark, silent, now)
        return silent >= seconds


def _is_left(claim: Claim) -> bool:
    """Tell whether its holder is known to be gone: it said so, or was a process of this machine."""
    if claim.left:
        return True
    if claim.worker == this_process():
        return claim.token not in _held
    return is_dead(claim.worker)

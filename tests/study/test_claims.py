"""A job is one worker's, however many reach for it, and comes back when that one is lost."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from optselect.configuration import Configuration
from optselect.study.claims import Claim, Claims, Keeper
from optselect.study.opening import open_study
from optselect.study.process import this_process
from optselect.study.reading import Look
from optselect.study.storage import TrialEndedError
from optselect.study.study import TrialStudy

SGD = Configuration(optimizer="sgd", hyperparameters={"lr": 0.1})
ADAMW = Configuration(optimizer="adamw", hyperparameters={"lr": 1e-3})
NAMES = ["adamw", "sgd"]
LEASE = 8.0

STORAGES: dict[str, Callable[[Path], Any]] = {
    "memory": lambda path: optuna.storages.InMemoryStorage(),
    "journal": lambda path: path / "study.journal",
    "sqlite": lambda path: f"sqlite:///{path}/study.db",
}


class Clocks:
    """A clock for each worker, hours apart from one another, that go on together."""

    def __init__(self) -> None:
        self.passed = 0.0

    def of(self, number: int) -> Callable[[], float]:
        return lambda: self.passed + 3_600.0 * number


@pytest.fixture(params=[*STORAGES, "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "postgresql":
        return request.getfixturevalue("postgres").database()
    return STORAGES[request.param](tmp_path)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def opened(place: Any) -> TrialStudy:
    return open_study(storage=place, name="study", mode="min", facts={})


def worker(place: Any, clocks: Clocks, number: int) -> Claims:
    """A worker on a machine of its own, with its own way to the study."""
    here = {"machine": f"machine-{number}", "pid": 1, "started": None}
    return Claims(opened(place), lease_seconds=LEASE, clock=clocks.of(number), worker=here)


def take(claims: Claims, look: Look | None = None, configuration: Configuration = SGD, until: int = 10) -> Claim | None:
    look = look or claims.look()[0]
    known = next((trial for trial in look.trials if trial.configuration == configuration), None)
    return claims.take(look, configuration, 0, until=until, turn=0, stage="arms", optimizers=NAMES, known=known)


def judge(claims: Claims, claim: Claim, value: float = 0.5) -> None:
    claims.study.report(
        claim.number, until=claim.until, reached=claim.until, value=value, cost=1.0, turn=claim.turn, aside=True
    )
    claims.done(claim)


def pass_by(clocks: Clocks, claims: Claims, seconds: float) -> None:
    """Let time pass with a look every second."""
    for _ in range(round(seconds)):
        clocks.passed += 1.0
        claims.look()


def states(claims: Claims) -> list[TrialState]:
    return [trial.state for trial in claims.study.study.get_trials()]


def test_of_several_that_saw_a_new_job_as_nobodys_one_has_it(place: Any, clocks: Clocks) -> None:
    workers = [worker(place, clocks, number) for number in range(4)]
    looks = [each.look()[0] for each in workers]

    taken = [take(each, look) for each, look in zip(workers, looks, strict=True)]

    assert [claim is not None for claim in taken] == [True, False, False, False]
    assert [state for state in states(workers[0]) if state == TrialState.RUNNING] == [TrialState.RUNNING]
    assert len(workers[0].look()[0].trials) == 1


def test_of_several_that_saw_a_trial_wait_one_takes_it_on(place: Any, clocks: Clocks) -> None:
    workers = [worker(place, clocks, number) for number in range(4)]
    first = take(workers[0])
    assert first is not None
    judge(workers[0], first)
    looks = [each.look()[0] for each in workers]

    taken = [take(each, look, until=20) for each, look in zip(reversed(workers), looks, strict=True)]

    assert [claim is not None for claim in taken] == [True, False, False, False]
    assert len(states(workers[0])) == 1


def test_what_was_judged_since_a_look_is_not_run_again(place: Any, clocks: Clocks) -> None:
    one, other = (worker(place, clocks, number) for number in range(2))
    before = other.look()[0]
    claim = take(one)
    assert claim is not None
    judge(one, claim)
    between = other.look()[0]
    claim = take(one, until=20)
    assert claim is not None
    judge(one, claim)

    assert take(other, before) is None
    assert take(other, between, until=20) is None

    look, _ = one.look()
    assert [dict(trial.values) for trial in look.trials] == [{10: 0.5, 20: 0.5}]
    assert len(look.free) == 1


def test_threads_that_reach_for_the_same_jobs_at_once_share_them_out(place: Any, clocks: Clocks) -> None:
    jobs = [(each, until) for until in (10, 20) for each in (SGD, ADAMW)]
    taken: list[tuple[str, int]] = []

    def reach(number: int) -> None:
        claims = worker(place, clocks, number)
        for configuration, until in jobs:
            starts.wait()
            claim = take(claims, configuration=configuration, until=until)
            if claim is not None:
                taken.append((configuration.optimizer, until))
                judge(claims, claim)
            ends.wait()

    starts, ends = threading.Barrier(4), threading.Barrier(4)
    opened(place)
    threads = [threading.Thread(target=reach, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(taken) == sorted((configuration.optimizer, until) for configuration, until in jobs)


def test_a_lease_that_is_renewed_is_not_lost(place: Any, clocks: Clocks) -> None:
    one, other = (worker(place, clocks, number) for number in range(2))
    claim = take(one)
    assert claim is not None

    for _ in range(8):
        pass_by(clocks, other, LEASE / 2)
        claim = one.renew(claim)

    assert states(one) == [TrialState.RUNNING]
    assert other.lost == []


def test_a_worker_that_is_not_heard_of_for_a_lease_gives_its_job_back_within_two(place: Any, clocks: Clocks) -> None:
    one, other = (worker(place, clocks, number) for number in range(2))
    take(one)
    pass_by(clocks, other, LEASE - 1)
    assert take(other) is None

    pass_by(clocks, other, LEASE)

    assert [claim.name for claim in other.lost] == ["machine-0:1"]
    assert take(other) is not None


def test_two_that_give_back_the_same_job_do_no_harm(place: Any, clocks: Clocks) -> None:
    lost, *others = (worker(place, clocks, number) for number in range(4))
    take(lost)
    (seen,) = others[0].study.look().open

    given = [each.study.give_back(seen.number) for each in others]
    claim = take(others[1])
    later = others[2].study.give_back(seen.number)

    assert (given, later) == ([True, False, False], False)
    assert claim is not None
    assert [each.number for each in others[0].look()[0].open] == [claim.number]


def test_a_worker_that_was_only_slow_learns_that_its_job_is_anothers(place: Any, clocks: Clocks) -> None:
    slow, other = (worker(place, clocks, number) for number in range(2))
    claim = take(slow)
    assert claim is not None
    pass_by(clocks, other, 2 * LEASE)
    taken = take(other)
    assert taken is not None

    with pytest.raises(TrialEndedError):
        slow.renew(claim)
    with pytest.raises(TrialEndedError):
        judge(slow, claim, value=0.1)
    judge(other, taken, value=0.5)

    assert [dict(trial.values) for trial in other.look()[0].trials] == [{10: 0.5}]


def test_what_a_lost_worker_had_judged_before_counts_and_is_gone_on_from(place: Any, clocks: Clocks) -> None:
    one, other = (worker(place, clocks, number) for number in range(2))
    claim = take(one)
    assert claim is not None
    judge(one, claim)
    take(one, until=20)
    pass_by(clocks, other, 2 * LEASE)

    taken = take(other, until=20)
    assert taken is not None
    judge(other, taken, value=0.4)

    (trial,) = other.look()[0].trials
    assert (dict(trial.values), trial.cost, trial.state) == ({10: 0.5, 20: 0.4}, 2.0, "running")


def test_who_was_away_gives_nothing_back_for_that(place: Any, clocks: Clocks) -> None:
    one, other = (worker(place, clocks, number) for number in range(2))
    take(one)
    other.look()
    # The storage was gone for so long, or this worker was.
    clocks.passed += 100 * LEASE

    other.look()

    assert other.lost == []


def test_a_claim_of_a_process_of_this_machine_that_is_dead_is_given_back_at_once(tmp_path: Path) -> None:
    program = """
import sys
from optselect.configuration import Configuration
from optselect.study.claims import Claims
from optselect.study.opening import open_study
claims = Claims(open_study(storage=sys.argv[1], name="study", mode="min", facts={}))
sgd = Configuration(optimizer="sgd", hyperparameters={"lr": 0.1})
claim = claims.take(claims.look()[0], sgd, 0, until=10, turn=0, stage="arms", optimizers=["sgd"], known=None)
print(claim.number)
"""
    storage = str(tmp_path / "study.journal")
    said = subprocess.run([sys.executable, "-c", program, storage], capture_output=True, text=True, check=True).stdout
    claims = Claims(opened(storage))

    look, running = claims.look()

    assert (said, running) == ("0\n", [])
    assert list(look.free.values()) == [0]


def test_of_workers_on_one_machine_the_job_of_one_that_was_killed_is_anothers_at_once(tmp_path: Path) -> None:
    at_work = Claims(opened(tmp_path / "study.journal"))
    at_work.look()
    claim = take(Claims(opened(tmp_path / "study.journal"), worker={**this_process(), "pid": 2**22 + 1}))
    assert claim is not None

    _, running = at_work.look()

    assert (running, [lost.token for lost in at_work.lost]) == ([], [claim.token])


def test_a_claim_of_a_search_in_this_process_that_was_left_is_given_back_at_once(place: Any) -> None:
    claims = Claims(opened(place), lease_seconds=LEASE)
    claim = take(claims)
    assert claim is not None
    with pytest.raises(KeyboardInterrupt), Keeper(claims, claim):
        raise KeyboardInterrupt
    assert states(claims) == [TrialState.RUNNING]

    assert take(Claims(opened(place))) is not None
    assert states(claims) == [TrialState.RUNNING]


def test_a_trial_that_does_not_say_who_runs_it_is_given_back_too(place: Any, clocks: Clocks) -> None:
    other = worker(place, clocks, 1)
    other.study.begin(SGD, 0, NAMES)
    _, running = other.look()
    assert running == [None]

    pass_by(clocks, other, LEASE)

    assert other.look()[1] == []


def test_the_thread_that_keeps_a_claim_renews_it(place: Any) -> None:
    claims = Claims(opened(place), lease_seconds=0.03)
    claim = take(claims)
    assert claim is not None
    renewed = threading.Event()
    renew = claims.renew

    def noted(claim: Claim) -> Claim:
        found = renew(claim)
        if found.renewals == 3:
            renewed.set()
        return found

    claims.renew = noted  # type: ignore[method-assign]  # to know when it has

    with Keeper(claims, claim) as keeper:
        assert renewed.wait(timeout=60)

    assert not keeper.lost
    (trial,) = claims.study.look().open
    assert trial.claim is not None
    assert trial.claim["renewals"] >= 3


# --- what all workers go by -----------------------------------------------------------------


def test_all_go_by_what_the_first_trial_says(place: Any) -> None:
    one, other = opened(place), opened(place)
    for study, room in ((one, 5.0), (other, 7.0)):
        study.remember("room", room)
        study.keep("profile", {"seen": [room, float("nan")]})
    one.begin(SGD, 0, NAMES)
    other.begin(ADAMW, 0, NAMES)

    assert (one.is_laid_out_otherwise, other.is_laid_out_otherwise) == (False, True)

    assert other.remember("room", 7.0) == 5.0
    assert other.keep("profile", {})["seen"][0] == 5.0
    assert not other.is_laid_out_otherwise

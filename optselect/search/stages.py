"""The stages of a search, each only as far as the budget goes.

A stage says which jobs it asks for, and how much of the budget the stages before it leave to it. Both are functions of
the trials so far, and of nothing else.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from optselect.configuration import USER, Configuration
from optselect.search.board import Board, distinct
from optselect.search.gaussian_process import suggestion
from optselect.search.race import Job, Race
from optselect.search.tactics import HALF_DECADE


class Stage:
    """What a stage is; each of the others says what it does otherwise.

    decides     whether it compares what was tried already: nothing of that is begun once the choice is settled
    goes_ahead  whether each of its jobs is asked for whatever those before it give, so that they may run side by side
    """

    name = ""
    decides = False
    goes_ahead = False

    def jobs(self, board: Board) -> Iterable[Job]:
        """List what to run, the most wanted first; the first job that fits the budget is run."""
        raise NotImplementedError

    def reserve(self, board: Board) -> float:
        """Return the micro-batches that the stages before leave to this one."""
        del board
        return 0.0

    def leaves(self, board: Board, later: Sequence[Stage]) -> float:
        """Return the micro-batches to leave to later stages: quarters alone cannot show what will be overfit."""
        if board.race.left == math.inf or board.race.trainings < board.race.tactics.halving:
            return 0.0
        return sum(stage.reserve(board) for stage in later)

    def _job(self, configuration: Configuration, until: int, seed: int = 0) -> Job:
        return Job(configuration=configuration, seed=seed, until=until, stage=self.name)

    def _unjudged(self, board: Board, configurations: Iterable[Configuration], rung: int) -> Iterable[Job]:
        for configuration in configurations:
            if not board.judged(configuration, 0, rung):
                yield self._job(configuration, rung)


class Arms(Stage):
    """A few complementary whole configurations to a quarter of the real schedule.

    Where not all arms can go to a quarter, more go to a tenth, and the best two and the baseline go on. A trained model
    wants the right rate, and the right share of it for each part, more than another algorithm: there three arms begin.
    """

    name = "arms"
    goes_ahead = True

    def jobs(self, board: Board) -> Iterable[Job]:
        """Yield the arms in their order, until as many as the layout wants are sound."""
        race, layout = board.race, board.race.layout
        until = layout.screen or layout.rung
        sound = 0
        for arm in race.arms:
            # One that diverged early left the means for another.
            if sound == layout.arms:
                return
            yield from self._unjudged(board, [arm], until)
            sound += not board.diverged(arm)

    def leaves(self, board: Board, later: Sequence[Stage]) -> float:
        """Leave nothing: without arms there is nothing to finish."""
        del board, later
        return 0.0


class Promotion(Stage):
    """After a screening, the best two and the baseline to the first rung; of a pair, only where nothing is sure yet."""

    name = "promotion"
    goes_ahead = True

    def jobs(self, board: Board) -> Iterable[Job]:
        """Yield the leaders of the screening, then the baseline."""
        race, layout = board.race, board.race.layout
        if layout.screen is None or board.is_told_early:
            return
        leaders = [arm for arm, _ in board.standings(layout.screen) if arm != race.baseline]
        yield from self._unjudged(board, [*leaders[: race.tactics.promoted - 1], race.baseline], layout.rung)

    def leaves(self, board: Board, later: Sequence[Stage]) -> float:
        """Leave nothing, as with arms."""
        del board, later
        return 0.0


class _Around(Stage):
    """Half a decade of learning rate up and down around leaders."""

    def _around(self, board: Board, leaders: int) -> Iterable[Job]:
        race = board.race
        # Not those a kill left without a value: they are begun again.
        tried = [trial.configuration for trial in board.trials if trial.judged]
        best: dict[str, Configuration] = {}
        for configuration, _ in board.standings(race.rung):
            best.setdefault(configuration.optimizer, configuration)
        for leader in list(best.values())[:leaders]:
            for factor in (HALF_DECADE, 1 / HALF_DECADE):
                neighbour = race.rescaled(leader, factor)
                if neighbour is not None and not any(race.alike(neighbour, other) for other in tried):
                    yield self._job(neighbour, race.rung)


class Neighbours(_Around):
    """The leader and the runner-up half a decade up and down, until the leader is no longer at an edge.

    Of a trained model's leader alone, until it is tried with the first policy.
    """

    name = "neighbours"

    def jobs(self, board: Board) -> Iterable[Job]:
        """Look around two leaders; around one of a trained model."""
        if not board.race.policies:
            yield from self._around(board, leaders=2)
        elif not any(trial.configuration.fine_tuning for trial in board.trials):
            yield from self._around(board, leaders=1)


class Policies(Stage):
    """For a trained model, the leader with each of the ways to train its parts."""

    name = "policies"

    def jobs(self, board: Board) -> Iterable[Job]:
        """Yield the leader with the policies not yet tried."""
        race = board.race
        able = {spec.name for spec in race.specs if spec.group_rates}
        # One leader alone: each further one would cost as many trials again.
        with_policy = (trial.configuration for trial in board.trials if trial.configuration.fine_tuning)
        begun = (replace(configuration, fine_tuning=None) for configuration in with_policy)
        ranked = (configuration for configuration, _ in board.standings(race.rung) if configuration.optimizer in able)
        leader = next(itertools.chain(begun, ranked), None)
        if leader is not None:
            yield from self._unjudged(board, [replace(leader, fine_tuning=each) for each in race.policies], race.rung)


class Others(_Around):
    """For a trained model, what was put off for its policies: the runner-up's rates, and more arms."""

    name = "others"

    def jobs(self, board: Board) -> Iterable[Job]:
        """Look around two leaders, then try the arms that are left."""
        if not board.race.policies:
            return
        yield from self._around(board, leaders=2)
        yield from self._unjudged(board, board.race.arms, board.race.rung)


class Refinement(Stage):
    """With a large budget, Optuna's Gaussian process over optimizer, rate, schedule and momentum."""

    name = "refinement"

    def jobs(self, board: Board) -> Iterable[Job]:
        """Yield what the process suggests."""
        race = board.race
        if race.trainings < race.tactics.thorough or race.left == math.inf:
            return
        sound = board.standings(race.rung)
        if not sound or sum(race.rung in trial.judged for trial in board.trials) >= race.tactics.most_judged:
            return
        # Diverged ones count at their cap, so that the process learns where not to look.
        judged = [*sound, *board.capped(race.rung)]
        unscheduled = {USER, *(spec.name for spec in race.specs if not spec.schedulable)}
        configuration = suggestion(judged, race.spaces, unscheduled)
        if configuration is not None:
            yield from self._unjudged(board, [configuration], race.rung)


class Halves(Stage):
    """The leader, the baseline, the leader at half its rate, and the best of another optimizer, to half the schedule.

    A quarter favours rates that are too high, most where small data are seen many times. Measured on two such tasks,
    half the rate was behind by up to a third at a quarter and ahead by a third or more at a half.
    """

    name = "halves"
    decides = True

    def jobs(self, board: Board) -> Iterable[Job]:
        """Take those four to the half; then try smaller rates while they help."""
        race = board.race
        # Without the baseline's own value nothing that goes on can replace it.
        if race.half is None or race.trainings < race.tactics.halving or not board.judged(race.baseline, 0, race.rung):
            return
        ranked = board.leaders(race.rung)
        leader = next((found for found, _ in ranked if found != race.baseline), None)
        if leader is None:
            return
        others = (found for found, _ in ranked if found.optimizer != leader.optimizer and found != race.baseline)
        wanted = [leader, race.baseline, *_steadier(board, leader), *itertools.islice(others, 1)]
        best = next((found for found, _ in board.standings(race.half) if found != race.baseline), None)
        if best is not None and (best.rate or 0.0) < (leader.rate or 0.0) and best.optimizer == leader.optimizer:
            wanted += _steadier(board, best)
        yield from self._unjudged(board, distinct(wanted), race.half)

    def reserve(self, board: Board) -> float:
        """Keep enough for the leader, the baseline and a newcomer's whole way: with less the stage is no use."""
        race = board.race
        if race.half is None:
            return 0.0
        goes_on = race.cost_between(race.rung, race.half)
        newcomer = race.half + (1 + race.keeps_best) * race.validation_cost
        costs = [goes_on, goes_on, newcomer, *_is_thorough(race) * [goes_on]]
        return _unpaid(costs, had=board.count(0, race.half))


class Confirmation(Stage):
    """With a large budget, the three leaders and the baseline once more, on another order of the data.

    The best of many noisy values is too good to be true.
    """

    name = "confirmation"
    decides = True

    def jobs(self, board: Board) -> Iterable[Job]:
        """Begin with the baseline: without it no other seed compares."""
        race = board.race
        if not _is_thorough(race) or race.left == math.inf:
            return
        rung = board.deepest(race.half, race.rung)
        best = [configuration for configuration, _ in board.standings(rung)][: race.tactics.confirmed]
        for configuration in distinct([race.baseline, *best]):
            for seed in race.tactics.confirmation_seeds:
                if not board.judged(configuration, seed, rung):
                    yield self._job(configuration, rung, seed)

    def reserve(self, board: Board) -> float:
        """Keep enough for all four."""
        race = board.race
        rung = race.half or race.rung
        costs = _is_thorough(race) * (race.tactics.confirmed + 1) * [rung + race.validation_cost]
        return _unpaid(costs, had=sum(board.count(seed, rung) for seed in race.tactics.confirmation_seeds))


class Finish(Stage):
    """The leader and its rival to the end of the schedule, then the third of leader, runner-up and baseline.

    What will be overfit shows only there. The rival is the baseline, or the runner-up where the baseline is behind by
    twice what seeds differ by. At a half the rate is still high, and what is best there, often half the leader's rate,
    need not be best at the end: with this, four trainings chose the same or better in each of 27 searches, on nine
    tasks that no rule was set on.
    """

    name = "finish"

    def jobs(self, board: Board) -> Iterable[Job]:
        """Take those three to the end."""
        race = board.race
        # Without the baseline's own value nothing that runs to the end can replace it.
        if not board.finishes or not board.judged(race.baseline, 0, race.rung):
            return
        rung = board.deepest(race.half, race.rung)
        if race.horizon <= rung:
            return
        best = [configuration for configuration, _ in board.leaders(rung) if configuration != race.baseline][:2]
        # Of a training with nothing between the first rung and the end, the first rung is all that speaks for a lead.
        settled = board.is_clear and race.half is not None
        wanted = [*best, race.baseline] if settled else [*best[:1], race.baseline, *best[1:]]
        # A choice that is settled is still judged at its end, beside its rival, but nothing else is.
        yield from self._unjudged(board, wanted[:2] if board.is_settled else wanted, race.horizon)

    def reserve(self, board: Board) -> float:
        """Keep enough for two, or with a large budget for all three."""
        race = board.race
        if not board.finishes:
            return 0.0
        costs = (2 + _is_thorough(race)) * [race.cost_between(race.half or race.rung, race.horizon)]
        return _unpaid(costs, had=board.count(0, race.horizon))


STAGES: tuple[Stage, ...] = (
    Arms(),
    Promotion(),
    Neighbours(),
    Policies(),
    Others(),
    Refinement(),
    Halves(),
    Confirmation(),
    Finish(),
)


def _is_thorough(race: Race) -> bool:
    """Tell whether there is room for refinement and confirmation."""
    return race.trainings >= race.tactics.thorough


def _unpaid(costs: Sequence[float], had: int) -> float:
    """Sum what is left of `costs` after the first `had`; the way of one newcomer is always kept."""
    return sum(costs[had:] or costs[-1:])


def _steadier(board: Board, configuration: Configuration) -> list[Configuration]:
    """Find `configuration` at half its rate, or what was tried near to that; empty where the bounds forbid it."""
    race = board.race
    moved = race.rescaled(configuration, race.tactics.steadier)
    if moved is None:
        return []
    tried = (trial.configuration for trial in board.trials)
    return [next((each for each in tried if race.alike(each, moved)), moved)]

"""optselect with one part of its search taken out or spoilt, to see what the part is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from optselect import catalogue
from optselect.briefing import METHOD, Method
from optselect.configuration import Configuration, Schedule
from optselect.profile import Profile
from optselect.profile.measure import measure
from optselect.recipes.bench import methods
from optselect.recipes.bench.task import workload
from optselect.rules import Prior, configuration, vetoes
from optselect.rules.voting import RULES_ALONE
from optselect.search.board import Board
from optselect.search.outcome import Outcome
from optselect.search.race import Job
from optselect.search.runner import TrialRunner
from optselect.search.stages import Arms
from optselect.space import Value


def without_rules(arena: methods.Arena, amount: float) -> methods.Choice:
    """Race every optimizer of the oracle's grid that can train the model, by name, each at the catalogue's centre."""

    def centre(name: str, _: Profile) -> tuple[dict[str, Value], Schedule]:
        return catalogue.get(name).defaults(), methods.COSINE

    training = workload(arena.task, arena.data, arena.seed)
    forbidden = {vote.optimizer for vote in vetoes(measure(training, passes=1), rules=())}
    return methods.ours(
        arena,
        amount,
        method=replace(METHOD, prior=centre),
        rules=(),
        candidates=[name for name in methods.HALF_DECADES if name not in forbidden],
    )


class WholeArms(Arms):
    """The arms one after another, each to the end of the training."""

    def jobs(self, board: Board) -> Iterable[Job]:
        """Yield the arms not yet run."""
        yield from self._unjudged(board, board.race.arms, board.race.horizon)


def without_race(arena: methods.Arena, amount: float) -> methods.Choice:
    """Train the arms completely, and nothing else."""
    return methods.ours(arena, amount, method=replace(METHOD, stages=(WholeArms(),)))


def without_refinement(arena: methods.Arena, amount: float) -> methods.Choice:
    """Leave what is left of a large budget to confirmation and the finish alone."""
    return methods.ours(arena, amount, method=_without_stage("refinement"))


def without_halves(arena: methods.Arena, amount: float) -> methods.Choice:
    """Go from a quarter straight to the end."""
    return methods.ours(arena, amount, method=_without_stage("halves"))


class CompleteRungs(TrialRunner):
    """Every rung a training of its own, its schedule squeezed into it, in place of a cut of the real one."""

    def run(self, configuration: Configuration, seed: int, until: int, *, since: int = 0) -> Outcome:
        """Train to `until` on a schedule of that length."""
        squeezed = round(configuration.schedule.warmup_steps * until / (self.steps or until))
        schedule = replace(configuration.schedule, warmup_steps=squeezed)
        with self.laid_out_for(until):
            return super().run(replace(configuration, schedule=schedule), seed, until, since=since)


def complete_rungs(arena: methods.Arena, amount: float) -> methods.Choice:
    """Train short trainings whole, not cut."""
    # With no memory for what is put aside nothing is continued, and the race counts with that.
    return methods.ours(arena, amount, method=replace(METHOD, runner=CompleteRungs, paused_bytes=0))


def without_transfer(arena: methods.Arena, amount: float) -> methods.Choice:
    """Take what a shorter training found as it is for a longer one, though rates start higher there."""
    return methods.ours(arena, amount, method=replace(METHOD, rate_transfer=lambda *_: 1.0))


def poisoned_up(arena: methods.Arena, amount: float) -> methods.Choice:
    """Start every rate that the rules start from a thousand times too high, beyond the catalogue's bounds."""
    return methods.ours(arena, amount, method=replace(METHOD, prior=poisoned(1e3)), rules=RULES_ALONE)


def poisoned_down(arena: methods.Arena, amount: float) -> methods.Choice:
    """Start every rate that the rules start from a thousand times too low."""
    return methods.ours(arena, amount, method=replace(METHOD, prior=poisoned(1e-3)), rules=RULES_ALONE)


def poisoned(factor: float) -> Prior:
    """Make the prior with every learning rate `factor` times what it is."""

    def prior(name: str, profile: Profile) -> tuple[dict[str, Value], Schedule]:
        values, schedule = configuration(name, profile)
        return {**values, **({"lr": float(values["lr"]) * factor} if "lr" in values else {})}, schedule

    return prior


def _without_stage(name: str) -> Method:
    return replace(METHOD, stages=tuple(stage for stage in METHOD.stages if stage.name != name))


ABLATIONS: Mapping[str, Callable[[methods.Arena, float], methods.Choice]] = {
    "no-rules": without_rules,
    "no-race": without_race,
    "no-halves": without_halves,
    "no-refinement": without_refinement,
    "complete-rungs": complete_rungs,
    "no-transfer": without_transfer,
    "poisoned-up": poisoned_up,
    "poisoned-down": poisoned_down,
}

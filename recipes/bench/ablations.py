"""optselect with one part of its search taken out or spoilt, to see what the part is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

from optselect import catalogue, pipeline
from optselect.configuration import Configuration
from optselect.configuration.schedule import Schedule
from optselect.profile import Profile
from optselect.profile.measure import measure
from optselect.recipes.bench import methods, tasks
from optselect.rules import prior, vetoes, voting
from optselect.search import race, transfer
from optselect.search.race import Job, Race
from optselect.search.runner import Outcome, TrialRunner


def without_rules(arena: methods.Arena, amount: float) -> methods.Choice:
    """Every optimizer of the oracle's grid that can train the model, by name, each at the catalogue's centre."""

    def centre(name: str, _: Profile) -> tuple[dict[str, Any], Schedule]:
        return catalogue.get(name).defaults(), methods.COSINE

    training = tasks.workload(arena.task, arena.data, arena.seed)
    forbidden = {vote.optimizer for vote in vetoes(measure(training, passes=1), rules=())}
    with _replaced(voting, configuration=centre):
        return methods.ours(
            arena, amount, rules=(), candidates=[name for name in methods.HALF_DECADES if name not in forbidden]
        )


def without_race(arena: methods.Arena, amount: float) -> methods.Choice:
    """The arms one after another, each to the end of the training."""

    def whole(of: Race, table: Any) -> Iterable[Job]:
        wanted = (Job(configuration=arm, seed=0, until=of.horizon, stage="arms") for arm in of.arms)
        return (job for job in wanted if not table.judged(job.configuration, 0, of.horizon))

    with _replaced(race, _STAGES={"arms": whole}):
        return methods.ours(arena, amount)


def without_refinement(arena: methods.Arena, amount: float) -> methods.Choice:
    """What is left of a large budget goes to confirmation and the finish alone."""
    return _without_stage(arena, amount, "refinement")


def without_halves(arena: methods.Arena, amount: float) -> methods.Choice:
    """From a quarter straight to the end."""
    return _without_stage(arena, amount, "halves")


def complete_rungs(arena: methods.Arena, amount: float) -> methods.Choice:
    """Every rung a training of its own, its schedule squeezed into it, in place of a cut of the real one."""

    class Complete(TrialRunner):
        def run(self, configuration: Configuration, seed: int, until: int) -> Outcome:
            self._steps = until
            squeezed = round(configuration.schedule.warmup_steps * until / arena.task.steps)
            schedule = replace(configuration.schedule, warmup_steps=squeezed)
            return super().run(replace(configuration, schedule=schedule), seed, until)

    # With no memory for what is put aside nothing is continued, and the race counts with that.
    with _replaced(pipeline, TrialRunner=Complete, PAUSED_BYTES=0):
        return methods.ours(arena, amount)


def without_transfer(arena: methods.Arena, amount: float) -> methods.Choice:
    """What a shorter training found is taken as it is for a longer one."""
    # The one by which rates start higher, which the pipeline has by name, stays.
    with _replaced(transfer, rate_factor=lambda *_: 1.0):
        return methods.ours(arena, amount)


def poisoned_up(arena: methods.Arena, amount: float) -> methods.Choice:
    """Every rate that the rules start from a thousand times too high, beyond the catalogue's bounds."""
    return _poisoned(arena, amount, 1e3)


def poisoned_down(arena: methods.Arena, amount: float) -> methods.Choice:
    """Every rate that the rules start from a thousand times too low."""
    return _poisoned(arena, amount, 1e-3)


def _poisoned(arena: methods.Arena, amount: float, factor: float) -> methods.Choice:
    def centre(name: str, profile: Profile) -> tuple[dict[str, Any], Schedule]:
        values, schedule = prior.configuration(name, profile)
        return {**values, **({"lr": float(values["lr"]) * factor} if "lr" in values else {})}, schedule

    with _replaced(voting, configuration=centre):
        return methods.ours(arena, amount)


def _without_stage(arena: methods.Arena, amount: float, name: str) -> methods.Choice:
    stages = {key: stage for key, stage in race._STAGES.items() if key != name}  # noqa: SLF001  # an ablation is a cut
    with _replaced(race, _STAGES=stages):
        return methods.ours(arena, amount)


@contextmanager
def _replaced(module: ModuleType, **attributes: Any) -> Iterator[None]:
    """The module with other attributes for a while."""
    before = {name: getattr(module, name) for name in attributes}
    vars(module).update(attributes)
    try:
        yield
    finally:
        vars(module).update(before)


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

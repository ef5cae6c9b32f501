"""The first stage's configurations: few, whole and unlike each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from optselect import catalogue
from optselect.configuration import LR_SCALE, USER, USER_SPACE, Configuration, Schedule
from optselect.rules import BASELINE, Proposal
from optselect.search.board import distinct
from optselect.search.tactics import HALF_DECADE
from optselect.space import Value

_CAUTION = 0.1
# Two first arms whose rates and decays are so near to each other would tell the same.
_ALIKE_DECADES, _MOVED_TOGETHER = 0.15, ("lr", LR_SCALE, "weight_decay")


def baseline(*, has_user_optimizer: bool, called: str = "") -> Configuration:
    """Return what is replaced only on evidence: the user's own optimizer, or AdamW as torch sets it up."""
    return Configuration(optimizer=USER, called=called) if has_user_optimizer else BASELINE.configuration


def arms(
    proposals: Sequence[Proposal], base: Configuration, *, sweeps_own: bool = True, trained: bool = False
) -> tuple[Configuration, ...]:
    """List the configurations to try first, the most wanted first.

    The evidence's first choice, the baseline, and the baseline's optimizer half a decade up come first: whoever sweeps
    rates of one's own optimizer starts there. Then the second choice, the baseline's optimizer at ten times its rate,
    the classic choice, a cautious arm (a tenth of the rate: small data overfit at what is best elsewhere), a bold one
    (half a decade up: short trainings won at two or three times the usual rates), and the other proposals. On the
    recorded trainings four such arms ended nearer to the best than four of the rules alone.

    Where recorded trainings speak, theirs is the first choice, and the rules' own the second opinion on it. Their
    second choice comes next, and the others, complementary already, in place of a cautious and a bold arm.

    `sweeps_own` says whether there may be other rates of the baseline's optimizer at all. Of weights that were
    `trained` before it goes half a decade down first, then up: too high a rate costs what they know (on MiniLM three
    times the rate led at a quarter and ended 9 % behind).
    Where the user's own optimizer is the only candidate, the arms are five rates of it, half a decade apart.
    """
    if all(proposal.optimizer == USER for proposal in proposals) and base.optimizer == USER:
        return (base, *(base.at_rate(factor) for factor in (HALF_DECADE, 1 / HALF_DECADE, 10.0, 0.1) if sweeps_own))
    recorded, ruled = _by_source(proposals)
    wanted = [proposal.configuration for proposal in proposals if proposal.optimizer != USER]
    seats = {proposal.seat: proposal.configuration for proposal in reversed(proposals)}
    first = wanted[:1]
    classic = [seats["classic"]] if "classic" in seats else []
    second = [each for each in wanted[1:] if each not in classic][:1]
    cautious = [_scaled(each, _CAUTION) for each in (*second, *first)][:1]
    bold = [_scaled(each, HALF_DECADE) for each in first]
    factors = (1 / HALF_DECADE, HALF_DECADE) if trained else (HALF_DECADE, 10.0)
    near, far = ([_scaled(base, factor)] * sweeps_own for factor in factors)
    if recorded:
        others = [*ruled[:1], *recorded[1:2], *far, *classic, *recorded]
    else:
        others = [*second, *far, *classic, *cautious, *bold]
    return tuple(_unlike([*first, base, *near, *others, *wanted], base))


def first_choices(proposals: Sequence[Proposal]) -> tuple[Configuration, ...]:
    """Return what goes before all others: of what was recorded, and of the rules."""
    recorded, ruled = _by_source(proposals)
    return (*recorded[:1], *ruled[:1])


def _unlike(configurations: Sequence[Configuration], base: Configuration) -> list[Configuration]:
    """Leave out what is another again but for a little of its rate and decay."""
    found: list[Configuration] = []
    for each in distinct(configurations):
        if each == base or not any(_is_alike(each, other) for other in found):
            found.append(each)
    return found


def _is_alike(one: Configuration, other: Configuration) -> bool:
    near = all(_is_near(one.hyperparameters.get(name), other.hyperparameters.get(name)) for name in _MOVED_TOGETHER)
    return near and _rest_of(one) == _rest_of(other)


def _is_near(one: Value | None, other: Value | None) -> bool:
    if not one or not other:
        return one == other
    return abs(math.log10(float(one) / float(other))) <= _ALIKE_DECADES


def _rest_of(configuration: Configuration) -> Configuration:
    rest = {name: value for name, value in configuration.hyperparameters.items() if name not in _MOVED_TOGETHER}
    return replace(configuration, hyperparameters=rest, schedule=Schedule(kind=configuration.schedule.kind))


def _by_source(proposals: Sequence[Proposal]) -> tuple[list[Configuration], list[Configuration]]:
    """Tell what was recorded from what the rules propose."""
    recorded = [each.configuration for each in proposals if each.seat == "portfolio"]
    ruled = [each.configuration for each in proposals if each.seat != "portfolio" and each.optimizer != USER]
    return recorded, ruled


def _scaled(configuration: Configuration, factor: float) -> Configuration:
    if configuration.rate is None:
        return configuration
    spaces = USER_SPACE if configuration.optimizer == USER else catalogue.get(configuration.optimizer).space
    bounds = spaces[LR_SCALE if configuration.optimizer == USER else "lr"]
    return configuration.at_rate(bounds.clip(configuration.rate * factor))

"""What a lead at a part of the schedule says of the end of the training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

from optselect.search.lead import Lead


@dataclass(frozen=True, kw_only=True)
class PrefixError:
    """Standard error of a lead at half the schedule as a forecast of that at its end, as a share of the progress.

    any_rival     of whatever leads
    first_choice  of the prior's first choice over the baseline, where that is less
    two_falling   of one rival over another where both rates fall to the end: they err alike
    seeds         at the end, of what another seed would change, where one alone was run: as a share of the progress
    """

    any_rival: float
    first_choice: float
    two_falling: float = 0.005
    seeds: float = 0.0025


PREFIX_ERROR = PrefixError(any_rival=0.02, first_choice=0.022)
"""What the recorded trainings fit: `optselect bench --calibration`. The last two: docs/reference/portfolio.md."""


def prefix_error(fraction: float, *, first_choice: bool = False, of: PrefixError = PREFIX_ERROR) -> float:
    """Return the standard error of a lead at `fraction` of the schedule as a forecast of the end.

    In shares of the progress. An early lead is mostly speed, and falls as the slower one catches up: the error is
    that at half the schedule times what is left of it over what is behind, none at the end, and so large in the first
    fortieth that no lead counts. The prior's first choice was seldom behind at the end of the recorded trainings when
    it was ahead early: with the square root, where that is less.
    """
    left = (1 - fraction) / fraction
    error = of.any_rival * left
    return min(error, of.first_choice * math.sqrt(left)) if first_choice else error


def error_at_the_end(
    lead: Lead, fraction: float, *, first_choice: bool = False, of: PrefixError = PREFIX_ERROR
) -> float | None:
    """Return the standard error of `lead`, seen at `fraction`, as a forecast of the end, in units of the loss.

    None where nothing says how much a prefix may mislead: no progress is known.
    """
    if fraction >= 1.0:
        share = of.seeds if lead.seeds == 1 else 0.0
        return math.hypot(lead.error, share * (lead.scale or 0.0))
    if lead.scale is None:
        return None
    return math.hypot(lead.error, prefix_error(fraction, first_choice=first_choice, of=of) * lead.scale)


def chance_behind(lead: Lead, fraction: float, *, first_choice: bool = False, of: PrefixError = PREFIX_ERROR) -> float:
    """Return the chance that what leads ends behind the other by more than noise: a standard error of the lead.

    `first_choice` says whether it is the prior's. 1 where it does not lead, or nothing is known of the error.
    """
    error = error_at_the_end(lead, fraction, first_choice=first_choice, of=of)
    if not lead.difference > 0 or error is None:
        return 1.0
    return NormalDist().cdf(-(lead.difference + lead.error) / error) if error else 0.0


def is_sure(
    lead: Lead, fraction: float, risk: float, *, first_choice: bool = False, of: PrefixError = PREFIX_ERROR
) -> bool:
    """Tell whether the chance that what leads ends behind is below `risk`.

    Before the end a lead that is no larger than its error never is: the noise of a few validation rows is no measure of
    what the end may allow for.
    """
    error = error_at_the_end(lead, fraction, first_choice=first_choice, of=of)
    if fraction < 1.0 and (error is None or lead.difference <= error):
        return False
    return chance_behind(lead, fraction, first_choice=first_choice, of=of) < risk


def expected_gain(lead: Lead, fraction: float) -> float:
    """Return what the end may bring the other over what leads now, on average, in units of the loss.

    The expected improvement (Mockus 1978; Jones et al. 1998, doi:10.1023/A:1008306431147) of a difference that is
    known but for what a prefix does not show. Infinite where nothing is known of that.
    """
    if fraction >= 1.0:
        return 0.0
    if lead.scale is None:
        return math.inf
    error = prefix_error(fraction) * lead.scale
    behind, normal = lead.difference / error, NormalDist()
    return max(error * (normal.pdf(behind) - behind * normal.cdf(-behind)), 0.0)


def is_apart(lead: Lead, fraction: float, *, scheduled: bool, of: PrefixError = PREFIX_ERROR) -> bool:
    """Tell whether a rival is ahead of another by more than one standard error of the forecast.

    Where the rate of what leads falls to the end (`scheduled`), that is small: the other's does, too. A constant rate
    looks better early than at the end: there the error is that of any rival.
    """
    alike = replace(of, any_rival=of.two_falling) if scheduled else of
    error = error_at_the_end(lead, fraction, of=alike)
    return lead.difference > 0 and error is not None and lead.difference > error

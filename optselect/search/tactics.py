"""The thresholds of a search, each with where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

HALF_DECADE = 10**0.5


@dataclass(frozen=True, kw_only=True)
class Tactics:
    """What a search goes by; an experiment that changes one of them makes another value.

    Budgets are told in trainings: micro-batches for trials over those of the training that is searched.
    """

    # --- how far the budget goes -------------------------------------------------------------------

    # Trainings from which leaders go on to a half, from which the leader and the baseline are run to the end, and
    # from which there is also room for refinement and confirmation. Below the first, a recorded first choice and the
    # baseline alone: played on 64 recorded workloads without their own family, regret at one training was .40 so, both
    # at a half, and .46 with four arms at a quarter; at two trainings .33 and .41. With a look at a quarter, which
    # ends it where that is enough, one training ended at .39 and took .69 of its budget, two at .33 and .53.
    halving: float = 2.5
    finishing: float = 3.5
    thorough: float = 6.0

    # --- the first stage ----------------------------------------------------------------------------

    # Four arms to a quarter came as near as eight of which three went on after a tenth: within .045 of the oracle's
    # regret (mean), in a simulation on measured curves of nine tasks. Picking the winner at a tenth cost .72.
    first_arms: int = 4
    # On two trained models the algorithms of the first arms ended within .1 of each other (test loss), and rates half
    # a decade beside the best one .08 to 1.2 behind it.
    first_arms_trained: int = 3
    # Two leaders and the baseline go on from a screening.
    promoted: int = 3
    # A first rung may be a fifth short of a quarter when so one more arm gets in.
    shortest_rung: float = 0.8
    # A quarter of a short training is hardly more than its warmup. Two fine-tunings of 75 steps that no rule was set
    # on ended with test losses of 1.07 and 1.40 so, and 1.16 and 1.58 by quarters; five short trainings of small nets
    # with the same or 4 % less, but one with 1 % more.
    least_steps: int = 50
    # A few micro-batches say only roughly how long others take, and the last of the first arms has to fit, too.
    timed: float = 0.8

    # --- when to stop -------------------------------------------------------------------------------

    # What a trial that goes on is to bring on average, as a share of what is chosen already over the baseline; where
    # that is the baseline, its square is the share of the baseline's progress.
    worth_a_trial: float = 0.03

    # --- later stages -------------------------------------------------------------------------------

    # A later look tells little that is new where it comes less than half as late again.
    further: float = 1.5
    # The best rate at a third was 1.15 times that at the end, the best at a ninth 1.7 times (Spearman .83 and .62).
    steadier: float = 0.5
    # Two learning rates closer than this many decades are the same trial; the seed noise of short trials hides more.
    same_rate_decades: float = 0.05
    # Where a Gaussian process has seen this many quarters, more add nothing (and a budget may be endless).
    most_judged: int = 60
    # Leaders that are run once more on another order of the data, and the seeds of those orders.
    confirmed: int = 3
    confirmation_seeds: tuple[int, ...] = (1,)


TACTICS = Tactics()

"""What the length of a training does to a learning rate, and to the weight decay beside it.

There is no one power of the length. It depends on the optimizer, on how often rows are seen, and on which weights count
in the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from optselect import catalogue
from optselect.configuration import USER, Configuration
from optselect.profile.values import Profile
from optselect.rules.regimes import regime

REFERENCE_STEPS = 800
"""The length that the catalogue's centres are for."""

# The power of the length in the best rate where rows are seen a few times and the rate falls to the end: between Adam's
# on language models (0 to -.1; NAdam's -.18, Muon's -.23, SOAP's -.27, Kron's -.40: `large_trainings`, marin.*.rate)
# and what carries a small transformer over: with it 3e-3 of 800 steps becomes 5.8e-4 for the 187,000 of AlgoPerf's ViT,
# whose tuned value is 8.4e-4 (arXiv:2306.07179). Half the best rate costs a third of what twice of it does.
EXPONENT = 0.3
LIMITS = (0.1, 2.0)

# SGD's .1 holds from 200 steps (measured here) to ImageNet's 450,000 (arXiv:1706.02677); the rest have no learning rate
# in Adam's sense. Adagrad is not among them, though its steps shrink by themselves: over ten times the steps its best
# rate fell from .09 to .02 (MovieLens-100k), from .09 to .05 (letter), and from .1 to at most .03 (digits).
LENGTH_FREE = frozenset({"sgd", "momentum", "asgd", "adadelta", "lbfgs", "rprop", "prodigy", "schedulefree_sgd"})

# Where rows are seen again and again there is less and less to learn from them: a row's worth is spent after some
# fifteen passes (Muennighoff et al. 2023, arXiv:2305.16264). Whatever goes on at the same rate fits noise, and the last
# weights show it. Powers of the length beyond ten passes, between those of trainings that overfit (constant rates, last
# weights: -1.2 to -1.3, best weights kept: 0 to -.6: `large_trainings`, deepobs.*.overfitting) and of those that do
# not. On recorded workloads of 128 and 960 passes with a cosine: AdamW -1.4 and -.5, momentum -.6 and -.3, Muon -1.1
# and -1.0; on the benchmark's tasks at ten times their length: Muon -1.0 (letter, digits), Adagrad -.5
# (MovieLens-100k), AdamW 0, 0 and -1.0.
MANY_PASSES = 10
OVER_MANY_PASSES: Mapping[str, float] = {
    "muon": 1.0,
    **dict.fromkeys(("adagrad", "adam", "amsgrad", "adamw", "nadam", "rmsprop"), 0.5),
    **dict.fromkeys(("sgd", "momentum"), 0.3),
}
LEAST = 0.01
"""No length makes a rate smaller than by this factor."""


def length_factor(optimizer: str, profile: Profile, steps: float) -> float:
    """Return the factor of a training's length on a learning rate: 1 after `REFERENCE_STEPS`, less after more."""
    if not regime(profile).horizon:
        return 1.0
    exponent = 0.0 if optimizer in LENGTH_FREE else EXPONENT
    low, high = LIMITS
    factor: float = min(max((REFERENCE_STEPS / steps) ** exponent, low), high)
    batches = profile.data.batches or 0
    # With all rows in every batch, a pass is a step. What is fitted too much is not kept where the best weights are.
    overfits = optimizer in OVER_MANY_PASSES and not profile.keeps_best
    if overfits and batches > 1 and steps > MANY_PASSES * batches:
        factor *= (MANY_PASSES * batches / steps) ** (OVER_MANY_PASSES[optimizer] - exponent)
    return max(factor, LEAST)


def rate_factor(configuration: Configuration, profile: Profile, ratio: float) -> float:
    """Return the factor on a configuration's rate for a training `ratio` times as long as the one of `profile`."""
    if configuration.optimizer == USER or not profile.steps:
        return 1.0
    there, here = (length_factor(configuration.optimizer, profile, profile.steps * each) for each in (ratio, 1.0))
    return there / here


def at_rate(configuration: Configuration, rate: float, *, repeats: bool) -> Configuration:
    """Return `configuration` at the rate of another length, with a weight decay that goes with it.

    Decoupled decay makes the weights an average over the last 1 / (lr · weight decay) steps. Of rows that are seen
    again (`repeats`) that time is kept (Wang, Aitchison 2024, arXiv:2405.13698). Of fresh ones the decay is: over 150
    sweeps of language models at one pass, the best one moved by the -.02th power of the steps (`large_trainings`,
    marin.rate_times_decay.steps beside marin.rate.steps).
    """
    here, moved = configuration.rate, configuration.at_rate(rate)
    decay = configuration.hyperparameters.get("weight_decay")
    if not (repeats and here and decay) or configuration.optimizer == USER:
        return moved
    spec = catalogue.get(configuration.optimizer)
    if not spec.decoupled:
        return moved
    kept = spec.space["weight_decay"].clip(float(decay) * here / rate)
    return replace(moved, hyperparameters={**moved.hyperparameters, "weight_decay": kept})


def repeats(profile: Profile, ratio: float = 1.0) -> bool:
    """Tell whether a training `ratio` times as long as that of `profile` sees every row at least once."""
    batches = profile.data.batches
    return bool(batches and profile.steps and profile.steps * ratio >= batches)

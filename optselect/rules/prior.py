"""Where to start: an optimizer's hyperparameters and schedule before any trial.

The catalogue's centres are for about 800 steps from random weights. A regime says how another kind of
training differs, and the horizon moves Adam-like learning rates as a power of its length.
"""

from __future__ import annotations

from collections.abc import Mapping

from optselect import catalogue
from optselect.catalogue import OptimizerSpec
from optselect.configuration.schedule import Schedule
from optselect.profile.values import Profile
from optselect.rules.regimes import Regime, regime
from optselect.space import Value

REFERENCE_STEPS = 800

# The exponent towards which horizon fits are shrunk; with it, a transformer's 3e-3 of 800 steps becomes 5.8e-4 for the
# 187,000 steps of AlgoPerf's ViT, whose tuned value is 8.4e-4 (arXiv:2306.07179; power law:
# arXiv:2409.19913).
HORIZON_EXPONENT = 0.3
HORIZON_LIMITS = (0.1, 2.0)

# SGD's .1 holds from 200 steps (measured here) to ImageNet's 450,000 (arXiv:1706.02677); the rest have no learning rate
# in Adam's sense. Adagrad is not among them, though its steps shrink by themselves: over ten times the steps its best
# rate fell from .09 to .02 (MovieLens-100k), from .09 to .05 (letter), and from .1 to at most .03 (digits).
HORIZON_FREE = frozenset({"sgd", "momentum", "asgd", "adadelta", "lbfgs", "rprop", "prodigy", "schedulefree_sgd"})

# For an SGD batch beyond 256, lr grows with it (arXiv:1706.02677). Not below: .1 was right at batch 32 too.
SGD_BATCH = 256
SGD_FAMILY = frozenset({"sgd", "momentum", "asgd", "schedulefree_sgd"})


# Where rows are seen again and again there is less and less to learn from them: a row's worth is spent after some
# fifteen passes (Muennighoff et al. 2023, arXiv:2305.16264). Whatever goes on at the same rate fits noise. So beyond
# ten passes the sum of the steps is kept: the rate falls as one over the length where steps stay of one size, and as
# one over its root where they shrink as Adagrad's do. Best rates of the benchmark's grid, at a length and ten times it:
# Muon .01 and .001 (letter, 7 and 73 passes; digits, 26 and 256), Adagrad .1 and .03 (MovieLens-100k, 3 and 26).
# Adam and its kin do not do so on the same tasks (letter .03 and .03, digits flat, MovieLens-100k .01 and .001).
MANY_PASSES = 10
OVER_MANY_PASSES: Mapping[str, float] = {"muon": 1.0, "adagrad": 0.5}


def configuration(optimizer: str, profile: Profile) -> tuple[dict[str, Value], Schedule]:
    """Return the hyperparameters and the schedule to start from. Raises `UnknownOptimizerError`."""
    spec = catalogue.get(optimizer)
    kind = regime(profile)
    values = spec.defaults()
    if "lr" in values:
        values["lr"] = _learning_rate(spec, kind, profile)
    if spec.decoupled and "weight_decay" in values and "lr" in values:
        decay = 1e-4 / float(values["lr"]) if kind.weight_decay is None else kind.weight_decay
        values["weight_decay"] = spec.space["weight_decay"].clip(decay)
    # Only where the second moment remembers a thousand steps: SOAP's and Lion's betas are already shorter.
    if kind.beta2 is not None and values.get("beta2") == 0.999:
        values["beta2"] = kind.beta2
    return values, _schedule(spec, kind, profile.steps)


def _learning_rate(spec: OptimizerSpec, kind: Regime, profile: Profile) -> float:
    centre = kind.lr.get(spec.name, float(spec.space["lr"].centre) * kind.scale)
    if profile.steps:
        centre *= length_factor(spec.name, profile, profile.steps)
    if spec.name in SGD_FAMILY and spec.name not in kind.lr:
        centre *= max((profile.data.batch_size or 0) / SGD_BATCH, 1.0)
    return spec.space["lr"].clip(centre)


def length_factor(optimizer: str, profile: Profile, steps: float) -> float:
    """Return the factor of a training's length on a learning rate: 1 after `REFERENCE_STEPS`, less after more."""
    if not regime(profile).horizon:
        return 1.0
    exponent = 0.0 if optimizer in HORIZON_FREE else HORIZON_EXPONENT
    low, high = HORIZON_LIMITS
    factor: float = min(max((REFERENCE_STEPS / steps) ** exponent, low), high)
    batches = profile.data.batches or 0
    # With all rows in every batch, a pass is a step.
    if optimizer in OVER_MANY_PASSES and batches > 1 and steps > MANY_PASSES * batches:
        factor *= (MANY_PASSES * batches / steps) ** (OVER_MANY_PASSES[optimizer] - exponent)
    return factor


# Where the length is not known, a share of it is not either. Adam's moments need some ten steps to mean
# anything.
WARMUP_STEPS_OF_AN_UNKNOWN_LENGTH = 20


def _schedule(spec: OptimizerSpec, kind: Regime, steps: int | None) -> Schedule:
    # Rprop reads lr once, LBFGS and Prodigy find their own step; Prodigy's authors advise none or a cosine.
    if spec.closure or spec.name in {"rprop", "prodigy"}:
        return Schedule()
    warmup_steps = WARMUP_STEPS_OF_AN_UNKNOWN_LENGTH if steps is None else round(kind.warmup * steps)
    # Schedule-free ones warm up from outside too: the weights equal those of their own warmup (run here).
    if steps is None or not spec.schedulable:
        return Schedule(warmup_steps=warmup_steps)
    return Schedule(kind="cosine", warmup_steps=warmup_steps)

"""Where to start: an optimizer's hyperparameters and schedule before any trial.

The catalogue's centres are for about 800 steps from random weights. A regime says how another kind of
training differs, and the horizon moves Adam-like learning rates as a power of its length.
"""

from __future__ import annotations

from optselect import catalogue
from optselect.catalogue import OptimizerSpec
from optselect.configuration.schedule import Schedule
from optselect.profile.values import Profile
from optselect.rules.length import length_factor
from optselect.rules.regimes import Regime, regime
from optselect.space import Value

# For an SGD batch beyond 256, lr grows with it (arXiv:1706.02677). Not below: .1 was right at batch 32 too.
SGD_BATCH = 256
SGD_FAMILY = frozenset({"sgd", "momentum", "asgd", "schedulefree_sgd"})


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

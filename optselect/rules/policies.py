"""How the parts of a trained model may be trained on: policies worth trying, with their reasons and sources."""

from __future__ import annotations

from dataclasses import dataclass, replace

from optselect.configuration.policy import FineTuning, Thaw
from optselect.profile.values import Profile
from optselect.rules.kinds import is_mostly_frozen, is_pretrained
from optselect.rules.prior import configuration


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A policy worth trying, the mechanism that speaks for it, and where that is from."""

    fine_tuning: FineTuning
    mechanism: str
    cites: str


_LAYERS = Policy(
    fine_tuning=FineTuning(layer_decay=0.9),
    mechanism="lower layers know what carries over, and should change less than those above them",
    cites="ULMFiT, arXiv:1801.06146; .9 from layer to layer: AutoGluon MultiModal",
)
_HEAD = Policy(
    fine_tuning=FineTuning(head_lr_ratio=10.0),
    mechanism="a new head has everything to learn at a rate that would undo what the trained layers know",
    cites="ten times the rate for new layers: Girshick et al. 2014, arXiv:1311.2524",
)
_PROBE_FIRST = Policy(
    fine_tuning=FineTuning(head_lr_ratio=10.0, thaw=Thaw(share=0.1)),
    mechanism="the gradients of a head that knows nothing distort the features below it: the head learns first, alone",
    cites="Kumar et al. 2022, arXiv:2202.10054",
)

POLICIES = (_HEAD, _LAYERS, _PROBE_FIRST)

# Where a fresh network of this kind would learn less than so many times as fast, a new head needs no rate of its own.
_HEADS_OWN_RATE = 10.0


def policies(profile: Profile) -> tuple[Policy, ...]:
    """List the policies to try beside one rate for all parts, the likeliest first; none for an untrained model.

    A model that is mostly frozen, with adapters or a new head on it, leaves nothing to order; and only where the
    head is new, and a new layer learns ten times as fast as the trained ones or more, it has a rate of its own.
    """
    if not is_pretrained(profile) or is_mostly_frozen(profile):
        return ()
    return POLICIES if profile.model.has_new_head and _freshly(profile) >= _HEADS_OWN_RATE else (_LAYERS,)


def _freshly(profile: Profile) -> float:
    """Return how many times as fast as this trained model AdamW would train it from the start."""
    fresh = replace(profile, model=replace(profile.model, at_initialisation=True))
    (trained, _), (new, _) = (configuration("adamw", each) for each in (profile, fresh))
    return float(new["lr"]) / float(trained["lr"])

"""How the parts of a trained model may be trained on: policies worth trying, with their reasons and sources."""

from __future__ import annotations

from dataclasses import dataclass

from optselect.fine_tuning import FineTuning, Thaw
from optselect.profile.values import Profile
from optselect.rules.model import MOSTLY_FROZEN, frozen_share, is_pretrained


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

POLICIES = (_LAYERS, _HEAD, _PROBE_FIRST)


def policies(profile: Profile) -> tuple[Policy, ...]:
    """Policies worth trying beside one rate for all parts; none where the model is not trained already.

    A model that is mostly frozen, with adapters or a new head on it, leaves nothing to order; and only where the
    head is new it has more to learn than the others.
    """
    if not is_pretrained(profile) or frozen_share(profile) >= MOSTLY_FROZEN:
        return ()
    return POLICIES if profile.model.has_new_head else (_LAYERS,)

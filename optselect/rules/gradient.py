"""What a few real gradients say about the choice."""

from __future__ import annotations

from optselect.profile.values import Profile
from optselect.rules.rule import Answer, Evidence, Rule, rule, votes


@rule(
    cites="measured here (EmbeddingBag on film reviews): Adagrad .3 level with Muon .03, the best of the "
    "grid; regret of SGD 1.37",
    strength="measured",
)
def sparse_gradients_favour_adagrad(profile: Profile) -> Answer:
    """Rows seen rarely keep long steps, and Adagrad touches only the rows of the batch."""
    # The dense layers behind a bag of embeddings are hidden matrices: Muon on them was level with Adagrad.
    muon = {"muon": 2.0} if profile.model.muon_share > 0 else {}
    return votes(_sparse(profile), {"adagrad": 2.5, "sparse_adam": 1.5, **muon})


@rule(cites="measured here: 50 times slower per step than dense momentum", strength="measured")
def momentum_is_slow_on_sparse_gradients(profile: Profile) -> Answer:
    """A momentum buffer of a sparse gradient is itself sparse and grows with every row it has seen."""
    return votes(_sparse(profile), {"momentum": -0.5})


def _sparse(profile: Profile) -> Evidence | None:
    count = len(profile.gradient.sparse)
    return Evidence(quantity="gradient.sparse", value=f"{count} tensors") if count else None


GRADIENT: tuple[Rule, ...] = (sparse_gradients_favour_adagrad, momentum_is_slow_on_sparse_gradients)

"""Kinds of training, and how the numbers to start from differ between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from optselect.profile.values import Profile
from optselect.rules.kinds import (
    is_convolutional,
    is_factorisation,
    is_graph,
    is_mostly_frozen,
    is_pretrained,
    is_small_regression,
    is_transformer,
)


def _adam(lr: float) -> dict[str, float]:
    """Give Adam and its nearest kin one learning rate."""
    return dict.fromkeys(("adam", "amsgrad", "adamw", "nadam"), lr)


@dataclass(frozen=True, kw_only=True)
class Regime:
    """How a kind of training differs from 800 steps of a small network from random weights.

    holds         whether a profile belongs to it; the first that holds counts
    scale         factor on every learning rate of the catalogue
    lr            learning rates that replace the catalogue's, by optimizer
    weight_decay  decoupled weight decay (None: 1e-4 / lr)
    beta2         of Adam-like optimizers (None: the catalogue's)
    warmup        share of the steps
    horizon       whether the horizon moves the learning rate; not where the numbers are for that horizon
    source        where the numbers come from
    """

    name: str
    holds: Callable[[Profile], bool] = field(repr=False)
    source: str
    scale: float = 1.0
    lr: Mapping[str, float] = field(default_factory=dict)
    weight_decay: float | None = None
    beta2: float | None = None
    warmup: float = 0.02
    horizon: bool = True


REGIMES = (
    Regime(
        name="adapters or a new head on frozen weights",
        holds=lambda profile: is_pretrained(profile) and is_mostly_frozen(profile),
        scale=0.1,
        weight_decay=1e-2,
        warmup=0.1,
        horizon=False,
        lr=_adam(3e-4),
        source="torchtune configurations: 3e-4 in 45 of 77 for LoRA",
    ),
    Regime(
        name="fine-tuning a transformer",
        holds=lambda profile: is_pretrained(profile) and is_transformer(profile),
        scale=0.01,
        weight_decay=1e-2,
        warmup=0.1,
        horizon=False,
        lr=_adam(3e-5),
        source=(
            "torchtune configurations: 2e-5 in 41 of 56; BERT: 2e-5 to 5e-5 (arXiv:1810.04805); measured here (MiniLM "
            "on film reviews): 3e-5"
        ),
    ),
    Regime(
        name="fine-tuning a convolutional net with BatchNorm",
        holds=lambda profile: is_pretrained(profile) and is_convolutional(profile) and profile.model.batch_norm,
        scale=0.2,
        weight_decay=1e-3,
        warmup=0.1,
        horizon=False,
        lr=_adam(2e-3),
        source="fastai's fine_tune: 2e-3; measured here (EfficientNet-lite0 on digits): 3e-3, of half decades",
    ),
    Regime(
        name="fine-tuning",
        holds=is_pretrained,
        scale=1 / 30,
        weight_decay=1e-3,
        warmup=0.1,
        horizon=False,
        lr=_adam(1e-4),
        source="AutoGluon MultiModal: 1e-4, weight decay 1e-3, 10 % warmup, cosine",
    ),
    Regime(
        name="a small noisy regression",
        holds=is_small_regression,
        scale=0.1,
        lr={"rmsprop": 3e-4, **_adam(8e-4)},
        horizon=False,
        source="measured here (diabetes): RMSprop 3e-4 won",
    ),
    Regime(
        name="matrix factorisation",
        holds=is_factorisation,
        lr={"sgd": 1.0, "momentum": 0.3, "adagrad": 0.1, "sparse_adam": 1e-2},
        source="measured here (MovieLens-100k): SparseAdam .01, Adagrad .1, momentum .3; 1.0 diverges",
    ),
    Regime(
        name="a bag of sparse features",
        holds=lambda profile: bool(profile.gradient.sparse),
        lr={"adagrad": 0.25, "muon": 3e-2, "sparse_adam": 1e-2},
        source="measured here (EmbeddingBag on film reviews, 400 steps): Adagrad .3 and Muon .03",
    ),
    Regime(
        name="one graph in a full batch",
        holds=lambda profile: is_graph(profile) and profile.data.batches == 1,
        lr=_adam(1e-2),
        horizon=False,
        source="Kipf & Welling 2017, arXiv:1609.02907: Adam .01; so the examples of PyTorch Geometric",
    ),
    # None for tabular data: the best rates of 17 data sets in arXiv:2604.15297 (AdamW 2e-4) are of constant rates,
    # sought between 3e-5 and 1e-3 and stopped early. With a cosine, 8,000 steps of one table ended best at .01 to .03.
    Regime(
        name="a language model",
        holds=lambda profile: profile.data.label_kind == "tokens" and is_transformer(profile),
        weight_decay=0.1,
        beta2=0.95,
        warmup=0.05,
        lr=_adam(3e-3),
        source="nanoGPT: β₂ .95, weight decay .1, warmup, cosine; measured here (King James text)",
    ),
    Regime(
        name="a transformer from random weights",
        holds=is_transformer,
        warmup=0.05,
        lr=_adam(3e-3),
        source="AlgoPerf ViT target: 8e-4 at 187,000 steps, 5 % warmup, cosine (arXiv:2306.07179)",
    ),
    Regime(
        name="from random weights",
        holds=lambda _: True,
        source="measured here: ten small tasks of 120 to 800 steps",
    ),
)


def regime(profile: Profile) -> Regime:
    """Find the kind of training that `profile` describes: the first of `REGIMES` that holds."""
    return next(candidate for candidate in REGIMES if candidate.holds(profile))

"""Where to start: an optimizer's hyperparameters and schedule before any trial.

The catalogue's centres are for about 800 steps from random weights. A regime says how another kind of
training differs, and the horizon moves Adam-like learning rates as a power of its length.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from optselect import catalogue
from optselect.catalogue import OptimizerSpec
from optselect.profile.values import Profile
from optselect.rules.data import is_graph, is_small_regression, is_tabular
from optselect.rules.model import ATTENTION, MOSTLY_FROZEN, frozen_share, is_pretrained
from optselect.schedules import Schedule
from optselect.space import Value

REFERENCE_STEPS = 800

# The exponent towards which horizon fits are shrunk; with it, a transformer's 3e-3 of 800 steps becomes 5.8e-4 for the
# 187,000 steps of AlgoPerf's ViT, whose tuned value is 8.4e-4 (arXiv:2306.07179; power law:
# arXiv:2409.19913).
HORIZON_EXPONENT = 0.3
HORIZON_LIMITS = (0.1, 2.0)

# SGD's .1 holds from 200 steps (measured here) to ImageNet's 450,000 (arXiv:1706.02677); Adagrad's steps
# shrink by themselves; the rest have no learning rate in Adam's sense.
HORIZON_FREE = frozenset(
    {"sgd", "momentum", "asgd", "adagrad", "adadelta", "lbfgs", "rprop", "prodigy", "schedulefree_sgd"}
)

# For an SGD batch beyond 256, lr grows with it (arXiv:1706.02677). Not below: .1 was right at batch 32 too.
SGD_BATCH = 256
SGD_FAMILY = frozenset({"sgd", "momentum", "asgd", "schedulefree_sgd"})


# Muon's steps stay of one size where gradients shrink: over many passes of the same rows, a rate that is right
# elsewhere overfits. Measured here after 25 and 37 epochs (digits, vowels): half the rate ended a third lower on
# validation data.
MANY_EPOCHS, MUON_OVER_MANY_EPOCHS = 20, 0.5


def adam(lr: float) -> dict[str, float]:
    """One learning rate for Adam and its nearest kin."""
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
        holds=lambda profile: is_pretrained(profile) and frozen_share(profile) >= MOSTLY_FROZEN,
        scale=0.1,
        weight_decay=1e-2,
        warmup=0.1,
        horizon=False,
        lr=adam(3e-4),
        source="torchtune configurations: 3e-4 in 45 of 77 for LoRA",
    ),
    Regime(
        name="fine-tuning a large transformer",
        holds=lambda profile: (
            is_pretrained(profile)
            and profile.model.share("attention") >= ATTENTION
            and profile.model.parameters >= 50_000_000
        ),
        scale=0.01,
        weight_decay=1e-2,
        warmup=0.1,
        horizon=False,
        lr=adam(3e-5),
        source="torchtune configurations: 2e-5 in 41 of 56; BERT: 2e-5 to 5e-5 (arXiv:1810.04805)",
    ),
    Regime(
        name="fine-tuning",
        holds=is_pretrained,
        scale=1 / 30,
        weight_decay=1e-3,
        warmup=0.1,
        horizon=False,
        lr=adam(1e-4),
        source="AutoGluon MultiModal: 1e-4, weight decay 1e-3, 10 % warmup, cosine",
    ),
    Regime(
        name="a small noisy regression",
        holds=is_small_regression,
        scale=0.1,
        lr={"rmsprop": 3e-4, **adam(8e-4)},
        horizon=False,
        source="measured here (diabetes): RMSprop 3e-4 won",
    ),
    Regime(
        name="matrix factorisation",
        holds=lambda profile: profile.model.share("embedding") >= 0.95 and profile.model.share("linear") == 0,
        lr={"sgd": 1.0, "momentum": 0.3, "adagrad": 0.1, "sparse_adam": 1e-2},
        source="measured here (MovieLens-100k): SparseAdam .01, Adagrad .1, momentum .3; 1.0 diverges",
    ),
    Regime(
        name="a bag of sparse features",
        holds=lambda profile: bool(profile.gradient.sparse),
        lr={"adagrad": 0.3, "muon": 3e-2, "sparse_adam": 1e-2},
        source="measured here (EmbeddingBag on film reviews): Adagrad .3 and Muon .03",
    ),
    Regime(
        name="one graph in a full batch",
        holds=lambda profile: is_graph(profile) and profile.data.batches == 1,
        lr=dict.fromkeys(("adam", "amsgrad", "adamw", "nadam"), 1e-2),
        horizon=False,
        source="Kipf & Welling 2017, arXiv:1609.02907: Adam .01; so the examples of PyTorch Geometric",
    ),
    Regime(
        name="a long tabular training",
        holds=lambda profile: is_tabular(profile) and (profile.steps or 0) >= 5_000,
        lr={**adam(2e-4), "radam": 2e-4, "muon": 6e-4},
        weight_decay=0.66,
        horizon=False,
        source="raw data of arXiv:2604.15297: AdamW 2e-4, weight decay .66 over 17 data sets",
    ),
    Regime(
        name="a language model",
        holds=lambda profile: profile.data.label_kind == "tokens" and profile.model.share("attention") >= ATTENTION,
        weight_decay=0.1,
        beta2=0.95,
        warmup=0.05,
        lr=adam(3e-3),
        source="nanoGPT: β₂ .95, weight decay .1, warmup, cosine; measured here (King James text)",
    ),
    Regime(
        name="a transformer from random weights",
        holds=lambda profile: profile.model.share("attention") >= ATTENTION,
        warmup=0.05,
        lr=adam(3e-3),
        source="AlgoPerf ViT target: 8e-4 at 187,000 steps, 5 % warmup, cosine (arXiv:2306.07179)",
    ),
    Regime(
        name="from random weights",
        holds=lambda _: True,
        source="measured here: ten small tasks of 120 to 800 steps",
    ),
)


def regime(profile: Profile) -> Regime:
    """The kind of training that `profile` describes: the first of `REGIMES` that holds."""
    return next(candidate for candidate in REGIMES if candidate.holds(profile))


def configuration(optimizer: str, profile: Profile) -> tuple[dict[str, Value], Schedule]:
    """The hyperparameters and the schedule to start from. Raises `UnknownOptimizerError`."""
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
    if kind.horizon and profile.steps and spec.name not in HORIZON_FREE:
        low, high = HORIZON_LIMITS
        centre *= min(max((REFERENCE_STEPS / profile.steps) ** HORIZON_EXPONENT, low), high)
    if spec.name in SGD_FAMILY and spec.name not in kind.lr:
        centre *= max((profile.data.batch_size or 0) / SGD_BATCH, 1.0)
    if spec.name == "muon" and spec.name not in kind.lr and _epochs(profile) >= MANY_EPOCHS:
        centre *= MUON_OVER_MANY_EPOCHS
    return spec.space["lr"].clip(centre)


def _epochs(profile: Profile) -> float:
    """How often each row will be seen, in mini-batches; 0 where that is not known, or every batch has all of them."""
    batches = profile.data.batches or 0
    return (profile.steps or 0) / batches if batches > 1 else 0.0


# Where the length is not known, a share of it is not either. Adam's moments need some ten steps to mean
# anything.
_WARMUP_STEPS_OF_AN_UNKNOWN_LENGTH = 20


def _schedule(spec: OptimizerSpec, kind: Regime, steps: int | None) -> Schedule:
    # Rprop reads lr once, LBFGS and Prodigy find their own step; Prodigy's authors advise none or a cosine.
    if spec.closure or spec.name in {"rprop", "prodigy"}:
        return Schedule()
    warmup_steps = _WARMUP_STEPS_OF_AN_UNKNOWN_LENGTH if steps is None else round(kind.warmup * steps)
    # Schedule-free ones warm up from outside too: the weights equal those of their own warmup (run here).
    if steps is None or not spec.schedulable:
        return Schedule(warmup_steps=warmup_steps)
    return Schedule(kind="cosine", warmup_steps=warmup_steps)

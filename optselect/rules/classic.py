"""The classic rules, as textbooks and tutorials state them, each beside what has been found since.

They are kept because they are what a reader expects to see weighed, and because several are right. Their
weights are small next to the measured rules', but one proposal is always theirs.
"""

from __future__ import annotations

from optselect.profile.values import Profile
from optselect.rules.rule import Answer, Evidence, Rule, at_least, at_most, rule, votes


@rule(
    cites="classic: SGD is simple and cheap, slow to converge, and may stick in local minima",
    strength="textbook",
    counter="Its trouble is conditioning, class imbalance and blocks of different curvature rather than "
    "local minima (arXiv:2402.19449, arXiv:2402.16788).",
)
def sgd_is_simple_and_cheap(profile: Profile) -> Answer:
    """It keeps no state and does one multiplication per weight."""
    return votes(_always(profile), {"sgd": 0.1})


@rule(
    cites="classic: Adam is efficient and fast, but needs tuning",
    strength="textbook",
    counter="Measured here, NAdam's default is above Adam's on 9 of 10 tasks, and Adam's default lr of "
    "1e-3 is too low for short trainings.",
)
def adam_is_efficient_and_fast(profile: Profile) -> Answer:
    """It combines momentum with a step size for each weight."""
    return votes(_always(profile), {"adam": 0.1})


@rule(
    cites="classic: RMSprop is fast",
    strength="textbook",
    counter="Measured here, torch's default lr of 1e-2 is worse than AdamW(1e-3) on five of ten tasks.",
)
def rmsprop_is_fast(profile: Profile) -> Answer:
    """It divides each gradient by its recent size, with half of Adam's state."""
    return votes(_always(profile), {"rmsprop": 0.05})


@rule(
    cites="classic: for speed SGD and Adam",
    strength="textbook",
    counter="Speed per step and speed to a given loss differ; measured here, Muon's dearer steps reach it "
    "sooner on matrix-heavy networks.",
)
def a_short_training_wants_speed(profile: Profile) -> Answer:
    """When few steps remain, what converges fast wins."""
    because = at_most("steps", profile.steps, 1_000)
    return votes(because, {"adam": 0.1, "sgd": 0.1})


@rule(
    cites="classic: for stability momentum and Adagrad",
    strength="textbook",
    counter="Clipping the gradient's norm and a warmup stabilise any of them.",
)
def unsteady_gradients_want_stability(profile: Profile) -> Answer:
    """Averaging over steps, or a step size that only shrinks, damps outliers."""
    quantiles = profile.gradient.norm_quantiles
    ratio = quantiles[2] / quantiles[0] if quantiles and quantiles[0] > 0 else None
    because = at_least("gradient norm, 90 % over 10 % quantile", ratio, 5.0)
    return votes(because, {"momentum": 0.3, "adagrad": 0.3})


@rule(
    cites="classic: large data sets favour SGD and mini-batch SGD",
    strength="textbook",
    counter="Over 17 tabular data sets of 6 k to 724 k rows, size and SGD's advantage correlate at .22 "
    "only (raw data of arXiv:2604.15297); for convolutional networks with BatchNorm it is a fair proxy.",
)
def large_data_sets_favour_sgd(profile: Profile) -> Answer:
    """With many samples each cheap step sees new data, and noise keeps it from overfitting."""
    because = at_least("data.size", profile.data.size, LARGE)
    return votes(because, {"sgd": 0.6, "momentum": 0.5})


@rule(
    cites="classic: small data sets favour Adam and its variants",
    strength="textbook",
    counter="Weak alone (a correlation of .22 with size); measured here, small noisy regressions want a "
    "small lr first.",
)
def small_data_sets_favour_adam(profile: Profile) -> Answer:
    """With few samples the steps must count, and Adam's adapt to each weight."""
    size = profile.data.size
    if size is None or size >= LARGE:
        return None
    because = Evidence(quantity="data.size", value=size, threshold=LARGE - 1, sense="at most")
    return votes(because, {"adam": 0.5, "adamw": 0.25, "nadam": 0.2, "amsgrad": 0.15})


@rule(
    cites="classic: many saddle points favour momentum and its variants, NAdam and AMSGrad; Dauphin et al. "
    "2014, arXiv:1406.2572",
    strength="textbook",
    counter="NAdam is well supported (it won 5 of 8 AlgoPerf targets), AMSGrad is not; depth stands in for "
    "saddle points here, and residual connections and norms flatten what depth made rough.",
)
def many_saddle_points_favour_momentum(profile: Profile) -> Answer:
    """Where the slope vanishes, what was gathered before carries the weights on."""
    because = at_least("model.depth", profile.model.depth, 20)
    return votes(because, {"momentum": 0.75, "nadam": 0.7, "amsgrad": 0.65})


@rule(
    cites="classic: sequence data favour adaptive steps, RMSprop and Adagrad, for their sparsity",
    strength="textbook",
    counter="The conclusion holds, the reason does not: a GRU on a dense series has validation error NAdam "
    ".029, RMSprop .031, Adagrad .032, SGD-momentum .040 (measured here).",
)
def sequences_favour_rmsprop_and_adagrad(profile: Profile) -> Answer:
    """Rare tokens and long dependencies need their own step sizes."""
    because = at_least("data.sequence_length", profile.data.sequence_length, 2)
    return votes(because, {"rmsprop": 1.0, "adagrad": 0.9})


@rule(
    cites="classic: sparse data favour Adagrad and SparseAdam",
    strength="textbook",
    counter="Not universal: on 1 %-dense linear data SGD-momentum .456, NAdam .457, Adam .465, Adagrad "
    ".481 (validation loss, measured here); and SparseAdam was no better than dense Adam.",
)
def sparse_data_favour_adagrad_and_sparse_adam(profile: Profile) -> Answer:
    """A feature that is rarely present keeps a long step for when it comes."""
    sparse = len(profile.gradient.sparse)
    if sparse:
        because = Evidence(quantity="gradient.sparse", value=f"{sparse} tensors")
        return votes(because, {"sparse_adam": 1.2, "adagrad": 1.1})
    density = at_most("data.density", profile.data.density, 0.1)
    # Sparse features with dense gradients: SparseAdam would raise.
    return votes(density, {"adagrad": 1.1})


LARGE = 100_000


def _always(profile: Profile) -> Evidence:
    return Evidence(quantity="model.parameters", value=profile.model.parameters)


CLASSIC: tuple[Rule, ...] = (
    sgd_is_simple_and_cheap,
    adam_is_efficient_and_fast,
    rmsprop_is_fast,
    a_short_training_wants_speed,
    unsteady_gradients_want_stability,
    large_data_sets_favour_sgd,
    small_data_sets_favour_adam,
    many_saddle_points_favour_momentum,
    sequences_favour_rmsprop_and_adagrad,
    sparse_data_favour_adagrad_and_sparse_adam,
)

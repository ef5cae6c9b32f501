"""What the model says about the choice."""

from __future__ import annotations

from optselect.profile.values import Profile
from optselect.rules.kinds import (
    ATTENTION,
    CONVOLUTIONAL,
    FACTORISATION,
    is_convolutional,
    is_graph,
    is_mostly_frozen,
    is_pretrained,
    is_transformer,
)
from optselect.rules.rule import Answer, Evidence, Rule, Vote, at_least, at_most, rule, votes


@rule(
    cites="Schmidt et al. 2021, arXiv:2007.01547; Choi et al. 2019, arXiv:1910.05446; measured here: "
    "NAdam's default above Adam's on 9 of 10 tasks",
    strength="measured",
)
def several_optimizers_are_better_than_one(profile: Profile) -> Answer:
    """Trying a few complementary optimizers gains as much as tuning one of them."""
    because = Evidence(quantity="model.parameters", value=profile.model.parameters)
    return votes(because, {"nadam": 0.75, "adamw": 0.5, "momentum": 0.5})


@rule(
    cites="measured here: Muon .01 and .03 won 6 of 10 tasks; Wen et al. 2025, arXiv:2509.02046: the gain "
    "falls from 1.4 times to 1.1 times with the model's size",
    strength="measured",
)
def hidden_matrices_favour_muon(profile: Profile) -> Answer:
    """Orthogonalising the momentum gives weak directions of a weight matrix steps as long as strong ones."""
    because = at_least("model.muon_share", profile.model.muon_share, 0.5)
    if because is None or profile.model.at_initialisation is False:
        return None
    return votes(because, {"muon": 3.0, "nadam": 1.0})


@rule(
    cites="AlgoPerf v0.5 raw logs, ImageNet ResNet: SGD with Nesterov momentum alone hit the target in 5 of "
    "5 studies; measured here (three-layer CNN): regret of SGD .1 .15, of NAdam .47",
    strength="raw data",
    counter="Measured here, Muon .03 won on a small CNN: what holds for ImageNet is no law for vision.",
)
def a_convolutional_net_with_batchnorm_favours_nesterov(profile: Profile) -> Answer:
    """BatchNorm makes the loss indifferent to the scale of the weights, so SGD's steps tune themselves."""
    because = at_least("model.share('conv')", profile.model.share("conv"), CONVOLUTIONAL)
    if because is None or not profile.model.batch_norm or profile.model.at_initialisation is False:
        return None
    return votes(because, {"momentum": 3.0, "nadam": 1.5, "adamw": 0.5})


@rule(
    cites="measured here (three-layer CNN, 200 steps, test loss): NAdam .01 .086, AdamW .01 .101, Muon .01 .107, "
    "momentum .03 .113, momentum .1 .132; fine-tuned (EfficientNet-lite0, 75 steps): digits NAdam .28, AdamW .34, "
    "momentum .36, letters NAdam 1.41, AdamW 1.58, momentum 2.19",
    strength="measured",
)
def a_short_training_of_a_convolutional_net_favours_nadam(profile: Profile) -> Answer:
    """What SGD gains on a convolutional net it gains late."""
    if not is_convolutional(profile):
        return None
    return votes(at_most("steps", profile.steps, 1_000), {"nadam": 3.0, "adamw": 1.0, "momentum": -2.0})


@rule(
    cites="Zhang et al. 2024, arXiv:2402.16788; AlgoPerf target settings: NAdamW won ViT, WMT and Conformer",
    strength="paper",
)
def attention_favours_adaptive_steps(profile: Profile) -> Answer:
    """A transformer's blocks have Hessian spectra of different size; one step size cannot suit all."""
    because = at_least("model.share('attention')", profile.model.share("attention"), ATTENTION)
    weights = {"nadam": 1.5, "adamw": 1.5, "schedulefree_adamw": 1.0, "sgd": -1.0}
    return votes(because, weights | ({"muon": 0.5} if profile.model.muon_share > 0 else {}))


@rule(
    cites="Zhang et al. 2024, arXiv:2402.16788; Srećković et al. 2025, arXiv:2506.12543: comparable at small batches",
    strength="paper",
)
def attention_at_a_large_batch_outruns_momentum(profile: Profile) -> Answer:
    """The larger the batch, the less noise hides that momentum has one step size for all blocks."""
    because = at_least("data.batch_size", profile.data.batch_size, 33)
    if because is None or not is_transformer(profile):
        return None
    return votes(because, {"momentum": -1.0})


@rule(
    cites="AlgoPerf target settings: NAdamW won DeepSpeech; measured here (GRU on a dense series): NAdam "
    ".029, RMSprop .031, Adam .031, SGD-momentum .040",
    strength="measured",
)
def recurrent_nets_favour_adaptive_steps(profile: Profile) -> Answer:
    """Gradients through time differ by orders of magnitude, and a running norm evens them out."""
    because = at_least("model.share('recurrent')", profile.model.share("recurrent"), 0.3)
    return votes(because, {"nadam": 2.0, "rmsprop": 1.5, "adamw": 1.0, "sgd": -1.0})


@rule(
    cites="Qu et al. 2026, arXiv:2605.10468; AutoGluon MultiModal and torchtune defaults: AdamW",
    strength="paper",
)
def a_pretrained_transformer_favours_what_trained_it(profile: Profile) -> Answer:
    """Adam and Muon shape weights differently, and a full change of hands undoes what pretraining learnt."""
    if not is_pretrained(profile) or not is_transformer(profile):
        return None
    because = _not_fresh(profile)
    # Adapters on frozen weights are fresh matrices: there Muon is harmless.
    muon = {"muon": -5.0} if not is_mostly_frozen(profile) else {}
    return votes(because, {"adamw": 3.0, "nadam": 0.5, **muon})


@rule(
    cites="Kumar et al. 2022, arXiv:2211.09359 (SGD is level once the embedding is frozen); timm and AutoGluon: AdamW",
    strength="paper",
)
def a_pretrained_convolutional_net_takes_either(profile: Profile) -> Answer:
    """Fine-tuning stays near good weights, where AdamW's safety and SGD's economy meet."""
    if not is_pretrained(profile) or not is_convolutional(profile):
        return None
    return votes(_not_fresh(profile), {"adamw": 2.0, "momentum": 1.5})


@rule(cites="Kumar et al. 2022, arXiv:2211.09359", strength="paper")
def fine_tuning_in_little_memory_favours_sgd(profile: Profile) -> Answer:
    """SGD with momentum keeps half of Adam's state and fine-tunes as well once the first layer is frozen."""
    if not is_pretrained(profile):
        return None
    ratio = None if profile.model.memory_free is None else profile.model.memory_free / max(profile.model.parameters, 1)
    because = at_most("model.memory_free per parameter", ratio, 16.0)
    return votes(because, {"momentum": 2.0, "sgd": 0.5})


@rule(cites="Zhang et al. 2021, arXiv:2006.05987", strength="paper")
def few_samples_for_a_pretrained_transformer_need_bias_correction(profile: Profile) -> Answer:
    """Uncorrected, the first steps of a short fine-tuning are too long; torch's AdamW corrects them."""
    because = at_most("data.size", profile.data.size, 10_000)
    if because is None or not is_pretrained(profile) or not is_transformer(profile):
        return None
    return Vote(optimizer="adamw", because=because)


@rule(
    cites="measured here (MovieLens-100k, test loss): Adam .01 .87, SparseAdam .01 .89, Adagrad .1 .89, "
    "momentum .3 .90, AdamW(1e-3) 1.05; momentum 1.0 and Adagrad 1.0 diverge",
    strength="measured",
)
def matrix_factorisation_favours_long_adaptive_steps(profile: Profile) -> Answer:
    """A row of a table is trained once in many batches: it needs a step of its own length, and a long one."""
    because = at_least("model.share('embedding')", profile.model.share("embedding"), FACTORISATION)
    if because is None or profile.model.share("linear") > 0:
        return None
    return votes(because, {"sparse_adam": 2.0, "nadam": 2.0, "adagrad": 1.5, "momentum": 1.0})


@rule(
    cites="AlgoPerf target setting (arXiv:2306.07179), OGBG, batch 512: Nesterov 2.49 won, of 200 trials each of "
    "AdamW, NAdamW, Nesterov and heavy ball; its baseline in the competition was NAdamW",
    strength="raw data",
    counter="One workload, and at a batch of 512.",
)
def a_net_for_many_graphs_favours_nesterov(profile: Profile) -> Answer:
    """Sums over neighbours even the gradients of a graph out, so that one step size suits all layers."""
    if not is_graph(profile) or profile.data.batches == 1:
        return None
    return votes(_graph(profile), {"momentum": 3.0, "nadam": 1.5, "adamw": 0.5})


@rule(
    cites="Kipf & Welling 2017, arXiv:1609.02907 (Adam, lr .01, full batches); so the examples of PyTorch Geometric",
    strength="paper",
    counter="A convention that the papers share; none of them compares optimizers.",
)
def a_net_for_one_graph_favours_adam(profile: Profile) -> Answer:
    """The whole graph is one batch, and few labelled nodes leave little gradient for most weights."""
    if not is_graph(profile) or profile.data.batches != 1:
        return None
    return votes(_graph(profile), {"adam": 3.0, "adamw": 1.0, "nadam": 1.0})


@rule(
    cites="measured here (digits in bfloat16 alone, 400 steps, 3 seeds, validation loss against float32): Adafactor "
    ".155 for .116, Lion .155 for .134, AdamW .113 for .108, momentum .105 for .105",
    strength="measured",
    counter="One small task. The cure is a float32 copy of the weights (mixed precision) or stochastic rounding "
    "(github.com/pytorch/ao), not another optimizer.",
)
def half_precision_weights_lose_small_steps(profile: Profile) -> Answer:
    """A bfloat16 weight keeps 8 bits, so that a step below 1/256 of it is rounded away."""
    if not profile.model.half_precision:
        return None
    because = Evidence(quantity="model.dtypes", value=", ".join(profile.model.dtypes))
    return votes(because, {"adafactor": -1.0, "lion": -1.0})


def _not_fresh(profile: Profile) -> Evidence:
    return Evidence(quantity="model.at_initialisation", value=profile.model.at_initialisation)


def _graph(profile: Profile) -> Evidence:
    if profile.data.edges is not None:
        return Evidence(quantity="data.edges", value=profile.data.edges)
    return Evidence(quantity="model.graph", value=True)


MODEL: tuple[Rule, ...] = (
    several_optimizers_are_better_than_one,
    hidden_matrices_favour_muon,
    a_convolutional_net_with_batchnorm_favours_nesterov,
    a_short_training_of_a_convolutional_net_favours_nadam,
    attention_favours_adaptive_steps,
    attention_at_a_large_batch_outruns_momentum,
    recurrent_nets_favour_adaptive_steps,
    a_pretrained_transformer_favours_what_trained_it,
    a_pretrained_convolutional_net_takes_either,
    fine_tuning_in_little_memory_favours_sgd,
    few_samples_for_a_pretrained_transformer_need_bias_correction,
    matrix_factorisation_favours_long_adaptive_steps,
    a_net_for_many_graphs_favours_nesterov,
    a_net_for_one_graph_favours_adam,
    half_precision_weights_lose_small_steps,
)

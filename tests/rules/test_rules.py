"""Each rule speaks at its threshold, and is silent just below it."""

from dataclasses import replace
from typing import Any

import pytest

from optselect.profile import DataProfile, GradientProfile, ModelProfile, Profile
from optselect.rules import CLASSIC, FACTS, Rule, Vote, classic, data, gradient, limitations, model
from optselect.rules.voting import RULES_ALONE
from tests.support.cases import case


def profile(
    steps: int | None = 1_000,
    *,
    of_data: dict[str, Any] | None = None,
    of_model: dict[str, Any] | None = None,
    of_gradient: dict[str, Any] | None = None,
) -> Profile:
    """A fresh model of 1,000 weights; each argument replaces fields of one part."""
    return Profile(
        data=DataProfile(**(of_data or {})),
        model=ModelProfile(**{"parameters": 1_000, "tensors": 2, "at_initialisation": True, **(of_model or {})}),
        gradient=GradientProfile(**(of_gradient or {})),
        steps=steps,
    )


def weights(rule: Rule, of: Profile) -> dict[str, float]:
    return {vote.optimizer: vote.weight for vote in rule(of)}


def kinds(**share: float) -> dict[str, Any]:
    return {"kinds": {kind: round(1_000 * part) for kind, part in share.items()}}


PRETRAINED = {"at_initialisation": False}
PERCEPTRON = {"muon_share": 0.5, "depth": 2}
SMALL = {"size": 1_000, "label_kind": "continuous"}

# rule, a profile just below its threshold, one at it, the optimizer it then speaks most for or against.
THRESHOLDS: list[tuple[Rule, Profile, Profile, str]] = [
    (
        data.rare_classes_favour_adaptive_steps,
        profile(of_data={"rare_class_share": 0.49}),
        profile(of_data={"rare_class_share": 0.5}),
        "nadam",
    ),
    (
        data.tabular_networks_train_best_with_muon,
        profile(of_model=kinds(linear=0.499) | PERCEPTRON),
        profile(of_model=kinds(linear=0.5) | PERCEPTRON),
        "muon",
    ),
    (
        data.tabular_networks_train_best_with_muon,
        profile(of_model=kinds(linear=0.5) | PERCEPTRON | {"depth": 1}),
        profile(of_model=kinds(linear=0.5) | PERCEPTRON),
        "muon",
    ),
    (
        data.a_small_noisy_regression_wants_cautious_steps,
        profile(of_data=SMALL | {"size": 1_001}, of_model={"parameters": 2_000}),
        profile(of_data=SMALL, of_model={"parameters": 2_000}),
        "rmsprop",
    ),
    (
        data.a_small_noisy_regression_wants_cautious_steps,
        profile(of_data=SMALL, of_model={"parameters": 1_000}),
        profile(of_data=SMALL, of_model={"parameters": 1_001}),
        "rmsprop",
    ),
    (
        data.a_small_noisy_regression_wants_cautious_steps,
        profile(of_data=SMALL | {"sequence_length": 2}, of_model={"parameters": 2_000}),
        profile(of_data=SMALL, of_model={"parameters": 2_000}),
        "rmsprop",
    ),
    (
        data.sparse_features_of_a_shallow_model_do_not_need_adagrad,
        profile(of_data={"density": 0.051}, of_model={"depth": 2}),
        profile(of_data={"density": 0.05}, of_model={"depth": 2}),
        "momentum",
    ),
    (
        data.sparse_features_of_a_shallow_model_do_not_need_adagrad,
        profile(of_data={"density": 0.05}, of_model={"depth": 3}),
        profile(of_data={"density": 0.05}, of_model={"depth": 2}),
        "momentum",
    ),
    (
        data.an_unknown_horizon_favours_schedule_free_averaging,
        profile(steps=1),
        profile(steps=None),
        "schedulefree_adamw",
    ),
    (
        data.a_small_full_batch_problem_can_be_solved_with_curvature,
        profile(of_data={"batches": 2}),
        profile(of_data={"batches": 1}),
        "adam",
    ),
    (
        data.a_small_full_batch_problem_can_be_solved_with_curvature,
        profile(of_data={"batches": 1}, of_model={"parameters": 1_000_000}),
        profile(of_data={"batches": 1}, of_model={"parameters": 999_999}),
        "adam",
    ),
    (
        data.a_small_full_batch_problem_can_be_solved_with_curvature,
        profile(of_data={"batches": 1}, of_model={"dropout": 0.01}),
        profile(of_data={"batches": 1}),
        "lbfgs",
    ),
    (
        data.a_line_search_needs_the_same_loss_twice,
        profile(of_data={"batches": 1}),
        profile(of_data={"batches": 2}),
        "lbfgs",
    ),
    (
        data.a_line_search_needs_the_same_loss_twice,
        profile(of_data={"batches": 1}),
        profile(of_data={"batches": 1}, of_model={"dropout": 0.01}),
        "lbfgs",
    ),
    (
        model.hidden_matrices_favour_muon,
        profile(of_model={"muon_share": 0.49}),
        profile(of_model={"muon_share": 0.5}),
        "muon",
    ),
    (
        model.hidden_matrices_favour_muon,
        profile(of_model={"muon_share": 0.5} | PRETRAINED),
        profile(of_model={"muon_share": 0.5, "at_initialisation": None}),
        "muon",
    ),
    (
        model.a_convolutional_net_with_batchnorm_favours_nesterov,
        profile(of_model=kinds(conv=0.499) | {"batch_norm": True}),
        profile(of_model=kinds(conv=0.5) | {"batch_norm": True}),
        "momentum",
    ),
    (
        model.a_convolutional_net_with_batchnorm_favours_nesterov,
        profile(of_model=kinds(conv=0.5)),
        profile(of_model=kinds(conv=0.5) | {"batch_norm": True}),
        "momentum",
    ),
    (
        model.a_short_training_of_a_convolutional_net_favours_nadam,
        profile(of_model=kinds(conv=0.5), steps=1_001),
        profile(of_model=kinds(conv=0.5), steps=1_000),
        "nadam",
    ),
    (
        model.attention_favours_adaptive_steps,
        profile(of_model=kinds(attention=0.099)),
        profile(of_model=kinds(attention=0.1)),
        "adamw",
    ),
    (
        model.attention_at_a_large_batch_outruns_momentum,
        profile(of_data={"batch_size": 32}, of_model=kinds(attention=0.1)),
        profile(of_data={"batch_size": 33}, of_model=kinds(attention=0.1)),
        "momentum",
    ),
    (
        model.recurrent_nets_favour_adaptive_steps,
        profile(of_model=kinds(recurrent=0.299)),
        profile(of_model=kinds(recurrent=0.3)),
        "nadam",
    ),
    (
        model.a_pretrained_transformer_favours_what_trained_it,
        profile(of_model=kinds(attention=0.099) | PRETRAINED),
        profile(of_model=kinds(attention=0.1) | PRETRAINED),
        "muon",
    ),
    (
        model.a_pretrained_transformer_favours_what_trained_it,
        profile(of_model=kinds(attention=0.1)),
        profile(of_model=kinds(attention=0.1) | PRETRAINED),
        "muon",
    ),
    (
        model.a_pretrained_convolutional_net_takes_either,
        profile(of_model=kinds(conv=0.499) | PRETRAINED),
        profile(of_model=kinds(conv=0.5) | PRETRAINED),
        "adamw",
    ),
    (
        model.fine_tuning_in_little_memory_favours_sgd,
        profile(of_model={"memory_free": 16_001} | PRETRAINED),
        profile(of_model={"memory_free": 16_000} | PRETRAINED),
        "momentum",
    ),
    (
        model.few_samples_for_a_pretrained_transformer_need_bias_correction,
        profile(of_data={"size": 10_001}, of_model=kinds(attention=0.1) | PRETRAINED),
        profile(of_data={"size": 10_000}, of_model=kinds(attention=0.1) | PRETRAINED),
        "adamw",
    ),
    (
        model.matrix_factorisation_favours_long_adaptive_steps,
        profile(of_model=kinds(embedding=0.949)),
        profile(of_model=kinds(embedding=0.95)),
        "momentum",
    ),
    (
        model.matrix_factorisation_favours_long_adaptive_steps,
        profile(of_model=kinds(embedding=0.95, linear=0.001)),
        profile(of_model=kinds(embedding=0.95)),
        "momentum",
    ),
    (
        model.a_net_for_many_graphs_favours_nesterov,
        profile(of_data={"batches": 2}),
        profile(of_data={"batches": 2, "edges": 1}),
        "momentum",
    ),
    (
        model.a_net_for_many_graphs_favours_nesterov,
        profile(of_data={"batches": 1, "edges": 1}),
        profile(of_data={"batches": 2}, of_model={"graph": True}),
        "momentum",
    ),
    (
        model.a_net_for_one_graph_favours_adam,
        profile(of_data={"batches": 1}),
        profile(of_data={"batches": 1, "edges": 1}),
        "adam",
    ),
    (
        model.a_net_for_one_graph_favours_adam,
        profile(of_data={"batches": 2, "edges": 1}),
        profile(of_data={"batches": 1}, of_model={"graph": True}),
        "adam",
    ),
    (
        model.half_precision_weights_lose_small_steps,
        profile(of_model={"dtypes": ("bfloat16", "float32")}),
        profile(of_model={"dtypes": ("bfloat16",)}),
        "adafactor",
    ),
    (
        data.tabular_networks_train_best_with_muon,
        profile(of_data={"edges": 1}, of_model=kinds(linear=0.5) | PERCEPTRON),
        profile(of_model=kinds(linear=0.5) | PERCEPTRON),
        "muon",
    ),
    (
        gradient.sparse_gradients_favour_adagrad,
        profile(),
        profile(of_gradient={"sparse": ("table",)}),
        "adagrad",
    ),
    (
        gradient.momentum_is_slow_on_sparse_gradients,
        profile(),
        profile(of_gradient={"sparse": ("table",)}),
        "momentum",
    ),
    (classic.a_short_training_wants_speed, profile(steps=1_001), profile(steps=1_000), "adam"),
    (classic.a_short_training_wants_speed, profile(steps=None), profile(steps=1), "sgd"),
    (
        classic.unsteady_gradients_want_stability,
        profile(of_gradient={"norm_quantiles": (1.0, 2.0, 4.99)}),
        profile(of_gradient={"norm_quantiles": (1.0, 2.0, 5.0)}),
        "momentum",
    ),
    (
        classic.large_data_sets_favour_sgd,
        profile(of_data={"size": 99_999}),
        profile(of_data={"size": 100_000}),
        "sgd",
    ),
    (
        classic.small_data_sets_favour_adam,
        profile(of_data={"size": 100_000}),
        profile(of_data={"size": 99_999}),
        "adam",
    ),
    (
        classic.many_saddle_points_favour_momentum,
        profile(of_model={"depth": 19}),
        profile(of_model={"depth": 20}),
        "momentum",
    ),
    (
        classic.sequences_favour_rmsprop_and_adagrad,
        profile(of_data={"sequence_length": 1}),
        profile(of_data={"sequence_length": 2}),
        "rmsprop",
    ),
    (
        classic.sparse_data_favour_adagrad_and_sparse_adam,
        profile(of_data={"density": 0.11}),
        profile(of_data={"density": 0.1}),
        "adagrad",
    ),
    (
        classic.sparse_data_favour_adagrad_and_sparse_adam,
        profile(),
        profile(of_gradient={"sparse": ("table",)}),
        "sparse_adam",
    ),
    (
        limitations.all_gradients_are_sparse,
        profile(of_gradient={"sparse": ("one",)}),
        profile(of_gradient={"sparse": ("one", "two")}),
        "adamw",
    ),
    (
        limitations.all_gradients_are_sparse,
        profile(of_gradient={"unused": ("two",)}),
        profile(of_gradient={"sparse": ("one",), "unused": ("two",)}),
        "muon",
    ),
    (
        limitations.no_gradient_is_sparse,
        profile(of_gradient={"passes": 1, "sparse": ("table",)}),
        profile(of_gradient={"passes": 1}),
        "sparse_adam",
    ),
    (
        limitations.no_hidden_matrix_is_there,
        profile(of_model={"muon_share": 0.001}),
        profile(of_model={"muon_share": 0.0}),
        "muon",
    ),
    (limitations.a_parameter_is_complex, profile(), profile(of_model={"complex": True}), "adafactor"),
    (limitations.weights_are_cut_into_flat_pieces, profile(), profile(of_model={"cut": "flat"}), "muon"),
    (limitations.weights_are_distributed_tensors, profile(), profile(of_model={"cut": "tensors"}), "soap"),
    (
        limitations.the_state_does_not_fit_the_memory,
        profile(of_model={"parameters": 10_000, "memory_free": 80_000}),
        profile(of_model={"parameters": 10_000, "memory_free": 79_999}),
        "adamw",
    ),
]

ALWAYS: tuple[Rule, ...] = (
    model.several_optimizers_are_better_than_one,
    classic.sgd_is_simple_and_cheap,
    classic.adam_is_efficient_and_fast,
    classic.rmsprop_is_fast,
)


def test_a_rule_is_silent_on_an_optimizer_below_its_threshold() -> None:
    for rule, below, _, optimizer in THRESHOLDS:
        with case(rule.name, optimizer):
            assert optimizer not in weights(rule, below)


def test_a_rule_speaks_at_its_threshold() -> None:
    for rule, _, at, optimizer in THRESHOLDS:
        with case(rule.name, optimizer):
            assert optimizer in weights(rule, at)


def test_every_rule_has_a_threshold_tested_or_always_speaks() -> None:
    tested = {rule.name for rule, *_ in THRESHOLDS} | {rule.name for rule in ALWAYS}

    assert tested == {rule.name for rule in FACTS + RULES_ALONE}


@pytest.mark.parametrize("rule", ALWAYS, ids=lambda rule: rule.name)
def test_a_rule_without_a_threshold_always_speaks(rule: Rule) -> None:
    assert rule(profile())


def test_every_classic_rule_is_cited_as_classic_and_shows_what_speaks_against_it() -> None:
    plain = [
        rule.name
        for rule in CLASSIC
        if rule.strength != "textbook" or not rule.cites.startswith("classic: ") or not rule.counter
    ]

    assert plain == []


def test_every_fact_is_a_veto_and_no_opinion_is() -> None:
    odd = [
        vote.rule
        for rule, _, at, _ in THRESHOLDS
        for vote in rule(at)
        if vote.veto is not (rule.name in {fact.name for fact in FACTS})
    ]

    assert odd == []


def test_batchnorm_turns_the_word_for_schedule_free_averaging_around() -> None:
    rule = data.an_unknown_horizon_favours_schedule_free_averaging

    assert weights(rule, profile(steps=None, of_model={"batch_norm": True}))["schedulefree_adamw"] < 0


def test_adapters_on_frozen_weights_may_be_trained_with_muon() -> None:
    rule = model.a_pretrained_transformer_favours_what_trained_it
    adapters = profile(of_model=kinds(attention=0.1) | PRETRAINED | {"frozen": 9_000})

    assert "muon" not in weights(rule, adapters)


def test_an_optimizer_with_a_partner_for_complex_parameters_is_not_forbidden() -> None:
    forbidden = weights(limitations.a_parameter_is_complex, profile(of_model={"complex": True}))

    assert "muon" not in forbidden


def test_plain_gradient_descent_fits_any_memory() -> None:
    forbidden = weights(limitations.the_state_does_not_fit_the_memory, profile(of_model={"memory_free": 0}))

    assert "sgd" not in forbidden


def test_half_precision_halves_the_state() -> None:
    half = profile(of_model={"parameters": 10_000, "memory_free": 40_000, "dtypes": ("bfloat16",)})

    assert "adamw" not in weights(limitations.the_state_does_not_fit_the_memory, half)


def test_sparse_adam_is_not_forbidden_before_gradients_were_seen() -> None:
    votes: tuple[Vote, ...] = limitations.no_gradient_is_sparse(profile(of_gradient={"passes": 0}))

    assert votes == ()


def test_one_sparse_gradient_among_dense_ones_forbids_nothing() -> None:
    mixed = profile(of_gradient={"passes": 1, "sparse": ("table",)})

    assert [rule.name for rule in FACTS if rule(replace(mixed, model=replace(mixed.model, muon_share=0.1)))] == []


def test_the_shapes_size_the_state_where_they_are_known() -> None:
    # SOAP keeps two matrices of 4 x 4 and two of 2500 x 2500 beside two moments: 12.5 million numbers and 20,000.
    flat = profile(of_model={"parameters": 10_000, "memory_free": 1_000_000, "shapes": {"4x2500": 1}})
    square = profile(of_model={"parameters": 10_000, "memory_free": 1_000_000, "shapes": {"100x100": 1}})
    rule = limitations.the_state_does_not_fit_the_memory

    assert ("soap" in weights(rule, flat), "soap" in weights(rule, square)) == (True, False)


def test_what_muon_cannot_train_counts_as_its_partners_state() -> None:
    vectors = profile(of_model={"parameters": 100, "memory_free": 799, "shapes": {"100": 1}})

    assert "muon" in weights(limitations.the_state_does_not_fit_the_memory, vectors)


def test_muon_may_train_distributed_tensors_and_no_flat_pieces() -> None:
    either = {
        cut: {name for rule in FACTS for name in weights(rule, profile(of_model={"cut": cut, "muon_share": 0.5}))}
        for cut in ("flat", "tensors")
    }

    assert "muon" in either["flat"] - either["tensors"]
    assert {"adamw", "lion", "momentum"}.isdisjoint(either["flat"] | either["tensors"])

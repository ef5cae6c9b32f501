"""Where to start with each optimizer, by regime and horizon."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from optselect import catalogue
from optselect.configuration.schedule import Schedule
from optselect.errors import UnknownOptimizerError
from optselect.profile import DataProfile, GradientProfile, ModelProfile, Profile
from optselect.rules import REGIMES, configuration, regime
from optselect.testing import PROFILES
from tests.support.cases import case

FRESH = Profile(
    data=DataProfile(size=10_000, batch_size=64, batches=160, label_kind="multiclass"),
    model=ModelProfile(parameters=1_000, tensors=4, kinds={"conv": 1_000}, at_initialisation=True),
    gradient=GradientProfile(passes=3),
    steps=800,
)
TRAINED = replace(FRESH, model=replace(FRESH.model, at_initialisation=False))
TRANSFORMER = {"linear": 600, "attention": 400}


def lr(optimizer: str, profile: Profile) -> float:
    return float(configuration(optimizer, profile)[0]["lr"])


def with_model(profile: Profile, **changes: Any) -> Profile:
    return replace(profile, model=replace(profile.model, **changes))


def with_data(profile: Profile, **changes: Any) -> Profile:
    return replace(profile, data=replace(profile.data, **changes))


def test_every_start_is_complete_and_inside_the_bounds() -> None:
    for optimizer, regime_name in product(catalogue.names(), PROFILES):
        with case(optimizer, regime_name):
            spec = catalogue.get(optimizer)

            values, _ = configuration(optimizer, PROFILES[regime_name])

            assert set(values) == set(spec.space)
            assert all(dimension.contains(values[name]) for name, dimension in spec.space.items())


def test_an_unknown_optimizer_is_an_error() -> None:
    with pytest.raises(UnknownOptimizerError):
        configuration("loin", FRESH)


def test_at_the_reference_horizon_the_start_is_the_catalogues_centre() -> None:
    for optimizer in catalogue.names():
        with case(optimizer):
            spec = catalogue.get(optimizer)

            values, _ = configuration(optimizer, FRESH)

            assert values.get("lr") == spec.defaults().get("lr")


@pytest.mark.parametrize("optimizer", ["adamw", "nadam", "muon", "rmsprop", "adagrad", "schedulefree_adamw"])
def test_a_longer_training_starts_with_a_smaller_lr(optimizer: str) -> None:
    large = with_data(FRESH, size=1_000_000, batches=16_000)

    assert lr(optimizer, replace(large, steps=80_000)) == pytest.approx(lr(optimizer, FRESH) * 100**-0.3)


@pytest.mark.parametrize("optimizer, exponent", [("muon", -1.0), ("adagrad", -0.5), ("nadam", -0.5), ("sgd", -0.3)])
def test_once_each_row_has_been_seen_ten_times_rates_fall_faster(optimizer: str, exponent: float) -> None:
    ten, twenty, thirty = (lr(optimizer, replace(FRESH, steps=passes * 160)) for passes in (10, 20, 30))

    assert twenty / ten == pytest.approx(2.0**exponent)
    assert thirty / ten == pytest.approx(3.0**exponent)


@pytest.mark.parametrize("optimizer", ["muon", "adagrad"])
def test_up_to_ten_passes_their_rates_move_like_any_other(optimizer: str) -> None:
    five, ten = (replace(FRESH, steps=passes * 160) for passes in (5, 10))

    assert lr(optimizer, ten) / lr(optimizer, five) == pytest.approx(lr("nadam", ten) / lr("nadam", five))


@pytest.mark.parametrize("optimizer", ["momentum", "sgd", "lbfgs"])
def test_some_learning_rates_do_not_move_with_the_horizon(optimizer: str) -> None:
    large = with_data(FRESH, size=1_000_000, batches=16_000)

    assert lr(optimizer, replace(large, steps=80_000)) == lr(optimizer, FRESH)


@pytest.mark.parametrize("steps, batches, factor", [(1, 160, 2.0), (10**9, 10**9, 0.1), (10**9, 160, 0.01)])
def test_the_horizons_effect_is_bounded(steps: int, batches: int, factor: float) -> None:
    profile = with_data(replace(FRESH, steps=steps), batches=batches)

    assert lr("adamw", profile) == pytest.approx(factor * lr("adamw", FRESH))


def test_for_sgd_a_batch_beyond_256_raises_lr_in_proportion() -> None:
    assert lr("momentum", with_data(FRESH, batch_size=1_024)) == pytest.approx(4 * lr("momentum", FRESH))


def test_for_sgd_a_small_batch_does_not_lower_lr() -> None:
    assert lr("momentum", with_data(FRESH, batch_size=8)) == lr("momentum", FRESH)


def test_fine_tuning_starts_at_a_thirtieth() -> None:
    assert lr("adamw", TRAINED) == pytest.approx(1e-4)


def test_fine_tuning_does_not_move_with_the_horizon() -> None:
    assert lr("adamw", replace(TRAINED, steps=80_000)) == lr("adamw", TRAINED)


def test_fine_tuning_a_transformer_starts_lower_still() -> None:
    assert lr("adamw", with_model(TRAINED, kinds=TRANSFORMER)) == pytest.approx(3e-5)


def test_fine_tuning_a_convolutional_net_with_batchnorm_starts_higher() -> None:
    assert lr("adamw", with_model(TRAINED, batch_norm=True)) == pytest.approx(2e-3)


def test_adapters_on_frozen_weights_start_higher() -> None:
    assert lr("adamw", with_model(TRAINED, frozen=9_000)) == pytest.approx(3e-4)


def test_a_model_one_cannot_tell_of_counts_as_fresh() -> None:
    assert lr("adamw", with_model(FRESH, at_initialisation=None)) == lr("adamw", FRESH)


def test_decoupled_weight_decay_is_inverse_to_lr() -> None:
    values, _ = configuration("adamw", FRESH)

    assert float(values["lr"]) * float(values["weight_decay"]) == pytest.approx(1e-4)


def test_added_weight_decay_is_not_moved() -> None:
    values, _ = configuration("adam", replace(FRESH, steps=80_000))

    assert values["weight_decay"] == catalogue.get("adam").defaults()["weight_decay"]


def test_a_language_model_forgets_its_second_moment_sooner() -> None:
    language = with_data(with_model(FRESH, kinds=TRANSFORMER), label_kind="tokens")

    assert configuration("adamw", language)[0]["beta2"] == 0.95


@pytest.mark.parametrize(
    "name, profile",
    [
        ("from random weights", FRESH),
        ("fine-tuning", TRAINED),
        ("adapters or a new head on frozen weights", with_model(TRAINED, frozen=9_000)),
        ("a transformer from random weights", with_model(FRESH, kinds=TRANSFORMER)),
        ("a language model", with_data(with_model(FRESH, kinds=TRANSFORMER), label_kind="tokens")),
        ("a small noisy regression", with_data(FRESH, label_kind="continuous", size=999)),
        ("matrix factorisation", with_model(FRESH, kinds={"embedding": 1_000})),
        ("one graph in a full batch", with_data(FRESH, batches=1, edges=9)),
        ("from random weights", with_data(FRESH, batches=2, edges=9)),
        ("a bag of sparse features", replace(FRESH, gradient=GradientProfile(passes=1, sparse=("table",)))),
        (
            "fine-tuning a transformer",
            with_model(TRAINED, parameters=10**8, kinds={"attention": 10**8}),
        ),
        ("fine-tuning a convolutional net with BatchNorm", with_model(TRAINED, batch_norm=True)),
    ],
)
def test_a_profile_belongs_to_a_regime(name: str, profile: Profile) -> None:
    assert regime(profile).name == name


def test_every_regime_says_where_its_numbers_come_from() -> None:
    assert all(kind.source for kind in REGIMES)


def test_a_regime_names_optimizers_of_the_catalogue() -> None:
    assert {name for kind in REGIMES for name in kind.lr} <= set(catalogue.names())


def test_a_known_length_means_a_cosine_with_a_short_warmup() -> None:
    assert configuration("adamw", FRESH)[1] == Schedule(kind="cosine", warmup_steps=16)


def test_fine_tuning_warms_up_for_a_tenth() -> None:
    assert configuration("adamw", TRAINED)[1] == Schedule(kind="cosine", warmup_steps=80)


def test_an_unknown_length_means_a_constant_after_some_steps() -> None:
    assert configuration("adamw", replace(FRESH, steps=None))[1] == Schedule(warmup_steps=20)


@pytest.mark.parametrize("optimizer", ["schedulefree_adamw", "schedulefree_sgd"])
def test_schedule_free_optimizers_warm_up_and_stay(optimizer: str) -> None:
    assert configuration(optimizer, FRESH)[1] == Schedule(warmup_steps=16)


@pytest.mark.parametrize("optimizer", ["lbfgs", "rprop", "prodigy"])
def test_optimizers_that_set_their_own_steps_get_no_schedule(optimizer: str) -> None:
    assert configuration(optimizer, FRESH)[1] == Schedule()

"""Dimensions: bounds, scales and centres."""

import pytest
from optuna.distributions import FloatDistribution

from optselect import catalogue
from optselect.errors import ConfigurationError
from optselect.space import Dimension, SearchSpace, choice, log_uniform, near_one
from tests.support.cases import case

NUMERIC = {
    "logarithmic": log_uniform(1e-5, 1e-1),
    "linear": Dimension(distribution=FloatDistribution(-1.0, 3.0), centre=0.0),
    "near one": near_one(5e-3, 0.3, centre=0.9),
    "a single point": log_uniform(0.3, 0.3),
}
EVERY = [
    (name, hyperparameter)
    for name in catalogue.names()
    for hyperparameter, dimension in catalogue.get(name).space.items()
    if not isinstance(dimension.centre, bool | str)
]
numeric = pytest.mark.parametrize("dimension", NUMERIC.values(), ids=NUMERIC.keys())


@numeric
def test_the_unit_of_a_value_leads_back_to_it(dimension: Dimension) -> None:
    for unit in (0.0, 0.1, 0.5, 0.93, 1.0):
        value = dimension.from_unit(unit)

        assert dimension.from_unit(dimension.to_unit(value)) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("kind", ["logarithmic", "linear", "near one"])
def test_the_value_of_a_unit_leads_back_to_it(kind: str) -> None:
    for unit in (0.0, 0.1, 0.5, 0.93, 1.0):
        assert NUMERIC[kind].to_unit(NUMERIC[kind].from_unit(unit)) == pytest.approx(unit, abs=1e-9)


def test_half_way_on_a_logarithmic_scale_is_the_geometric_middle() -> None:
    assert log_uniform(1e-4, 1e-2).from_unit(0.5) == pytest.approx(1e-3)


def test_half_way_on_a_complement_is_half_way_between_the_distances_to_one() -> None:
    assert near_one(1e-3, 1e-1, centre=0.95).from_unit(0.5) == pytest.approx(0.99)


def test_both_ends_of_every_dimension_of_the_catalogue_lie_inside_its_bounds() -> None:
    for name, hyperparameter in EVERY:
        with case(name, hyperparameter):
            dimension = catalogue.get(name).space[hyperparameter]
            assert dimension.contains(dimension.from_unit(0.0))
            assert dimension.contains(dimension.from_unit(1.0))


def test_what_is_clipped_lies_inside_the_bounds() -> None:
    for name, hyperparameter in EVERY:
        with case(name, hyperparameter):
            dimension = catalogue.get(name).space[hyperparameter]
            for value in (-1e9, 0.0, 1e-12, 1.0, 1e9):
                assert dimension.contains(dimension.clip(value))


@numeric
def test_a_unit_outside_0_to_1_counts_as_the_nearer_end(dimension: Dimension) -> None:
    assert dimension.from_unit(-3.0) == dimension.from_unit(0.0)
    assert dimension.from_unit(3.0) == dimension.from_unit(1.0)


def test_clipping_leaves_what_is_inside_as_it_is() -> None:
    assert log_uniform(1e-5, 1e-1).clip(3e-3) == 3e-3


def test_a_complement_is_bounded_by_the_distance_to_one() -> None:
    momentum = near_one(5e-3, 0.3, centre=0.9)
    assert momentum.contains(0.7)
    assert momentum.contains(0.995)
    assert not momentum.contains(0.69)
    assert not momentum.contains(0.9951)


def test_a_complement_may_be_centred_on_either_bound() -> None:
    assert near_one(5e-3, 0.3, centre=0.7).centre == 0.7


@pytest.mark.parametrize("centre", [1e-6, 0.2, float("nan")])
def test_a_centre_outside_the_bounds_is_refused(centre: float) -> None:
    with pytest.raises(ConfigurationError, match="inside its bounds"):
        log_uniform(1e-5, 1e-1, centre=centre)


def test_a_choice_has_no_scale_and_no_bounds() -> None:
    with pytest.raises(ConfigurationError, match="scale"):
        choice(True, False).to_unit(1.0)
    with pytest.raises(ConfigurationError, match="bounds"):
        choice("a", "b").clip(1.0)


def test_the_first_of_the_choices_is_the_centre_unless_another_is_named() -> None:
    assert choice("a", "b").centre == "a"
    assert choice("a", "b", centre="b").centre == "b"


def test_equal_spaces_have_equal_hashes() -> None:
    one, other = ({"lr": log_uniform(1e-5, 1e-1), "nesterov": choice(True, False)} for _ in range(2))

    assert SearchSpace(one) == SearchSpace(other)
    assert hash(SearchSpace(one)) == hash(SearchSpace(other))


def test_a_space_cannot_be_changed_from_outside() -> None:
    given = {"lr": log_uniform(1e-3, 1.0)}
    space = SearchSpace(given)

    given["momentum"] = near_one(5e-3, 0.3, centre=0.9)

    assert list(space) == ["lr"]


def test_the_centre_of_a_space_is_that_of_every_dimension() -> None:
    space = SearchSpace({"lr": log_uniform(1e-3, 1.0, centre=0.1), "nesterov": choice(True, False)})

    assert space.centre() == {"lr": 0.1, "nesterov": True}

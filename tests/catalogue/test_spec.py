"""What a spec says by itself."""

from dataclasses import replace

import pytest

from optselect import catalogue
from optselect.errors import ConfigurationError, MissingExtraError

ADAMW = catalogue.get("adamw")


def test_betas_become_one_tuple() -> None:
    arguments = ADAMW.arguments({"lr": 1e-3, "beta1": 0.8, "beta2": 0.99})

    assert arguments == {"lr": 1e-3, "betas": (0.8, 0.99)}


def test_a_beta_that_is_not_given_comes_from_the_centre() -> None:
    arguments = ADAMW.arguments({"beta1": 0.8})

    assert arguments == {"betas": (0.8, 0.999)}


def test_no_betas_means_the_optimizers_own() -> None:
    assert ADAMW.arguments({"lr": 1e-3}) == {"lr": 1e-3}


def test_what_makes_an_entry_what_it_is_is_always_passed() -> None:
    assert catalogue.get("amsgrad").arguments({})["amsgrad"] is True


def test_an_unknown_hyperparameter_is_an_error_that_lists_the_known() -> None:
    with pytest.raises(ConfigurationError, match="adamw has no hyperparameter momentum; it has lr"):
        ADAMW.arguments({"momentum": 0.9})


def test_the_centre_is_inside_the_bounds_for_every_entry() -> None:
    outside = [
        (name, hyperparameter)
        for name in catalogue.names()
        for hyperparameter, dimension in catalogue.get(name).space.items()
        if not dimension.contains(dimension.centre)
    ]

    assert outside == []


@pytest.mark.parametrize(
    "name, shape, sparse, is_complex, can",
    [
        ("muon", (4, 4), False, False, True),
        ("muon", (4,), False, False, False),
        ("sparse_adam", (4, 4), True, False, True),
        ("sparse_adam", (4, 4), False, False, False),
        ("adamw", (4, 4), True, False, False),
        ("adamw", (4, 4), False, True, True),
        ("adafactor", (4, 4), False, True, False),
    ],
)
def test_a_spec_knows_what_it_can_train(
    name: str, shape: tuple[int, ...], *, sparse: bool, is_complex: bool, can: bool
) -> None:
    assert catalogue.get(name).can_train(shape=shape, sparse=sparse, is_complex=is_complex) is can


def test_a_missing_package_is_an_error_that_says_what_to_install() -> None:
    spec = replace(catalogue.get("lion"), factory="no_such_package:Lion")

    with pytest.raises(MissingExtraError, match=r"'lion' needs no_such_package.*pip install 'optselect\[plugins\]'"):
        spec.load()


def test_a_missing_package_is_not_available() -> None:
    assert not replace(catalogue.get("lion"), factory="no_such_package:Lion").available

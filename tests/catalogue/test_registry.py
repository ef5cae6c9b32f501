"""Which optimizers there are, and how others join them."""

import importlib.metadata
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from optselect import catalogue
from optselect.catalogue import registry
from optselect.errors import ConfigurationError, UnknownOptimizerError
from tests.support.cases import case

TORCH = [
    "sgd",
    "momentum",
    "adam",
    "amsgrad",
    "adamw",
    "nadam",
    "radam",
    "adamax",
    "rmsprop",
    "adagrad",
    "adadelta",
    "sparse_adam",
    "asgd",
    "rprop",
    "lbfgs",
    "adafactor",
    "muon",
]
PLUGINS = ["schedulefree_adamw", "schedulefree_sgd", "prodigy", "lion", "soap", "ademamix"]

MINE = replace(catalogue.get("adamw"), name="mine")


class Point:
    """An entry point of an installed package."""

    value = "package:SPECS"

    def __init__(self, name: str, loaded: Any) -> None:
        self.name = name
        self.loaded = loaded
        self.loads = 0

    def load(self) -> Any:
        self.loads += 1
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A catalogue that no entry point has been loaded into, and that forgets what a test adds."""
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    registry._load_entry_points.cache_clear()
    yield
    registry._load_entry_points.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, *points: Point) -> None:
    found = {catalogue.ENTRY_POINT_GROUP: points}
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: found[group])


def test_every_optimizer_of_torch_is_there_without_an_extra() -> None:
    for name in TORCH:
        with case(name):
            assert catalogue.get(name).extra is None


@pytest.mark.parametrize("name", PLUGINS)
def test_every_plug_in_names_the_extra_that_installs_it(name: str) -> None:
    assert catalogue.get(name).extra == "plugins"


def test_the_catalogue_holds_nothing_else() -> None:
    assert set(catalogue.names()) == {*TORCH, *PLUGINS}


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("adam*", {"adam", "adamw", "adamax"}),
        ("*sgd", {"sgd", "asgd", "schedulefree_sgd"}),
        ("?adam", {"nadam", "radam"}),
        ("lion", {"lion"}),
        ("nothing", set()),
    ],
)
def test_names_are_listed_by_wildcard(pattern: str, names: set[str]) -> None:
    assert set(catalogue.names(pattern)) == names


def test_an_unknown_name_is_an_error_that_suggests_the_nearest() -> None:
    with pytest.raises(UnknownOptimizerError, match=r"no optimizer named 'loin'.*Did you mean 'lion'\?"):
        catalogue.get("loin")


@pytest.mark.usefixtures("empty")
def test_a_registered_spec_is_found() -> None:
    catalogue.register(MINE)

    assert catalogue.get("mine") is MINE


@pytest.mark.usefixtures("empty")
def test_registering_the_same_spec_again_changes_nothing() -> None:
    catalogue.register(MINE)

    catalogue.register(MINE)

    assert catalogue.names("mine") == ("mine",)


@pytest.mark.parametrize("name", ["adamw", "user"])
def test_a_taken_name_cannot_be_registered(name: str) -> None:
    with pytest.raises(ConfigurationError, match=repr(name)):
        catalogue.register(replace(MINE, name=name))


@pytest.mark.usefixtures("empty")
def test_a_partner_must_be_known() -> None:
    with pytest.raises(ConfigurationError, match="'nobody'"):
        catalogue.register(replace(MINE, partner="nobody"))


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize("loaded", [MINE, [MINE]])
def test_an_entry_point_gives_a_spec_or_a_sequence_of_them(monkeypatch: pytest.MonkeyPatch, loaded: Any) -> None:
    install(monkeypatch, Point("package", loaded))

    assert catalogue.get("mine") is MINE


@pytest.mark.usefixtures("empty")
def test_entry_points_are_listed_by_wildcard(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Point("package", MINE))

    assert catalogue.names("mi*") == ("mine",)


@pytest.mark.usefixtures("empty")
def test_entry_points_are_loaded_once_and_only_when_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    point = Point("package", MINE)
    install(monkeypatch, point)
    catalogue.get("adamw")
    before = point.loads

    catalogue.names()
    catalogue.names()

    assert (before, point.loads) == (0, 1)


@pytest.mark.usefixtures("empty")
@pytest.mark.parametrize(
    "loaded, reason",
    [
        (RuntimeError("mismatched binary"), "mismatched binary"),
        (["not a spec"], "must be an OptimizerSpec"),
        (42, "must be an OptimizerSpec"),
        (replace(MINE, name="adam"), "'adam'"),
    ],
)
def test_a_broken_entry_point_is_named_and_skipped(monkeypatch: pytest.MonkeyPatch, loaded: Any, reason: str) -> None:
    install(monkeypatch, Point("broken", loaded), Point("sound", MINE))

    with pytest.warns(catalogue.CatalogueWarning, match=f"'broken'.*skipped.*{reason}"):
        names = catalogue.names()

    assert "mine" in names


@pytest.mark.usefixtures("empty")
def test_a_broken_entry_point_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Point("broken", RuntimeError("no")))
    with pytest.warns(catalogue.CatalogueWarning):
        catalogue.names()

    with warnings.catch_warnings(record=True) as caught:
        catalogue.names()

    assert caught == []

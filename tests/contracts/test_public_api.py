"""The public names: few, pinned here, and each described in the reference."""

import importlib.util
import re
import types
from pathlib import Path

import pytest

import optselect
from tests.support.cases import case

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference" / "api.md"

# A change here is a change for users: it needs a line in CHANGELOG.md and one in docs/reference/api.md.
PUBLIC = [
    "AutoOptimizer",
    "Budget",
    "BudgetError",
    "ConfigurationError",
    "FineTuning",
    "LightningWorkload",
    "MetricNotLoggedError",
    "MissingExtraError",
    "OptimizerPlan",
    "OptselectError",
    "PlanError",
    "PlanFormatError",
    "PlanMismatchError",
    "PlanVersionError",
    "Profile",
    "Proposal",
    "ResumeError",
    "SearchError",
    "StorageError",
    "Thaw",
    "TorchWorkload",
    "UnknownOptimizerError",
    "UnsupportedModuleError",
    "Workload",
    "catalogue",
    "measure",
    "param_groups",
    "propose",
    "regrouped",
    "rules",
    "select",
]
MODULES = {"catalogue", "rules"}


def test_the_public_names_are_the_pinned_ones() -> None:
    assert sorted(optselect.__all__) == PUBLIC


def test_dir_lists_what_is_public() -> None:
    assert set(optselect.__all__) <= set(dir(optselect))


def test_a_public_name_is_what_it_says_even_if_a_module_shares_it() -> None:
    for name in PUBLIC:
        with case(name):
            # Once imported, a submodule `optselect.select` would hide the function `select` of the same name.
            home = f"{optselect.__name__}.{name}"
            if importlib.util.find_spec(home):
                importlib.import_module(home)

            value = getattr(optselect, name)

            assert isinstance(value, types.ModuleType) == (name in MODULES)


def test_an_unknown_name_is_an_attribute_error_that_repeats_it() -> None:
    with pytest.raises(AttributeError, match="AutoOptimiser"):
        optselect.AutoOptimiser  # noqa: B018 -- reading the attribute is the act


def test_the_reference_describes_exactly_the_public_names() -> None:
    described = re.findall(r"^\| `(\w+)` \|", REFERENCE.read_text("utf-8"), flags=re.MULTILINE)

    assert sorted(described) == PUBLIC

"""Choose, tune and explain the optimizer of a training.

Everything here is loaded on first use: `import optselect` costs next to nothing and imports neither
torch nor lightning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optselect import catalogue, rules
    from optselect.budget import Budget
    from optselect.building.torch_groups import param_groups, regrouped
    from optselect.callbacks import AutoOptimizer, LightningWorkload
    from optselect.configuration.policy import FineTuning, Thaw
    from optselect.errors import (
        BudgetError,
        ConfigurationError,
        MetricNotLoggedError,
        MissingExtraError,
        OptselectError,
        PlanError,
        PlanFormatError,
        PlanMismatchError,
        PlanVersionError,
        ResumeError,
        SearchError,
        StorageError,
        UnknownOptimizerError,
        UnsupportedModuleError,
    )
    from optselect.pipeline import select
    from optselect.plan import OptimizerPlan
    from optselect.profile import Profile
    from optselect.profile.measure import measure
    from optselect.rules import Proposal, propose
    from optselect.workload.protocol import Workload
    from optselect.workload.torch_loop import TorchWorkload

__version__ = "0.1.0"

_HOME = {
    "AutoOptimizer": "optselect.callbacks",
    "Budget": "optselect.budget",
    "BudgetError": "optselect.errors",
    "ConfigurationError": "optselect.errors",
    "FineTuning": "optselect.configuration.policy",
    "LightningWorkload": "optselect.callbacks",
    "MetricNotLoggedError": "optselect.errors",
    "MissingExtraError": "optselect.errors",
    "OptimizerPlan": "optselect.plan",
    "OptselectError": "optselect.errors",
    "PlanError": "optselect.errors",
    "PlanFormatError": "optselect.errors",
    "PlanMismatchError": "optselect.errors",
    "PlanVersionError": "optselect.errors",
    "Profile": "optselect.profile",
    "Proposal": "optselect.rules",
    "ResumeError": "optselect.errors",
    "SearchError": "optselect.errors",
    "StorageError": "optselect.errors",
    "Thaw": "optselect.configuration.policy",
    "TorchWorkload": "optselect.workload.torch_loop",
    "UnknownOptimizerError": "optselect.errors",
    "UnsupportedModuleError": "optselect.errors",
    "Workload": "optselect.workload.protocol",
    "measure": "optselect.profile.measure",
    "param_groups": "optselect.building.torch_groups",
    "propose": "optselect.rules",
    "regrouped": "optselect.building.torch_groups",
    "select": "optselect.pipeline",
}

__all__ = [
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


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in __all__:
        return importlib.import_module(f"optselect.{name}")
    raise AttributeError(f"module 'optselect' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

"""What a logger is told of a choice: flat names, plain values."""

from __future__ import annotations

from optselect.plan import OptimizerPlan
from optselect.space import Value


def logged_facts(plan: OptimizerPlan) -> dict[str, Value]:
    """Return the choice, its lead and its cost, each name under `optselect/`; what is not known is left out."""
    known: dict[str, Value | None] = {
        "optimizer": plan.optimizer,
        **plan.hyperparameters,
        "schedule": plan.schedule.describe() if plan.param_groups else None,
        "total_steps": plan.total_steps,
        "monitor": plan.monitor or None,
        "baseline": plan.baseline.describe() if plan.baseline else None,
        "lead": plan.lead,
        "trials": len(plan.trials),
        "search_steps": plan.search_steps,
    }
    return {f"optselect/{name}": value for name, value in known.items() if value is not None}

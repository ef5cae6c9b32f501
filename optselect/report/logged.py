"""What a logger is told of a choice: flat names, plain values."""

from __future__ import annotations

from optselect.plan import OptimizerPlan
from optselect.report.trials import ranked, role, short_of
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


def trial_table(plan: OptimizerPlan) -> tuple[tuple[str, ...], list[list[Value | None]]]:
    """Return a header and a row of plain values for each trial, the chosen one first."""
    header = ("optimizer", "lr", "configuration", "seed", "micro_batches", plan.monitor or "value", "role", "ended")
    rows: list[list[Value | None]] = [
        [
            short_of(trial.configuration),
            trial.configuration.rate,
            trial.configuration.describe(),
            trial.seed,
            trial.micro_batches,
            trial.value,
            role(plan, trial),
            trial.ending,
        ]
        for trial in ranked(plan)
    ]
    return header, rows

"""The decision as a value: what to build, for which model, and why."""

from optselect.plan.plan import (
    PLAN_VERSION,
    Joining,
    ModelFingerprint,
    OptimizerPlan,
    ParamGroup,
    TrialRecord,
)

__all__ = ["PLAN_VERSION", "Joining", "ModelFingerprint", "OptimizerPlan", "ParamGroup", "TrialRecord"]

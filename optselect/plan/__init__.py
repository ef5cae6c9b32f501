"""The decision as a value: what to build, for which model, and why."""

from optselect.plan.fingerprint import ModelFingerprint
from optselect.plan.groups import Joining, ParamGroup
from optselect.plan.neighbour import Ended, Neighbour
from optselect.plan.plan import PLAN_VERSION, OptimizerPlan
from optselect.plan.reason import Reason

__all__ = ["PLAN_VERSION", "Ended", "Joining", "ModelFingerprint", "Neighbour", "OptimizerPlan", "ParamGroup", "Reason"]

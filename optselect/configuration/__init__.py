"""Values that are tried: an optimizer with its hyperparameters, its schedule and its policy."""

from optselect.configuration.configuration import (
    LR_SCALE,
    USER,
    USER_SPACE,
    WEIGHT_DECAY_SCALE,
    Configuration,
)
from optselect.configuration.evaluation import Batches, Evaluation, paired
from optselect.configuration.goal import Compare, Goal, Mode
from optselect.configuration.policy import FineTuning, Thaw
from optselect.configuration.schedule import Schedule
from optselect.configuration.trial import Trial

__all__ = [
    "LR_SCALE",
    "USER",
    "USER_SPACE",
    "WEIGHT_DECAY_SCALE",
    "Batches",
    "Compare",
    "Configuration",
    "Evaluation",
    "FineTuning",
    "Goal",
    "Mode",
    "Schedule",
    "Thaw",
    "Trial",
    "paired",
]

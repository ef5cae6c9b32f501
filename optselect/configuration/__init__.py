"""Values that are tried: an optimizer with its hyperparameters, its schedule and its policy."""

from optselect.configuration.configuration import (
    LR_SCALE,
    USER,
    USER_SPACE,
    WEIGHT_DECAY_SCALE,
    Configuration,
    format_value,
)
from optselect.configuration.policy import FineTuning, Thaw
from optselect.configuration.schedule import Schedule

__all__ = [
    "LR_SCALE",
    "USER",
    "USER_SPACE",
    "WEIGHT_DECAY_SCALE",
    "Configuration",
    "FineTuning",
    "Schedule",
    "Thaw",
    "format_value",
]

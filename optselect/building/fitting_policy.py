"""A fine-tuning policy in the terms of one training: names, optimizer steps, and a model that it fits."""

from __future__ import annotations

import math

from optselect.building.treatment import treated
from optselect.configuration.policy import FineTuning
from optselect.errors import ConfigurationError
from optselect.parameters.anatomy import Anatomy
from optselect.workload.protocol import Workload


def policy_for(workload: Workload, fine_tuning: FineTuning, anatomy: Anatomy) -> FineTuning:
    """The policy with names in place of its functions and optimizer steps in place of its other times.

    Raises `ConfigurationError` where it does not fit the model or the training.
    """
    if fine_tuning.freezes and workload.obstacle_to_thawing is not None:
        raise ConfigurationError(f"the policy freezes parts of the model, but {workload.obstacle_to_thawing}")
    named = fine_tuning.named(name for name, _ in workload.model.named_parameters())
    policy = named.timed(_steps_per_epoch(workload), workload.steps)
    treated(anatomy, policy)
    return policy


def _steps_per_epoch(workload: Workload) -> int | None:
    batches = workload.source().batches
    return None if batches is None else math.ceil(batches / workload.accumulate)

"""A fine-tuning policy in terms of one training: its functions as names, its times as optimizer steps."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from optselect.building.groups import param_groups
from optselect.building.treatment import treated
from optselect.configuration import USER, FineTuning
from optselect.errors import ConfigurationError
from optselect.parameters.anatomy import Anatomy
from optselect.parameters.names import named_parameters
from optselect.rules import Policy, Proposal
from optselect.workload.protocol import Workload

_log = logging.getLogger("optselect")


def policy_for(workload: Workload, fine_tuning: FineTuning, anatomy: Anatomy) -> FineTuning:
    """Fit `fine_tuning` to the model and the length of `workload`.

    Raises `ConfigurationError` where it does not fit, or freezes what cannot be frozen here.
    """
    if fine_tuning.freezes and workload.obstacle_to_thawing is not None:
        raise ConfigurationError(f"the policy freezes parts of the model, but {workload.obstacle_to_thawing}")
    policy = _timed(workload, fine_tuning.named(name for name, _ in named_parameters(workload.model)))
    treated(anatomy, policy)
    return policy


def _timed(workload: Workload, policy: FineTuning) -> FineTuning:
    batches = workload.source().batches
    steps_per_epoch = None if batches is None else math.ceil(batches / workload.accumulate)
    return policy.timed(steps_per_epoch, workload.steps)


def fitting(worth_trying: Iterable[Policy], workload: Workload, anatomy: Anatomy) -> list[Policy]:
    """Keep those of `worth_trying` that fit this model and this training, in its terms."""
    found = []
    for each in worth_trying:
        try:
            found.append(replace(each, fine_tuning=policy_for(workload, each.fine_tuning, anatomy)))
        except ConfigurationError as error:
            _log.info("not tried: %s (%s)", each.fine_tuning.describe(), error)
    return found


def with_policy(
    proposals: Sequence[Proposal], policy: FineTuning, anatomy: Anatomy, *, asked_for: bool
) -> list[Proposal]:
    """Give `proposals` the `policy`, and leave out those whose optimizer cannot follow it.

    Raises `ConfigurationError` where none can, and for the first that cannot where the user has named them
    (`asked_for`).
    """
    found, refused = [], []
    for proposal in proposals:
        if proposal.optimizer == USER:
            found.append(proposal)
            continue
        told = replace(proposal, configuration=replace(proposal.configuration, fine_tuning=policy))
        try:
            param_groups(anatomy, told.configuration)
        except ConfigurationError as error:
            if asked_for:
                raise
            refused.append(error)
        else:
            found.append(told)
    if not found:
        raise refused[0]
    return found

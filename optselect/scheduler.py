"""A `Schedule` as a torch scheduler."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optselect.schedules import Schedule


class ScheduledLR(LRScheduler):
    """Sets every group's `lr` to its `initial_lr` times the schedule's factor; step it once per optimizer step.

    Groups may join later through `add_param_group` (torch's LambdaLR raises there): a group's `lr` at
    its joining counts as its peak. Beyond `total_steps` the last rate holds, and a warning says so once.
    The state dict holds builtins only.
    """

    def __init__(self, optimizer: Optimizer, schedule: Schedule, total_steps: int | None, last_epoch: int = -1) -> None:
        self.schedule = schedule
        self.total_steps = total_steps
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """The learning rate of every group at the present step."""
        if self.schedule.needs_length and self.total_steps is not None and self.last_epoch == self.total_steps + 1:
            warnings.warn(
                f"the training goes on beyond the {self.total_steps} steps that its schedule "
                f"({self.schedule.describe()}) was laid out for, and the last learning rate holds; "
                "for a longer training, search anew or build the plan with total_steps=",
                stacklevel=2,
            )
        factor = self.schedule.factor(self.last_epoch, self.total_steps)
        return [float(group.setdefault("initial_lr", group["lr"])) * factor for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Builtins only."""
        state = {key: value for key, value in super().state_dict().items() if key != "schedule"}
        return {**state, "schedule": self.schedule.to_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` stood, on the schedule and the length it had."""
        super().load_state_dict({**state_dict, "schedule": Schedule.from_dict(state_dict["schedule"])})

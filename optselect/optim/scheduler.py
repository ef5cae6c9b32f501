"""A `Schedule` as a torch scheduler."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optselect.configuration.goal import Mode
from optselect.configuration.schedule import Schedule
from optselect.optim.thawing import JOINED, Thawing


class ScheduledLR(LRScheduler):
    """Sets every group's `lr` to its `initial_lr` times the schedule's factor; step it once per optimizer step.

    Groups may join later through `add_param_group` (torch's LambdaLR raises there): a group's `lr` at
    its joining counts as its peak. `thawing` is stepped with it, so that parts of the model join at their step;
    they warm up as the others did. Beyond `total_steps` the last rate holds, and a warning says so once.
    The state dict holds builtins only.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: Schedule,
        total_steps: int | None,
        last_epoch: int = -1,
        *,
        thawing: Thawing | None = None,
    ) -> None:
        self.schedule = schedule
        self.total_steps = total_steps
        self._thawing = thawing
        super().__init__(optimizer, last_epoch)

    @property
    def thawed(self) -> int:
        """How many thaws have come: what `plan.build` is told when this run is resumed."""
        return self._thawing.thawed if self._thawing is not None else 0

    def observe(self, value: float, mode: Mode = "min") -> bool:
        """Count a validation that gave `value`, for thaws that wait for a plateau; tell whether one came."""
        thaws = self._thawing is not None and self._thawing.observe(value, mode, self.last_epoch)
        if thaws:
            for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
                group["lr"] = lr
        return thaws

    def step(self, epoch: int | None = None) -> None:
        """Go on to the next optimizer step; what is due there joins."""
        if self._thawing is not None:
            self._thawing.at_step(self.last_epoch + 1)
        super().step(epoch)

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of every group at the present step."""
        if self.schedule.needs_length and self.total_steps is not None and self.last_epoch == self.total_steps + 1:
            warnings.warn(
                f"the training goes on beyond the {self.total_steps} steps that its schedule "
                f"({self.schedule.describe()}) was laid out for, and the last learning rate holds; "
                "for a longer training, search anew or build the plan with total_steps=",
                stacklevel=2,
            )
        factor = self.schedule.factor(self.last_epoch, self.total_steps)
        return [
            float(group.setdefault("initial_lr", group["lr"])) * factor * self._warmup(group)
            for group in self.optimizer.param_groups
        ]

    def _warmup(self, group: dict[str, Any]) -> float:
        """Return the factor of a group that joined a few steps ago."""
        return self.schedule.rise(self.last_epoch - int(group[JOINED])) if JOINED in group else 1.0

    def state_dict(self) -> dict[str, Any]:
        """Write as builtins; inverse of `load_state_dict`."""
        own = ("schedule", "_thawing")
        state = {key: value for key, value in super().state_dict().items() if key not in own}
        thawing = {"thawing": self._thawing.state_dict()} if self._thawing is not None else {}
        return {**state, "schedule": self.schedule.to_dict(), **thawing}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where `state_dict` stood, on the schedule and the length it had."""
        thawing = state_dict.get("thawing")
        if thawing is not None and self._thawing is not None:
            self._thawing.load_state_dict(thawing)
        state = {key: value for key, value in state_dict.items() if key != "thawing"}
        super().load_state_dict({**state, "schedule": Schedule.from_dict(state_dict["schedule"])})

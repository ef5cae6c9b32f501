"""Parts of a model that join a training after it has begun, through `add_param_group` on the live optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from optselect.configuration.goal import Goal, Mode
from optselect.errors import ResumeError

JOINED = "joined_at"
"""The key in a param group that joined later: the optimizer step before which it did."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One thaw: what begins to learn, and the optimizer step or the patience that brings it.

    `join` takes the optimizer and gives it the phase's groups, and returns them.
    """

    step: int | None
    patience: int | None
    parameters: Sequence[nn.Parameter]
    join: Callable[[], Iterable[dict[str, Any]]]


class Thawing:
    """The phases still to come, in order; each waits for the one before it.

    The parameters of all phases, and those of `frozen`, are frozen at once (`requires_grad=False`); a phase's are
    trainable from its thaw on. `thawed` says how many phases have come: pass it when a run is resumed, before the
    states of optimizer and scheduler are loaded, so that the groups they belong to are there.
    """

    def __init__(self, phases: Sequence[Phase], frozen: Iterable[nn.Parameter] = (), *, thawed: int = 0) -> None:
        if not 0 <= thawed <= len(phases):
            raise ResumeError(
                f"the run that is resumed had {thawed} thaws behind it, but the plan has {len(phases)}; "
                "resume with the plan it was saved with"
            )
        self._phases = tuple(phases)
        self.thawed = 0
        self._best: float | None = None
        self._waited = 0
        for parameter in (*frozen, *(each for phase in phases for each in phase.parameters)):
            parameter.requires_grad_(False)
        for phase in phases[:thawed]:
            self._thaw(phase.step or 0)

    @property
    def _next(self) -> Phase | None:
        return self._phases[self.thawed] if self.thawed < len(self._phases) else None

    def at_step(self, step: int) -> None:
        """Thaw what is due before optimizer step `step`, counted from 0."""
        while self._next is not None and self._next.step is not None and self._next.step <= step:
            self._thaw(step)

    def observe(self, value: float, mode: Mode, step: int) -> bool:
        """Count a validation that gave `value`; tell whether its lack of improvement thawed the next phase."""
        loss = Goal(mode).loss(value)
        # A NaN improves nothing.
        if self._best is None or loss < self._best:
            self._best, self._waited = loss, 0
            return False
        self._waited += 1
        if self._next is None or self._next.patience is None or self._waited < self._next.patience:
            return False
        self._thaw(step)
        return True

    def _thaw(self, step: int) -> None:
        phase = self._phases[self.thawed]
        for parameter in phase.parameters:
            parameter.requires_grad_(True)
            # Nothing cleared what a backward pass may have left here before the freezing.
            parameter.grad = None
        for group in phase.join():
            group[JOINED] = step
        self.thawed += 1
        self._waited = 0

    def state_dict(self) -> dict[str, Any]:
        """Write as builtins; inverse of `load_state_dict`."""
        return {"thawed": self.thawed, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`. Raises `ResumeError` when this was not built with as many thaws behind it."""
        if state["thawed"] != self.thawed:
            raise ResumeError(
                f"the saved scheduler had {state['thawed']} thaws behind it and this one {self.thawed}; build the "
                f"optimizer with plan.build(model, thawed={state['thawed']}) before loading its state"
            )
        self._best, self._waited = state["best"], state["waited"]


def join(optimizer: Optimizer, groups: Sequence[dict[str, Any]], fresh: Optimizer) -> list[dict[str, Any]]:
    """Add `groups` to the live `optimizer`; `fresh` is a new one of its kind over the same groups.

    Returns the groups as the optimizer holds them.
    """
    before = len(optimizer.param_groups)
    for group in groups:
        optimizer.add_param_group(group)
    added = optimizer.param_groups[before:]
    for group in added:
        # Schedule-free optimizers step in training mode, which each group notes for itself.
        if "train_mode" in group:
            group["train_mode"] = optimizer.param_groups[0]["train_mode"]
        for parameter in group["params"]:
            # Adagrad makes its state when it is made, and has none for what joins.
            if parameter in fresh.state:
                optimizer.state[parameter] = fresh.state[parameter]
    return added

"""What belongs to one fit, and to no other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optselect.callbacks.attachment import Attachment
from optselect.callbacks.clipping import unclip_sparse_gradients
from optselect.callbacks.deepspeed import inside
from optselect.callbacks.equal_time import TimeUp
from optselect.callbacks.randomness import RandomNumbersToRestore
from optselect.callbacks.schedules import ScheduleWatch
from optselect.callbacks.watching import Watching
from optselect.optim.implementation import implementations
from optselect.optim.scheduler import ScheduledLR


@dataclass(kw_only=True)
class Built:
    """What a fit trains with, as its checkpoints say it.

    optimizers  the trainer's own list: a thaw may bring another implementation
    schedulers  the classes, as they were built: others may take their place later, as StochasticWeightAveraging's does
                (None: nothing was built)
    scheduler   the one of the plan (None: there is none)
    ends_at     the step at which the training ends before the trainer's own end (None: it does not)
    """

    optimizers: Sequence[Optimizer] = ()
    schedulers: list[str] | None = None
    scheduler: LRScheduler | None = None
    ends_at: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Say what was built, in builtins."""
        return {
            "optimizers": implementations(map(inside, self.optimizers)) or None,
            "schedulers": self.schedulers,
            "thawed": self.scheduler.thawed if isinstance(self.scheduler, ScheduledLR) else 0,
            **({"ends_at": self.ends_at} if self.ends_at is not None else {}),
        }


@dataclass(kw_only=True)
class FitState:
    """One fit, from the moment at which its module is attached.

    attachment  what was put on the module (None: no fit has begun)
    configured  whether its optimizers were asked for
    later       the parameters that its plan freezes, for a time or for good
    random      the random numbers of the checkpoint that it goes on from
    built       what it trains with
    watch       looks whether its schedule moves as the plan says
    watching    tells the loggers of its gradients and updates (None: that was not asked for)
    time_up     ends it where as many steps as take as long as the baseline's are behind it
    """

    attachment: Attachment | None = None
    configured: bool = False
    later: Sequence[Parameter] = ()
    random: RandomNumbersToRestore = field(default_factory=RandomNumbersToRestore)
    built: Built = field(default_factory=Built)
    watch: ScheduleWatch = field(default_factory=ScheduleWatch)
    watching: Watching | None = None
    time_up: TimeUp = field(default_factory=TimeUp)

    def end(self) -> FitState:
        """Leave the module as it came. What was built stays known: a checkpoint may be saved when the fit is over."""
        if self.attachment is None:
            return self
        self.attachment.take_off()
        module = self.attachment.module
        if module._trainer is not None:
            unclip_sparse_gradients(module.trainer.precision_plugin)
        for parameter in self.later:
            parameter.requires_grad_(True)
        return FitState(built=self.built)

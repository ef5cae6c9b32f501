"""The decision as a value: what to build, for which model, and why. JSON both ways."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optselect.configuration import Configuration, FineTuning, Schedule
from optselect.configuration.goal import Compare, Goal, Mode
from optselect.configuration.trial import Trial
from optselect.errors import PlanFormatError, PlanVersionError
from optselect.files import write_whole
from optselect.plan.checking import check_groups, check_ranges, check_types, strict_json
from optselect.plan.fingerprint import ModelFingerprint
from optselect.plan.groups import ParamGroup
from optselect.plan.neighbour import Neighbour
from optselect.plan.reason import Kind, Reason
from optselect.plan.version_1 import upgraded
from optselect.profile.values import Profile
from optselect.rules.proposal import Proposal
from optselect.space import Value
from optselect.words import format_share

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

PLAN_VERSION = 2
# A training so short may be one that is warmed up throughout.
_SHORT_STEPS = 10


@dataclass(frozen=True, kw_only=True, repr=False)
class OptimizerPlan:
    """The optimizer of one training, and why it was chosen.

    configuration      the chosen optimizer, its hyperparameters, schedule and fine-tuning policy
    param_groups       every parameter that is to be trained in exactly one group (empty for the user's own optimizer)
    total_steps        optimizer steps the schedule is laid out for (None: length not known)
    compare            what the trials were compared at: "seconds" means that the training ends after `total_steps`,
                       which take as long as the baseline's, and that trials count micro-batches of the baseline's time
    reasons            each a sentence that a person can check, with its kind and its source
    baseline           what it had to beat (None: nothing was compared)
    lead               how much lower its loss is than the baseline's, as a share of the baseline's progress, and so
                       above 1 where that has made little (None: the baseline stays, nothing was compared, or that
                       progress is no measure)
    profile            what was measured (None: a plan written by hand)
    proposals          what the rules proposed, with every vote
    neighbours         recorded trainings like this one, where they had a say: the nearest first
    trials             what was tried and what it scored
    search_steps       gradient steps the choice cost, profile and validation included
    search_seconds     seconds that the trials took by the clock (None: not known); equality does not know them
    model_fingerprint  the model it is for
    sparse             parameters whose gradients are sparse tensors
    monitor            what the trials were judged by
    mode               whether small or large values of it are good
    versions           of the packages that made the choice
    """

    configuration: Configuration
    model_fingerprint: ModelFingerprint
    param_groups: tuple[ParamGroup, ...] = ()
    total_steps: int | None = None
    compare: Compare = "steps"
    reasons: tuple[Reason, ...] = ()
    baseline: Configuration | None = None
    lead: float | None = None
    profile: Profile | None = None
    proposals: tuple[Proposal, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    trials: tuple[Trial, ...] = ()
    search_steps: int = 0
    search_seconds: float | None = field(default=None, compare=False)
    sparse: tuple[str, ...] = ()
    monitor: str = ""
    mode: Mode = "min"
    versions: Mapping[str, str] = field(default_factory=dict)
    version: int = PLAN_VERSION

    @property
    def optimizer(self) -> str:
        """The catalogue's name, or "user" for the module's own `configure_optimizers`."""
        return self.configuration.optimizer

    @property
    def hyperparameters(self) -> Mapping[str, Value]:
        """Those of the optimizer, in torch's names; of the user's own, factors on its rates."""
        return self.configuration.hyperparameters

    @property
    def schedule(self) -> Schedule:
        """The learning rate's, stepped once per optimizer step."""
        return self.configuration.schedule

    @property
    def fine_tuning(self) -> FineTuning | None:
        """The policy behind the groups (None: all parameters alike)."""
        return self.configuration.fine_tuning

    @property
    def goal(self) -> Goal:
        """Whether small or large values of `monitor` are good."""
        return Goal(self.mode)

    def reasons_of(self, *kinds: Kind) -> tuple[Reason, ...]:
        """Return the reasons of these kinds, in their order."""
        return tuple(reason for reason in self.reasons if reason.kind in kinds)

    def build(
        self,
        model: nn.Module,
        total_steps: int | None = None,
        own: Callable[[nn.Module], tuple[Optimizer, LRScheduler | None]] | None = None,
        *,
        thawed: int = 0,
    ) -> tuple[Optimizer, LRScheduler | None]:
        """Build the optimizer and the scheduler (None when nothing ever changes) for `model`.

        The scheduler steps once per optimizer step. `total_steps` overrides the plan's own. A plan that keeps your own
        optimizer needs `own`, which builds it; its rates come back as the plan has scaled them, and its scheduler
        steps as you step it. Parameters that join later are frozen here, and the scheduler thaws them; `thawed` says
        how many thaws a run that is resumed has behind it (`scheduler.thawed` when it was saved). Raises
        `PlanMismatchError` when the plan was made for another model.
        """
        from optselect.building.optimizer import build  # noqa: PLC0415  # a convenience: plans do without torch

        return build(self, model, total_steps, own, thawed=thawed)

    def param_groups_of(self, model: nn.Module, optimizer: str | None = None) -> list[dict[str, Any]]:
        """Return the plan's groups over the parameters of `model`, as torch's optimizers take them.

        For a `configure_optimizers` of your own: `torch.optim.AdamW(plan.param_groups_of(self))`. What is frozen is in
        no group. Of a plan with a partner (Muon with AdamW) `optimizer` says whose. Raises `PlanMismatchError` for
        another model, and `ConfigurationError` where groups cannot say what the plan does.
        """
        from optselect.building.torch_groups import groups_of  # noqa: PLC0415  # as above

        return groups_of(self, model, optimizer)

    def as_code(self) -> str:
        """Write Python that builds the same optimizer and scheduler to the last bit, and does without optselect.

        A `configure_optimizers` to paste into a LightningModule. Raises `ConfigurationError` where there is nothing to
        write: your own optimizer is kept, its package is missing, or parts join later.
        """
        from optselect.report import as_python  # noqa: PLC0415  # as above

        return as_python(self)

    def explain(self, *, markdown: bool = False, width: int | None = None) -> str:
        """Explain the choice: profile, proposals, trials, reasons and cost, as plain text or as Markdown.

        Text is wrapped at `width` columns; None: at the terminal's width, 100 where there is no terminal.
        """
        from optselect.report import explain  # noqa: PLC0415  # as above

        return explain(self, markdown=markdown, width=width)

    def __repr__(self) -> str:
        lead = (
            f", ahead of {self.baseline.describe()} by {format_share(self.lead)}" if self.baseline and self.lead else ""
        )
        return f"OptimizerPlan({self.configuration.describe()}{lead}; {len(self.trials)} trials)"

    def _repr_html_(self) -> str:
        """Show the choice, its reasons and its groups in a notebook."""
        from optselect.report import choice_as_html  # noqa: PLC0415  # as above

        return choice_as_html(self)

    def to_dict(self) -> dict[str, Any]:
        """Write as builtins; inverse of `from_dict`."""
        return {
            "version": self.version,
            # Flat, so that a person who opens the file meets the choice first.
            **self.configuration.to_dict(),
            "total_steps": self.total_steps,
            **({"compare": self.compare} if self.compare != "steps" else {}),
            "reasons": [reason.to_dict() for reason in self.reasons],
            "baseline": self.baseline.to_dict() if self.baseline else None,
            "lead": self.lead,
            "search_steps": self.search_steps,
            **({"search_seconds": self.search_seconds} if self.search_seconds is not None else {}),
            "monitor": self.monitor,
            "mode": self.mode,
            "param_groups": [group.to_dict() for group in self.param_groups],
            "sparse": list(self.sparse),
            "profile": self.profile.to_dict() if self.profile else None,
            "proposals": [proposal.to_dict() for proposal in self.proposals],
            **({"neighbours": [each.to_dict() for each in self.neighbours]} if self.neighbours else {}),
            "trials": [trial.to_dict() for trial in self.trials],
            "versions": dict(self.versions),
            "model_fingerprint": self.model_fingerprint.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> OptimizerPlan:
        """Read the plan that `to_dict` wrote, in this version or an earlier one.

        What an earlier version wrote and this one no longer knows is left out. Raises `PlanVersionError` for a plan
        of a later version, `PlanFormatError` for what is not a plan.
        """
        version = data.get("version") if isinstance(data, Mapping) else None
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise PlanFormatError("this is not an optimizer plan: it has no version number")
        if version > PLAN_VERSION:
            raise PlanVersionError(
                f"the plan is of version {version} and this optselect reads up to {PLAN_VERSION}; upgrade optselect"
            )
        try:
            if version == 1:
                data = upgraded(data)
            plan = cls(
                configuration=Configuration.from_dict(data),
                total_steps=data["total_steps"],
                compare=data.get("compare", "steps"),
                reasons=tuple(map(Reason.from_dict, data["reasons"])),
                baseline=Configuration.from_dict(data["baseline"]) if data["baseline"] else None,
                lead=data["lead"],
                mode=data["mode"],
                search_steps=data["search_steps"],
                search_seconds=data.get("search_seconds"),
                monitor=data["monitor"],
                param_groups=tuple(ParamGroup.from_dict(group) for group in data["param_groups"]),
                sparse=tuple(data["sparse"]),
                profile=Profile.from_dict(data["profile"]) if data["profile"] else None,
                proposals=tuple(Proposal.from_dict(proposal) for proposal in data["proposals"]),
                neighbours=tuple(map(Neighbour.from_dict, data.get("neighbours", ()))),
                trials=tuple(Trial.from_dict(trial) for trial in data["trials"]),
                versions=dict(data["versions"]),
                model_fingerprint=ModelFingerprint.from_dict(data["model_fingerprint"]),
            )
            plan.check()
        except PlanFormatError:
            raise
        except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
            raise PlanFormatError(
                f"the plan is incomplete or malformed ({type(error).__name__}: {error}); write it anew with a search"
            ) from error
        return plan

    def check(self, *, to_build: bool = False) -> None:
        """Raise `PlanFormatError` for what cannot be meant: a wrong type, a parameter in no group, two rates for one.

        A plan without groups is of an optimizer alone, from which nothing can be built: an error `to_build` from it.
        """
        check_types(self, OptimizerPlan)
        check_ranges(
            {
                "total_steps": (self.total_steps, 1),
                "search_steps": (self.search_steps, 0),
                "search_seconds": (self.search_seconds, 0),
                **{f"{name} of {group.name}": value for group in self.param_groups for name, value in group.ranges},
                **{f"reached of trial {place}": (trial.reached, 0) for place, trial in enumerate(self.trials)},
                **{f"pace of trial {place}": (trial.pace, 0) for place, trial in enumerate(self.trials)},
            }
        )
        if self.total_steps is not None and self.schedule.warmup_steps > max(self.total_steps, _SHORT_STEPS):
            raise PlanFormatError(
                f"the plan warms up for {self.schedule.warmup_steps} steps and the training has {self.total_steps}, so "
                "it would never reach its rate; mend one of the two"
            )
        if self.param_groups or to_build:
            check_groups(self.configuration, self.param_groups, self.model_fingerprint)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as JSON; the file is whole or absent, never half written."""
        write_whole(path, json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> OptimizerPlan:
        """Read the plan in the file at `path`. Raises `PlanFormatError` when there is none in it."""
        try:
            data = strict_json(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError, MemoryError) as error:
            raise PlanFormatError(
                f"no plan can be read from {os.fspath(path)} ({error}); pass a plan.json that optselect wrote"
            ) from error
        return cls.from_dict(data)

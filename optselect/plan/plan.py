"""The decision as a value: what to build, for which model, and why. JSON both ways."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from optselect.configuration import Configuration
from optselect.configuration.policy import FineTuning
from optselect.configuration.schedule import Schedule
from optselect.errors import PlanFormatError, PlanMismatchError, PlanVersionError
from optselect.files import write_whole
from optselect.profile.values import Profile
from optselect.rules.rule import Proposal
from optselect.space import Value

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

PLAN_VERSION = 1


class _Parameter(Protocol):
    @property
    def shape(self) -> Iterable[int]: ...

    @property
    def requires_grad(self) -> bool: ...


class _Model(Protocol):
    def named_parameters(self) -> Iterable[tuple[str, _Parameter]]: ...


@dataclass(frozen=True, kw_only=True)
class Joining:
    """When a group begins to train, if not at the beginning: with neither a step nor a patience, never.

    phase     which of the plan's thaws it is, counted from 1
    step      optimizer steps before it
    patience  validations without an improvement before it
    """

    phase: int = 0
    step: int | None = None
    patience: int | None = None

    @property
    def never(self) -> bool:
        """Whether the group stays frozen."""
        return self.step is None and self.patience is None

    def describe(self) -> str:
        """In words: `joins at step 60`."""
        if self.step is not None:
            return f"joins at step {self.step}"
        return "frozen" if self.never else f"joins after {self.patience} validations without improvement"

    def to_dict(self) -> dict[str, Any]:
        """Builtins only; inverse of `from_dict`."""
        return {"phase": self.phase, "step": self.step, "patience": self.patience}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Joining:
        """What `to_dict` wrote."""
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class ParamGroup:
    """Parameters, by name, that one optimizer trains with the same hyperparameters.

    `optimizer` is a catalogue name: a plan whose groups name several is built as one composite optimizer.
    `joins` says when the group begins to train (None: at the beginning); `rate` is the factor on the plan's
    learning rate behind its own. `roles` are what its parameters are for, and `layers` the lowest and highest
    of theirs, 0 nearest the input (none: not known).
    """

    name: str
    optimizer: str
    parameters: tuple[str, ...]
    hyperparameters: Mapping[str, Value]
    joins: Joining | None = None
    rate: float = 1.0
    roles: tuple[str, ...] = ()
    layers: tuple[int, int] | None = None

    @property
    def frozen(self) -> bool:
        """Whether the group never trains."""
        return self.joins is not None and self.joins.never

    def to_dict(self) -> dict[str, Any]:
        """Builtins only; inverse of `from_dict`."""
        return {
            "name": self.name,
            "optimizer": self.optimizer,
            "parameters": list(self.parameters),
            "hyperparameters": dict(self.hyperparameters),
            **({"joins": self.joins.to_dict()} if self.joins else {}),
            "rate": self.rate,
            "roles": list(self.roles),
            "layers": list(self.layers) if self.layers else None,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ParamGroup:
        """The group that `to_dict` wrote."""
        return cls(
            name=data["name"],
            optimizer=data["optimizer"],
            parameters=tuple(data["parameters"]),
            hyperparameters=dict(data["hyperparameters"]),
            joins=Joining.from_dict(data["joins"]) if data.get("joins") else None,
            rate=data.get("rate", 1.0),
            roles=tuple(data.get("roles", ())),
            layers=(data["layers"][0], data["layers"][1]) if data.get("layers") else None,
        )


@dataclass(frozen=True, kw_only=True)
class ModelFingerprint:
    """The model a plan is for: each parameter's shape by name, in the model's order; and which are frozen."""

    shapes: Mapping[str, tuple[int, ...]]
    frozen: frozenset[str] = frozenset()

    @classmethod
    def of(cls, model: _Model) -> ModelFingerprint:
        """The fingerprint of `model`."""
        parameters = list(model.named_parameters())
        return cls(
            shapes={name: tuple(parameter.shape) for name, parameter in parameters},
            frozen=frozenset(name for name, parameter in parameters if not parameter.requires_grad),
        )

    def check(self, model: _Model) -> None:
        """Raise `PlanMismatchError`, naming the parameters, unless `model` is the one this was taken of."""
        here = ModelFingerprint.of(model)
        differences = [
            *_listed("new", [name for name in here.shapes if name not in self.shapes]),
            *_listed("missing", [name for name in self.shapes if name not in here.shapes]),
            *_listed(
                "of another shape",
                [
                    f"{name} {list(here.shapes[name])} for {list(shape)}"
                    for name, shape in self.shapes.items()
                    if name in here.shapes and here.shapes[name] != shape
                ],
            ),
            *_listed("now frozen", sorted((here.frozen - self.frozen) & set(self.shapes))),
            *_listed("no longer frozen", sorted((self.frozen - here.frozen) & set(here.shapes))),
        ]
        if not differences and list(here.shapes) != list(self.shapes):
            differences = ["the same parameters in another order"]
        if differences:
            raise PlanMismatchError(
                f"the plan covers {len(self.shapes)} parameters and the model has {len(here.shapes)}; "
                f"{'; '.join(differences)}. Use the model the plan was made for, or search anew without the plan."
            )

    def to_dict(self) -> dict[str, Any]:
        """Builtins only; inverse of `from_dict`."""
        return {"shapes": {name: list(shape) for name, shape in self.shapes.items()}, "frozen": sorted(self.frozen)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelFingerprint:
        """The fingerprint that `to_dict` wrote."""
        shapes = {name: tuple(shape) for name, shape in data["shapes"].items()}
        return cls(shapes=shapes, frozen=frozenset(data["frozen"]))


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial as it ended: what ran, for how many micro-batches, and the value it reached (None: it failed).

    `earlier` holds the values it was judged at before, by micro-batches.
    """

    configuration: Configuration
    seed: int
    micro_batches: int
    value: float | None
    state: str
    earlier: Mapping[int, float] = field(default_factory=dict)

    @property
    def values(self) -> dict[int, float]:
        """Every value it was judged at, by micro-batches."""
        last = {} if self.value is None else {self.micro_batches: self.value}
        return {**self.earlier, **last}

    def to_dict(self) -> dict[str, Any]:
        """Builtins only, of the schedule what is not the default; inverse of `from_dict`.

        A checkpoint may hold two hundred of these.
        """
        usual = Schedule().to_dict()
        schedule = {key: value for key, value in self.configuration.schedule.to_dict().items() if value != usual[key]}
        return {
            "configuration": {**self.configuration.to_dict(), "schedule": schedule},
            "seed": self.seed,
            "micro_batches": self.micro_batches,
            "value": self.value,
            "state": self.state,
            # Pairs: JSON has no numbers for keys.
            **({"earlier": [list(pair) for pair in self.earlier.items()]} if self.earlier else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrialRecord:
        """The record that `to_dict` wrote."""
        configuration = Configuration.from_dict(data["configuration"])
        return cls(**{**data, "configuration": configuration, "earlier": dict(data.get("earlier", ()))})


@dataclass(frozen=True, kw_only=True)
class OptimizerPlan:
    """The optimizer of one training, and why it was chosen.

    optimizer          catalogue name, or "user" for the module's own `configure_optimizers`
    hyperparameters    of that optimizer, in torch's names
    param_groups       every trainable parameter in exactly one group (empty for "user")
    schedule           of the learning rate, stepped once per optimizer step
    total_steps        optimizer steps the schedule is laid out for (None: length not known)
    reasons            sentences that a person can check
    baseline           what it had to beat (None: nothing was compared)
    lead               how much lower its loss is than the baseline's, as a share of the larger of the two (None: the
                       baseline stays, or nothing was compared)
    profile            what was measured (None: a plan written by hand)
    proposals          what the rules proposed, with every vote
    trials             what was tried and what it scored
    search_steps       gradient steps the choice cost, profile and validation included
    model_fingerprint  the model it is for
    fine_tuning        the policy behind the groups (None: all parameters alike)
    sparse             parameters whose gradients are sparse tensors
    monitor            what the trials were judged by
    mode               whether small or large values of it are good
    versions           of the packages that made the choice
    """

    optimizer: str
    model_fingerprint: ModelFingerprint
    hyperparameters: Mapping[str, Value] = field(default_factory=dict)
    param_groups: tuple[ParamGroup, ...] = ()
    schedule: Schedule = field(default_factory=Schedule)
    fine_tuning: FineTuning | None = None
    total_steps: int | None = None
    reasons: tuple[str, ...] = ()
    baseline: Configuration | None = None
    lead: float | None = None
    profile: Profile | None = None
    proposals: tuple[Proposal, ...] = ()
    trials: tuple[TrialRecord, ...] = ()
    search_steps: int = 0
    sparse: tuple[str, ...] = ()
    monitor: str = ""
    mode: Literal["min", "max"] = "min"
    versions: Mapping[str, str] = field(default_factory=dict)
    version: int = PLAN_VERSION

    @property
    def configuration(self) -> Configuration:
        """The chosen optimizer, hyperparameters and schedule, without what belongs to the model."""
        return Configuration(
            optimizer=self.optimizer,
            hyperparameters=self.hyperparameters,
            schedule=self.schedule,
            fine_tuning=self.fine_tuning,
        )

    def build(
        self,
        model: nn.Module,
        total_steps: int | None = None,
        own: Callable[[nn.Module], tuple[Optimizer, LRScheduler | None]] | None = None,
        *,
        thawed: int = 0,
    ) -> tuple[Optimizer, LRScheduler | None]:
        """The optimizer and the scheduler (None when nothing ever changes) for `model`.

        The scheduler steps once per optimizer step. `total_steps` overrides the plan's own. A plan that keeps your own
        optimizer needs `own`, which builds it; its rates come back as the plan has scaled them, and its scheduler
        steps as you step it. Parameters that join later are frozen here, and the scheduler thaws them; `thawed` says
        how many thaws a run that is resumed has behind it (`scheduler.thawed` when it was saved). Raises
        `PlanMismatchError` when the plan was made for another model.
        """
        from optselect.building.optimizer import build  # noqa: PLC0415  # a convenience: plans do without torch

        return build(self, model, total_steps, own, thawed=thawed)

    def explain(self, *, markdown: bool = False) -> str:
        """Why this optimizer: profile, proposals, trials, choice and cost, as plain text or as Markdown."""
        from optselect.report import explain  # noqa: PLC0415  # as above

        return explain(self, markdown=markdown)

    def to_dict(self) -> dict[str, Any]:
        """Builtins only; inverse of `from_dict`."""
        return {
            "version": self.version,
            "optimizer": self.optimizer,
            "hyperparameters": dict(self.hyperparameters),
            "schedule": self.schedule.to_dict(),
            "fine_tuning": self.fine_tuning.to_dict() if self.fine_tuning else None,
            "total_steps": self.total_steps,
            "reasons": list(self.reasons),
            "baseline": self.baseline.to_dict() if self.baseline else None,
            "lead": self.lead,
            "search_steps": self.search_steps,
            "monitor": self.monitor,
            "mode": self.mode,
            "param_groups": [group.to_dict() for group in self.param_groups],
            "sparse": list(self.sparse),
            "profile": self.profile.to_dict() if self.profile else None,
            "proposals": [proposal.to_dict() for proposal in self.proposals],
            "trials": [trial.to_dict() for trial in self.trials],
            "versions": dict(self.versions),
            "model_fingerprint": self.model_fingerprint.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> OptimizerPlan:
        """The plan that `to_dict` wrote.

        Raises `PlanVersionError` for a plan of a later version, `PlanFormatError` for what is not a plan.
        """
        version = data.get("version") if isinstance(data, Mapping) else None
        if not isinstance(version, int) or isinstance(version, bool) or version < 1:
            raise PlanFormatError("this is not an optimizer plan: it has no version number")
        if version > PLAN_VERSION:
            raise PlanVersionError(
                f"the plan is of version {version} and this optselect reads up to {PLAN_VERSION}; upgrade optselect"
            )
        try:
            return cls(
                version=version,
                optimizer=data["optimizer"],
                hyperparameters=dict(data["hyperparameters"]),
                schedule=Schedule.from_dict(data["schedule"]),
                total_steps=data["total_steps"],
                reasons=tuple(data["reasons"]),
                # Plans written before these were kept lack them.
                baseline=Configuration.from_dict(data["baseline"]) if data.get("baseline") else None,
                lead=data.get("lead"),
                fine_tuning=FineTuning.from_dict(data["fine_tuning"]) if data.get("fine_tuning") else None,
                mode=data.get("mode", "min"),
                search_steps=data["search_steps"],
                monitor=data["monitor"],
                param_groups=tuple(ParamGroup.from_dict(group) for group in data["param_groups"]),
                sparse=tuple(data["sparse"]),
                profile=Profile.from_dict(data["profile"]) if data["profile"] else None,
                proposals=tuple(Proposal.from_dict(proposal) for proposal in data["proposals"]),
                trials=tuple(TrialRecord.from_dict(trial) for trial in data["trials"]),
                versions=dict(data["versions"]),
                model_fingerprint=ModelFingerprint.from_dict(data["model_fingerprint"]),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise PlanFormatError(
                f"the plan is incomplete or malformed ({type(error).__name__}: {error}); write it anew with a search"
            ) from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as JSON; the file is whole or absent, never half written."""
        write_whole(path, json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> OptimizerPlan:
        """The plan in the file at `path`. Raises `PlanFormatError` when there is none in it."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise PlanFormatError(
                f"no plan can be read from {os.fspath(path)} ({error}); pass a plan.json that optselect wrote"
            ) from error
        return cls.from_dict(data)


def _listed(what: str, names: list[str], most: int = 5) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return [f"{what}: {', '.join(names[:most])}{more}"]

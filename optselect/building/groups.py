"""Which optimizer trains which parameter, and with what hyperparameters: a configuration laid out on a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optselect import catalogue
from optselect.building.treatment import treated
from optselect.catalogue import PARTNER_LR_RATIO, OptimizerSpec
from optselect.configuration import Configuration
from optselect.configuration.policy import FineTuning
from optselect.errors import ConfigurationError, UnsupportedModuleError
from optselect.parameters.anatomy import Anatomy
from optselect.parameters.describe import ParamInfo
from optselect.plan import Joining, ParamGroup
from optselect.space import Value

# What trains the parameters that neither the chosen optimizer nor its partners can.
_FALLBACKS = ("adamw", "sparse_adam")


def param_groups(anatomy: Anatomy, configuration: Configuration) -> tuple[ParamGroup, ...]:
    """Put every trainable parameter of a model in exactly one group.

    The chosen optimizer trains what it can; its partner the rest (hidden matrices go to Muon, everything
    else to AdamW); SparseAdam the parameters with sparse gradients when neither takes those.
    Weight decay is kept off norms, biases and 1-D parameters, and off sparse gradients, which torch
    refuses to decay. The configuration's fine-tuning policy gives parts rates of their own and says what joins
    later. Raises `UnsupportedModuleError` when nothing is trainable or nothing can train it, and
    `ConfigurationError` when the policy does not fit the model or the optimizer.
    """
    spec = catalogue.get(configuration.optimizer)
    policy = configuration.fine_tuning
    chain = [spec, *_partners(spec)]
    members: dict[_Likeness, list[ParamInfo]] = {}
    parts: dict[_Likeness, list[str]] = {}
    for parameter, treatment in treated(anatomy, policy):
        trainer = _trainer(chain, parameter)
        if policy is not None:
            _refuse_groups(trainer, policy)
        likeness = _Likeness(
            optimizer=trainer.name,
            # Without weight decay there is nothing to tell apart; and LBFGS takes a single group.
            decay=treatment.decay and not parameter.sparse and trainer.decay is not None,
            sparse=parameter.sparse and not trainer.single_group,
            rate=treatment.rate,
            joins=treatment.joins,
        )
        members.setdefault(likeness, []).append(parameter)
        parts.setdefault(likeness, []).append(treatment.part)
    if not members:
        raise UnsupportedModuleError.nothing_trains()
    rank = [candidate.name for candidate in chain]
    return tuple(
        ParamGroup(
            name=_group_name(likeness, parts[likeness], alone=len(members) == 1),
            optimizer=likeness.optimizer,
            parameters=tuple(info.name for info in members[likeness]),
            hyperparameters=_hyperparameters(
                catalogue.get(likeness.optimizer), configuration, decay=likeness.decay, rate=likeness.rate
            ),
            joins=likeness.joins,
            rate=likeness.rate,
            roles=tuple(dict.fromkeys("adapter" if info.adapter else info.role for info in members[likeness])),
            layers=(min(info.depth for info in members[likeness]), max(info.depth for info in members[likeness])),
        )
        # Sorting is stable: parts stay in the model's order.
        for likeness in sorted(members, key=lambda each: (rank.index(each.optimizer), not each.decay))
    )


@dataclass(frozen=True, kw_only=True)
class _Likeness:
    """What the parameters of one group have in common; all that have it in common are one group."""

    optimizer: str
    decay: bool
    sparse: bool
    rate: float
    joins: Joining | None


def _group_name(likeness: _Likeness, parts: Sequence[str], *, alone: bool) -> str:
    if alone:
        return likeness.optimizer
    distinct = tuple(dict.fromkeys(part for part in parts if part))
    # Parts that are treated alike in all that matters are one group, and no part of it gives it its name.
    words = [", ".join(distinct)] if len(distinct) == 1 or likeness.rate != 1.0 else []
    words += ["sparse" if likeness.sparse else "decay" if likeness.decay else "no_decay"]
    if likeness.joins is not None:
        words += ["frozen" if likeness.joins.never else f"thaw {likeness.joins.phase}"]
    return "/".join([likeness.optimizer, *words])


def _refuse_groups(trainer: OptimizerSpec, policy: FineTuning) -> None:
    # What joins later warms up by itself, so that needs rates of its own, too.
    if (policy.sets_rates or policy.thaw) and not trainer.group_rates:
        raise ConfigurationError(
            f"{trainer.name} trains all parameters at one learning rate, but the policy gives parts their own or lets "
            f"them join later ({policy.describe()}); choose another optimizer, or only freeze"
        )


def _partners(spec: OptimizerSpec) -> list[OptimizerSpec]:
    names = [spec.partner] if spec.partner else []
    names += [name for name in _FALLBACKS if name not in (spec.name, *names)]
    return [catalogue.get(name) for name in names]


def _trainer(chain: list[OptimizerSpec], parameter: ParamInfo) -> OptimizerSpec:
    for spec in chain:
        # A matrix optimizer takes any 2-D tensor, but embeddings and heads are tables, not maps between
        # layers: Muon's authors train them with AdamW.
        if spec.ndim == 2 and parameter.role != "hidden matrix":
            continue
        if spec.can_train(shape=parameter.shape, sparse=parameter.sparse, is_complex=parameter.is_complex):
            return spec
    raise UnsupportedModuleError(
        f"{chain[0].name} cannot train {parameter.name} of shape {list(parameter.shape)}, and neither can "
        f"{', '.join(spec.name for spec in chain[1:])}; choose another optimizer or change the layer"
    )


def _hyperparameters(
    spec: OptimizerSpec, configuration: Configuration, *, decay: bool, rate: float
) -> dict[str, Value]:
    """Take the configuration's values for its own optimizer.

    A partner gets its lr, or the share of it that is told, its weight decay, and its own prior for the rest.
    """
    given = dict(configuration.hyperparameters)
    share = float(given.pop(PARTNER_LR_RATIO, 1.0))
    if spec.name == configuration.optimizer:
        values = {**spec.defaults(), **given}
    else:
        values = spec.defaults()
        if "lr" in values and "lr" in given:
            values["lr"] = spec.space["lr"].clip(share * float(given["lr"]))
        shared = given.get("weight_decay")
        if spec.decay and shared is not None and spec.decay in spec.space:
            values[spec.decay] = shared
    if spec.decay and not decay:
        values[spec.decay] = 0.0
    if rate != 1.0 and "lr" in values:
        # A real rate, not a factor beside it: torch's schedulers see nothing else.
        values["lr"] = float(values["lr"]) * rate
    return values

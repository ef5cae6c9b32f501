"""Which optimizer trains which parameter, and with what hyperparameters: a configuration laid out on a model."""

from __future__ import annotations

from collections.abc import Collection

from torch import nn

from optselect import catalogue
from optselect.catalogue import OptimizerSpec
from optselect.configuration import Configuration
from optselect.errors import UnsupportedModuleError
from optselect.params import ParamInfo, describe_params
from optselect.plan import ParamGroup
from optselect.space import Value

# What trains the parameters that neither the chosen optimizer nor its partners can.
_FALLBACKS = ("adamw", "sparse_adam")


def param_groups(
    model: nn.Module, configuration: Configuration, sparse: Collection[str] = ()
) -> tuple[ParamGroup, ...]:
    """Every trainable parameter of `model` in exactly one group.

    The chosen optimizer trains what it can; its partner the rest (hidden matrices go to Muon, everything
    else to AdamW); SparseAdam the parameters named in `sparse` when neither takes sparse gradients.
    Weight decay is kept off norms, biases and 1-D parameters, and off sparse gradients, which torch
    refuses to decay. Raises `UnsupportedModuleError` when nothing is trainable or nothing can train it.
    """
    spec = catalogue.get(configuration.optimizer)
    chain = [spec, *_partners(spec)]
    members: dict[tuple[str, bool, bool], list[str]] = {}
    for parameter in describe_params(model, sparse=frozenset(sparse)):
        if parameter.frozen:
            continue
        is_sparse = parameter.name in sparse
        trainer = _trainer(chain, parameter, is_sparse=is_sparse)
        # Without weight decay there is nothing to tell apart; and LBFGS takes a single group.
        decay = parameter.decay and not is_sparse and trainer.decay is not None
        members.setdefault((trainer.name, decay, is_sparse and not trainer.single_group), []).append(parameter.name)
    if not members:
        raise UnsupportedModuleError(
            "the model has no trainable parameter; set requires_grad=True on what should learn"
        )
    order = [candidate.name for candidate in chain]
    groups = []
    for (name, decay, is_sparse), names in sorted(
        members.items(), key=lambda item: (order.index(item[0][0]), not item[0][1])
    ):
        trainer = catalogue.get(name)
        groups.append(
            ParamGroup(
                name=_group_name(name, decay=decay, sparse=is_sparse, alone=len(members) == 1),
                optimizer=name,
                parameters=tuple(names),
                hyperparameters=_hyperparameters(trainer, configuration, decay=decay),
            )
        )
    return tuple(groups)


def _partners(spec: OptimizerSpec) -> list[OptimizerSpec]:
    names = [spec.partner] if spec.partner else []
    names += [name for name in _FALLBACKS if name not in (spec.name, *names)]
    return [catalogue.get(name) for name in names]


def _trainer(chain: list[OptimizerSpec], parameter: ParamInfo, *, is_sparse: bool) -> OptimizerSpec:
    for spec in chain:
        # A matrix optimizer takes any 2-D tensor, but embeddings and heads are tables, not maps between
        # layers: Muon's authors train them with AdamW.
        if spec.ndim == 2 and parameter.role != "hidden matrix":
            continue
        if spec.can_train(shape=parameter.shape, sparse=is_sparse, is_complex=parameter.is_complex):
            return spec
    raise UnsupportedModuleError(
        f"{chain[0].name} cannot train {parameter.name} of shape {list(parameter.shape)}, and neither can "
        f"{', '.join(spec.name for spec in chain[1:])}; choose another optimizer or change the layer"
    )


def _hyperparameters(spec: OptimizerSpec, configuration: Configuration, *, decay: bool) -> dict[str, Value]:
    """The configuration's values for its own optimizer; a partner takes the lr and its own prior for the rest."""
    if spec.name == configuration.optimizer:
        values = {**spec.defaults(), **configuration.hyperparameters}
    else:
        values = spec.defaults()
        if "lr" in values and "lr" in configuration.hyperparameters:
            values["lr"] = spec.space["lr"].clip(float(configuration.hyperparameters["lr"]))
        shared = configuration.hyperparameters.get("weight_decay")
        if spec.decay and shared is not None and spec.decay in spec.space:
            values[spec.decay] = shared
    if spec.decay and not decay:
        values[spec.decay] = 0.0
    return values


def _group_name(optimizer: str, *, decay: bool, sparse: bool, alone: bool) -> str:
    if alone:
        return optimizer
    return f"{optimizer}/{'sparse' if sparse else 'decay' if decay else 'no_decay'}"

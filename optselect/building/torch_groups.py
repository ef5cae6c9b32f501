"""Parameter groups as torch's optimizers take them: of a plan, or of a fine-tuning policy alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, TypeVar

from torch import nn
from torch.optim import Optimizer

from optselect import catalogue
from optselect.building.treatment import Treatment, treated
from optselect.configuration import USER
from optselect.configuration.policy import FineTuning
from optselect.errors import ConfigurationError
from optselect.parameters.anatomy import anatomy_of
from optselect.parameters.names import named_parameters
from optselect.parameters.sharding import whole
from optselect.plan import OptimizerPlan

Group = dict[str, Any]
Alike = list[tuple[str, Treatment, list[tuple[str, nn.Parameter]]]]
"""What a policy treats alike: the name of a group, how it is treated, and its parameters by name."""

AnOptimizer = TypeVar("AnOptimizer", bound=Optimizer)


def groups_of(plan: OptimizerPlan, model: nn.Module, optimizer: str | None = None) -> list[Group]:
    """Return the groups of `plan` that `optimizer` trains; see `OptimizerPlan.param_groups_of`."""
    plan.model_fingerprint.check(whole(model))
    if plan.optimizer == USER:
        raise ConfigurationError(
            f"the plan keeps {plan.configuration.describe()}, whose groups are those of the module's own "
            "configure_optimizers"
        )
    plan.check(to_build=True)
    _refuse_later(group.name for group in plan.param_groups if group.joins is not None and not group.frozen)
    trained = [group for group in plan.param_groups if not group.frozen]
    names = list(dict.fromkeys(group.optimizer for group in trained))
    if optimizer is None and len(names) > 1:
        raise ConfigurationError(
            f"the plan's groups are for {' and '.join(names)}; ask for those of one with optimizer={names[0]!r}, "
            "or take plan.as_code(), which has both"
        )
    wanted = names[0] if optimizer is None else optimizer
    own = [group for group in trained if group.optimizer == wanted]
    if not own:
        raise ConfigurationError(f"the plan has no groups for {wanted!r}; it has some for {', '.join(names)}")
    parameters = dict(named_parameters(model))
    common, differing = catalogue.get(wanted).arguments_by_group([group.hyperparameters for group in own])
    return [
        {"params": [parameters[name] for name in group.parameters], "name": group.name, **common, **values}
        for group, values in zip(own, differing, strict=True)
    ]


def param_groups(model: nn.Module, fine_tuning: FineTuning, *, lr: float, weight_decay: float = 0.0) -> list[Group]:
    """Return the parameters of `model` in groups as `fine_tuning` treats them, for any optimizer of torch.

    `lr` is that of the topmost layer, and `weight_decay` that of what decays: norms, biases and 1-D parameters do not.
    What is frozen, by the policy or already, is in no group; `requires_grad` stays as it is.

        torch.optim.AdamW(param_groups(model, FineTuning(layer_decay=0.7), lr=1e-4, weight_decay=0.05))

    Raises `ConfigurationError` for a policy that does not fit the model, or that lets parts join later.
    """
    return [
        {
            "params": [parameter for _, parameter in members],
            "name": name,
            "lr": lr * treatment.rate,
            "weight_decay": weight_decay if treatment.decay else 0.0,
        }
        for name, treatment, members in _alike(model, fine_tuning)
    ]


def regrouped(optimizer: AnOptimizer, model: nn.Module, fine_tuning: FineTuning) -> AnOptimizer:
    """Regroup the parameters of `optimizer`, which has one group and has made no step, as `fine_tuning` treats them.

    Its own rate and weight decay are those of the topmost layer. It is changed in place and returned, so that it fits
    where somebody else makes the optimizer, as LightningCLI does for `--optimizer`. A scheduler is made afterwards.
    One that is grouped so already comes back as it is: LightningCLI hands the same to every call.

        def configure_optimizers(module, optimizer, lr_scheduler=None):  # of a LightningCLI
            return regrouped(optimizer, module, FineTuning(layer_decay=0.7))

    Raises `ConfigurationError` for an optimizer at work or under a scheduler, and as `param_groups` does.
    """
    alike = _alike(model, fine_tuning)
    if _is_grouped(optimizer, alike):
        return optimizer
    if len(optimizer.param_groups) != 1 or optimizer.state:
        begun = " and has made steps" if optimizer.state else ""
        raise ConfigurationError(
            f"the optimizer has {len(optimizer.param_groups)} groups{begun}; regroup a new one with a single group"
        )
    (whole,) = optimizer.param_groups
    if "initial_lr" in whole:
        raise ConfigurationError(
            "a scheduler was made for the optimizer already; make it after the optimizer is regrouped"
        )
    trained = {id(parameter) for parameter in whole["params"]}
    settings = {name: value for name, value in whole.items() if name != "params"}
    optimizer.param_groups.clear()
    for name, treatment, members in alike:
        own = [parameter for _, parameter in members if id(parameter) in trained]
        decay = settings.get("weight_decay", 0.0) if treatment.decay else 0.0
        told = {"weight_decay": decay} if "weight_decay" in settings else {}
        if own:
            group = {**settings, "params": own, "name": name, "lr": settings["lr"] * treatment.rate, **told}
            optimizer.add_param_group(group)
    return optimizer


def _is_grouped(optimizer: Optimizer, alike: Alike) -> bool:
    """Tell whether the groups of `optimizer` are those that `alike` makes of one group, at whatever rate."""
    groups = optimizer.param_groups
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    wanted = [
        (name, treatment, kept)
        for name, treatment, members in alike
        if (kept := [id(parameter) for _, parameter in members if id(parameter) in trained])
    ]
    if [(group.get("name"), [*map(id, group["params"])]) for group in groups] != [(n, kept) for n, _, kept in wanted]:
        return False
    tops = [group["lr"] / treatment.rate for group, (_, treatment, _) in zip(groups, wanted, strict=True)]
    undecayed = [group.get("weight_decay", 0.0) == 0.0 for group in groups]
    return all(math.isclose(top, tops[0]) for top in tops) and all(
        none or treatment.decay for none, (_, treatment, _) in zip(undecayed, wanted, strict=True)
    )


def _alike(model: nn.Module, fine_tuning: FineTuning) -> Alike:
    """Join what is treated alike, with a name for each group."""
    policy = fine_tuning.named(name for name, _ in named_parameters(model))
    parameters = dict(named_parameters(model))
    found: dict[Treatment, list[tuple[str, nn.Parameter]]] = {}
    pairs = treated(anatomy_of(model), policy)
    _refuse_later(info.name for info, how in pairs if how.joins is not None and not how.joins.never)
    for info, how in pairs:
        if how.joins is None:
            found.setdefault(how, []).append((info.name, parameters[info.name]))
    return [
        (f"{how.part or 'all'}/{'decay' if how.decay else 'no_decay'}/{place}", how, members)
        for place, (how, members) in enumerate(found.items())
    ]


def _refuse_later(names: Iterable[str]) -> None:
    if later := list(names):
        raise ConfigurationError(
            f"{', '.join(later[:5])} join the training later, which groups alone cannot do; fit with AutoOptimizer, or "
            "build optimizer and scheduler with plan.build(model)"
        )

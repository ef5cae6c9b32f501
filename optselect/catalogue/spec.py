"""What is known about one optimizer, as data."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from optselect.errors import ConfigurationError, MissingExtraError, PlanFormatError
from optselect.space import SearchSpace, Value

StepCost = Literal["elementwise", "matrix", "closure"]

Cut = Literal["flat", "tensors"]
"""How a weight is cut over processes: into stretches of its flattened numbers (FSDP's first version), or into parts
that know their whole (DTensors of FSDP2 and tensor parallelism)."""

EITHER: tuple[Cut, ...] = ("flat", "tensors")

PARTNER_LR_RATIO = "partner_lr_ratio"
"""A hyperparameter of a configuration, of no optimizer: the learning rate of the partner over its own (1 where it is
not told). It is not among what is searched."""


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """Facts about one optimizer; `optselect.testing` checks each of them by running it.

    name            the catalogue name
    summary         one line for a listing
    factory         `"module:Class"`, called as `Class(params, **arguments)`
    fixed           arguments that make this entry what it is (AMSGrad is Adam with amsgrad=True)
    space           hyperparameters that may be searched, in torch's names (`beta1`, `beta2`, `beta3` are
                    the members of `betas`)
    dense, sparse   which gradient layouts it can train
    ndim            the only number of dimensions it can train (None: any)
    complex         whether it can train complex parameters
    closure         whether `step` needs a closure that re-evaluates the loss
    train_eval      whether it has train() and eval() modes that must be switched
    decay           name of the weight-decay argument (None: it has none)
    decoupled       whether weight decay shrinks the weights by lr · weight_decay apart from the gradient
                    (AdamW's form), so that it scales with 1/lr; otherwise it is added to the gradient (L2)
    sparse_decay    whether weight decay works on sparse gradients
    single_group    whether it refuses more than one param group
    group_rates     whether param groups may have learning rates of their own
    schedulable     whether decaying its learning rate is of use (schedule-free and parameter-free ones: no)
    parts           under which ways of cutting a weight over processes its steps are those on the whole weight: each
                    number by itself trains in stretches of any length, a matrix only where it knows its whole
    partner         catalogue name of the optimizer for the parameters this one cannot train
    state           optimizer state in bytes for one parameter, from its shape and its bytes per element
    cost            class of the cost of one step
    extra           the optional dependency group that installs it (None: comes with torch)
    cites           where the facts and the prior come from
    """

    name: str
    summary: str
    factory: str
    space: SearchSpace
    cites: tuple[str, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    dense: bool = True
    sparse: bool = False
    ndim: int | None = None
    complex: bool = True
    closure: bool = False
    train_eval: bool = False
    decay: str | None = "weight_decay"
    decoupled: bool = False
    sparse_decay: bool = False
    single_group: bool = False
    group_rates: bool = True
    schedulable: bool = True
    parts: tuple[Cut, ...] = ()
    partner: str | None = None
    state: Callable[[Sequence[int], int], int] = field(default=lambda _shape, _itemsize: 0)
    cost: StepCost = "elementwise"
    extra: str | None = None

    def load(self) -> Callable[..., Any]:
        """Import the optimizer class. Raises `MissingExtraError` when its package cannot be imported."""
        module, _, attribute = self.factory.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]
        # A mismatched binary raises RuntimeError or OSError, not ImportError.
        except Exception as error:
            cure = f"pip install 'optselect[{self.extra}]'" if self.extra else "install its package again"
            raise MissingExtraError(
                f"optimizer {self.name!r} needs {self.factory}, which cannot be imported ({error}); {cure}"
            ) from error

    @property
    def available(self) -> bool:
        """Whether the optimizer's package can be imported here."""
        try:
            self.load()
        except MissingExtraError:
            return False
        return True

    def can_train(self, *, shape: Sequence[int], sparse: bool, is_complex: bool = False) -> bool:
        """Tell whether a parameter of `shape` with this gradient layout can be trained."""
        layout = self.sparse if sparse else self.dense
        return layout and (self.ndim is None or len(shape) == self.ndim) and (self.complex or not is_complex)

    def state_bytes(self, shape: Sequence[int], itemsize: int = 4) -> int:
        """Count the bytes of optimizer state for one parameter of `shape` with `itemsize` bytes per element."""
        return self.state(shape, itemsize)

    def defaults(self) -> dict[str, Value]:
        """Return the prior's centre for every hyperparameter of the space."""
        return self.space.centre()

    def arguments(self, hyperparameters: Mapping[str, Value]) -> dict[str, Any]:
        """Make the constructor's arguments: `beta1`, `beta2`, … become `betas`, and `fixed` is added.

        A tuple of betas is complete or absent: those not given come from the prior's centre.
        Raises `ConfigurationError` on a hyperparameter that is neither in the space nor fixed.
        """
        if unknown := sorted(set(hyperparameters) - set(self.space) - set(self.fixed)):
            raise ConfigurationError(
                f"{self.name} has no hyperparameter {', '.join(unknown)}; it has {', '.join(self.space)}"
            )
        values = {**self.fixed, **hyperparameters}
        betas = [name for name in self.space if name.startswith("beta") and name[4:].isdigit()]
        arguments = {name: value for name, value in values.items() if name not in betas}
        if any(name in values for name in betas):
            arguments["betas"] = tuple(values.get(name, self.space[name].centre) for name in betas)
        return arguments

    def arguments_by_group(
        self, groups: Sequence[Mapping[str, Value]]
    ) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
        """Make the constructor's arguments for all param groups, and what each group has of its own.

        Raises `ConfigurationError` as `arguments` does, and `PlanFormatError` for groups that differ in what they give.
        """
        common, *others = map(self.arguments, groups)
        for own in others:
            if own.keys() != common.keys():
                raise PlanFormatError(
                    f"the plan's groups of {self.name} give different hyperparameters: "
                    f"{', '.join(sorted(own.keys() ^ common.keys()))}; give all of them in each group"
                )
        differing = ({key: value for key, value in own.items() if common[key] != value} for own in (common, *others))
        return common, tuple(differing)


def slots(count: float) -> Callable[[Sequence[int], int], int]:
    """Make a function that counts the bytes of state at `count` numbers for each number of a parameter."""

    def state(shape: Sequence[int], itemsize: int) -> int:
        return int(count * math.prod(shape) * itemsize)

    return state

"""Several optimizers as one `torch.optim.Optimizer`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optselect.errors import ConfigurationError, ResumeError, UnsupportedModuleError
from optselect.optim.modes import has_modes

ROUTE = "optimizer_name"
"""The key in a param group that names the child it belongs to."""


class CompositeOptimizer(Optimizer):
    """Children that each train some of the parameters, stepped together.

    It looks like one optimizer: `param_groups` is the children's groups in order (each group says under
    `"optimizer_name"` whose it is), `state` is a view that reads and writes the children's own, and
    `state_dict` has the standard flat layout, so tools that walk groups and states need not know.

    Raises `UnsupportedModuleError` for a child that needs a closure: it would evaluate the loss after
    its siblings had already moved.
    """

    def __init__(self, children: Mapping[str, Optimizer]) -> None:
        if not children:
            raise ConfigurationError("a composite optimizer needs at least one child")
        for name, child in children.items():
            if isinstance(child, torch.optim.LBFGS):
                raise UnsupportedModuleError(
                    f"{name} re-evaluates the loss inside step() and cannot be one of several optimizers; use it alone"
                )
        _refuse_shared(children)
        self.children = dict(children)
        for name, child in children.items():
            self.routed(name, child.param_groups)
        self._joining = False
        super().__init__(self.param_groups, {})
        self._joining = True
        self.defaults = dict(next(iter(self.children.values())).defaults)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The children's groups in order; the dicts are the children's own."""
        return [group for child in self.children.values() for group in child.param_groups]

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        # Optimizer.__init__ assigns an empty list; Lightning's BaseFinetuning assigns groups.
        if groups:
            for name, child in self.children.items():
                child.param_groups = [group for group in groups if self._owner_of(group) == name]

    @property  # type: ignore[override]  # torch declares a defaultdict; this is a live view of the children's
    def state(self) -> MutableMapping[Tensor, Any]:
        """Each parameter's state, read from and written to the child that trains it."""
        return _RoutedState(self.children)

    @state.setter
    def state(self, value: MutableMapping[Tensor, Any]) -> None:
        # Optimizer.__init__ assigns an empty defaultdict.
        for parameter, slots in value.items():
            self.state[parameter] = slots

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the child that its `"optimizer_name"` names, or to the last child."""
        if not self._joining:
            return
        child = self.children[self._owner_of(param_group)]
        joining = param_group["params"]
        params = [joining] if isinstance(joining, Tensor) else list(joining)
        trained = {id(parameter) for group in self.param_groups for parameter in group["params"]}
        if not trained.isdisjoint(map(id, params)):
            raise ConfigurationError("a parameter of the new group is in another group already; it can be in one only")
        param_group["params"] = params
        child.add_param_group(param_group)

    def adopt(self, name: str, child: Optimizer) -> None:
        """Take in one more child: an optimizer whose first parameters join a training that has begun."""
        _refuse_shared({**self.children, name: child})
        self.children[name] = child
        self.routed(name, child.param_groups)

    def routed(self, name: str, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Mark `groups` as those of the child `name`."""
        for group in groups:
            group[ROUTE] = name
        return groups

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Evaluate the closure once, then step every child."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for child in self.children.values():
            child.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002  # torch's signature
        """Clear the gradients of every child's parameters."""
        for child in self.children.values():
            child.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Write the standard flat layout: parameters are numbered through all groups in order."""
        state: dict[int, Any] = {}
        groups: list[dict[str, Any]] = []
        offset = 0
        for child in self.children.values():
            own = child.state_dict()
            state.update({index + offset: slots for index, slots in own["state"].items()})
            groups += [
                {**group, "params": [index + offset for index in group["params"]]} for group in own["param_groups"]
            ]
            offset += sum(len(group["params"]) for group in own["param_groups"])
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Hand every child its part, through the child's own `load_state_dict`.

        Raises `ResumeError`, before any child is touched, when the groups are not this composite's.
        """
        saved = [(group.get(ROUTE), len(group["params"])) for group in state_dict["param_groups"]]
        here = [(group[ROUTE], len(group["params"])) for group in self.param_groups]
        if saved != here:
            raise ResumeError(
                f"the saved optimizer has groups {saved} and this one {here} (optimizer, parameters); "
                "build the optimizer from the plan that the state was saved with"
            )
        groups = iter(state_dict["param_groups"])
        for child in self.children.values():
            own = [next(groups) for _ in child.param_groups]
            # Numbers, or in distributed checkpoints the parameters' names.
            keys = {key for group in own for key in group["params"]}
            state = {key: slots for key, slots in state_dict["state"].items() if key in keys}
            child.load_state_dict({"state": state, "param_groups": own})

    @property
    def has_modes(self) -> bool:
        """Whether a child has a training and an evaluation mode."""
        return any(map(has_modes, self.children.values()))

    def train(self) -> None:
        """Switch the children that have a training mode to it."""
        self._switch("train")

    def eval(self) -> None:
        """Switch the children that have an evaluation mode to it."""
        self._switch("eval")

    def _switch(self, mode: str) -> None:
        for child in self.children.values():
            if has_modes(child):
                getattr(child, mode)()

    def _owner_of(self, group: dict[str, Any]) -> str:
        name = group.setdefault(ROUTE, list(self.children)[-1])
        if name not in self.children:
            raise ConfigurationError(f"no child optimizer {name!r}; the children are {', '.join(self.children)}")
        return str(name)

    def __getstate__(self) -> dict[str, Any]:
        return {"children": self.children, "defaults": self.defaults}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["children"])  # type: ignore[misc]  # hooks and views are made anew
        self.defaults = state["defaults"]

    def __repr__(self) -> str:
        return f"CompositeOptimizer({self.children})"


def _refuse_shared(children: Mapping[str, Optimizer]) -> None:
    owners: dict[int, str] = {}
    for name, child in children.items():
        for group in child.param_groups:
            for parameter in group["params"]:
                if owners.setdefault(id(parameter), name) != name:
                    raise ConfigurationError(
                        f"{owners[id(parameter)]} and {name} both have a parameter of shape {list(parameter.shape)}; "
                        "each parameter has one optimizer"
                    )


class _RoutedState(MutableMapping[Tensor, Any]):
    """The states of all children; writing goes to the child that has the parameter in its groups."""

    def __init__(self, children: Mapping[str, Optimizer]) -> None:
        self._children = children

    def _child(self, parameter: Tensor) -> Optimizer:
        for child in self._children.values():
            if parameter in child.state:
                return child
        for child in self._children.values():
            for group in child.param_groups:
                if any(parameter is other for other in group["params"]):
                    return child
        raise KeyError(parameter)

    def __getitem__(self, parameter: Tensor) -> Any:
        return self._child(parameter).state[parameter]

    # The children's states are defaultdicts: asking for what is not there would make it.
    def __contains__(self, parameter: object) -> bool:
        return any(parameter in child.state for child in self._children.values())

    def get(self, parameter: Tensor, default: Any = None) -> Any:
        return self[parameter] if parameter in self else default  # noqa: SIM401  # this is that method

    def __setitem__(self, parameter: Tensor, slots: Any) -> None:
        self._child(parameter).state[parameter] = slots

    def __delitem__(self, parameter: Tensor) -> None:
        del self._child(parameter).state[parameter]

    def __iter__(self) -> Iterator[Tensor]:
        for child in self._children.values():
            yield from list(child.state)

    def __len__(self) -> int:
        return sum(len(child.state) for child in self._children.values())

"""In what order the modules of a model run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from optselect.parameters.compilation import as_written, is_compiled
from optselect.parameters.names import named_modules, named_parameters


@dataclass
class Execution:
    """What ran of one model: the places in a count of calls at which each module first and last began to."""

    owners: frozenset[str]
    first: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    calls: int = 0

    @classmethod
    def of(cls, model: nn.Module) -> Execution:
        """Begin before anything has run of `model`."""
        return cls(owners=frozenset(_owner(name) for name, _ in named_parameters(model)))

    def began(self, name: str) -> None:
        """Count a call of the module `name`."""
        self.first.setdefault(name, self.calls)
        self.last[name] = self.calls
        self.calls += 1

    @property
    def order(self) -> tuple[str, ...]:
        """The modules that hold parameters in the order in which they ran; one that ran again stands there twice.

        Of those whose parent uses their parameters itself, as torch's attention does with its output
        projection, the parent stands there. Empty when nothing ran.
        """
        spoken_for = {name for owner in self.owners if (name := self._nearest(owner)) is not None}
        places = {(place[name], name) for name in spoken_for for place in (self.first, self.last)}
        return tuple(name for _, name in sorted(places))

    def _nearest(self, name: str) -> str | None:
        while name and name not in self.first:
            name = name.rpartition(".")[0]
        return name or None


@contextmanager
def execution_recorded(model: nn.Module, execution: Execution | None = None) -> Iterator[Execution]:
    """Record what runs of `model` inside, but for what a backward pass runs again; go on with `execution`.

    What is compiled runs as it is written inside: compiled code calls no modules, and compiles the hooks in.
    """
    # By identity: a module that defines equality has no hash.
    names = {id(module): name for name, module in named_modules(model) if name}
    execution = Execution.of(model) if execution is None else execution

    def note(module: nn.Module, _: Any) -> None:
        # Activation checkpointing runs modules a second time, last ones first, during the backward pass.
        in_backward = torch._C._current_graph_task_id() != -1  # noqa: SLF001  # torch's own checkpointing asks the same
        if id(module) in names and not in_backward:
            execution.began(names[id(module)])

    with ExitStack() as stack:
        if is_compiled(model):
            stack.enter_context(as_written())
            stack.enter_context(warnings.catch_warnings())
            # They fire an extra time for the wrapper, which is none of `names`.
            warnings.filterwarnings("ignore", message=".*when there are global hooks on modules")
        # For all modules at once: a workload may give its modules fresh attributes, hooks among them, at any time.
        handle = register_module_forward_pre_hook(note)
        try:
            yield execution
        finally:
            handle.remove()


def _owner(parameter: str) -> str:
    """Name the module of a parameter; of a parametrized one the module around its parametrization."""
    module, parametrized, _ = parameter.partition(".parametrizations.")
    return module if parametrized else parameter.rpartition(".")[0]

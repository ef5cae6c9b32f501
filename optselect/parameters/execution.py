"""In what order the modules of a model run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook


@dataclass
class Execution:
    """What ran of one model: the places in a count of calls at which each module first and last began to."""

    owners: frozenset[str]
    first: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    calls: int = 0

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
def execution_recorded(model: nn.Module) -> Iterator[Execution]:
    """Record what runs of `model` inside, but for what a backward pass runs again.

    Of a compiled model nothing is recorded: its modules are no longer called one by one.
    """
    # By identity: a module that defines equality has no hash.
    names = {id(module): name for name, module in model.named_modules() if name}
    execution = Execution(owners=frozenset(_owner(name) for name, _ in model.named_parameters()))
    if any(map(_is_compiled, model.modules())):
        yield execution
        return

    def note(module: nn.Module, _: Any) -> None:
        # Activation checkpointing runs modules a second time, last ones first, during the backward pass.
        in_backward = torch._C._current_graph_task_id() != -1  # noqa: SLF001  # torch's own checkpointing asks the same
        if id(module) in names and not in_backward and not torch.compiler.is_compiling():
            execution.began(names[id(module)])

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


def _is_compiled(module: nn.Module) -> bool:
    # torch.compile(module), which wraps it, and module.compile(), which does not.
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None

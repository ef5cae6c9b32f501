"""Models that run compiled: telling them, running them as they are written, and forgetting what was compiled."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

# What torch.compile leaves on the functions that it returns.
_COMPILED = "_torchdynamo_orig_callable"


def is_compiled(model: nn.Module) -> bool:
    """Tell whether a part of `model` runs compiled.

    By `torch.compile(module)`, which wraps it, by `module.compile()`, or by a compiled method, as Lightning has them
    of a module that was compiled as a whole.
    """
    return any(map(_runs_compiled, model.modules()))


def _runs_compiled(module: nn.Module) -> bool:
    if getattr(module, "_compiled_call_impl", None) is not None:
        return True
    owners = (module, *(kind for kind in type(module).__mro__ if not kind.__module__.startswith("torch.")))
    # A tensor or a module would be asked for its attributes by code of its own.
    return any(callable(each) and _COMPILED in getattr(each, "__dict__", ()) for it in owners for each in _held(it))


def _held(owner: object) -> list[Any]:
    return list(vars(owner).values())


@contextmanager
def as_written() -> Iterator[None]:
    """Run compiled functions as they are written inside, so that hooks of their modules are called."""
    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def compilations_forgotten() -> Iterator[None]:
    """Forget on leaving what was compiled, where something was compiled inside.

    What is compiled depends on what ran before: a shape that was seen twice makes graphs for any size, with other
    rounding, and after so many variants of a function torch compiles no more. What comes next compiles as if nothing
    had run, with what torch and its compiler keep on disk.
    """
    before = _frames_compiled()
    try:
        yield
    finally:
        if _frames_compiled() != before:
            torch.compiler.reset()


def _frames_compiled() -> int:
    # Whatever compiles imports it, and its import takes seconds.
    dynamo = sys.modules.get("torch._dynamo.utils")
    return 0 if dynamo is None else int(dynamo.counters["frames"]["total"])

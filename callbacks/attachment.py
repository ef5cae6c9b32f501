"""Methods that a fit puts on its module, and how they come off again."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from optselect.callbacks.lightning_names import lightning_of

if TYPE_CHECKING:
    import lightning.pytorch as pl


class Attachment:
    """What is attached to `module` for one fit."""

    def __init__(self, module: pl.LightningModule) -> None:
        self.module = module
        self._names: list[str] = []

    def provide(self, name: str, function: Callable[..., Any], by: Any) -> None:
        """Let `function(by, module, own, name, …)` stand for the method called `name`.

        `own` is what lay on the instance under that name (None: nothing). `function` is a plain one: Lightning looks
        at it to see whether the method is there.
        """
        own = vars(self.module).get(name)
        if isinstance(own, functools.partial) and own.func is getattr(type(self.module), name):
            own = None  # what a copy of an attached module has
        vars(self.module)[name] = _Provided(function, by, self.module, own, name)
        self._names.append(name)

    def users_own(self, name: str) -> Callable[..., Any] | None:
        """Return the module's own method behind the provided one; None: it has none but Lightning's."""
        module = self.module
        provided: _Provided = vars(module)[name]
        if provided.own is not None:
            return provided.own  # type: ignore[no-any-return]  # put on the instance, as LightningCLI does
        del vars(module)[name]
        try:
            there = lightning_of(module).is_overridden(name, module)
            return functools.partial(getattr(type(module), name), module) if there else None
        finally:
            vars(module)[name] = provided

    def take_off(self) -> None:
        """Give the module its own methods again."""
        for name in self._names:
            if isinstance(provided := vars(self.module).get(name), _Provided):
                provided.take_off()


class _Provided(functools.partial[Any]):
    """What is put on a module; its copies and pickles have the module's own there instead."""

    @property
    def own(self) -> Any:
        """What lay on the instance before (None: nothing)."""
        return self.args[2]

    def take_off(self) -> None:
        """Put the module's own there again."""
        _, module, own, name = self.args
        del vars(module)[name]
        if own is not None:
            vars(module)[name] = own

    def __reduce__(self) -> tuple[Any, ...]:
        _, module, own, name = self.args
        if own is None:
            return functools.partial, (getattr(type(module), name), module)
        # cast is a function of the standard library that returns what it is given.
        return cast, (object, own)

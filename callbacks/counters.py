"""The counters of Lightning's loops: batches, steps, epochs. Each training that is tried counts with its own."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from optselect.callbacks.lightning_names import lightning_of

Progress = tuple[tuple[object, str, Any], ...]
"""The loops' counters: loop, attribute and the object that counts."""


def fresh_progress(originals: Progress) -> None:
    """Give the loops copies of the `originals`: counters as they stood when the trainer was borrowed."""
    set_progress(tuple((loop, name, copy.deepcopy(value)) for loop, name, value in originals))


def progress_of(trainer: Any) -> Progress:
    """Return the loops' counters: the objects themselves, by loop and attribute."""
    progress = lightning_of(trainer)._BaseProgress
    return tuple(
        (loop, name, value)
        for loop in loops_of(trainer)
        for name, value in vars(loop).items()
        if isinstance(value, progress) or name == "_batches_that_stepped"
    )


def set_progress(progress: Progress) -> None:
    """Let the loops count with these objects."""
    for loop, name, value in progress:
        setattr(loop, name, value)


def stored_progress(trainer: Any) -> list[Any]:
    """Say what the loops' counters say, in builtins."""
    return [[name, _counted(value)] for _, name, value in progress_of(trainer)]


def restore_progress(trainer: Any, stored: list[Any]) -> None:
    """Let the counters say what they said."""
    for (loop, name, value), (_, counted) in zip(progress_of(trainer), stored, strict=True):
        if isinstance(value, int):
            setattr(loop, name, counted)
        else:
            value.load_state_dict(counted)


def _counted(value: Any) -> Any:
    return value if isinstance(value, int) else value.state_dict()


def loops_of(trainer: Any) -> Iterable[object]:
    """Return the loops of a training, the outermost first."""
    epoch_loop = trainer.fit_loop.epoch_loop
    return (
        trainer.fit_loop,
        epoch_loop,
        epoch_loop.automatic_optimization,
        epoch_loop.manual_optimization,
        epoch_loop.val_loop,
    )

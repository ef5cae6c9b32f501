"""The validation loaders of a Lightning training as trials see them: their first batches, drawn once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from optselect.callbacks.lightning_names import lightning_of
from optselect.workload.batches import BatchCache
from optselect.workload.loaders import trial_loader

if TYPE_CHECKING:
    from lightning.pytorch.utilities.combined_loader import CombinedLoader
else:
    CombinedLoader = object  # at run time that of the trainer's package, by `made_for`

# Of a huge validation set a fixed part is looked at: the same for all trials.
MAX_VALIDATION_BATCHES = 64


class TrialValidation(CombinedLoader):
    """The user's loaders to those who look at them; iterated it gives the same batches to every trial.

    It takes the place of the loop's own loaders. Together the loaders give at most 64 batches one after another, or 64
    at once where they are read side by side.
    """

    def __init__(self, val_loop: Any) -> None:
        combined = val_loop._combined_loader
        super().__init__(combined.iterables, combined._mode)
        in_turn = self._mode == "sequential"
        lengths = val_loop._max_batches
        limits = shares(lengths, MAX_VALIDATION_BATCHES) if in_turn else _capped(lengths)
        self._batches = [FirstBatches(each, most) for each, most in zip(combined.flattened, limits, strict=True)]
        val_loop._combined_loader, val_loop._max_batches = self, limits

    @property
    def count(self) -> int:
        """Count the batches of one validation."""
        return int(lightning_of(self)._SUPPORTED_MODES[self._mode]["fn"](list(map(len, self._batches))))

    def first(self, place: int) -> list[Any]:
        """Return the first batch of the loader at `place`, in a list that is empty where it has none."""
        return self._batches[place].first()

    def __iter__(self) -> TrialValidation:
        kind = lightning_of(self)._SUPPORTED_MODES[self._mode]["iterator"]
        self._iterator = kind(self._batches, self._limits)
        iter(self._iterator)
        return self

    def reset(self) -> None:
        """Leave the user's loaders alone."""
        self._iterator = None


class FirstBatches:
    """The first batches of a loader, at most so many, the same whenever it is iterated."""

    def __init__(self, loader: Iterable[Any], most: int) -> None:
        # A twin of a twin: what happens to the loader itself meanwhile, or to its sampler, must not count.
        twin = trial_loader(loader)
        self._cache = BatchCache(lambda: _ending(trial_loader(twin), most))
        self._length: int | None = None

    def __len__(self) -> int:
        if self._length is None:
            # A stream ends where it ends.
            self._length = next(index for index in itertools.count() if not self._cache[index])
        return self._length

    def first(self) -> list[Any]:
        """Return the first of them, in a list that is empty where there is none."""
        return list(self._cache[0])

    def __iter__(self) -> Iterator[Any]:
        return (self._cache[index][0] for index in range(len(self)))


def shares(lengths: Sequence[float], most: int) -> list[int]:
    """Say how many batches each of several loaders gives, `most` together, but one of each that has any."""
    limits = [0] * len(lengths)
    left = most
    for behind, index in enumerate(sorted(range(len(lengths)), key=lengths.__getitem__)):
        limits[index] = int(min(lengths[index], max(1, left // (len(lengths) - behind))))
        left -= limits[index]
    return limits


def _capped(lengths: Sequence[float]) -> list[int]:
    return [int(min(length, MAX_VALIDATION_BATCHES)) for length in lengths]


def _ending(loader: Iterable[Any], most: int) -> Iterator[tuple[Any, ...]]:
    """Yield the batches, each in a tuple, and then for ever an empty one."""
    for batch in itertools.islice(loader, most):
        yield (batch,)
    yield from itertools.repeat(())

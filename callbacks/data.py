"""A Lightning training's data as trials see them: the same batches each time, the real loaders untouched."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch.utils._pytree import tree_map

from optselect.callbacks.lightning_names import Lightning, lightning_of, made_for
from optselect.errors import UnsupportedModuleError
from optselect.workload.batches import BatchCache, TrialBatches
from optselect.workload.loaders import is_one_shot, loader_borrowed, rows_digest, trial_loader
from optselect.workload.protocol import DataSource
from optselect.workload.replay import RecordedLoader

if TYPE_CHECKING:
    from lightning.pytorch.trainer.connectors.data_connector import _DataLoaderSource
    from lightning.pytorch.utilities.combined_loader import CombinedLoader
else:
    CombinedLoader = object  # at run time that of the trainer's package, by `made_for`

# Of a huge validation set a fixed part is looked at: the same for all trials.
_MAX_VALIDATION_BATCHES = 64


class TrialData:
    """The loaders that Lightning sets up for a fit, set up for trials; given back when `stack` is left.

    batches             for training, in the order of each seed
    epoch_batches       batches in one epoch (None: not known)
    validates           whether there is a validation loader and a validation step
    validation_batches  batches looked at in the first validation loader; the others are left out
    replay              where the training data come from afterwards: what trials took from a stream that can
                        be read only once is there again (None: the real source is as it was)

    Raises `UnsupportedModuleError` when there is nothing to train on.
    """

    def __init__(self, trainer: Any, stack: ExitStack) -> None:
        lightning = lightning_of(trainer)
        fit_loop, val_loop = trainer.fit_loop, trainer.fit_loop.epoch_loop.val_loop
        fit_loop._data_source = UnopenedSource(fit_loop._data_source, stack, lightning)
        fit_loop._combined_loader = None
        fit_loop.setup_data()
        combined = fit_loop._combined_loader
        if combined is None:
            raise UnsupportedModuleError(
                "there are no training batches (limit_train_batches=0?), so nothing can be tried"
            )
        self.replay: _DataLoaderSource | None = None
        if any(map(is_one_shot, combined.flattened)):
            combined.flattened = [
                RecordedLoader(loader) if is_one_shot(loader) else loader for loader in combined.flattened
            ]
            again = lightning.CombinedLoader(combined.iterables, combined._mode)
            self.replay = lightning._DataLoaderSource(again, "train_dataloader")
        self._combined: CombinedLoader = combined
        length = fit_loop.max_batches
        self.epoch_batches = int(length) if length < math.inf else None
        self.batches = TrialBatches(
            lambda seed: _TrialEpochs(combined, seed, self.epoch_batches, lightning), epoch_batches=self.epoch_batches
        )
        self.validates = False
        self.validation_batches = 0
        if trainer.enable_validation:
            val_loop._combined_loader = None
            val_loop.setup_data()
            self.validates = val_loop._combined_loader is not None and sum(val_loop._max_batches) > 0
        if self.validates:
            self._cache_validation(val_loop, stack, lightning)

    @property
    def first_loader(self) -> Any:
        """The training loader, or the first of several."""
        return self._combined.flattened[0]

    def source(self) -> DataSource:
        """Return the training loader's data set, or its first batches when it has none that can be indexed."""
        source = DataSource.of(self.first_loader, batches=self.epoch_batches, head=self.batches.first)
        alone = len(self._combined.flattened) == 1
        return source if alone else replace(source, dataset=None, collate=None)

    def digest(self) -> str:
        """Digest the data set's size and a few of its rows."""
        return rows_digest(self.first_loader)

    def _cache_validation(self, val_loop: Any, stack: ExitStack, lightning: Lightning) -> None:
        loaders = list(val_loop._combined_loader.flattened)
        for loader in loaders:
            stack.enter_context(loader_borrowed(loader))
        self.validation_batches = int(min(val_loop._max_batches[0], _MAX_VALIDATION_BATCHES))
        first = _FirstBatches(BatchCache(lambda: trial_loader(loaders[0])), self.validation_batches)
        others: list[list[Any]] = [[] for _ in loaders[1:]]
        val_loop._combined_loader = lightning.CombinedLoader([first, *others], "sequential")
        val_loop._max_batches = [self.validation_batches, *(0 for _ in others)]


class UnopenedLoader(CombinedLoader):
    """A combined loader that Lightning can set up and measure, but whose iteration never starts.

    `FitLoop.setup_data` opens the loader it sets up, which draws random numbers, starts workers and takes
    batches out of streams; none of that may happen to the real one before the real run.
    """

    def __iter__(self) -> UnopenedLoader:
        # Made but not iterated: it knows the length.
        self._iterator = lightning_of(self)._SUPPORTED_MODES[self._mode]["iterator"](self.flattened, self._limits)
        return self

    def __next__(self) -> Any:
        raise StopIteration


class UnopenedSource:
    """A data source for `FitLoop.setup_data` that wraps what the real one gives into an `UnopenedLoader`.

    The loaders, their samplers and data sets are borrowed on `stack` before Lightning sees them: it opens
    a loader of a class that it does not know, to see whether it can.
    """

    def __init__(self, source: Any, stack: ExitStack, lightning: Lightning) -> None:
        self._source = source
        self._stack = stack
        self._lightning = lightning
        self.instance, self.name = source.instance, source.name

    def dataloader(self) -> CombinedLoader:
        """Return the real source's loaders, unopened."""
        loaders = self._source.dataloader()
        combined = isinstance(loaders, self._lightning.CombinedLoader)
        kind = made_for(self._lightning.CombinedLoader, UnopenedLoader)
        unopened = kind(*((loaders.iterables, loaders._mode) if combined else (loaders, "max_size_cycle")))
        for loader in unopened.flattened:
            self._stack.enter_context(loader_borrowed(loader))
        return unopened

    def is_defined(self) -> bool:
        """Answer as the real source does."""
        return bool(self._source.is_defined())

    def is_module(self) -> bool:
        """Answer as the real source does."""
        return bool(self._source.is_module())


class _TrialEpochs:
    """A twin of the training loaders; each iteration is one epoch, in the order the training would have."""

    def __init__(self, combined: CombinedLoader, seed: int, length: int | None, lightning: Lightning) -> None:
        twins = tree_map(lambda loader: trial_loader(loader, seed), combined.iterables)
        self._loader = lightning.CombinedLoader(twins, combined._mode)
        self._set_epoch = lightning._set_sampler_epoch
        self._loader.limits = combined.limits
        self._length = length
        self._epoch = 0

    def __iter__(self) -> Iterator[Any]:
        for loader in self._loader.flattened:
            self._set_epoch(loader, self._epoch)
        self._epoch += 1
        for batch, _, _ in itertools.islice(self._loader, self._length):
            yield batch


class _FirstBatches:
    """The first batches of a validation loader, the same for every trial."""

    def __init__(self, batches: BatchCache, count: int) -> None:
        self._batches = batches
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Any]:
        return (self._batches[index] for index in range(self._count))

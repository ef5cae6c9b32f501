"""A Lightning training's data as trials see them: the same batches each time, the real loaders untouched."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch.trainer.connectors.data_connector import _DataLoaderSource
from lightning.pytorch.utilities.combined_loader import _SUPPORTED_MODES, CombinedLoader
from torch.utils._pytree import tree_map

from optselect.errors import UnsupportedModuleError
from optselect.study.identity import Identity
from optselect.workload.batches import BatchCache, TrialBatches
from optselect.workload.identity import data_identity
from optselect.workload.loaders import is_one_shot, loader_borrowed, trial_loader
from optselect.workload.protocol import DataSource
from optselect.workload.replay import RecordedLoader

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
        fit_loop, val_loop = trainer.fit_loop, trainer.fit_loop.epoch_loop.val_loop
        fit_loop._data_source = UnopenedSource(fit_loop._data_source, stack)
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
            self.replay = _DataLoaderSource(CombinedLoader(combined.iterables, combined._mode), "train_dataloader")
        self._combined: CombinedLoader = combined
        length = fit_loop.max_batches
        self.epoch_batches = int(length) if length < math.inf else None
        self.batches = TrialBatches(
            lambda seed: _TrialEpochs(combined, seed, self.epoch_batches), epoch_batches=self.epoch_batches
        )
        self.validates = False
        self.validation_batches = 0
        self._validation: tuple[Any, BatchCache] | None = None
        if trainer.enable_validation:
            val_loop._combined_loader = None
            val_loop.setup_data()
            self.validates = val_loop._combined_loader is not None and sum(val_loop._max_batches) > 0
        if self.validates:
            self._cache_validation(val_loop, stack)

    @property
    def first_loader(self) -> Any:
        """The training loader, or the first of several."""
        return self._combined.flattened[0]

    def source(self) -> DataSource:
        """The training loader's data set, or its first batches when it has none that can be indexed."""
        source = DataSource.of(self.first_loader, batches=self.epoch_batches, head=self.batches.first)
        alone = len(self._combined.flattened) == 1
        return source if alone else replace(source, dataset=None, collate=None)

    def identity(self) -> Identity:
        """Of the training data and of the validation data that are looked at."""
        loaders = self._combined.flattened
        streams = not all(hasattr(getattr(loader, "dataset", loader), "__getitem__") for loader in loaders)
        heads = [self.batches.first(1)] if streams else []
        first, cache = self._validation or (None, None)
        if cache is None:
            return data_identity("training data", loaders, heads)
        # Drawn as the trials draw it, and kept for them.
        unindexed = not hasattr(getattr(first, "dataset", first), "__getitem__")
        return data_identity("training data", loaders, heads).merged(
            data_identity("validation data", [first], [[cache[0]]] if unindexed else [])
        )

    def _cache_validation(self, val_loop: Any, stack: ExitStack) -> None:
        loaders = list(val_loop._combined_loader.flattened)
        for loader in loaders:
            stack.enter_context(loader_borrowed(loader))
        self.validation_batches = int(min(val_loop._max_batches[0], _MAX_VALIDATION_BATCHES))
        cache = BatchCache(lambda: trial_loader(loaders[0]))
        self._validation = (loaders[0], cache)
        first = _FirstBatches(cache, self.validation_batches)
        others: list[list[Any]] = [[] for _ in loaders[1:]]
        val_loop._combined_loader = CombinedLoader([first, *others], "sequential")
        val_loop._max_batches = [self.validation_batches, *(0 for _ in others)]


class UnopenedLoader(CombinedLoader):
    """A combined loader that Lightning can set up and measure, but whose iteration never starts.

    `FitLoop.setup_data` opens the loader it sets up, which draws random numbers, starts workers and takes
    batches out of streams; none of that may happen to the real one before the real run.
    """

    def __iter__(self) -> UnopenedLoader:
        # Made but not iterated: it knows the length.
        self._iterator = _SUPPORTED_MODES[self._mode]["iterator"](self.flattened, self._limits)
        return self

    def __next__(self) -> Any:
        raise StopIteration


class UnopenedSource:
    """A data source for `FitLoop.setup_data` that wraps what the real one gives into an `UnopenedLoader`.

    The loaders, their samplers and data sets are borrowed on `stack` before Lightning sees them: it opens
    a loader of a class that it does not know, to see whether it can.
    """

    def __init__(self, source: Any, stack: ExitStack) -> None:
        self._source = source
        self._stack = stack
        self.instance, self.name = source.instance, source.name

    def dataloader(self) -> UnopenedLoader:
        """The real source's loaders, unopened."""
        loaders = self._source.dataloader()
        combined = isinstance(loaders, CombinedLoader)
        unopened = UnopenedLoader(*((loaders.iterables, loaders._mode) if combined else (loaders, "max_size_cycle")))
        for loader in unopened.flattened:
            self._stack.enter_context(loader_borrowed(loader))
        return unopened

    def is_defined(self) -> bool:
        """As the real source."""
        return bool(self._source.is_defined())

    def is_module(self) -> bool:
        """As the real source."""
        return bool(self._source.is_module())


class _TrialEpochs:
    """A twin of the training loaders; each iteration is one epoch, in the order the training would have."""

    def __init__(self, combined: CombinedLoader, seed: int, length: int | None) -> None:
        twins = tree_map(lambda loader: trial_loader(loader, seed), combined.iterables)
        self._loader = CombinedLoader(twins, combined._mode)
        self._loader.limits = combined.limits
        self._length = length
        self._epoch = 0

    def __iter__(self) -> Iterator[Any]:
        for loader in self._loader.flattened:
            _set_sampler_epoch(loader, self._epoch)
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

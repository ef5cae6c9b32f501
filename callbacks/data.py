"""A Lightning training's data as trials see them: the same batches each time, the real loaders untouched."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch.utils._pytree import tree_map

from optselect.callbacks.lightning_names import Lightning, lightning_of, made_for
from optselect.callbacks.validation import TrialValidation
from optselect.errors import UnsupportedModuleError
from optselect.study.identity import Identity
from optselect.workload.batches import TrialBatches, no_batch
from optselect.workload.identity import can_be_indexed, data_identity
from optselect.workload.loaders import is_one_shot, loader_borrowed, trial_loader
from optselect.workload.protocol import DataSource
from optselect.workload.replay import recorded

if TYPE_CHECKING:
    from lightning.pytorch.trainer.connectors.data_connector import _DataLoaderSource
    from lightning.pytorch.utilities.combined_loader import CombinedLoader
else:
    CombinedLoader = object  # at run time that of the trainer's package, by `made_for`

_log = logging.getLogger("optselect")


class TrialData:
    """The loaders that Lightning sets up for a fit, set up for trials; given back when `stack` is left.

    batches        for training, in the order of each seed
    epoch_batches  batches in one epoch (None: not known)
    validation     what the validation loop goes through (None: there is no validation loader or step)
    validation_is_empty  whether there is one that gives no batch
    replays        where data come from afterwards, by loop, that can be read only once: what trials took of them is
                   there again (empty: the real sources are as they were)

    Raises `UnsupportedModuleError` when there is nothing to train on.
    """

    def __init__(self, trainer: Any, stack: ExitStack) -> None:
        lightning = lightning_of(trainer)
        fit_loop, val_loop = trainer.fit_loop, trainer.fit_loop.epoch_loop.val_loop
        fit_loop._data_source = UnopenedSource(fit_loop._data_source, stack, "max_size_cycle", lightning)
        fit_loop._combined_loader = None
        fit_loop.setup_data()
        combined = fit_loop._combined_loader
        if combined is None:
            raise UnsupportedModuleError(
                "there are no training batches (limit_train_batches=0?), so nothing can be tried"
            )
        self._combined: CombinedLoader = combined
        length = fit_loop.max_batches
        self.epoch_batches = int(length) if length < math.inf else None
        if self.epoch_batches == 0:
            raise no_batch()
        self.replays = list(_replays(fit_loop, lightning))
        self.batches = TrialBatches(
            lambda seed: _TrialEpochs(combined, seed, self.epoch_batches, lightning), epoch_batches=self.epoch_batches
        )
        self.validation: TrialValidation | None = None
        self.validation_is_empty = False
        if trainer.enable_validation:
            val_loop._data_source = UnopenedSource(val_loop._data_source, stack, "sequential", lightning)
            val_loop._combined_loader = None
            val_loop.setup_data()
            if val_loop._combined_loader is not None and sum(val_loop._max_batches) > 0:
                self.replays += _replays(val_loop, lightning)
                self.validation = made_for(lightning.CombinedLoader, TrialValidation)(val_loop)
            elif val_loop._combined_loader is not None:
                self.validation_is_empty = True
                _log.info("the validation loader gives no batch; trials are judged by training batches held back")

    @property
    def first_loader(self) -> Any:
        """The training loader, or the first of several."""
        return self._combined.flattened[0]

    def source(self) -> DataSource:
        """Return the training loader's data set, or its first batches when it has none that can be indexed."""
        source = DataSource.of(self.first_loader, batches=self.epoch_batches, head=self.batches.first)
        alone = len(self._combined.flattened) == 1
        return source if alone else replace(source, dataset=None, collate=None)

    def identity(self) -> Identity:
        """Digest the data set's size and a few of its rows."""
        loaders = self._combined.flattened
        # A batch of several loaders holds what each gave.
        heads = [[] if can_be_indexed(loader) else self.batches.first(1) for loader in loaders]
        training = data_identity("training data", loaders, heads)
        if self.validation is None:
            return training
        validated = self.validation.flattened
        # Drawn as the trials draw them, and kept for them.
        heads = [
            [] if can_be_indexed(loader) else self.validation.first(place) for place, loader in enumerate(validated)
        ]
        return training.merged(data_identity("validation data", validated, heads))


def _replays(loop: Any, lightning: Lightning) -> Iterator[tuple[Any, _DataLoaderSource]]:
    """Yield the loop whose data can be read only once, with a source of the loaders that know what was read."""
    combined, name = loop._combined_loader, loop._data_source.name
    if any(map(is_one_shot, combined.flattened)):
        again = lightning.CombinedLoader(combined.iterables, combined._mode)
        yield loop, lightning._DataLoaderSource(again, name)


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
    """A data source for Lightning's loops that wraps what the real one gives into an `UnopenedLoader`.

    The loaders, their samplers and data sets are borrowed on `stack` before Lightning sees them: it opens
    a loader of a class that it does not know, to see whether it can. `mode` is how the loop combines several.
    """

    def __init__(self, source: Any, stack: ExitStack, mode: Any, lightning: Lightning) -> None:
        self._source = source
        self._stack = stack
        self._mode = mode
        self._lightning = lightning
        self.instance, self.name = source.instance, source.name

    def dataloader(self) -> CombinedLoader:
        """Return the real source's loaders, unopened."""
        loaders = self._source.dataloader()
        combined = isinstance(loaders, self._lightning.CombinedLoader)
        kind = made_for(self._lightning.CombinedLoader, UnopenedLoader)
        unopened = kind(*((loaders.iterables, loaders._mode) if combined else (loaders, self._mode)))
        unopened.flattened = [recorded(loader, self._stack) for loader in unopened.flattened]
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

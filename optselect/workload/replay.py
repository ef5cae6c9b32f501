"""A stream that can be read only once, replayed: what trials read of it is there again for the real run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader


class RecordedLoader:
    """Stands in for a loader that can be read only once: what trials read of it is there for the real run again.

    `reader` gives trials its epochs from the first on; iterating the loader itself gives the real run the
    same epochs, each going on in the live stream where the trials stopped. Other attributes are the loader's.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self._loader = loader
        self._epochs: list[list[Any]] = []
        self._live: Iterator[Any] = iter(())
        self._runs = 0

    @property  # type: ignore[misc]  # isinstance() says what the loader itself is
    def __class__(self) -> type:
        return type(self._loader)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._loader, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning gives a loader its worker_init_fn.
        own = name in ("_loader", "_epochs", "_live", "_runs")
        object.__setattr__(self if own else self._loader, name, value)

    def __len__(self) -> int:
        return len(self._loader)  # type: ignore[arg-type]  # a stream has no length, and says so here

    def __iter__(self) -> Iterator[Any]:
        # Opening a DataLoader draws a random number, as the run by hand would; opening an iterator does nothing.
        opened = iter(self._loader) if isinstance(self._loader, DataLoader) else None
        return self._run(opened)

    def _run(self, opened: Iterator[Any] | None) -> Iterator[Any]:
        # A generator, so that a run counts from its first batch: Lightning opens loaders to see whether it can.
        epoch, self._runs = self._runs, self._runs + 1
        if epoch < len(self._epochs):
            yield from self.epoch(epoch)
        else:
            yield from iter(self._loader) if opened is None else opened

    def reader(self) -> Iterable[Any]:
        """Return a reader for trials: each iteration of it is the next epoch, the first one first."""
        return _Reader(self)

    def epoch(self, index: int) -> Iterator[Any]:
        """Yield epoch `index` from its beginning: what was read of it, then what the stream still has."""
        if index == len(self._epochs):
            self._epochs.append([])
            self._live = iter(self._loader)
        read = self._epochs[index]
        position = 0
        while True:
            if position == len(read):
                if index + 1 < len(self._epochs) or (batch := next(self._live, None)) is None:
                    return
                read.append(batch)
            yield read[position]
            position += 1


class _Reader:
    def __init__(self, recorded: RecordedLoader) -> None:
        self._recorded = recorded
        self._next = 0

    def __iter__(self) -> Iterator[Any]:
        self._next += 1
        return self._recorded.epoch(self._next - 1)

"""Where the contents of tensors lie while others are in their place: beside them, in host memory, or on disk."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from optselect.parameters.sharding import local

Place = Literal["beside", "host", "disk"]


class Kept(Protocol):
    """The contents of some tensors."""

    def __iter__(self) -> Iterator[Tensor]:
        """Yield them one after another, in the order in which they were given; each is there until the next."""
        ...


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Keeps contents at `place`; on disk in files without a name in `folder`, which are gone with the process."""

    place: Place = "beside"
    folder: Path | None = None

    def keep(self, tensors: Sequence[Tensor]) -> Kept:
        """Copy what is here of `tensors`."""
        parts = map(local, tensors)
        if self.place == "disk":
            return _OnDisk(parts, self.folder)
        return _InHostMemory(parts) if self.place == "host" else [part.clone() for part in parts]


BESIDE = Shelf()


@dataclass(frozen=True, kw_only=True)
class ShelvedStates:
    """The states of optimizers whose memory was given back meanwhile."""

    tensors: Sequence[Tensor]
    kept: Kept

    @classmethod
    def of(cls, optimizers: Iterable[Optimizer], shelf: Shelf) -> ShelvedStates:
        """Put the states on `shelf`; until `take_back` they are not to be read."""
        optimizers = list(optimizers)
        trained = (each for optimizer in optimizers for group in optimizer.param_groups for each in group["params"])
        taken = {local(each).untyped_storage().data_ptr() for each in trained}
        tensors: list[Tensor] = []
        for slot in (slot for each in optimizers for state in each.state.values() for slot in state.values()):
            if isinstance(slot, Tensor) and _is_alone(part := local(slot), taken):
                tensors.append(part)
                taken.add(part.untyped_storage().data_ptr())
        kept = shelf.keep(tensors)
        for part in tensors:
            part.untyped_storage().resize_(0)
        return cls(tensors=tensors, kept=kept)

    def take_back(self) -> None:
        """Fill the states again."""
        for part, content in zip(self.tensors, self.kept, strict=True):
            part.untyped_storage().resize_(part.numel() * part.element_size())
            part.copy_(content, non_blocking=part.is_cuda)


class _InHostMemory:
    """Contents in host memory; from CUDA devices pinned, so that these copy while the host goes on.

    What a device is asked to do later to what was copied it does later: nobody waits but who reads the contents here.
    """

    def __init__(self, parts: Iterable[Tensor]) -> None:
        self._contents: list[Tensor] = []
        devices: dict[torch.device, None] = {}
        for part in parts:
            kept = torch.empty(part.shape, dtype=part.dtype, pin_memory=part.is_cuda)
            self._contents.append(kept.copy_(part, non_blocking=part.is_cuda))
            if part.is_cuda:
                # Its memory may be given back at once.
                part.record_stream(torch.cuda.current_stream(part.device))
                devices[part.device] = None
        self._copied = [torch.cuda.current_stream(device).record_event() for device in devices]

    def __iter__(self) -> Iterator[Tensor]:
        for copied in self._copied:
            copied.synchronize()
        yield from self._contents


class _OnDisk:
    """Contents in one file, read one by one."""

    def __init__(self, parts: Iterable[Tensor], folder: Path | None) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        # Without a name, so that a process that is killed leaves nothing.
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # it lives as long as what it keeps
        weakref.finalize(self, self._file.close)
        self._written = [(self._write(part), part.shape, part.dtype) for part in parts]

    def _write(self, part: Tensor) -> int:
        # Memory that NumPy has seen could not be given back, so it sees a copy.
        numbers = part.to("cpu", copy=True).contiguous().flatten().view(torch.uint8).numpy()
        numbers.tofile(self._file)
        return len(numbers)

    def __iter__(self) -> Iterator[Tensor]:
        place = 0
        for size, shape, dtype in self._written:
            # Another reading may have gone on meanwhile.
            self._file.seek(place)
            content = torch.empty(shape, dtype=dtype)
            if size:
                content = torch.from_numpy(np.fromfile(self._file, dtype=np.uint8, count=size)).view(dtype).view(shape)
            yield content
            place += size


def _is_alone(part: Tensor, taken: Collection[int]) -> bool:
    """Tell whether nothing else lies in its memory, as far as is known, and that is worth giving back."""
    if part.numel() <= 1 or part.layout is not torch.strided:
        return False
    memory = part.untyped_storage()
    return memory.nbytes() == part.numel() * part.element_size() and memory.data_ptr() not in taken

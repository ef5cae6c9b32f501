"""Reading a loader for trials without moving the loader itself."""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar, get_args

import numpy as np
import torch
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, IterableDataset

from optselect.workload.borrowed_model import attributes_restored
from optselect.workload.replay import Reader, RecordedIterator, held, is_file_by_name, parts, reopened
from optselect.workload.rng import Generator, generators_restored

T = TypeVar("T")
_GENERATORS = get_args(Generator)


def trial_loader(loader: Iterable[Any], seed: int = 0) -> Iterable[Any]:
    """Make a twin of `loader` for trials, iterated once for each epoch.

    A DataLoader's twin has no persistent workers (the loader's own would be left in the middle of an epoch, which
    silently shortened the real run: measured), shallow copies of the data set of a stream and of the
    samplers, so that a position they keep on themselves stays where it was, and generators of its own:
    clones for `seed` 0, seeded ones otherwise.
    """
    if isinstance(loader, RecordedIterator | Reader):
        return loader.reader()
    generators: dict[int, Any] = {}
    twin = _twin(loader, generators, seed)
    if not isinstance(twin, DataLoader) or not isinstance(loader, DataLoader):
        return twin
    # Straight into __dict__: a DataLoader refuses to change these after __init__.
    vars(twin).update(_iterator=None, persistent_workers=False)
    if isinstance(loader.dataset, IterableDataset):
        vars(twin)["dataset"] = _twin(loader.dataset, generators, seed)
    for name in ("sampler", "batch_sampler"):
        sampler = _twin(getattr(loader, name), generators, seed)
        if hasattr(sampler, "sampler"):
            sampler.sampler = _twin(sampler.sampler, generators, seed)
        vars(twin)[name] = sampler
    return twin


def is_one_shot(loader: Iterable[Any]) -> bool:
    """Tell whether what is read from `loader` is gone: an iterator, or one that it or its data set holds."""
    dataset = getattr(loader, "dataset", None)
    files = vars(dataset).values() if isinstance(dataset, IterableDataset) else ()
    return isinstance(loader, Iterator) or any(map(is_file_by_name, files)) or any(True for _ in held(loader))


def _twin(owner: T, generators: dict[int, Any], seed: int) -> T:
    try:
        twin = copy.copy(owner)
    except Exception:  # noqa: BLE001  # an object of another library that cannot be copied is used as it is
        return owner
    for name, value in vars(owner).items() if hasattr(owner, "__dict__") else ():
        if isinstance(value, _GENERATORS):
            # A loader and its sampler share one generator; so do their twins.
            if id(value) not in generators:
                generators[id(value)] = _cloned(value, seed)
            vars(twin)[name] = generators[id(value)]
        elif isinstance(value, DataLoader):
            vars(twin)[name] = trial_loader(value, seed)
        elif type(value) in (list, tuple, dict) and any(True for _ in _held_loaders(value)):
            vars(twin)[name] = tree_map(lambda held: trial_loader(held, seed) if _is_loader(held) else held, value)
        elif is_file_by_name(value):
            vars(twin)[name] = reopened(value, twin)
        elif any(map(_is_read_anew, parts(value))):
            # As deep as it is held: gluonts slices a stream of transformed rows.
            vars(twin)[name] = _anew(value, generators, seed)
        elif _is_order(value) and not isinstance(owner, DataLoader):
            # Many samplers shuffle a list of theirs in place.
            vars(twin)[name] = copy.copy(value) if not isinstance(value, torch.Tensor) else value.clone()
    return twin


def _is_read_anew(value: Any) -> bool:
    """Tell whether trials need a twin of it to read what is recorded from the first on."""
    if isinstance(value, RecordedIterator | Reader):
        return True
    return not isinstance(value, Iterator | DataLoader) and any(True for _ in held(value))


def _anew(value: Any, twins: dict[int, Any], seed: int) -> Any:
    if isinstance(value, RecordedIterator | Reader):
        return value.reader()
    if type(value) is dict:
        return {key: _anew(part, twins, seed) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_anew(part, twins, seed) for part in value)
    if not _is_read_anew(value):
        return value
    if id(value) not in twins:
        twins[id(value)] = value  # one that holds itself ends here
        twins[id(value)] = _twin(value, twins, seed)
    return twins[id(value)]


def _is_order(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.ndim == 1 and not value.is_floating_point()
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype.kind in "iu"
    return type(value) in (list, dict, set, deque)


def _cloned(generator: Generator, seed: int) -> Generator:
    if isinstance(generator, torch.Generator):
        clone = generator.clone_state()
        return clone.manual_seed(seed) if seed else clone
    if not seed:
        return copy.deepcopy(generator)
    if isinstance(generator, np.random.Generator):
        return np.random.Generator(type(generator.bit_generator)(seed))
    return random.Random(seed) if isinstance(generator, random.Random) else np.random.RandomState(seed)


def _is_loader(value: Any) -> bool:
    return isinstance(value, DataLoader)


def _held_loaders(value: Any) -> Iterator[DataLoader[Any]]:
    """Yield the DataLoaders that an attribute of a loader made of others is, or holds in a list, tuple or dict."""
    parts = value.values() if type(value) is dict else value if type(value) in (list, tuple) else (value,)
    yield from filter(_is_loader, parts)


@contextmanager
def loader_borrowed(loader: Any) -> Iterator[None]:
    """Leave the loader, its samplers, its data set and their generators as they came."""
    with ExitStack() as stack:
        stack.enter_context(generators_restored(loader_generators(loader)))
        for part in (loader, *loader_parts(loader)):
            if hasattr(part, "__dict__"):
                stack.enter_context(attributes_restored(part))
        yield


def loader_parts(loader: Any) -> tuple[Any, ...]:
    """List the samplers and the data set of `loader`, where it has them; and of the DataLoaders it is made of."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    parts = (getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    own = tuple(part for part in (*parts, getattr(loader, "dataset", None)) if part is not None)
    held = [inner for value in _attributes(loader) for inner in _held_loaders(value)]
    return (*own, *(part for inner in held for part in (inner, *loader_parts(inner))))


def loader_generators(loader: Any) -> Iterator[Generator]:
    """Yield the random generators that `loader`, its samplers and its data set hold."""
    for owner in (loader, *loader_parts(loader)):
        for value in _attributes(owner):
            if isinstance(value, _GENERATORS):
                yield value


def _attributes(owner: Any) -> tuple[Any, ...]:
    return tuple(vars(owner).values()) if hasattr(owner, "__dict__") else ()

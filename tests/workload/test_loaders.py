"""Reading a loader for trials without moving it."""

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler

from optselect.workload.loaders import is_one_shot, loader_generators, trial_loader
from optselect.workload.replay import recorded
from optselect.workload.rng import rng_isolated, seed_rng
from tests.support.cases import case
from tests.support.loaders import DATA, LOADERS, Own, Stream

every_loader = pytest.mark.parametrize("made", LOADERS.values(), ids=LOADERS.keys())


def epochs(loader: Any, count: int = 2, seed: int = 11) -> list[Any]:
    """What `count` epochs give under this seed of the global generators."""
    with rng_isolated():
        seed_rng(seed)
        return [_plain(batch) for _ in range(count) for batch in loader]


def _plain(batch: Any) -> Any:
    return batch.tolist() if isinstance(batch, Tensor) else [part.tolist() for part in batch]


@every_loader
def test_the_twin_gives_what_the_loader_would_have_given(made: Callable[[], Any]) -> None:
    assert epochs(trial_loader(made())) == epochs(made())


@every_loader
def test_the_loader_gives_afterwards_what_it_would_have_given(made: Callable[[], Any]) -> None:
    loader = made()

    epochs(trial_loader(loader), count=3)
    epochs(trial_loader(loader, seed=1))

    assert epochs(loader) == epochs(made())


def test_each_twin_of_a_seed_gives_the_same() -> None:
    for (name, made), seed in product(LOADERS.items(), (0, 5)):
        with case(name, seed):
            loader = made()

            assert epochs(trial_loader(loader, seed)) == epochs(trial_loader(loader, seed))


@pytest.mark.parametrize(
    "name",
    ["generator", "batch sampler", "in place, Random", "in place, numpy", "in place, legacy", "own class", "wrapped"],
)
def test_another_seed_gives_another_order_where_a_generator_is_kept(name: str) -> None:
    loader = LOADERS[name]()

    assert epochs(trial_loader(loader, 1)) != epochs(trial_loader(loader, 2)) != epochs(trial_loader(loader))


def test_persistent_workers_of_the_loader_are_left_alone() -> None:
    def made() -> DataLoader[Any]:
        return DataLoader(DATA, batch_size=4, shuffle=True, num_workers=1, persistent_workers=True)

    loader = made()
    with rng_isolated():
        seed_rng(11)
        iterator = iter(loader)
        first = [_plain(next(iterator))]
        twin = iter(trial_loader(loader))
        next(twin)
        del twin
        rest = [_plain(batch) for batch in iterator]
    workers = loader._iterator

    assert first + rest == epochs(made(), count=1)
    assert workers is iterator


def test_the_data_are_shared_not_copied() -> None:
    twin = trial_loader(DataLoader(DATA, batch_size=4))

    assert isinstance(twin, DataLoader)
    assert twin.dataset is DATA


def test_what_cannot_be_copied_is_used_as_it_is() -> None:
    class Stubborn:
        def __reduce_ex__(self, version: Any) -> Any:
            raise TypeError("no copies")

        def __iter__(self) -> Iterator[int]:
            return iter([1])

    loader = Stubborn()

    assert trial_loader(loader) is loader


def test_every_generator_around_a_loader_is_found() -> None:
    generators = [torch.Generator(), np.random.default_rng(0), random.Random(0)]
    sampler = RandomSampler(DATA, generator=generators[0])
    loader = DataLoader(DATA, batch_sampler=BatchSampler(sampler, 4, drop_last=False))
    stream = Stream()
    stream.rng = generators[1]  # type: ignore[attr-defined]
    own = Own()
    own.generator = generators[2]  # type: ignore[assignment]

    found = [*loader_generators(loader), *loader_generators(DataLoader(stream)), *loader_generators(own)]

    assert all(any(each is one for one in found) for each in generators)


@pytest.mark.parametrize("loader", [iter([1]), (x for x in [1]), map(str, [1])], ids=["iterator", "generator", "map"])
def test_an_iterator_is_one_shot(loader: Any) -> None:
    assert is_one_shot(loader)


def test_a_stream_over_an_iterator_is_one_shot_and_one_that_can_begin_anew_is_not() -> None:
    held = Stream()
    held.source = iter([1])  # type: ignore[attr-defined]

    assert is_one_shot(DataLoader(held))
    assert not any(is_one_shot(made()) for made in LOADERS.values())


class OneShot(IterableDataset[Tensor]):
    """Two epochs' worth of a source that is gone once read."""

    def __init__(self) -> None:
        self.source = iter(range(100, 112))

    def __iter__(self) -> Iterator[Tensor]:
        for _, value in zip(range(6), self.source, strict=False):
            yield torch.tensor([value])


class Slice:
    """So many batches of an iterator at a time, as gluonts gives them: no iterator itself, and without a length."""

    def __init__(self) -> None:
        self.iterable = (torch.tensor([value]) for value in range(100, 112))

    def __iter__(self) -> Iterator[Tensor]:
        return islice(self.iterable, 6)


class Deep:
    """Holds what holds the iterator, in a list."""

    def __init__(self) -> None:
        self.parts = [Slice()]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.parts[0])


READ_ONCE: dict[str, Callable[[], Any]] = {
    "data set": lambda: DataLoader(OneShot(), batch_size=1),
    "loader": Slice,
    "deep in the loader": Deep,
    "iterator": lambda: (torch.tensor([value]) for value in range(100, 112)),
}


@pytest.mark.parametrize("drawn", [0, 1, 4, 6, 9])
@pytest.mark.parametrize("made", READ_ONCE.values(), ids=READ_ONCE.keys())
def test_the_run_finds_all_that_trials_read_of_an_iterator_and_then_goes_on(
    made: Callable[[], Any], drawn: int
) -> None:
    def read(loader: Any, counts: tuple[int, ...] = (2, 1, 12)) -> list[list[int]]:
        # A run may leave an epoch early, as Lightning's sanity check does.
        return [[batch.item() for batch in islice(loader, count)] for count in counts]

    loader = made()
    assert is_one_shot(loader)
    with ExitStack() as stack:
        loader = recorded(loader, stack)
        for _ in range(2):
            twin = trial_loader(loader)
            trial = (batch.item() for _ in range(2) for batch in twin)
            assert list(islice(trial, drawn)) == list(range(100, 100 + drawn))

    assert read(loader) == read(made())


def test_an_iterator_that_no_trial_reads_is_put_back() -> None:
    loader = DataLoader(OneShot(), batch_size=1)
    source = loader.dataset.source  # type: ignore[attr-defined]

    with ExitStack() as stack:
        recorded(loader, stack)
        trial_loader(loader)

    assert loader.dataset.source is source  # type: ignore[attr-defined]


def test_each_reader_of_an_open_file_has_its_own_place_in_it(tmp_path: Path) -> None:
    class Lines(IterableDataset[str]):
        def __init__(self) -> None:
            (tmp_path / "rows.txt").write_text("one\ntwo\nthree\n")
            self.file = (tmp_path / "rows.txt").open()

        def __iter__(self) -> Iterator[str]:
            self.file.seek(0)
            return (line.strip() for line in iter(self.file.readline, ""))

    loader = DataLoader(Lines(), batch_size=None)
    one, other = iter(trial_loader(loader)), iter(trial_loader(loader))

    with loader.dataset.file:  # type: ignore[attr-defined]
        assert [next(one), next(other), next(one)] == ["one", "one", "two"]
        assert list(loader) == ["one", "two", "three"]


def test_a_loader_made_of_others_stays_where_it_was() -> None:
    class InTurn:
        def __init__(self) -> None:
            generators = (torch.Generator().manual_seed(seed) for seed in (3, 4))
            self.parts = [DataLoader(DATA, batch_size=8, shuffle=True, generator=each) for each in generators]

        def __iter__(self) -> Iterator[Any]:
            return (batch for part in self.parts for batch in part)

    loader = InTurn()
    trial = [batch[0].tolist() for batch in trial_loader(loader)]

    assert len(list(loader_generators(loader))) >= 2
    assert [batch[0].tolist() for batch in loader] == trial

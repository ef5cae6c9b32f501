"""Where a second copy of a process's parts lies, and that it comes back from there to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from optselect.workload.borrowed_model import BorrowedModel
from optselect.workload.room import Free, room_for
from optselect.workload.shelf import Place, Shelf, ShelvedStates

GIB = 2**30


@pytest.mark.parametrize(
    "free, place",
    [
        (Free(device=6 * GIB, host=0, disk=0), "beside"),
        (Free(device=5 * GIB, host=4 * GIB, disk=100 * GIB), "host"),
        (Free(device=5 * GIB, host=3 * GIB, disk=4 * GIB), "disk"),
        (Free(device=5 * GIB, host=3 * GIB, disk=3 * GIB), None),
        (Free(device=None, host=None, disk=None), None),
    ],
)
def test_a_copy_lies_where_the_training_fits_beside_it(free: Free, place: str | None, tmp_path: Path) -> None:
    """The copy is of one GiB; beside the weights four times as much has to be in three quarters of what is free."""
    room = room_for(GIB, free, tmp_path)

    assert (room.shelf.place if room.shelf is not None else None) == place
    assert "GiB" in room.said


@pytest.mark.parametrize("asked", ["beside", "host", "disk"])
def test_a_copy_lies_where_it_was_asked_for_or_nowhere(asked: Place, tmp_path: Path) -> None:
    roomy, full = Free(device=9 * GIB, host=9 * GIB, disk=9 * GIB), Free(device=0, host=0, disk=0)

    there, nowhere = (room_for(GIB, free, tmp_path, asked) for free in (roomy, full))

    assert there.shelf is not None
    assert there.shelf.place == asked
    assert nowhere.shelf is None
    assert "as was asked for" in nowhere.said


def test_what_lies_on_disk_already_leaves_less_for_trials(tmp_path: Path) -> None:
    room = room_for(GIB, Free(device=0, host=0, disk=8 * GIB), tmp_path)

    assert room.aside_bytes == GIB


def test_several_processes_have_what_the_poorest_has() -> None:
    several = [Free(device=3, host=5, disk=None), Free(device=4, host=2, disk=1)]

    assert Free.least(several) == Free(device=3, host=2, disk=None)


@pytest.mark.parametrize("place", ["beside", "host", "disk"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool, torch.complex64])
def test_contents_come_back_from_every_shelf(place: str, dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = [torch.randn(3, 4).mul(9).to(dtype).t(), torch.ones((), dtype=dtype), torch.empty(0, dtype=dtype)]

    kept = Shelf(place=place, folder=tmp_path).keep(tensors)  # type: ignore[arg-type]  # one of the three

    for _ in range(2):
        assert all(torch.equal(one, other) for one, other in zip(tensors, kept, strict=True))
    assert list(tmp_path.iterdir()) == []


def test_states_on_a_shelf_take_no_memory_and_come_back(tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    slots = [slot for state in optimizer.state.values() for slot in state.values()]
    before = [slot.clone() for slot in slots]

    states = ShelvedStates.of([optimizer], Shelf(place="disk", folder=tmp_path))

    assert {slot.untyped_storage().nbytes() for slot in slots if slot.numel() > 1} == {0}
    states.take_back()
    assert all(map(torch.equal, slots, before))


def test_a_borrowed_model_comes_back_from_disk(tmp_path: Path) -> None:
    model = nn.Linear(4, 3)
    before = model.weight.clone()
    disk = Shelf(place="disk", folder=tmp_path)
    borrowed = BorrowedModel(model, shelf=disk, aside=disk)
    nn.init.zeros_(model.weight)

    paused = borrowed.pause()
    borrowed.begin()
    begun = model.weight.clone()
    borrowed.resume(paused)
    resumed = model.weight.clone()
    borrowed.restore()

    assert torch.equal(begun, before)
    assert not resumed.any()
    assert torch.equal(model.weight, before)

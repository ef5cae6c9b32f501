"""Room for a second copy of what a process holds of a model, as a share of what is free."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from optselect.words import format_gibibytes
from optselect.workload.shelf import BESIDE, Place, Shelf

# A training takes a gradient and, mostly, two numbers of state beside each weight, and activations besides.
_TRAINING = 3
# Of what is free. Loaders and their workers live in host memory, and checkpoints are to be written.
_SHARE: Mapping[Place, float] = {"beside": 0.75, "host": 0.25, "disk": 0.25}
_WHERE: Mapping[Place, str] = {"beside": "beside them", "host": "in host memory", "disk": "on disk"}
_BOUND: Mapping[Place, str] = {"beside": "{times} times as much is in", "host": "it is in", "disk": "it is in"}


@dataclass(frozen=True, kw_only=True)
class Free:
    """What is free for one of the processes that share it, in bytes (None: not known, or there is none).

    device  where the weights live
    host    memory of the machine
    disk    in the training's folder
    """

    device: int | None
    host: int | None
    disk: int | None

    @classmethod
    def least(cls, several: Sequence[Free]) -> Free:
        """Return what each of several processes has at least."""

        def least(values: Sequence[int | None]) -> int | None:
            known = [value for value in values if value is not None]
            return min(known) if len(known) == len(values) else None

        return cls(
            device=least([each.device for each in several]),
            host=least([each.host for each in several]),
            disk=least([each.disk for each in several]),
        )


@dataclass(frozen=True, kw_only=True)
class Room:
    """Where copies lie while trials run.

    shelf        for the weights that the search began with (None: there is no room for them)
    aside        for trials that are put aside
    aside_bytes  that these may take together
    copy         bytes of the weights of one process
    free         by which that was decided
    asked        where the weights were to be put aside (None: wherever there is room)
    seconds      that putting the weights aside took (None: it was not done yet)
    """

    shelf: Shelf | None
    aside: Shelf
    aside_bytes: int
    copy: int
    free: Free
    asked: Place | None = None
    seconds: float | None = None

    @property
    def said(self) -> str:
        """All that, but for the time, in a sentence."""
        free = {
            "beside": format_gibibytes(self.free.device or 0),
            "host": format_gibibytes(self.free.host or 0),
            "disk": format_gibibytes(self.free.disk or 0),
        }
        size = format_gibibytes(self.copy)
        if self.shelf is None and self.asked is not None:
            return (
                f"a copy of the weights, {size} on each process, has no room {_WHERE[self.asked]}, as was asked for: "
                f"free are {free[self.asked]} there"
            )
        if self.shelf is None:
            return (
                f"a copy of the weights, {size} on each process, has no room: free are {free['beside']} beside them, "
                f"where the training is to fit, too, {free['host']} in host memory and {free['disk']} on disk"
            )
        place, aside = self.shelf.place, self.aside.place
        bound = _BOUND[place].format(times=1 + _TRAINING)
        return (
            f"the weights of each process, {size}, are put aside once {_WHERE[place]} ({bound} {_SHARE[place]:.0%} of "
            f"the {free[place]} that are free there); trials that wait take up to {format_gibibytes(self.aside_bytes)} "
            f"{_WHERE[aside]} ({_SHARE[aside]:.0%} of what is free there)"
        )


def room_for(copy: int, free: Free, folder: Path | None, asked: Place | None = None) -> Room:
    """Find room for a copy of `copy` bytes: beside the weights, in host memory, or in `folder` on disk.

    Beside them the training has to fit, too: its gradients and two numbers of state for each weight, within three
    quarters of what is free. Of host memory and of the disk a quarter of what is free counts. The copy lies where it
    was `asked` for, or nowhere (None: at the first place that has room).
    """
    free = free if folder is not None else replace(free, disk=None)
    on_disk = int(_SHARE["disk"] * (free.disk or 0))
    in_host = int(_SHARE["host"] * (free.host or 0))
    fits: dict[Place, bool] = {
        "beside": (1 + _TRAINING) * copy <= _SHARE["beside"] * (free.device or 0),
        "host": copy <= in_host,
        "disk": copy <= on_disk,
    }
    place = next((place for place, has_room in fits.items() if has_room and asked in (None, place)), None)
    if place is None:
        return Room(shelf=None, aside=BESIDE, aside_bytes=0, copy=copy, free=free, asked=asked)
    in_host -= copy if place == "host" else 0
    on_disk -= copy if place == "disk" else 0
    shelves: dict[Place, Shelf] = {
        "beside": BESIDE,
        "host": Shelf(place="host"),
        "disk": Shelf(place="disk", folder=folder),
    }
    aside: Place = "disk" if on_disk >= in_host or on_disk > copy else "host"
    aside_bytes = on_disk if aside == "disk" else in_host
    return Room(shelf=shelves[place], aside=shelves[aside], aside_bytes=aside_bytes, copy=copy, free=free, asked=asked)


def room_of(workload: object) -> Room | None:
    """Return the room that `workload` has found for copies of a model that is cut; None: of one that is not."""
    # A workload of somebody else's may be older than the attribute.
    room: Room | None = getattr(workload, "room", None)
    return room


def obstacle_to_trials(workload: object) -> str | None:
    """Say why no trial of `workload` can be undone; None: any can."""
    room = room_of(workload)
    return None if room is None or room.shelf is not None else room.said


def free_for(processes: int, device: torch.device, folder: Path | None) -> Free:
    """Measure what is free here for one of `processes` on this machine, which share all but their devices."""
    host = memory_free(torch.device("cpu"))
    shared = None if host is None else host // processes
    try:
        disk = None if folder is None else shutil.disk_usage(_there(folder)).free // processes
    except OSError:
        disk = None
    return Free(device=shared if device.type == "cpu" else memory_free(device), host=shared, disk=disk)


def _there(folder: Path) -> Path:
    return next((each for each in (folder, *folder.absolute().parents) if each.exists()), folder)


def memory_free(device: torch.device) -> int | None:
    """Return the bytes free on `device`; for the CPU what Linux calls available. None: not known."""
    try:
        if device.type == "cuda":
            return int(torch.cuda.mem_get_info(device)[0])
        if device.type == "cpu":
            return _host_memory_free()
    except (OSError, RuntimeError, ValueError):
        return None
    return None


def _host_memory_free() -> int:
    # MemAvailable counts the page cache, which the kernel gives back; SC_AVPHYS_PAGES does not, and is always
    # small on a machine that has read files.
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

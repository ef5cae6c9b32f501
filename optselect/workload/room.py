"""Room for a second copy of what a process holds of a model, as a share of what is free."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from optselect.words import format_gibibytes
from optselect.workload.shelf import BESIDE, Shelf

# A training takes a gradient and, mostly, two numbers of state beside each weight, and activations besides.
_TRAINING = 3
_SHARE_OF_DEVICE = 0.75
# Loaders and their workers live in host memory, and checkpoints are to be written.
_SHARE_OF_HOST = _SHARE_OF_DISK = 0.25


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
    said         all that in a sentence
    """

    shelf: Shelf | None
    aside: Shelf
    aside_bytes: int
    said: str


def room_for(copy: int, free: Free, folder: Path | None) -> Room:
    """Find room for a copy of `copy` bytes: beside the weights, in host memory, or in `folder` on disk.

    Beside them the training has to fit, too: its gradients and two numbers of state for each weight, within three
    quarters of what is free. Of host memory and of the disk a quarter of what is free counts.
    """
    device, host, disk = free.device or 0, free.host or 0, (free.disk or 0) if folder is not None else 0
    on_disk = int(_SHARE_OF_DISK * disk)
    in_host = int(_SHARE_OF_HOST * host)
    size = format_gibibytes(copy)
    if (1 + _TRAINING) * copy <= _SHARE_OF_DEVICE * device:
        shelf, where = BESIDE, f"beside them, of {format_gibibytes(device)} that are free there"
    elif copy <= in_host:
        shelf, where = Shelf(place="host"), f"in host memory, of {format_gibibytes(host)} that are free there"
        in_host -= copy
    elif copy <= on_disk:
        shelf, where = Shelf(place="disk", folder=folder), f"on disk, of {format_gibibytes(disk)} that are free there"
        on_disk -= copy
    else:
        said = (
            f"a copy of the weights, {size} on each process, has no room: free are {format_gibibytes(device)} beside "
            f"them, where the training is to fit, too, {format_gibibytes(host)} in host memory and "
            f"{format_gibibytes(disk)} on disk"
        )
        return Room(shelf=None, aside=BESIDE, aside_bytes=0, said=said)
    aside = Shelf(place="disk", folder=folder) if on_disk >= in_host or on_disk > copy else Shelf(place="host")
    aside_bytes = on_disk if aside.place == "disk" else in_host
    said = (
        f"the weights of each process are put aside once, {size} {where}; trials that wait take up to "
        f"{format_gibibytes(aside_bytes)} {'on disk' if aside.place == 'disk' else 'in host memory'}"
    )
    return Room(shelf=shelf, aside=aside, aside_bytes=aside_bytes, said=said)


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

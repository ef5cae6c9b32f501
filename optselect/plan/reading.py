"""Reading one entry of a checkpoint without the rest: no code is run, no tensor is loaded, and torch is not needed.

A checkpoint may hold objects of any class among its hyperparameters. They are none of ours: each is read as an
`Opaque`, which does nothing.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from optselect.errors import ResumeError

# What torch.save wrote before its zip files: a magic number, the protocol and the machine, before what was saved.
_HEADERS_OF_OLD = 3


class Opaque:
    """Stands for whatever is not a builtin. `name`: the class or function that the file names."""

    name = ""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __new__(cls, *_: Any, **__: Any) -> Opaque:  # noqa: PYI034  # a pickle calls any of its classes
        """Take any arguments."""
        return object.__new__(cls)

    def __call__(self, *_: Any, **__: Any) -> Opaque:
        """Do nothing."""
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        """Take what a pickle adds to a list of its own kind."""

    def extend(self, values: Any) -> None:
        """Take what a pickle adds to a list of its own kind."""

    def add(self, value: Any) -> None:
        """Take what a pickle adds to a set of its own kind."""


def _bytes(text: str, *_: Any) -> bytes:
    return text.encode("latin-1")


# As which torch's pickles write bytes and ordered dictionaries, of which our own entry has some.
_HARMLESS: Mapping[tuple[str, str], Any] = {("_codecs", "encode"): _bytes, ("collections", "OrderedDict"): OrderedDict}


class _Reader(pickle.Unpickler):
    """Builtins as they are, everything else as an `Opaque`."""

    def find_class(self, module: str, name: str) -> Any:
        return _HARMLESS.get((module, name)) or type("Opaque", (Opaque,), {"name": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        # Of old, the classes of modules went this way, with their source.
        is_class = (
            isinstance(pid, tuple) and len(pid) > 1 and isinstance(pid[1], type) and pid[0] in ("module", b"module")
        )
        return pid[1] if is_class else Opaque()


def checkpoint_skeleton(file: Path) -> Any:
    """Read the builtins in a checkpoint, everything else in it as an `Opaque`.

    Raises `OSError` for a file that cannot be opened, and `ResumeError` for one that is no checkpoint.
    """
    try:
        with file.open("rb") as opened:
            return _of_zip(opened) if zipfile.is_zipfile(opened) else _of_old(opened)
    except OSError:
        raise
    # A pickle that is cut off, or made up, may fail in any way.
    except Exception as error:
        first = str(error).partition("\n")[0]
        raise ResumeError(
            f"{file} cannot be read as a checkpoint ({type(error).__name__}: {first}); pass a .ckpt file that "
            "Lightning wrote, or the plan.json that was written beside it"
        ) from error


def _of_zip(opened: BinaryIO) -> Any:
    with zipfile.ZipFile(opened) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(names) != 1:
            raise ValueError("there is no data.pkl in it")
        with archive.open(names[0]) as entry:
            return _Reader(entry).load()  # which builds builtins alone


def _of_old(opened: BinaryIO) -> Any:
    opened.seek(0)
    for _ in range(_HEADERS_OF_OLD):
        _Reader(opened).load()  # as above
    return _Reader(opened).load()  # as above


def opaque_in(value: Any) -> str | None:
    """Name something in `value` that is no builtin; None: there is nothing."""
    return next(_opaque(value), None)


def _opaque(value: Any) -> Iterator[str]:
    waiting, seen = [value], set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, Opaque) or (isinstance(each, type) and issubclass(each, Opaque)):
            yield each.name or "a tensor"
        elif isinstance(each, Mapping):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, list | tuple | set | frozenset):
            waiting += each

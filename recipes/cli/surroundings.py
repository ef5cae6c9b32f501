"""What is about a command while it runs: the import path, signals, messages and passwords."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from optselect.callbacks.lightning_names import installed
from optselect.words import without_passwords


@contextmanager
def here_importable() -> Iterator[None]:
    """Let a config name modules in the current folder, as with `python script.py`."""
    here = os.getcwd()  # noqa: PTH109  # sys.path holds strings
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


@contextmanager
def passwords_hidden() -> Iterator[None]:
    """Hide every password in what the parser prints (--help, --print_config), even one out of the environment."""
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            yield
    finally:
        print(without_passwords(said.getvalue()), end="")


@contextmanager
def sigint_restored() -> Iterator[None]:
    """Restore Ctrl-C on leaving: Lightning ignores it while it shuts down, and leaves it at that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def chatter_muted() -> Iterator[None]:
    """Mute what Lightning says below a warning; warnings are one line on stdout."""
    loggers = [logging.getLogger(name) for package in installed() for name in (package.pytorch, package.fabric)]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        # Advice on speed, and what only Lightning can mend.
        for package in installed():
            warnings.simplefilter("ignore", package.PossibleUserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message=r".*`tensorboardX` has been removed")
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
        warnings.showwarning = _one_line_warning
        try:
            for logger in loggers:
                logger.setLevel(logging.WARNING)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _one_line_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {' '.join(str(message).split())}")

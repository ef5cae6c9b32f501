"""How a command ends that somebody else ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TERMINATED = 128 + signal.SIGTERM
"""The exit status after SIGTERM, as shells have it."""


class Terminated(SystemExit):
    """SIGTERM has come. `how_to_go_on` says what the user can do (empty: only begin anew)."""

    def __init__(self, how_to_go_on: str = "") -> None:
        super().__init__(TERMINATED)
        self.how_to_go_on = how_to_go_on


@contextmanager
def sigterm_heeded() -> Iterator[None]:
    """SIGTERM raises `Terminated`, where Lightning does not heed it, at its next batch."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: Any) -> None:
        # Lightning puts a handler of its own in place of this one, and calls this one from there.
        if signal.getsignal(signal.SIGTERM) is end:
            raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

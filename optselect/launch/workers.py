"""What every launcher gives: workers that were started together, whatever started them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The end of a worker.

    worker  its number, from 0
    status  its exit status, 0 where all went well; the negative number of the signal that ended it
    words   the last line that it wrote
    """

    worker: int
    status: int
    words: str = ""


class Workers(Protocol):
    """Processes that work on one search, somewhere.

    A launcher gives them in a `with` block, at whose end, however it comes, none is left.
    """

    @property
    def running(self) -> int:
        """How many have not ended."""
        ...

    @property
    def ended(self) -> tuple[Ended, ...]:
        """Those that have ended so far, in the order of their numbers."""
        ...

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until all have ended, `seconds` at most (None: as long as it takes); tell whether they have."""
        ...

"""One trial: what ran, how far, and what it was judged at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from optselect.configuration.configuration import Configuration
from optselect.configuration.evaluation import Batches, Evaluation
from optselect.configuration.schedule import Schedule

State = Literal["running", "complete", "pruned", "failed"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A short training of one configuration, as far as it has come.

    The last seven are the books of one search: what was killed and begun again has others, and is the same trial. So
    equality does not know them, nor does JSON, but for the pace.

    configuration  what it trains
    seed           of its batches and random numbers; trials of one seed are paired
    values         what it was judged at, by micro-batches trained: measurements alone
    reached        micro-batches of training behind it
    state          whether it may go on, and how it ended
    note           why it failed or diverged ("": it did not)
    cap            of one that diverged: where it was to be judged, and what it counts as there (None: it did not
                   diverge, or that was not kept)
    batches        what those values are the means of, by micro-batches trained, where that is known
    number         its place in the study
    cost           micro-batches it has spent, validation included at a third
    seconds        wall-clock time it has taken
    pace           seconds per micro-batch, when it was run last (None: not known)
    turns          the place of each of its jobs in the search, by micro-batches trained; in studies of before there are
                   none
    course         of a baseline: its mean training loss over the micro-batches that end at each of these
    """

    configuration: Configuration
    seed: int = 0
    values: Mapping[int, float] = field(default_factory=dict)
    reached: int = 0
    state: State = "running"
    note: str = ""
    cap: tuple[int, float] | None = None
    batches: Mapping[int, Batches] = field(default_factory=dict, compare=False)
    number: int = field(default=0, compare=False)
    cost: float = field(default=0.0, compare=False)
    seconds: float = field(default=0.0, compare=False)
    pace: float | None = field(default=None, compare=False)
    turns: Mapping[int, int] = field(default_factory=dict, compare=False)
    course: Mapping[int, float] = field(default_factory=dict, compare=False)

    @property
    def diverged(self) -> bool:
        """Whether it diverged or failed, so that it says nothing of its end."""
        return bool(self.note)

    @property
    def judged(self) -> Mapping[int, float]:
        """What it counts as, by micro-batches: its values, and its cap where it diverged."""
        return self.values if self.cap is None else {**self.values, self.cap[0]: self.cap[1]}

    @property
    def micro_batches(self) -> int:
        """How far it was trained to be judged last, or to diverge."""
        return self.reached if self.diverged else max(self.values, default=0)

    @property
    def value(self) -> float | None:
        """What it was judged at last; None: it diverged, failed or was never judged."""
        return None if self.diverged or not self.values else self.values[max(self.values)]

    def evaluation(self, rung: int) -> Evaluation:
        """Return what it was judged at after `rung` micro-batches, with its parts. Raises `KeyError`: it was not."""
        return Evaluation(value=self.values[rung], batches=self.batches.get(rung, ()))

    @property
    def ending(self) -> str:
        """How it ended: why it diverged, or its state."""
        return self.note or self.state

    def to_dict(self) -> dict[str, Any]:
        """Write as builtins, of the schedule what is not the default; inverse of `from_dict`.

        A checkpoint may hold two hundred of these.
        """
        usual = Schedule().to_dict()
        schedule = {key: value for key, value in self.configuration.schedule.to_dict().items() if value != usual[key]}
        return {
            "configuration": {**self.configuration.to_dict(), "schedule": schedule},
            "seed": self.seed,
            # Pairs: JSON has no numbers for keys.
            "values": [list(pair) for pair in self.values.items()],
            "reached": self.reached,
            "state": self.state,
            **({"note": self.note} if self.note else {}),
            **({"cap": list(self.cap)} if self.cap is not None else {}),
            **({"pace": self.pace} if self.pace is not None else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Trial:
        """Read the trial that `to_dict` wrote."""
        return cls(
            configuration=Configuration.from_dict(data["configuration"]),
            seed=data["seed"],
            values=dict(data["values"]),
            reached=data["reached"],
            state=data["state"],
            note=data.get("note", ""),
            cap=(data["cap"][0], data["cap"][1]) if "cap" in data else None,
            pace=data.get("pace"),
        )

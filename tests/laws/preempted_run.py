"""Fits that are sent signals, and their reruns by the same line: `python preempted_run.py FOLDER`.

alone                 nobody disturbs it
SIGTERM, SIGINT       in the search
requeued in search    SLURM's warning and then its SIGTERM, in the search
requeued in training  the same, in the middle of the second epoch

Each writes what it saw into FOLDER/SCENARIO.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from optselect.study.journal import journal_storage
from tests.support.modules import Classifier, Stateful, auto, fit, made, rows

SCENARIOS: dict[str, tuple[str, list[signal.Signals]]] = {
    "alone": ("", []),
    "SIGTERM": ("search", [signal.SIGTERM]),
    "SIGINT": ("search", [signal.SIGINT]),
    "requeued in search": ("search", [signal.SIGUSR1, signal.SIGTERM]),
    "requeued in training": ("training", [signal.SIGUSR1, signal.SIGTERM]),
}


def send(signals: list[signal.Signals]) -> None:
    """To this process, each once."""
    while signals:
        os.kill(os.getpid(), signals.pop(0))


class Disturbed(Classifier):
    """In its fortieth training step: a trial's."""

    signals: list[signal.Signals] = []  # noqa: RUF012  # of the class, so that trials do not put it back
    steps = 0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        type(self).steps += 1
        if self.steps == 40:
            send(self.signals)
        return super().training_step(batch, batch_idx)


class Disturbing(L.Callback):
    """In the middle of the second epoch."""

    def __init__(self, signals: list[signal.Signals]) -> None:
        self.signals = signals

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == 17:
            send(self.signals)


def run(folder: Path, moment: str, signals: list[signal.Signals]) -> dict[str, Any]:
    """One start of the same line, and how it ended."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    Disturbed.signals, Disturbed.steps = signals if moment == "search" else [], 0
    module, callback = made(Disturbed), auto(folder)
    disturbing = Disturbing(signals if moment == "training" else [])
    data = Stateful(rows()), DataLoader(rows(32), batch_size=16)
    try:
        fit(module, callback, disturbing, data=data, epochs=3, default_root_dir=folder)
        ended = "done"
    except BaseException as left:  # noqa: BLE001  # the ways that a fit ends are what is looked at
        ended = type(left).__name__
    (study,) = journal_storage(folder / "study.journal").get_all_studies()
    trials = journal_storage(folder / "study.journal").get_all_trials(study._study_id)
    return {
        "ended": ended,
        "trials": len(trials),
        "searched": callback.study is not None,
        "plan": callback.plan.to_dict() if callback.plan else None,
        "weights": {name: value.tolist() for name, value in module.state_dict().items()},
        "checkpoints": sorted(path.name for path in folder.glob("*.ckpt*")),
    }


def main(folder: Path) -> None:
    """Each scenario in a folder of its own: disturbed, then again."""
    torch.set_num_threads(1)
    for scenario, (moment, signals) in SCENARIOS.items():
        own = folder / scenario
        own.mkdir()
        runs = [run(own, moment, list(signals))]
        if signals:
            runs.append(run(own, moment, []))
        (folder / f"{scenario}.json").write_text(json.dumps(runs))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

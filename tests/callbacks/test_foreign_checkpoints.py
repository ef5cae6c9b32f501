"""Checkpoints that somebody else has edited: a `ResumeError` before anything is trained."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from optselect import AutoOptimizer
from optselect.errors import OptselectError
from tests.support.cases import case
from tests.support.modules import TRAINER
from tests.support.small import vectors


class Net(L.LightningModule):
    trained = 0

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(6, 3)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        Net.trained += 1
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])


def trainer(folder: Path, epochs: int, **options: Any) -> L.Trainer:
    return L.Trainer(
        max_epochs=epochs,
        **TRAINER,
        default_root_dir=folder,
        callbacks=[AutoOptimizer(budget=0, report=False, **options)],
    )


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    fitted = trainer(folder, 1)
    fitted.fit(Net(), DataLoader(vectors(48), 16))
    fitted.save_checkpoint(folder / "last.ckpt")
    loaded: dict[str, Any] = torch.load(folder / "last.ckpt", weights_only=True)
    return loaded


def own(checkpoint: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = checkpoint["callbacks"]["AutoOptimizer"]
    return entry


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no entry but a list": lambda c: c["callbacks"].update(AutoOptimizer=[1]),
    "no entry but words": lambda c: c["callbacks"].update(AutoOptimizer="words"),
    "no plan": lambda c: own(c).pop("plan"),
    "a plan that is a list": lambda c: own(c).update(plan=[1]),
    "an empty plan": lambda c: own(c).update(plan={}),
    "a plan that is a number": lambda c: own(c).update(plan=0),
    "no random numbers": lambda c: own(c).pop("rng"),
    "empty random numbers": lambda c: own(c).update(rng={}),
    "random numbers that are words": lambda c: own(c).update(rng="words"),
    "random numbers of torch cut off": lambda c: own(c)["rng"].update(torch={"words": b"abc", "dtype": "|u1"}),
    "random numbers of Python cut off": lambda c: own(c)["rng"].update(python=(3, (1, 2), None)),
    "random numbers of NumPy of another kind": lambda c: own(c)["rng"].update(numpy=("no such", 1, 2, 3, 4)),
    "random numbers of others that are words": lambda c: own(c)["rng"].update(others="words"),
    "random numbers of loaders that are a number": lambda c: own(c)["rng"].update(loaders=5),
    "optimizers that are numbers": lambda c: own(c).update(optimizers=[1]),
    "optimizers without a class": lambda c: own(c).update(optimizers=[{"package": "torch"}]),
    "optimizers that are a number": lambda c: own(c).update(optimizers=5),
    "schedulers that are a number": lambda c: own(c).update(schedulers=5),
    "schedulers that are numbers": lambda c: own(c).update(schedulers=[5]),
    "thaws that are words": lambda c: own(c).update(thawed="x"),
    "thaws below zero": lambda c: own(c).update(thawed=-1),
    "thaws without an end": lambda c: own(c).update(thawed=10**30),
    "optimizer states that are numbers": lambda c: c.update(optimizer_states=[5]),
    "an optimizer state without groups": lambda c: c.update(optimizer_states=[{"state": {}}]),
    "optimizer states that are words": lambda c: c.update(optimizer_states="words"),
    "steps that are words": lambda c: c.update(global_step="x"),
}


def test_an_edited_checkpoint_is_refused_by_name_and_nothing_is_trained(
    content: dict[str, Any], tmp_path: Path
) -> None:
    for name, edit in EDITS.items():
        with case(name):
            edited = copy.deepcopy(content)
            edit(edited)
            torch.save(edited, tmp_path / "edited.ckpt")
            before = Net.trained

            with pytest.raises(OptselectError):
                trainer(tmp_path, 2).fit(Net(), DataLoader(vectors(48), 16), ckpt_path=tmp_path / "edited.ckpt")

            assert Net.trained == before


@pytest.mark.filterwarnings("ignore:the training goes on beyond")
def test_the_checkpoint_as_it_was_written_goes_on(content: dict[str, Any], tmp_path: Path) -> None:
    torch.save(content, tmp_path / "last.ckpt")
    fitted = trainer(tmp_path, 2)

    fitted.fit(Net(), DataLoader(vectors(48), 16), ckpt_path=tmp_path / "last.ckpt")

    assert fitted.current_epoch == 2


@pytest.mark.filterwarnings("ignore:the training goes on beyond")
def test_an_edited_entry_may_be_searched_past(content: dict[str, Any], tmp_path: Path) -> None:
    edited = copy.deepcopy(content)
    own(edited).update(schedulers=5)
    torch.save(edited, tmp_path / "edited.ckpt")
    fitted = trainer(tmp_path, 2, on_mismatch="search")

    fitted.fit(Net(), DataLoader(vectors(48), 16), ckpt_path=tmp_path / "edited.ckpt")

    assert fitted.current_epoch == 2

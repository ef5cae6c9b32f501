"""Copies, pickles and checkpoints of a module are those of one that was never searched."""

from __future__ import annotations

import copy
import io
import pickle
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from torch import Tensor, nn

from optselect import AutoOptimizer
from optselect.configuration import USER
from tests.support.kinds import Data
from tests.support.modules import (
    CLASSES,
    FEATURES,
    Classifier,
    StopAfter,
    WithOptimizer,
    auto,
    equal_states,
    fit,
    in_trial,
    loaders,
    made,
)


class Wide(Classifier):
    """Has a hyperparameter, and a great many tensors."""

    def __init__(self, depth: int = 2) -> None:
        super().__init__()
        self.save_hyperparameters()
        blocks = [nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)) for _ in range(depth)]
        self.net = nn.Sequential(nn.Linear(FEATURES, 8), *blocks, nn.Linear(8, CLASSES))


class Copies(L.Callback):
    """Copies module and callback in every way, in one hook of the fit."""

    def __init__(self, hook: str, folder: Path) -> None:
        self.folder = folder
        self.modules: dict[str, L.LightningModule] = {}
        self.callbacks: dict[str, AutoOptimizer] = {}
        setattr(self, hook, self.look)

    def look(self, trainer: Any, pl_module: Any, *args: Any, **kwargs: Any) -> None:
        if self.modules:
            return
        (ours,) = (callback for callback in trainer.callbacks if isinstance(callback, AutoOptimizer))
        self.modules = copies_of(pl_module)
        self.callbacks = copies_of(ours)
        self.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}
        if trainer.optimizers:
            trainer.save_checkpoint(self.folder / "during.ckpt")
            loaded = type(pl_module).load_from_checkpoint(self.folder / "during.ckpt")
            self.modules["load_from_checkpoint"] = loaded


def copies_of(thing: Any) -> dict[str, Any]:
    return {"deepcopy": copy.deepcopy(thing), "pickle": through_pickle(thing)}


def through_pickle(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))  # noqa: S301  # our own


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Lightning ignores further interrupts after the first."""
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


# --- during a fit ---------------------------------------------------------------------------------

HOOKS = ("setup", "on_fit_start", "on_train_batch_end", "on_validation_end", "on_train_epoch_end", "teardown")


@pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start:UserWarning")  # copied in a validation
@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("kind", [Wide, WithOptimizer])
def test_a_copy_made_during_a_fit_is_that_of_a_module_never_searched(
    kind: type[L.LightningModule], hook: str, tmp_path: Path
) -> None:
    copies = Copies(hook, tmp_path)

    fit(made(kind), auto(tmp_path, budget=0), copies)

    for made_by, module in copies.modules.items():
        assert equal_states(module.state_dict(), copies.weights), made_by
        assert b"optselect" not in pickle.dumps(module), made_by
        # By hand: with an optimizer of its own it trains; without one Lightning refuses it.
        if kind is WithOptimizer:
            fit(module)
        else:
            with pytest.raises(L.fabric.utilities.exceptions.MisconfigurationException, match="configure_opt"):
                fit(module)


@pytest.mark.parametrize("kind", [Wide, WithOptimizer])
def test_a_copy_made_during_a_fit_is_searched_like_the_original(kind: type[L.LightningModule], tmp_path: Path) -> None:
    copies = Copies("on_fit_start", tmp_path)
    first = auto(tmp_path / "first")
    fit(made(kind), first, copies)

    for made_by, module in copies.modules.items():
        again = auto(tmp_path / made_by)
        fit(module, again)

        assert first.plan is not None
        assert again.plan is not None
        assert again.plan.trials == first.plan.trials
        assert "configure_optimizers" not in vars(module)


@pytest.mark.parametrize("hook", HOOKS)
def test_a_copied_callback_has_the_plan(hook: str, tmp_path: Path) -> None:
    copies, callback = Copies(hook, tmp_path), auto(tmp_path)

    fit(made(Classifier), callback, copies)

    planned = hook != "setup"  # setup comes before the search
    assert copies.callbacks["pickle"].plan == (callback.plan if planned else None)
    assert copies.callbacks["deepcopy"].plan == callback.plan
    assert copies.callbacks["pickle"].study is None


def test_a_pickled_callback_does_not_hold_the_module(tmp_path: Path) -> None:
    copies = Copies("on_train_batch_end", tmp_path)

    fit(made(Classifier), auto(tmp_path, budget=0), copies)

    assert b"Classifier" not in pickle.dumps(copies.callbacks["pickle"])


def test_a_command_line_module_copied_during_a_fit_keeps_its_optimizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py"])
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")
    copied: list[Any] = []

    class Copying(L.Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            copied.append(copy.deepcopy(pl_module))

    flags = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "max_epochs": 1,
        "accelerator": "cpu",
        "enable_model_summary": False,
    }
    chooses = auto(tmp_path)
    callbacks = [chooses, Copying()]
    arguments = ["fit", "--seed_everything", "3", "--optimizer", "SGD", "--optimizer.lr", "0.05"]
    LightningCLI(
        Classifier,
        Data,
        trainer_defaults={**flags, "callbacks": callbacks},
        args=arguments,
        save_config_callback=None,
    )

    trainer = fit(copied[0])

    assert isinstance(trainer.optimizers[0], torch.optim.SGD)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.05
    # It is one object in all calls of the command line's, so no trial may have it at another rate.
    assert chooses.plan is not None
    assert [each.configuration.rate for each in chooses.plan.trials if each.configuration.optimizer == USER] == [1.0]


# --- after a fit ----------------------------------------------------------------------------------


class Ends(Classifier):
    """Ends in the way it is told to, in the search or in the training."""

    ending: type[BaseException] | None = None
    in_search = False

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.ending and in_trial(self) is self.in_search and batch_idx == 2:
            raise self.ending
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize("in_search", [True, False])
@pytest.mark.parametrize("ending", [None, RuntimeError, KeyboardInterrupt, SystemExit])
def test_the_module_has_the_attributes_it_would_have_by_hand(
    ending: type[BaseException] | None, in_search: bool, tmp_path: Path
) -> None:
    class ByHand(Ends):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def ended(kind: type[Ends], *callbacks: L.Callback) -> dict[str, Any]:
        module = made(kind)
        module.ending, module.in_search = ending, in_search and kind is Ends
        try:
            fit(module, *callbacks)
        except (RuntimeError, SystemExit):
            assert ending is not None
        return dict(vars(module))

    ours = ended(Ends, auto(tmp_path))
    theirs = ended(ByHand, L.Callback())

    assert set(ours) == set(theirs)


@pytest.mark.parametrize("kind", [Wide, WithOptimizer])
def test_a_copy_made_after_a_fit_is_that_of_a_module_never_searched(
    kind: type[L.LightningModule], tmp_path: Path
) -> None:
    module, callback = made(kind), auto(tmp_path)
    trainer = fit(module, callback)
    trainer.save_checkpoint(tmp_path / "after.ckpt")

    copies = {**copies_of(module), "load_from_checkpoint": kind.load_from_checkpoint(tmp_path / "after.ckpt")}

    for made_by, other in copies.items():
        assert equal_states(other.state_dict(), module.state_dict()), made_by
        assert "configure_optimizers" not in vars(other), made_by
    for other_callback in copies_of(callback).values():
        assert other_callback.plan == callback.plan


def test_a_pickled_callback_trains_with_its_plan(tmp_path: Path) -> None:
    callback = auto(tmp_path)
    fit(made(Classifier), callback)

    later = through_pickle(callback)
    fit(made(Classifier), later)

    assert later.plan == callback.plan
    assert later.study is None


# --- checkpoints ----------------------------------------------------------------------------------

THEIR_MODULE = """
import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset

class Theirs(L.LightningModule):
    def __init__(self, width=4):
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.ReLU(), torch.nn.Linear(width, 1))

    def training_step(self, batch, batch_idx):
        return self.net(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.net(batch[0]).square().mean())

def loader():
    return DataLoader(TensorDataset(torch.randn(32, 3)), batch_size=8)
"""
WITH_OPTSELECT = """
import pickle, lightning as L
from optselect import AutoOptimizer, Budget
from theirs import Theirs, loader

class Pickles(L.Callback):
    def on_validation_end(self, trainer, pl_module):
        open("during.pickle", "wb").write(pickle.dumps(pl_module))

trainer = L.Trainer(
    max_epochs=2, logger=False, accelerator="cpu", enable_progress_bar=False,
    callbacks=[AutoOptimizer(budget=Budget(steps=40), candidates=["muon", "adamw"]), Pickles()],
)
module = Theirs(width=5)
trainer.fit(module, loader(), loader())
trainer.save_checkpoint("last.ckpt")
open("after.pickle", "wb").write(pickle.dumps(module))
"""
WITHOUT_OPTSELECT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "optselect":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocked())
import pickle, torch
from theirs import Theirs

content = torch.load("last.ckpt", weights_only=True)
module = Theirs.load_from_checkpoint("last.ckpt")
copies = [pickle.load(open(name, "rb")) for name in ("during.pickle", "after.pickle")]
assert "AutoOptimizer" in content["callbacks"]
assert all(copied.hparams.width == 5 for copied in (module, *copies))
assert not any(name.partition(".")[0] == "optselect" for name in sys.modules)
"""


@pytest.mark.slow
def test_checkpoints_and_pickles_load_where_optselect_is_not_installed(tmp_path: Path) -> None:
    (tmp_path / "theirs.py").write_text(THEIR_MODULE)
    root = str(Path(__file__).parents[2])

    for program, path in ((WITH_OPTSELECT, root), (WITHOUT_OPTSELECT, "")):
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path[:0] = [{path!r}, '.']\n{program}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


class Entry(L.Callback):
    """What the callback before it puts into a checkpoint."""

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        self.content = checkpoint["callbacks"]["AutoOptimizer"]


@pytest.mark.parametrize("candidates", [None, ["muon"], ["user"]])
def test_the_callbacks_entry_holds_builtins_only(candidates: list[str] | None, tmp_path: Path) -> None:
    """With the random numbers that the loaders hold, too."""
    kind = WithOptimizer if candidates == ["user"] else Classifier
    entry, (train, val) = Entry(), loaders()
    held = torch.Generator(), np.random.default_rng(0), np.random.Generator(np.random.MT19937(0)), random.Random(0)
    vars(train.dataset).update({f"generator {index}": each for index, each in enumerate(held)})
    trainer = fit(made(kind), auto(tmp_path, candidates=candidates), entry, data=(train, val))
    trainer.save_checkpoint(tmp_path / "a.ckpt")

    strange = list(foreign(entry.content))

    assert len(entry.content["rng"]["loaders"]) == len(held)
    assert strange == []


def foreign(value: Any, where: str = "state") -> Iterator[str]:
    """Where in `value` something is no builtin; subclasses of them are foreign."""
    if type(value) is dict:
        for key, item in value.items():
            yield from foreign(key, f"{where} key")
            yield from foreign(item, f"{where}.{key}")
    elif type(value) in (list, tuple, set):
        for index, item in enumerate(value):
            yield from foreign(item, f"{where}[{index}]")
    elif type(value) not in (type(None), bool, int, float, str, bytes):
        yield f"{where}: {type(value)}"


def test_the_callbacks_entry_is_small(tmp_path: Path) -> None:
    """At most 64 KiB, and 256 bytes for each tensor of the model."""
    small, large = auto(tmp_path / "small", budget=None), auto(tmp_path / "large")
    fit(made(Classifier), small, epochs=10)
    module = Wide(depth=100)
    fit(module, large, epochs=1)

    sizes = {name: stored_bytes(callback.state_dict()) for name, callback in (("small", small), ("large", large))}

    assert sizes["small"] <= 64 * 1024 + 256 * 8
    assert sizes["large"] <= 64 * 1024 + 256 * len(list(module.parameters()))


def stored_bytes(state: Any) -> int:
    """In a checkpoint."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.tell()


@pytest.mark.filterwarnings("ignore:AutoOptimizer cannot search here")
def test_a_run_that_fell_back_goes_on_from_its_checkpoint_without_a_search(tmp_path: Path) -> None:
    class Gan(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.manual_backward(loss)
            for optimizer in self.optimizers():  # type: ignore[union-attr]
                optimizer.step()
                optimizer.zero_grad()

        def configure_optimizers(self) -> Any:
            halves = self.net[:2].parameters(), self.net[2:].parameters()
            return [torch.optim.SGD(half, lr=0.01, momentum=0.9) for half in halves]

    whole, rest, callback = made(Gan), made(Gan, seed=5), auto(tmp_path)
    fit(whole, auto(tmp_path), epochs=4)
    fit(made(Gan), auto(tmp_path), StopAfter(2), epochs=4).save_checkpoint(tmp_path / "half.ckpt")

    fit(rest, callback, epochs=4, seed=9, ckpt_path=tmp_path / "half.ckpt")

    assert equal_states(rest.state_dict(), whole.state_dict())
    assert callback.plan is None

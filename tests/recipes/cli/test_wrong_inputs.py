"""Wrong input, row by row: exit status 2, one line that says what to do, and nothing left behind."""

import builtins
import io
import json
import os
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from optselect.recipes.digits import DigitsModel
from tests.support.tiny import TINY, Run

FIT = ("fit", "--config", "tiny.yaml")
VOWELS = str(Path(__file__).parents[3] / "recipes" / "lstm_vowels.yaml")
TUNE = ("tune", "--config", "tiny.yaml")

# Modules and data with a fault each, as a user might have them in the current folder.
FAULTY = """
import lightning as L, optuna, torch
from torch.utils.data import DataLoader, TensorDataset
from optselect.recipes.digits import DigitsData, DigitsModel


class NaN(DigitsData):
    def setup(self, stage):
        super().setup(stage)
        self.train.tensors[0][:] = float("nan")

class Labels(DigitsData):
    def setup(self, stage):
        super().setup(stage)
        self.train.tensors[1][:] = 12

class Narrow(DigitsData):
    def setup(self, stage):
        super().setup(stage)
        pixels, digit = self.train.tensors
        self.train = TensorDataset(pixels[:, :32], digit)

class Empty(DigitsData):
    def train_dataloader(self):
        return DataLoader([], batch_size=4)

class EmptyValidation(DigitsData):
    def val_dataloader(self):
        return DataLoader([], batch_size=4)

class NoTraining(DigitsData):
    train_dataloader = L.LightningDataModule.train_dataloader

class NoFile(DigitsData):
    def setup(self, stage):
        open("nowhere.csv")

class Locked(DigitsData):
    def setup(self, stage):
        open("locked.csv")

class NoPackage(DigitsData):
    def setup(self, stage):
        import no_such_package

class Frozen(DigitsModel):
    def __init__(self, hidden: int = 8):
        super().__init__(hidden)
        self.requires_grad_(False)

class Bare(L.LightningModule):
    def training_step(self, batch, batch_idx):
        return torch.zeros((), requires_grad=True)

class NoStep(L.LightningModule):
    pass

class Detached(DigitsModel):
    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx).detach()

class Choosy(DigitsModel):
    def __init__(self, hidden: int = 8):
        raise ValueError("hidden is a multiple of 16")

class Two(DigitsModel):
    def configure_optimizers(self):
        return [torch.optim.SGD(self.parameters(), lr=0.1), torch.optim.SGD(self.parameters(), lr=0.1)]

class TwoByHand(Two):
    def __init__(self, hidden: int = 8):
        super().__init__(hidden)
        self.automatic_optimization = False

class DyingStorage(optuna.storages.InMemoryStorage):
    def set_trial_intermediate_value(self, *args, **kwargs):
        raise optuna.exceptions.StorageInternalError("the server has gone away")
"""


def data(name: str, command: tuple[str, ...] = FIT) -> tuple[str, ...]:
    return (*command, "--data.class_path", f"faulty_inputs.{name}")


def model(name: str, command: tuple[str, ...] = FIT) -> tuple[str, ...]:
    return (*command, "--model.class_path", f"faulty_inputs.{name}")


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    # the line itself
    "no such command": (("tnue",), "Did you mean 'tune'"),
    "a misspelt option of a training": ((*FIT, "--auto.bugdet", "3"), "Did you mean '--auto.budget'"),
    "an option without its group": ((*FIT, "--budget", "3"), "Did you mean '--auto.budget'"),
    "a config without its option": (("fit", "tiny.yaml"), "Did you mean '--config tiny.yaml'"),
    "a misspelt option of a question": (("explain", "tiny.yaml", "--markdwn"), "Did you mean '--markdown'"),
    "a word that no rule says": (("rules", "zyx"), "no rule says anything of 'zyx'"),
    "an argument too many": (("ls", "more"), "unknown argument 'more'"),
    "an argument too few": (("cp", "digits"), "FILE"),
    "an unknown recipe": (("cp", "digts", "x.yaml"), "Did you mean 'digits'"),
    "a copy over a file": (("cp", "digits", "tiny.yaml"), "left as it is"),
    "a copy into a folder that is not there": (("cp", "digits", "none/x.yaml"), "cannot be written"),
    "a copy into a folder one may not write to": (("cp", "digits", "locked/x.yaml"), "Permission denied"),
    "a pattern without a match": (("catalogue", "adamz"), "Did you mean 'adam"),
    # the config
    "no config": (("fit",), "pass --config FILE"),
    "a missing config": (("fit", "--config", "none.yaml"), "does not exist"),
    "a config one may not read": (("fit", "--config", "locked.yaml"), "locked.yaml"),
    "a folder for a config": (("fit", "--config", "."), "."),
    "an empty config": (("fit", "--config", "empty.yaml"), "but got nothing"),
    "a config that is not YAML": (("fit", "--config", "broken.yaml"), "parsing"),
    "a config that is a list": (("fit", "--config", "list.json"), "but got [1, 2]"),
    "a config that is not text": (("fit", "--config", "binary.yaml"), "utf-8"),
    "a config that would run code": (("fit", "--config", "code.yaml"), "python/object/apply"),
    "an unknown key in the config": (("tune", "--config", "unknown.yaml"), "trainre"),
    "a key that is not there": ((*TUNE, "--auto.bugdet", "3"), "bugdet"),
    "a value of the wrong type": ((*FIT, "--trainer.max_epochs", "many"), "trainer.max_epochs: Expected a int"),
    "an impossible length": ((*FIT, "--trainer.max_epochs", "-5"), "max_epochs"),
    "an impossible seed": ((*FIT, "--seed_everything", "-3"), "-3"),
    "an accelerator that is not there": ((*FIT, "--trainer.accelerator", "cup"), "cup"),
    "an accelerator this machine lacks": ((*FIT, "--trainer.accelerator", "tpu"), "torch_xla"),
    "a strategy that is not there": ((*FIT, "--trainer.strategy", "dpp"), "'dpp'"),
    "a precision that is not there": ((*FIT, "--trainer.precision", "13"), "Given value: 13"),
    "two AutoOptimizers": ((*FIT, "--trainer.callbacks", "optselect.AutoOptimizer"), "under auto:"),
    # classes
    "a module that is not there": ((*FIT, "--model.class_path", "nowhere.Model"), "No module named 'nowhere'"),
    "a class that is not there": ((*FIT, "--model.class_path", "optselect.recipes.digits.Nix"), "'Nix'"),
    "a file that is not Python": ((*FIT, "--model.class_path", "not_python.Model"), "invalid syntax"),
    "a model that is no LightningModule": ((*FIT, "--model.class_path", "torch.nn.Linear"), "LightningModule"),
    "data that are no LightningDataModule": ((*FIT, "--data.class_path", "torch.nn.Linear"), "LightningDataModule"),
    "an argument the class does not take": ((*FIT, "--model.init_args.hiden", "3"), "hiden"),
    "an argument the class refuses": (model("Choosy"), "hidden is a multiple of 16"),
    # AutoOptimizer
    "an unknown candidate": ((*FIT, "--auto.candidates", "[adamv]"), "Did you mean 'adam' or 'adamw'"),
    "a candidate whose package is missing": ((*FIT, "--auto.candidates", "[lion]"), "optselect[plugins]"),
    "a candidate in capitals": ((*FIT, "--auto.candidates", "[adamW]"), "Did you mean 'adamw'"),
    "no candidates": ((*FIT, "--auto.candidates", "[]"), "candidates is empty"),
    "unknown rules": ((*FIT, "--auto.rules", "clasic"), "'clasic'"),
    "an unknown mode": ((*FIT, "--auto.mode", "up"), "'min', 'max'"),
    "a negative share": ((*FIT, "--auto.budget", "-1"), "BudgetError"),
    "a negative budget": ((*FIT, "--auto.budget.steps=-3"), "steps=-3"),
    "a budget in no known unit": ((*FIT, "--auto.budget", '{"hours": 3}'), "hours"),
    "a budget in words": ((*FIT, "--auto.budget", "plenty"), "plenty"),
    "a misspelt monitor": ((*FIT, "--auto.monitor", "val_los"), "Did you mean 'val_loss'"),
    "a monitor never logged": ((*FIT, "--auto.monitor", "f1"), "logged: train_loss, val_accuracy, val_loss"),
    "nothing to tune": ((*TUNE, "--trainer.fast_dev_run", "true"), "fast_dev_run"),
    "no epoch to tune for": ((*TUNE, "--trainer.max_epochs", "0"), "set trainer.max_epochs"),
    "a monitor of a validation that is switched off": (
        (*FIT, "--auto.monitor", "val_loss", "--trainer.limit_val_batches", "0"),
        "the validation is switched off (limit_val_batches=0)",
    ),
    # storage
    "a storage that cannot be": ((*FIT, "--auto.storage", "sqlite:////nowhere/study.db"), "StorageError"),
    "a storage of an unknown kind": ((*FIT, "--auto.storage", "nix://study"), "StorageError"),
    "a storage whose driver is missing": ((*FIT, "--auto.storage", "firebird://host/db"), "firebird"),
    "a storage that is another file": ((*FIT, "--auto.storage", "tiny.yaml"), "not an Optuna journal"),
    "a storage one may not write to": ((*FIT, "--auto.storage", "locked/study.journal"), "Permission denied"),
    "a storage that goes down": (("fit", "--config", "dying.yaml"), "start the same line again"),
    "an output folder that is a file": ((*FIT, "--trainer.default_root_dir", "tiny.yaml/x"), "Not a directory"),
    "an output folder one may not write to": ((*FIT, "--trainer.default_root_dir", "locked"), "Permission denied"),
    # what cannot be meant
    "an option that is none": (("--foo",), "unknown argument '--foo'"),
    "an option of a command that is none": (("ls", "--foo"), "unknown argument '--foo'"),
    "a name too long to write": (("cp", "digits", "x" * 5_000), "File name too long"),
    "a name too long to explain": (("explain", "x" * 5_000), "PlanFormatError"),
    "a name with a zero byte": (("explain", "a\0b"), "zero byte"),
    "a checkpoint's name too long": ((*FIT, "--ckpt_path", "x" * 5_000), "File name too long"),
    "a file for a folder": (("bench", "--out", "tiny.yaml", "--tiny"), "File exists"),
    "a file for a folder of data": (("bench", "--cache", "tiny.yaml", "--tiny"), "File exists"),
    "no seed": (("bench", "--seeds", "0"), "from 1 on"),
    "a negative number of seeds": (("bench", "--seeds", "-3"), "from 1 on"),
    "a method with a negative number": (("bench", "--methods", "tpe@-1", "--tiny"), "a number: of trainings from 0 on"),
    "a method with no number": (("bench", "--methods", "ours@nan", "--tiny"), "a number: of trainings from 0 on"),
    "a seed of more digits than torch takes": ((*FIT, "--auto.seed", "1" + "0" * 400), "at most 18 digits"),
    "a study without a name": ((*FIT, "--auto.study_name", ""), "1 to 512 characters"),
    "a study's name too long": ((*FIT, "--auto.study_name", "x" * 5_000), "1 to 512 characters"),
    "neither true nor false": ((*FIT, "--weights_only", "maybe"), "weights_only"),
    # plans and checkpoints
    "a missing plan": ((*FIT, "--plan", "none.json"), "PlanFormatError"),
    "a plan one may not read": ((*FIT, "--plan", "locked.json"), "Permission denied"),
    "a plan that is not JSON": ((*FIT, "--plan", "tiny.yaml"), "PlanFormatError"),
    "a plan without its fields": ((*FIT, "--plan", "short.json"), "malformed"),
    "a plan of another model": ((*FIT, "--plan", "plan.of.another", "--model.init_args.hidden", "9"), "net.0.weight"),
    "a plan of a later version": ((*FIT, "--plan", "later.json"), "PlanVersionError"),
    "a plan where none is used": ((*TUNE, "--plan", "tiny.yaml"), "--plan"),
    "a missing checkpoint": ((*FIT, "--ckpt_path", "none.ckpt"), "none.ckpt"),
    "a checkpoint one may not read": ((*FIT, "--ckpt_path", "locked.ckpt"), "Permission denied"),
    "a checkpoint that is none": ((*FIT, "--ckpt_path", "tiny.yaml"), "not a checkpoint"),
    "a folder for a checkpoint": ((*FIT, "--ckpt_path", "."), "is no checkpoint"),
    "a checkpoint without a plan": ((*FIT, "--ckpt_path", "bare.ckpt"), "no optimizer plan"),
    "a checkpoint of another model": ((*FIT, "--ckpt_path", "bare.ckpt", "--model.init_args.hidden", "9"), "size"),
    "a checkpoint that would run code": ((*FIT, "--ckpt_path", "code.ckpt"), "cannot be read"),
    "explaining what is missing": (("explain", "none.json"), "PlanFormatError"),
    "explaining a folder": (("explain", "."), "is no distributed checkpoint"),
    "explaining a config": (("explain", "tiny.yaml"), "tune --config tiny.yaml"),
    "explaining what is not JSON": (("explain", "not_python.py"), "PlanFormatError"),
    "explaining JSON that is no plan": (("explain", "list.json"), "not an optimizer plan"),
    "explaining a checkpoint that is missing": (("explain", "none.ckpt"), "ResumeError"),
    "explaining a checkpoint one may not read": (("explain", "locked.ckpt"), "Permission denied"),
    "explaining a checkpoint that is none": (("explain", "broken.ckpt"), "cannot be read as a checkpoint"),
    "explaining a checkpoint without a plan": (("explain", "bare.ckpt"), "holds no optimizer plan"),
    "explaining a checkpoint that would run code": (("explain", "code.ckpt"), "cannot be read"),
    # data and models
    "data that are not a number": (data("NaN"), "loss is finite"),
    "labels out of range": (data("Labels"), "Target 12 is out of bounds. (in training_step, digits.py"),
    "data too narrow for the model": (data("Narrow"), "cannot be multiplied"),
    "an empty loader": (data("Empty"), "gave no batch"),
    "an empty loader in tune": (data("Empty", TUNE), "gives no batch"),
    "an empty validation loader": (data("EmptyValidation"), "never logged"),
    "no training loader": (data("NoTraining"), "train_dataloader"),
    "data whose file is missing": (data("NoFile"), "'nowhere.csv' (in "),
    "data one may not read": (data("Locked"), "Permission denied"),
    "data whose package is missing": (data("NoPackage"), "install what is missing"),
    "a recipe whose data are not installed": (("fit", "--config", VOWELS), "pip install --no-deps aeon"),
    "a model without parameters": (model("Bare"), "nothing to train"),
    "a model with all of them frozen": (model("Frozen"), "no trainable parameter; set requires_grad=True"),
    "a model without training_step": (model("NoStep"), "training_step"),
    "a loss without a gradient": (model("Detached"), "does not require grad"),
    "several optimizers": (model("Two"), "multiple optimizers"),
    "several optimizers by hand in tune": (model("TwoByHand", TUNE), "UnsupportedModuleError"),
}


class Trap:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("code_was_run"),))


@pytest.fixture
def nothing_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is called `locked` may be neither read nor written, even by root, and two packages are not installed."""

    def locked(path: object) -> bool:
        return isinstance(path, str | Path) and any(part.startswith("locked") for part in Path(path).parts)

    def refusing(function: Any) -> Any:
        def checked(path: Any, *args: Any, **kwargs: Any) -> Any:
            if locked(path):
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *args, **kwargs)

        return checked

    for package in ("pytorch_optimizer", "aeon"):
        monkeypatch.setitem(sys.modules, package, None)
    access = os.access
    for module, name in ((builtins, "open"), (io, "open"), (os, "open"), (os, "mkdir")):
        monkeypatch.setattr(module, name, refusing(getattr(module, name)))
    monkeypatch.setattr(os, "access", lambda path, *args, **kwargs: not locked(path) and access(path, *args, **kwargs))


def write_inputs(plan: dict[str, Any]) -> None:
    texts = {
        "faulty_inputs.py": FAULTY,
        "not_python.py": "class Model(:\n",
        "plan.of.another": json.dumps(plan),
        "later.json": json.dumps({**plan, "version": 99}),
        "short.json": json.dumps({"version": 1}),
        "list.json": "[1, 2]",
        "empty.yaml": "",
        "broken.yaml": "model: [\n",
        "code.yaml": "model: !!python/object/apply:pathlib.Path.touch [code_was_run]\n",
        "unknown.yaml": json.dumps({**TINY, "trainre": {"max_epochs": 3}}),
        "dying.yaml": json.dumps({**TINY, "auto": {"storage": {"class_path": "faulty_inputs.DyingStorage"}}}),
    }
    for name, text in texts.items():
        Path(name).write_text(text)
    for name in ("locked.yaml", "locked.json", "locked.ckpt", "locked.csv"):
        Path(name).touch()
    Path("locked").mkdir()
    Path("binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    Path("broken.ckpt").write_bytes(b"PK and no more")
    bare = {
        "state_dict": DigitsModel(hidden=8).state_dict(),
        "callbacks": {},
        "loops": {},
        "epoch": 0,
        "global_step": 0,
        "optimizer_states": [],
        "lr_schedulers": [],
        "pytorch-lightning_version": "2.6.0",
    }
    torch.save(bare, "bare.ckpt")
    with zipfile.ZipFile("code.ckpt", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Trap(), protocol=2))
        file.writestr("archive/version", "3\n")


@pytest.mark.filterwarnings("ignore:Total length of .* across ranks is zero")
@pytest.mark.filterwarnings("ignore:AutoOptimizer cannot search here")
@pytest.mark.parametrize("arguments, says", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_one_line_on_stderr_status_2_and_no_plan(
    run: Run, tuned: Path, request: pytest.FixtureRequest, arguments: tuple[str, ...], says: str
) -> None:
    write_inputs(json.loads((tuned / "plan.json").read_text()))
    tiny = Path("tiny.yaml").read_bytes()
    request.getfixturevalue("nothing_granted")

    done = run(*arguments)

    assert (done.status, done.err.count("\n"), "Traceback" in done.err) == (2, 1, False), done.err
    assert says in done.err
    assert not [*Path().rglob("plan.json"), *Path().rglob("report.html"), *Path().glob("code_was_run")]
    assert Path("tiny.yaml").read_bytes() == tiny

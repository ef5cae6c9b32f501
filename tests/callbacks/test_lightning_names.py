"""`lightning` and `pytorch_lightning` are two packages to Python, and one to whoever uses the callback."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning as L
import pytest
import pytorch_lightning
import torch
from torch import Tensor, nn

from optselect import AutoOptimizer, ConfigurationError, LightningWorkload
from tests.support.modules import CLASSES, FEATURES, TRAINER, auto, loaders

ROOT = Path(__file__).parents[2]
PACKAGES = {"lightning": L, "pytorch_lightning": pytorch_lightning}


def classifier(package: Any, epochs: int = 2) -> Any:
    """A module of that package, with its own optimizer; it stops after so many epochs."""

    class Classifier(package.LightningModule):  # type: ignore[misc]  # a class that is known only here
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Linear(FEATURES, CLASSES)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.05)

        def on_train_epoch_end(self) -> None:
            self.trainer.should_stop = self.trainer.current_epoch + 1 >= epochs

    return Classifier()


def data(package: Any) -> Any:
    """A data module of that package."""

    class Data(package.LightningDataModule):  # type: ignore[misc]  # a class that is known only here
        def train_dataloader(self) -> Any:
            return loaders()[0]

        def val_dataloader(self) -> Any:
            return loaders()[1]

    return Data()


def trainer(package: Any, *callbacks: Any) -> Any:
    return package.Trainer(**{**TRAINER, "max_epochs": 2, "callbacks": list(callbacks)})


# --- one class ------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)
def test_the_callback_is_a_callback_of_both(package: Any) -> None:
    assert issubclass(AutoOptimizer, package.Callback)


def test_checkpoints_know_the_callback_by_the_one_name() -> None:
    assert AutoOptimizer().state_key == "AutoOptimizer"


def test_a_pickle_of_the_callback_is_of_the_one_class() -> None:
    copy = pickle.loads(pickle.dumps(AutoOptimizer(seed=3)))  # noqa: S301  # our own

    assert type(copy) is AutoOptimizer


# --- trainings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("one, other", [("lightning", "pytorch_lightning"), ("pytorch_lightning", "lightning")])
def test_a_run_of_one_goes_on_under_the_other_with_its_plan(one: str, other: str, tmp_path: Path) -> None:
    first, later = auto(tmp_path), auto(tmp_path)
    begun = trainer(PACKAGES[one], first)
    begun.fit(classifier(PACKAGES[one], epochs=1), *loaders())
    begun.save_checkpoint(tmp_path / "a.ckpt")

    resumed = trainer(PACKAGES[other], later)
    resumed.fit(classifier(PACKAGES[other]), *loaders(), ckpt_path=tmp_path / "a.ckpt")

    assert (later.plan, later.study, resumed.current_epoch) == (first.plan, None, 2)


def test_a_search_chooses_the_same_under_both_names(tmp_path: Path) -> None:
    tried = []
    for name, package in PACKAGES.items():
        callback = auto(tmp_path / name)
        torch.manual_seed(1)
        trainer(package, callback).fit(classifier(package), *loaders())
        assert callback.plan is not None
        tried.append((callback.plan.configuration, [trial.value for trial in callback.plan.trials]))

    assert tried[0] == tried[1]


_ONE_ALONE = """
import importlib, sys, tempfile
used, blocked = sys.argv[1], sys.argv[2:]
for name in blocked:
    sys.modules[name] = None  # as if it were not installed
from optselect import AutoOptimizer
pl = importlib.import_module(used)
import torch
from torch.utils.data import DataLoader, TensorDataset

class Line(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(3, 1)
    def training_step(self, batch, batch_idx):
        return (self.net(batch[0]) - batch[0].sum(1, keepdim=True)).square().mean()
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.randn(64, 3)), batch_size=4)

with tempfile.TemporaryDirectory() as folder:
    auto = AutoOptimizer(budget=1.0, report=False)
    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
                         enable_progress_bar=False, enable_model_summary=False, callbacks=[auto],
                         default_root_dir=folder)
    trainer.fit(Line())
    trainer.save_checkpoint(f"{folder}/a.ckpt")
    assert len(auto.plan.trials) >= 2
    trainer.fit_loop.max_epochs = 3
    trainer.fit(Line(), ckpt_path=f"{folder}/a.ckpt")
assert not [name for name in sys.modules if name.partition(".")[0] in blocked and sys.modules[name] is not None]
"""


@pytest.mark.parametrize(
    "used, blocked",
    [("pytorch_lightning", ["lightning"]), ("lightning", ["pytorch_lightning", "lightning_fabric"])],
)
def test_either_package_alone_is_enough(used: str, blocked: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", _ONE_ALONE, used, *blocked]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, done.stderr[-3000:]


def test_without_either_an_error_says_what_to_install() -> None:
    program = """
import sys
sys.modules["lightning"] = sys.modules["pytorch_lightning"] = None
from optselect import AutoOptimizer
"""

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )

    said = done.stderr.splitlines()[-1]
    assert said.startswith("optselect.errors.MissingExtraError: AutoOptimizer needs Lightning")
    assert said.endswith("pip install lightning")


# --- mixed use ------------------------------------------------------------------------------------


def test_data_of_the_other_package_are_refused_before_anything_runs(tmp_path: Path) -> None:
    mixed = trainer(L, auto(tmp_path))

    with pytest.raises(
        ConfigurationError,
        match=r"the Trainer is of lightning and the data source Data of pytorch_lightning, .*import both from",
    ):
        mixed.fit(classifier(L), datamodule=data(pytorch_lightning))


@pytest.mark.parametrize("ours, theirs", [(L, pytorch_lightning), (pytorch_lightning, L)])
def test_a_workload_of_two_packages_is_refused(ours: ModuleType, theirs: ModuleType) -> None:
    with pytest.raises(ConfigurationError, match=f"the Trainer is of {ours.__name__} and .* of {theirs.__name__}"):
        LightningWorkload(trainer(ours), classifier(theirs))

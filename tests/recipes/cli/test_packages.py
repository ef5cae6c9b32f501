"""The command line takes modules of `lightning` and of `pytorch_lightning`, each with its own trainer."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from optselect.callbacks.lightning_names import LIGHTNING, PYTORCH_LIGHTNING, installed
from optselect.plan import OptimizerPlan
from optselect.recipes.cli.package import package_in
from tests.support.tiny import TINY, Run

# As its author wrote it, who never heard of `lightning`.
MODULE = """
import pytorch_lightning as pl, torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader, TensorDataset

class Line(pl.LightningModule):
    def __init__(self, slope: float = 2.0, broken: bool = False):
        super().__init__()
        self.net, self.slope, self.broken = torch.nn.Linear(3, 1), slope, broken
    def setup(self, stage):
        if self.broken:
            raise MisconfigurationException("the line is broken")
    def training_step(self, batch, batch_idx):
        return (self.net(batch[0]) - self.slope * batch[0].sum(1, keepdim=True)).square().mean()
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))

class Points(pl.LightningDataModule):
    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.randn(64, 3)), batch_size=8)
    def val_dataloader(self):
        return DataLoader(TensorDataset(torch.randn(16, 3)), batch_size=8)
"""
CONFIG = {**TINY, "model": {"class_path": "written_for_pl.Line"}, "data": {"class_path": "written_for_pl.Points"}}


def written(**changes: Any) -> None:
    """The module and a config of it in the current folder."""
    Path("written_for_pl.py").write_text(MODULE)
    Path("pl.yaml").write_text(json.dumps({**CONFIG, **changes}))


@pytest.mark.parametrize("command", ["fit", "tune", "profile"])
def test_each_command_takes_a_module_of_pytorch_lightning(command: str, run: Run) -> None:
    written()

    done = run(command, "--config", "pl.yaml")

    assert (done.status, done.err) == (0, "")


# Lightning says so of the folder that the first line has left.
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists")
def test_its_checkpoint_goes_on_from_the_same_line(run: Run) -> None:
    written()
    run("fit", "--config", "pl.yaml", "--auto.budget", "0")
    (checkpoint,) = Path().rglob("*.ckpt")

    done = run("fit", "--config", "pl.yaml", "--auto.budget", "0", "--ckpt_path", str(checkpoint))

    assert (done.status, done.err) == (0, "")


def test_an_optimizer_and_a_plateau_of_the_config_are_its_own(run: Run) -> None:
    plateau = {"class_path": "pytorch_lightning.cli.ReduceLROnPlateau", "init_args": {"monitor": "val_loss"}}
    written(
        auto={"candidates": ["user"]},
        optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.25}},
        lr_scheduler=plateau,
    )

    done = run("fit", "--config", "pl.yaml")

    (checkpoint,) = Path().rglob("*.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    assert (done.status, done.err) == (0, "")
    assert content["lr_schedulers"][0]["patience"] == 10
    assert OptimizerPlan.load("plan.json").optimizer == "user"


def test_its_config_is_kept_beside_its_plan(run: Run) -> None:
    written()

    run("fit", "--config", "pl.yaml", "--auto.budget", "0", "--trainer.logger", "true")

    (kept,) = Path().rglob("config.yaml")
    assert "written_for_pl.Line" in kept.read_text()


def test_what_its_package_refuses_is_one_line(run: Run) -> None:
    written(model={"class_path": "written_for_pl.Line", "init_args": {"broken": True}})

    done = run("fit", "--config", "pl.yaml")

    assert (done.status, done.err) == (2, "optselect: ConfigurationError: the line is broken; mend the config\n")


def test_a_model_and_data_of_two_packages_are_one_line_that_says_what_to_change(run: Run) -> None:
    written(data=TINY["data"])

    done = run("fit", "--config", "pl.yaml")

    assert done.status == 2
    assert done.err == (
        "optselect: ConfigurationError: model: written_for_pl.Line is of pytorch_lightning and "
        "data: optselect.recipes.digits.DigitsData of lightning, which hold the same code twice and do not mix; "
        "import both from lightning, or both from pytorch_lightning\n"
    )


# --- where the package is read from ---------------------------------------------------------------

PL, L = "pytorch_lightning.demos.boring_classes.BoringModel", "lightning.pytorch.demos.boring_classes.BoringModel"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", PL],
        [f"--model={PL}"],
        ["--print_config", "--model.class_path", PL],
        ["--model", json.dumps({"class_path": PL})],
        ["--config", json.dumps({"model": PL})],
        ["-c", "folder/whole.yaml"],
        ["--config=folder/parts.yaml"],
        ["--model", "folder/model.yaml"],
        ["--model", L, "--model", PL],
        ["--data", PL.replace("BoringModel", "BoringDataModule")],
    ],
)
def test_the_package_is_that_of_the_model_however_it_is_named(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("folder/whole.yaml").write_text(f"model:\n  class_path: {PL}\n")
    Path("folder/parts.yaml").write_text("model: model.yaml\n")
    Path("folder/model.yaml").write_text(f"class_path: {PL}\n")

    package = package_in(arguments)

    assert package is PYTORCH_LIGHTNING


def test_the_environment_names_the_model_where_the_line_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTSELECT_MODEL", PL)

    packages = package_in([]), package_in(["--model", L])

    assert packages == (PYTORCH_LIGHTNING, LIGHTNING)


@pytest.mark.parametrize("model", ["nowhere.Net", "json.dumps", "Net", "", "{", "[1]", "\0"])
def test_what_names_no_class_is_left_to_the_parser(model: str) -> None:
    package = package_in(["--model", model])

    assert package is installed()[0]

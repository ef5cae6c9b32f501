"""A folder given as a checkpoint: one of shards is read, any other is refused with what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.io import CheckpointIO
from lightning.pytorch.strategies import SingleDeviceStrategy

from optselect import AutoOptimizer, OptimizerPlan, ResumeError, UnsupportedModuleError
from optselect.plan.stored import stored_plan
from optselect.recipes.cli import main
from tests.support.modules import Classifier, StopAfter, auto, fit, made

LAYOUTS = {
    "torch": "meta.pt",
    "DeepSpeed": "checkpoint/mp_rank_00_model_states.pt",
    "DeepSpeed in three stages": "checkpoint/zero_pp_rank_0_mp_rank_00_model_states.pt",
}


@pytest.fixture
def plan(tmp_path: Path) -> OptimizerPlan:
    callback = auto(tmp_path, candidates=["adamw"], budget=0)
    fit(made(Classifier), callback, default_root_dir=tmp_path).save_checkpoint(tmp_path / "file.ckpt")
    return callback.chosen


def shards(folder: Path, layout: str) -> Path:
    """What the strategies write, as far as it is not in shards; of another process there is a file, too."""
    content = torch.load(folder / "file.ckpt", weights_only=True)
    file = folder / "shards.ckpt" / LAYOUTS[layout]
    file.parent.mkdir(parents=True)
    torch.save({name: it for name, it in content.items() if name not in ("state_dict", "optimizer_states")}, file)
    torch.save({}, file.parent / "zero_pp_rank_1_mp_rank_00_model_states.pt")
    return folder / "shards.ckpt"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_plan_is_read_out_of_a_folder_of_shards(
    layout: str, plan: OptimizerPlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shards(tmp_path, layout)

    status = main(["explain", str(folder)])

    assert stored_plan(folder) == plan
    assert status == 0
    assert capsys.readouterr().out == f"{plan.explain()}\n"


@pytest.mark.parametrize(
    "inside, cure", [("plan.json", "pass .*plan.json"), ("a.ckpt", "pass .*a.ckpt"), (None, "pass")]
)
def test_a_folder_without_shards_is_refused_with_what_is_in_it(inside: str | None, cure: str, tmp_path: Path) -> None:
    if inside is not None:
        (tmp_path / inside).touch()

    with pytest.raises(ResumeError, match=f"no distributed checkpoint .*{cure}"):
        stored_plan(tmp_path)


@pytest.mark.parametrize(
    "layout, cure",
    [
        ("torch", "FSDPStrategy or ModelParallelStrategy, which SingleDeviceStrategy does not read; .*consolidate"),
        ("DeepSpeed", "DeepSpeedStrategy, which SingleDeviceStrategy does not read; train with the strategy"),
    ],
)
@pytest.mark.usefixtures("plan")
def test_one_device_refuses_shards_before_anything_is_touched(layout: str, cure: str, tmp_path: Path) -> None:
    folder, callback = shards(tmp_path, layout), AutoOptimizer()

    with pytest.raises(ResumeError, match=cure):
        fit(made(Classifier), callback, ckpt_path=folder)

    assert callback.plan is None


@pytest.mark.parametrize("inside, cure", [("a.ckpt", "pass .*a.ckpt"), (None, "check the path given as ckpt_path")])
def test_a_folder_that_is_no_checkpoint_is_refused(inside: str | None, cure: str, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    if inside is not None:
        (folder / inside).touch()

    with pytest.raises(ResumeError, match=f"is no checkpoint: .*{cure}"):
        fit(made(Classifier), AutoOptimizer(), ckpt_path=folder)


def test_a_plug_in_that_reads_folders_of_its_own_is_let(tmp_path: Path) -> None:
    class Folders(CheckpointIO):
        def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
            Path(path).mkdir(parents=True)
            torch.save(checkpoint, Path(path) / "all.pt")

        def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> Any:
            return torch.load(Path(path) / "all.pt", weights_only=True)

        def remove_checkpoint(self, path: Any) -> None:
            raise NotImplementedError

    first = auto(tmp_path, candidates=["adamw"], budget=0)
    fit(made(Classifier), first, StopAfter(1), plugins=[Folders()]).save_checkpoint(tmp_path / "own")
    later = auto(tmp_path)

    fit(made(Classifier), later, plugins=[Folders()], ckpt_path=tmp_path / "own")

    assert later.plan == first.plan


class DeepSpeedStrategy(SingleDeviceStrategy):
    """By its name; DeepSpeed itself is run in tests/distributed/test_deepspeed.py."""


@pytest.mark.parametrize(
    "optimizer, why",
    [
        ("muon", "muon treats a weight as a matrix"),
        ("adafactor", "adafactor treats a weight as a matrix"),
        ("schedulefree_adamw", "schedulefree_adamw switches weights"),
    ],
)
def test_what_flat_copies_of_weights_would_spoil_is_refused_under_deepspeed(
    optimizer: str, why: str, tmp_path: Path
) -> None:
    first = auto(tmp_path, candidates=[optimizer], budget=0)
    fit(made(Classifier), first, default_root_dir=tmp_path)

    with pytest.raises(UnsupportedModuleError, match=f"{why}.*ModelParallelStrategy"):
        fit(made(Classifier), AutoOptimizer(plan=first.chosen), strategy=DeepSpeedStrategy(torch.device("cpu")))

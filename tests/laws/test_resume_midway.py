"""In the middle of an epoch a run resumes exactly where its loader can go back there, and says so where it cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Dataset, TensorDataset

from optselect.callbacks.randomness import InexactResumeWarning
from tests.support.modules import BATCH, Classifier, Stateful, StopAfter, auto, equal_states, fit, made, rows


def plain(dataset: TensorDataset) -> Any:
    return DataLoader(dataset, batch_size=BATCH, shuffle=True)


MODES: dict[str, dict[str, Any]] = {
    "epochs": {},
    "steps": {"epochs": -1, "max_steps": 30},
    "accumulate 2": {"accumulate_grad_batches": 2},
    "validating often": {"val_check_interval": 4},
}


def interrupted_everywhere(
    folder: Path, loader: Callable[[TensorDataset], Any], every: int, name: str = "adamw", **mode: Any
) -> Iterator[tuple[int, bool]]:
    """A whole run, and one resumed from each of its checkpoints: at which step, and whether they end equal."""

    def run(module: L.LightningModule, saves: Path, **more: Any) -> tuple[Any, Any]:
        saving = ModelCheckpoint(saves, filename="{step}", save_top_k=-1, every_n_train_steps=every)
        usual = {
            "data": (loader(rows()), DataLoader(rows(32), batch_size=16)),
            "epochs": 3,
            "enable_checkpointing": True,
        }
        callback = auto(folder, candidates=[name], budget=0)
        trainer = fit(module, callback, saving, **{**usual, "default_root_dir": folder, **mode, **more})
        return module.state_dict(), trainer.optimizers[0].state_dict()

    whole = run(made(Classifier), folder / "whole")
    for path in (folder / "whole").glob("*.ckpt"):
        rest = run(made(Classifier, seed=5), folder / path.stem, seed=9, ckpt_path=path)
        yield int(path.stem.removeprefix("step=")), equal_states(rest, whole)


@pytest.mark.parametrize("mode", MODES)
def test_a_run_interrupted_at_any_step_equals_the_uninterrupted_one_with_a_stateful_loader(
    mode: str, tmp_path: Path
) -> None:
    """The last step of an epoch among them, before its validation."""
    equal = dict(interrupted_everywhere(tmp_path, Stateful, every=6, **MODES[mode]))

    assert len(equal) >= 3
    assert all(equal.values()), equal


@pytest.mark.parametrize("name", ["schedulefree_adamw", "muon", "prodigy"])
def test_optimizers_with_states_of_their_own_kind_resume_in_the_middle_of_an_epoch(name: str, tmp_path: Path) -> None:
    equal = dict(interrupted_everywhere(tmp_path, Stateful, every=10, name=name))

    assert len(equal) == 3
    assert all(equal.values()), equal


# Lightning says so as well, but not which loader it is, nor what is different.
_LIGHTNINGS = "ignore:You're resuming from a checkpoint that ended before the epoch ended"


@pytest.mark.filterwarnings(_LIGHTNINGS)
def test_a_loader_that_cannot_go_back_into_an_epoch_is_named(tmp_path: Path) -> None:
    steps = interrupted_everywhere(tmp_path, plain, every=30)

    with pytest.warns(InexactResumeWarning, match=r"step=30.*after 6 batches: DataLoader cannot go back there"):
        assert next(steps) == (30, False)


def test_gradients_that_were_accumulated_when_a_checkpoint_was_written_are_not_forgotten_in_silence(
    tmp_path: Path,
) -> None:
    class ByHand(L.Callback):
        def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
            if trainer.fit_loop.epoch_loop.batch_progress.current.ready == 3:
                trainer.save_checkpoint(tmp_path / "3.ckpt")

    choice = {"candidates": ["adamw"], "budget": 0}

    def data() -> Any:
        return Stateful(rows()), DataLoader(rows(32), batch_size=16)

    fit(made(Classifier), auto(tmp_path, **choice), ByHand(), data=data(), epochs=1, accumulate_grad_batches=2)

    with pytest.warns(InexactResumeWarning, match="gradients that had been accumulated"):
        fit(
            made(Classifier),
            auto(tmp_path, **choice),
            data=data(),
            epochs=1,
            accumulate_grad_batches=2,
            ckpt_path=tmp_path / "3.ckpt",
        )


class Noisy(Dataset[Any]):
    """Rows with noise out of generators that the data set holds."""

    def __init__(self, kind: str) -> None:
        self.rows = rows()
        self.generator: Any = {
            "torch": torch.Generator().manual_seed(5),
            "numpy": np.random.default_rng(5),
            "numpy's Mersenne": np.random.Generator(np.random.MT19937(5)),
            "numpy's old": np.random.RandomState(5),
        }[kind]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        inputs, target = self.rows[index]
        draws = isinstance(self.generator, torch.Generator)
        noise = torch.rand((), generator=self.generator) if draws else float(self.generator.normal())
        return inputs + 0.1 * noise, target


@pytest.mark.parametrize("kind", ["torch", "numpy", "numpy's Mersenne", "numpy's old"])
def test_generators_that_a_loader_or_its_data_set_holds_go_on_with_the_next_epoch(kind: str, tmp_path: Path) -> None:
    def data() -> Any:
        own = torch.Generator().manual_seed(4)
        return DataLoader(Noisy(kind), batch_size=BATCH, shuffle=True, generator=own), DataLoader(
            rows(32), batch_size=16
        )

    choice = {"candidates": ["adamw"], "budget": 0}
    whole = made(Classifier)
    fit(whole, auto(tmp_path, **choice), data=data(), epochs=3)
    fit(made(Classifier), auto(tmp_path, **choice), StopAfter(1), data=data(), epochs=3).save_checkpoint(
        tmp_path / "half.ckpt"
    )

    rest = made(Classifier, seed=5)
    fit(rest, auto(tmp_path, **choice), data=data(), epochs=3, seed=9, ckpt_path=tmp_path / "half.ckpt")

    assert equal_states(rest.state_dict(), whole.state_dict())

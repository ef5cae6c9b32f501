"""After a search the run is bit for bit the hand-written one, for every kind of module, loader, trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from optselect import AutoOptimizer, Budget
from optselect.callbacks.auto_optimizer import SearchFallbackWarning
from optselect.workload.rng import rng_state, seed_rng
from tests.support.comparison import checkpoints, logged_rows, python_state
from tests.support.kinds import KINDS, MODES, Kind
from tests.support.modules import TRAINER, by_hand, equal_states

# Clipping a sparse gradient crashes in torch; test_clipping.py holds what we do there. Lightning refuses
# to clip in manual optimization, and refuses an accumulation there or beside a scheduler of it.
_IMPOSSIBLE = {
    ("sparse gradients", "clip by norm"),
    ("sparse gradients", "clip by value"),
    ("manual optimization", "clip by norm"),
    ("manual optimization", "clip by value"),
    ("manual optimization", "accumulate 2"),
    ("two optimizers", "clip by norm"),
    ("two optimizers", "clip by value"),
    ("two optimizers", "accumulate 2"),
    ("changing accumulation", "accumulate 2"),
    ("LBFGS of its own", "bf16-mixed"),
}


class Counting(L.Callback):
    """What a callback of the user's sees."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def on_train_start(self, *args: Any) -> None:
        self._count("train start")

    def on_train_batch_end(self, *args: Any) -> None:
        self._count("train batch")

    def on_validation_end(self, *args: Any) -> None:
        self._count("validation")

    def on_save_checkpoint(self, *args: Any) -> None:
        self._count("checkpoint")

    def _count(self, what: str) -> None:
        self.seen[what] = self.seen.get(what, 0) + 1


def run(
    kind: Kind, mode: str, module_type: type[L.LightningModule], directory: Path, auto: AutoOptimizer | None
) -> dict[str, Any]:
    """Everything a run leaves behind."""
    torch.manual_seed(0)
    module = module_type()
    seed_rng(1)
    counting = Counting()
    arguments = {**TRAINER, "max_epochs": 2, "log_every_n_steps": 1, **kind.trainer, **MODES[mode]}
    callbacks = [counting, *kind.callbacks(), *([auto] if auto else [])]
    if any(isinstance(callback, L.pytorch.callbacks.ModelCheckpoint) for callback in callbacks):
        arguments["enable_checkpointing"] = True
    if arguments["logger"]:
        arguments["logger"] = CSVLogger(directory)
    trainer = L.Trainer(callbacks=callbacks, default_root_dir=directory, **arguments)
    train, val = kind.train(), kind.val()
    if isinstance(train, L.LightningDataModule):
        trainer.fit(module, datamodule=train)
    else:
        trainer.fit(module, train, val)
    return {
        "weights and buffers": dict([*module.named_parameters(), *module.named_buffers()]),
        "gradients wanted": [p.requires_grad for p in module.parameters()],
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "attributes": python_state(module),
        "callback": counting.seen,
        "steps": (trainer.global_step, trainer.current_epoch, trainer.fit_loop.epoch_loop.total_batch_idx),
        "progress": trainer.fit_loop.state_dict(),
        "data": python_state(train),
        "random numbers": rng_state().to_dict(),
        "rows": logged_rows(directory),
        "checkpoints": checkpoints(directory),
    }


def check(name: str, mode: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    auto = AutoOptimizer(
        budget=Budget(steps=40), candidates=kind.candidates, storage=tmp_path / "study.journal", report=False
    )
    if kind.falls_back:
        with pytest.warns(SearchFallbackWarning, match=kind.falls_back):
            searched = run(kind, mode, kind.module(), tmp_path / "searched", auto)
        assert auto.plan is None
        reference = kind.module()
        if reference.configure_optimizers is L.LightningModule.configure_optimizers:

            class Plain(reference):  # type: ignore[misc,valid-type]
                def configure_optimizers(self) -> Any:
                    matrices = [p for p in self.parameters() if p.ndim > 1]
                    vectors = [p for p in self.parameters() if p.ndim <= 1]
                    groups: list[dict[str, Any]] = [
                        {"params": matrices, "name": "adamw/decay"},
                        {"params": vectors, "weight_decay": 0.0, "name": "adamw/no_decay"},
                    ]
                    return torch.optim.AdamW(groups, lr=1e-3, weight_decay=1e-2)

            reference = Plain
    else:
        searched = run(kind, mode, kind.module(), tmp_path / "searched", auto)
        assert auto.plan is not None
        assert len([trial for trial in auto.plan.trials if trial.value is not None]) >= 2
        reference = by_hand(kind.module(), auto.plan)
    written = run(kind, mode, reference, tmp_path / "written", None)

    different = [what for what in written if not equal_states(searched[what], written[what])]

    assert different == []


# Lightning's own remarks: on modules that take the loader's iterator, on overfitting a shuffled loader, on batches to
# be skipped.
_REMARKS = (
    "ignore:.*`dataloader_iter`",
    "ignore:You requested to overfit",
    "ignore:train_dataloader yielded None",
)


@pytest.mark.filterwarnings(*_REMARKS)
@pytest.mark.parametrize("name", KINDS)
def test_a_search_leaves_no_trace(name: str, tmp_path: Path) -> None:
    check(name, "fp32", tmp_path)


@pytest.mark.filterwarnings(*_REMARKS)
@pytest.mark.parametrize(
    "name, mode",
    # Pairwise: every kind meets one other mode, every mode meets a tenth of the kinds.
    [
        (name, mode)
        for index, name in enumerate(KINDS)
        if (name, mode := list(MODES)[1:][index % (len(MODES) - 1)]) not in _IMPOSSIBLE
    ],
)
def test_a_search_leaves_no_trace_in_other_modes(name: str, mode: str, tmp_path: Path) -> None:
    check(name, mode, tmp_path)


def test_at_most_three_kinds_fall_back() -> None:
    assert sum(bool(kind.falls_back) for kind in KINDS.values()) <= 3

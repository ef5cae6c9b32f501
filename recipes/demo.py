"""The whole product on scikit-learn's digits: choose, train, compare, resume. `make demo` runs it.

    python -m optselect.recipes.demo

The data and the model are those of `digits.py`; the model has no `configure_optimizers`.
"""

from __future__ import annotations

import itertools
import logging
import sys
import time
import warnings
from datetime import datetime
from pathlib import Path

import lightning as L
import optuna
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from rich.console import Console
from rich.table import Table

from optselect import AutoOptimizer, OptimizerPlan
from optselect.recipes.digits import DigitsData, DigitsModel

EPOCHS = 20  # of 20 batches each: 400 steps
SEED, FRESH_SEEDS = 0, (1, 2)

console = Console()


class WithAdamW(DigitsModel):
    """The same model with what one writes without thinking: the yardstick."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW at 1e-3 with a constant rate."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main(epochs: int = EPOCHS) -> None:
    """Run every act in a fresh folder under `demo_runs/`."""
    started = time.perf_counter()
    folder = _fresh_folder()
    keep_quiet()

    title("1. Profile, proposals and trials")
    auto, trainer = AutoOptimizer(), trainer_in(folder, epochs)
    trainer.callbacks.append(auto)
    # Half way and at the end: the first is what an interrupted run would have left behind.
    checkpoints = ModelCheckpoint(folder / "checkpoints", "{epoch}", every_n_epochs=epochs // 2, save_top_k=-1)
    trainer.callbacks.append(checkpoints)
    fit(DigitsModel, trainer, SEED)
    plan = auto.plan
    assert plan is not None
    assert auto.study is not None

    title("2. The plan")
    # The profile, the proposals and the trials, which the full explanation goes on with, stand above.
    print("\n".join(itertools.takewhile(lambda line: line != "profile", plan.explain().splitlines())))

    title("3. The training with it, beside plain AdamW(1e-3)")
    yardstick = trainer_in(folder, epochs)
    fit(WithAdamW, yardstick, SEED)
    rows = [(SEED, figures(trainer), figures(yardstick))]
    for seed in FRESH_SEEDS:
        chosen, yardstick = trainer_in(folder, epochs), trainer_in(folder, epochs)
        chosen.callbacks.append(AutoOptimizer(plan=plan))
        fit(DigitsModel, chosen, seed)
        fit(WithAdamW, yardstick, seed)
        rows.append((seed, figures(chosen), figures(yardstick)))
    show(rows, plan)

    title("4. What is left on disk")
    half, last = folder / "checkpoints" / f"epoch={epochs // 2 - 1}.ckpt", checkpoints.best_model_path
    for what, file in (("checkpoint", last), ("plan", auto.plan_path), ("study", folder / "optselect_study.journal")):
        print(f"  {what:<11} {file}")

    title("5. Resuming")
    print(f"A new trainer and a new model go on from {half.name}, as after a crash at half time.")
    resumed, again = AutoOptimizer(), trainer_in(folder, epochs)
    again.callbacks.append(resumed)
    trials_before = trials_in(auto.study)
    fit(DigitsModel, again, seed=12345, ckpt_path=half)
    assert resumed.plan == plan
    print(f"  optimizer   {resumed.plan.optimizer}, from the checkpoint")
    print(f"  trials      {trials_in(auto.study) - trials_before} (the study holds {trials_before} from before)")
    for name in ("val_loss", "val_accuracy"):
        print(f"  {name:<11} {figures(again)[name]:.6f}; without the crash {figures(trainer)[name]:.6f}")
    print(f"\n{time.perf_counter() - started:.0f} s in all.")


def trainer_in(folder: Path, epochs: int) -> L.Trainer:
    """A trainer that says nothing and keeps what it writes in `folder`."""
    return L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def fit(model: type[DigitsModel], trainer: L.Trainer, seed: int, ckpt_path: Path | None = None) -> None:
    """Train a new model of the class on weights and an order of the data that `seed` decides."""
    L.seed_everything(seed)
    trainer.fit(model(), datamodule=DigitsData(), ckpt_path=ckpt_path)


def figures(trainer: L.Trainer) -> dict[str, float]:
    """What was logged last."""
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def trials_in(study: optuna.Study) -> int:
    """How many trials the study's file holds now."""
    return len(optuna.load_study(study_name=study.study_name, storage=study._storage).trials)  # noqa: SLF001  # no other way


def show(rows: list[tuple[int, dict[str, float], dict[str, float]]], plan: OptimizerPlan) -> None:
    """Both trainings seed by seed, how often the plan was better, and what it cost."""
    table = Table(box=None)
    for column in ("seed", "val_loss: the plan", "AdamW(1e-3)", "val_accuracy: the plan", "AdamW(1e-3)"):
        table.add_column(column, justify="right")
    for seed, ours, plain in rows:
        table.add_row(
            str(seed), *(f"{run[name]:.4f}" for name in ("val_loss", "val_accuracy") for run in (ours, plain))
        )
    console.print(table)
    better = sum(ours["val_loss"] < plain["val_loss"] for _, ours, plain in rows)
    print(f"\nThe plan's validation loss is the lower one on {better} of {len(rows)} seeds; the trials saw only seed {SEED}.")
    steps = plan.total_steps or 1
    print(f"Choosing it cost {plan.search_steps} steps: {plan.search_steps / steps:.1f} trainings of {steps} steps, once.")


def title(text: str) -> None:
    """A line that tells the acts apart."""
    print()
    console.rule(f"[bold]{text}", align="left")


def keep_quiet() -> None:
    """Lightning's remarks would stand between the lines that matter; optselect's are shown."""
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    ours = logging.getLogger("optselect")
    ours.setLevel(logging.INFO)
    if not ours.handlers:
        # In a terminal the trials are a live table; where there is none, they come as log lines.
        handler: logging.Handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        ours.addHandler(handler)


def _fresh_folder() -> Path:
    folder = Path("demo_runs") / datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
    for count in itertools.count(1):
        candidate = folder if count == 1 else folder.with_name(f"{folder.name}_{count}")
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            continue
        return candidate
    raise AssertionError


if __name__ == "__main__":
    main()

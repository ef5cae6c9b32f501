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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from rich.console import Console
from rich.table import Table

from optselect import AutoOptimizer, OptimizerPlan
from optselect.recipes.digits import DigitsData, DigitsModel
from optselect.report.text import choice_as_text

EPOCHS = 20  # of 20 batches each: 400 steps
SEED, FRESH_SEEDS = 0, (1, 2)
JUDGED = ("val_loss", "val_accuracy", "test_accuracy")

Figures = dict[str, float]
console = Console()


class WithAdamW(DigitsModel):
    """The same model with what one writes without thinking: the yardstick."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Use AdamW at 1e-3, a constant rate."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


@dataclass
class Narrator(L.Callback):
    """Prints the plan once it stands, and then every fifth of the training."""

    auto: AutoOptimizer

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the choice: AutoOptimizer has shown profile, proposals and trials."""
        title("2. The plan")
        if self.auto.plan is not None:
            print(choice_as_text(self.auto.plan))
        title("3. The training")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print how far it is."""
        epochs = trainer.max_epochs or 1
        if (trainer.current_epoch + 1) % max(epochs // 5, 1) == 0:
            seen = "  ".join(f"{name} {float(value):.4f}" for name, value in trainer.callback_metrics.items())
            print(f"  epoch {trainer.current_epoch + 1:>2} of {epochs}  {seen}")


def main(epochs: int = EPOCHS) -> None:
    """Run every act in a fresh folder under `demo_runs/`."""
    started = time.perf_counter()
    folder = fresh_folder()

    title("1. Profile, proposals and trials")
    auto = AutoOptimizer()
    checkpoints = at_half_and_end(folder / "checkpoints", epochs)
    chosen = fit(DigitsModel, SEED, folder, epochs, auto, Narrator(auto), checkpoints)
    plan, study = auto.plan, auto.study
    if plan is None or study is None:
        raise RuntimeError("nothing was chosen")

    title("4. Beside plain AdamW(1e-3), on the same seeds and steps")
    rows = [(SEED, chosen, fit(WithAdamW, SEED, folder, epochs))]
    for seed in FRESH_SEEDS:
        ours = fit(DigitsModel, seed, folder, epochs, AutoOptimizer(plan=plan))
        rows.append((seed, ours, fit(WithAdamW, seed, folder, epochs)))
    compare(rows, plan)

    title("5. What is left on disk")
    for what, file in (
        ("checkpoint", checkpoints.best_model_path),
        ("plan", str(auto.plan_path)),
        ("study", str(folder / "optselect_study.journal")),
    ):
        print(f"  {what:<13} {Path(file).resolve()}")

    title("6. Resuming")
    half = folder / "checkpoints" / f"epoch={epochs // 2 - 1}.ckpt"
    print(f"A new trainer, callback and model go on from {half.name}, as after a crash at half time.")
    resumed, trials = AutoOptimizer(), len(study.trials)
    # Another seed: weights, random numbers and the plan all come out of the checkpoint.
    rest = at_half_and_end(folder / "resumed", epochs)
    again = fit(DigitsModel, 12345, folder, epochs, resumed, rest, ckpt_path=half)
    same = "the same plan" if resumed.plan == plan else "ANOTHER PLAN"
    print(f"  optimizer     {plan.optimizer}, {same} as before")
    print(f"  trials run    {len(study.trials) - trials} (the study holds {trials} from before)")
    for name in JUDGED:
        print(f"  {name:<13} {again[name]:.6f}; without the crash {chosen[name]:.6f}")
    print(f"\n{time.perf_counter() - started:.0f} s in all.")


def fit(
    module: type[DigitsModel],
    seed: int,
    folder: Path,
    epochs: int,
    *callbacks: L.Callback,
    ckpt_path: Path | None = None,
) -> Figures:
    """Train a new `module`, its weights and the data's order by `seed`; return what was logged last."""
    L.seed_everything(seed)
    model = module()
    trainer = L.Trainer(
        max_epochs=epochs,
        callbacks=list(callbacks),
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=DigitsData(), ckpt_path=ckpt_path)
    figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
    tested = trainer.test(model, datamodule=DigitsData(), verbose=False)[0]
    return {**figures, **tested}


def at_half_and_end(folder: Path, epochs: int) -> ModelCheckpoint:
    """Save checkpoints at two epochs; the first is what an interrupted run would have left behind."""
    return ModelCheckpoint(folder, "{epoch}", every_n_epochs=epochs // 2, save_top_k=-1)


def compare(rows: list[tuple[int, Figures, Figures]], plan: OptimizerPlan) -> None:
    """Tabulate both trainings seed by seed, how often the plan was better, and what it cost."""
    table = Table("seed", *JUDGED, box=None, title="the plan / AdamW(1e-3)", title_justify="left")
    for seed, ours, plain in rows:
        table.add_row(str(seed), *(f"{ours[name]:.4f} / {plain[name]:.4f}" for name in JUDGED))
    console.print(table)
    better = sum(ours["val_loss"] < plain["val_loss"] for _, ours, plain in rows)
    steps = plan.total_steps or 1
    cost = plan.search_steps / steps
    print(f"\nThe plan's val_loss is the lower one on {better} of {len(rows)} seeds.")
    print(f"The trials saw seed {SEED} alone, and no test picture.")
    print(f"The choice cost {plan.search_steps} steps, once: {cost:.1f} trainings of {steps} steps.")


def title(text: str) -> None:
    """Print a line that tells the acts apart."""
    print()
    console.rule(f"[bold]{text}", align="left")


@contextmanager
def quiet() -> Iterator[None]:
    """Mute Lightning's remarks, which would stand between the lines that matter; optselect's are shown."""
    # In a terminal AutoOptimizer shows its trials as a live table. Elsewhere it logs them.
    handler: logging.Handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    levels = {
        "lightning.pytorch": logging.ERROR,
        "lightning.fabric": logging.ERROR,
        "optselect": logging.INFO,
    }
    before = {name: logging.getLogger(name).level for name in levels}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            logging.getLogger("optselect").addHandler(handler)
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
            yield
        finally:
            logging.getLogger("optselect").removeHandler(handler)
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


def fresh_folder() -> Path:
    """Make a folder in `demo_runs/` named for the time, with a number where two runs share a second."""
    base = Path("demo_runs") / datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
    names = (base if count == 0 else base.with_name(f"{base.name}_{count}") for count in itertools.count())
    folder = next(name for name in names if not name.exists())
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    with quiet():
        main()

"""What a fit tells of its plan: plan.json where it is looked for, and the report."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fsspec.core import url_to_fs

from optselect.plan import OptimizerPlan
from optselect.report import Run, as_html, can_draw, is_page_of, write_report

if TYPE_CHECKING:
    import lightning.pytorch as pl

_log = logging.getLogger("optselect")

PLAN_FILE = "plan.json"
REPORT_FILE = "report.html"


def run_folder(trainer: pl.Trainer) -> str:
    """Return the folder where a run writes what is its own. All processes ask together."""
    return trainer.log_dir or trainer.default_root_dir


def checkpoint_folders(trainer: Any) -> list[str]:
    """List the folders where the trainer's checkpoint callbacks write."""
    folders = (getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks)
    return list(dict.fromkeys(str(folder) for folder in folders if folder))


def sidecars_of(checkpoint: str) -> list[str]:
    """List where the plan of `checkpoint` may lie: beside it, or beside the folder of checkpoints that it is in."""
    folder, _, _ = checkpoint.rstrip("/").rpartition("/")
    return [f"{folder or '.'}/{PLAN_FILE}", f"{folder or '.'}/../{PLAN_FILE}"]


def write_sidecars(plan: OptimizerPlan, folders: Iterable[str]) -> None:
    """Write the plan into each of the folders, on any file system that checkpoints can be written to."""
    for folder in folders:
        if "://" in folder:
            with url_to_fs(folder)[0].open(f"{folder}/{PLAN_FILE}", "w") as file:
                json.dump(plan.to_dict(), file)
        else:
            plan.save(Path(folder) / PLAN_FILE)


def write_plan(plan: OptimizerPlan, folder: str) -> None:
    """Write the plan into the run's folder, and say so where it is the first one there."""
    path = Path(folder) / PLAN_FILE
    new = not path.exists()
    write_sidecars(plan, [folder])
    if new:
        _log.info("plan written to %s", path)


def run_of(trainer: Any, module: pl.LightningModule, folder: str) -> Run:
    """Say what is trained, for people; the run's own `folder` is asked for by all processes together."""
    data = trainer.fit_loop._data_source.instance if trainer.datamodule is None else trainer.datamodule
    return Run(
        module=type(module).__qualname__,
        data="its own loaders" if data is module else "loaders" if data is None else type(data).__qualname__,
        folder=folder,
        chosen=f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
    )


def ended(run: Run, trainer: Any) -> Run:
    """Add how the training ended, and what it logged last."""
    values = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
    steps = f"{trainer.global_step:,} optimizer steps, {trainer.current_epoch} epochs"
    return replace(run, ended=f"ended after {steps}", values=values)


def write_page(plan: OptimizerPlan, folder: str, run: Run, *, anew: bool = False) -> Path | None:
    """Write the report into the run's folder; return its path, or None when that failed, whatever the reason.

    One that is there already for this plan stays, unless it is to be written `anew`.
    """
    path = Path(folder) / REPORT_FILE
    try:
        if "://" in folder:
            with url_to_fs(folder)[0].open(f"{folder}/{REPORT_FILE}", "w", encoding="utf-8") as file:
                file.write(as_html(plan, run))
        elif anew:
            write_report(plan, path, run)
        elif not is_page_of(plan, path):
            write_report(plan, path, run)
            hint = "" if can_draw() else " without plots, for which: pip install 'optselect[report]'"
            _log.info("report written to %s%s", path, hint)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is no reason to end a training
        _log.warning("no report is written to %s (%s: %s)", path, type(error).__name__, error)
        return None
    return path

"""What each logger is told of a plan: hyperparameters, the trials as a table, and the report as a file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optselect.plan import OptimizerPlan
from optselect.report import logged_facts
from optselect.report.logged import trial_table

if TYPE_CHECKING:
    import lightning.pytorch as pl

_log = logging.getLogger("optselect")


def tell_loggers(trainer: Any, module: pl.LightningModule, plan: OptimizerPlan, files: list[Path]) -> None:
    """Log the choice as hyperparameters, through the interface that every logger of Lightning has.

    Weights & Biases, MLflow and TensorBoard also get the trials as a table, and the first two the `files`.
    """
    owners = [owner for owner in (module, trainer.datamodule) if owner is not None and owner._log_hyperparams]
    # TensorBoard shows what it is told first and nothing later, and Lightning tells it these later.
    known = {name: value for owner in owners for name, value in owner.hparams_initial.items() if name != "_class_path"}
    for logger in trainer.loggers:
        _try(logger, "hyperparameters", lambda each: each.log_hyperparams({**known, **logged_facts(plan)}))
        if trainer.is_global_zero:
            for what, tell in _more(logger, plan, [file for file in files if file.is_file()]):
                _try(logger, what, tell)


def _try(logger: Any, what: str, tell: Callable[[Any], object]) -> None:
    try:
        tell(logger)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is no reason to end a training
        _log.warning("%s takes no %s (%s: %s)", type(logger).__name__, what, type(error).__name__, error)


def _more(logger: Any, plan: OptimizerPlan, files: list[Path]) -> Iterator[tuple[str, Callable[[Any], object]]]:
    """Yield what a logger of that kind takes beside hyperparameters, each with its name.

    By their class's name: none of their packages is needed to look.
    """
    kinds = {kind.__name__ for kind in type(logger).__mro__}
    header, rows = trial_table(plan)
    if "WandbLogger" in kinds:
        yield "table", lambda each: each.log_table("optselect/trials", columns=list(header), data=rows)
        for file in files:
            yield "file", partial(_to_wandb, file=file)
    elif "MLFlowLogger" in kinds:
        columns = {title: [row[place] for row in rows] for place, title in enumerate(header)}
        yield "table", lambda each: each.experiment.log_table(each.run_id, columns, "optselect/trials.json")
        for file in files:
            yield "file", partial(_to_mlflow, file=file)
    elif "TensorBoardLogger" in kinds:
        text = plan.explain(markdown=True)
        yield "text", lambda each: each.experiment.add_text("optselect/plan", text)


def _to_wandb(logger: Any, file: Path) -> None:
    logger.experiment.log_artifact(file, name=f"optselect-{file.stem}-{logger.version}", type="optselect")


def _to_mlflow(logger: Any, file: Path) -> None:
    logger.experiment.log_artifact(logger.run_id, str(file), "optselect")

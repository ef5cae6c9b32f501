"""A run with a search beside the same run with the chosen optimizer written by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch

from optselect import AutoOptimizer, Budget
from optselect.workload.rng import rng_state, seed_rng
from tests.support.modules import TRAINER, Classifier, by_hand, equal_states, loaders

Scenario = Callable[[L.LightningModule, list[L.Callback], Path], L.Trainer]


def fitting(
    callbacks: Callable[[], list[L.Callback]] = list, data: Callable[[], Any] = loaders, **kwargs: Any
) -> Scenario:
    """One fit in the company of `callbacks`, with these arguments of the trainer."""

    def scenario(module: L.LightningModule, auto: list[L.Callback], folder: Path) -> L.Trainer:
        trainer = trainer_in(folder, [*auto, *callbacks()], **kwargs)
        train, val = data()
        trainer.fit(module, train, val)
        return trainer

    return scenario


def trainer_in(folder: Path, callbacks: list[L.Callback], **kwargs: Any) -> L.Trainer:
    """A quiet trainer of two epochs that writes into `folder`; functions in `kwargs` are called with it."""
    made = {name: value(folder) if callable(value) else value for name, value in kwargs.items()}
    defaults = {**TRAINER, "max_epochs": 2, "log_every_n_steps": 1, "default_root_dir": folder}
    if made.get("barebones"):
        defaults = {name: value for name, value in defaults.items() if name != "log_every_n_steps"}
    return L.Trainer(**{**defaults, "callbacks": callbacks, **made})


def left_behind(module: L.LightningModule, trainer: L.Trainer, folder: Path) -> dict[str, Any]:
    """What a run leaves: in the module, the trainer, the random numbers and on disk."""
    return {
        "weights and buffers": dict([*module.named_parameters(), *module.named_buffers()]),
        "gradients wanted": [p.requires_grad for p in module.parameters()],
        "train flags": [part.training for part in module.modules()],
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "attributes": python_state(module),
        "names of attributes": set(vars(module)),
        "steps": (trainer.global_step, trainer.current_epoch, trainer.fit_loop.epoch_loop.total_batch_idx),
        "progress": trainer.fit_loop.state_dict(),
        "random numbers": rng_state().to_dict(),
        "rows": logged_rows(folder),
        "checkpoints": checkpoints(folder),
    }


def searched(
    scenario: Scenario,
    folder: Path,
    module_type: type[L.LightningModule] = Classifier,
    *,
    auto: AutoOptimizer | None = None,
    **arguments: Any,
) -> tuple[AutoOptimizer, dict[str, Any]]:
    """The scenario with a search, and what it left behind."""
    arguments = {"budget": Budget(steps=40), "candidates": ("adamw", "momentum"), **arguments}
    auto = auto or AutoOptimizer(storage=folder / "study.journal", report=False, **arguments)
    return auto, lived(scenario, module_type, folder / "searched", [auto])


def differences(
    scenario: Scenario,
    folder: Path,
    module_type: type[L.LightningModule] = Classifier,
    *,
    trials: int = 2,
    **arguments: Any,
) -> list[str]:
    """In what the scenario with a search differs from the one written by hand."""
    auto, ours = searched(scenario, folder, module_type, **arguments)
    assert auto.plan is not None
    assert len([trial for trial in auto.plan.trials if trial.value is not None]) >= trials
    theirs = lived(scenario, by_hand(module_type, auto.plan), folder / "written", [])
    return [what for what in theirs if not equal_states(ours[what], theirs[what])]


def lived(
    scenario: Scenario, module_type: type[L.LightningModule], folder: Path, auto: list[L.Callback]
) -> dict[str, Any]:
    """The scenario from reproducible weights and random numbers, and what it left behind."""
    torch.manual_seed(0)
    module = module_type()
    seed_rng(1)
    return left_behind(module, scenario(module, auto, folder), folder)


def python_state(owner: Any) -> dict[str, Any]:
    """Attributes that can be compared, of a module, or of a loader with its data set and sampler."""
    found = dict(vars(owner)) if hasattr(owner, "__dict__") else {}
    dataset = getattr(owner, "dataset", None)
    if hasattr(dataset, "__dict__"):
        found.update({f"dataset.{name}": value for name, value in vars(dataset).items()})
    found.update(
        {f"sampler.{name}": value for name, value in vars(getattr(owner, "batch_sampler", owner)).items()}
        if hasattr(getattr(owner, "batch_sampler", owner), "__dict__")
        else {}
    )
    return {name: value for name, value in found.items() if _plain(value)}


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple | set):
        return all(map(_plain, value))
    if isinstance(value, dict):
        return all(map(_plain, value.values()))
    return isinstance(value, int | float | str | bool | torch.Tensor | None)


def logged_rows(directory: Path) -> list[str]:
    """The CSV loggers' files."""
    return [path.read_text() for path in sorted(directory.rglob("metrics.csv"))]


def checkpoints(directory: Path) -> dict[str, Any]:
    """Their contents, without what names a folder, and without our own entry."""
    found = {}
    for path in sorted(directory.rglob("*.ckpt")):
        content = torch.load(path, weights_only=True)
        content["callbacks"] = {
            key: {
                name: value
                for name, value in state.items()
                if "path" not in name and "dir" not in name and "models" not in name
            }
            for key, state in content["callbacks"].items()
            if key != "AutoOptimizer"
        }
        found[path.name] = content
    return found

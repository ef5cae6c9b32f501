"""A plan as a file holds it: plan.json, or a checkpoint of a run that AutoOptimizer was part of.

A checkpoint is read without running any code that is in it; for the plan alone, without torch either.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optselect.errors import PlanFormatError, ResumeError
from optselect.plan.plan import OptimizerPlan
from optselect.plan.reading import Opaque, checkpoint_skeleton, opaque_in

CALLBACK_KEY = "AutoOptimizer"
"""Under which a checkpoint's "callbacks" hold the state of AutoOptimizer: Lightning takes the class's name."""


SHARDED = "meta.pt"
"""What FSDP and ModelParallel write beside the shards of one checkpoint: everything but weights and states."""


def stored_plan(file: Path) -> OptimizerPlan:
    """Read the plan in a plan.json or a checkpoint, which may be a folder of shards.

    Raises `PlanFormatError` or `PlanVersionError` for what is no plan of ours, and `ResumeError` for a checkpoint that
    cannot be read or holds none.
    """
    if file.suffix in (".yaml", ".yml"):
        raise PlanFormatError(
            f"{file} is a config, which holds no plan; run optselect tune --config {file}, and pass its plan.json"
        )
    if _is_folder(file):
        file = _file_of_shards(file)
    if not zipfile.is_zipfile(file) and file.suffix != ".ckpt":
        return OptimizerPlan.load(file)
    try:
        checkpoint = checkpoint_skeleton(file)
    except OSError as error:
        raise ResumeError(f"{file} cannot be read ({error.strerror}); pass a plan.json or a checkpoint") from error
    state = callback_state(checkpoint) or {}
    if isinstance(checkpoint, Opaque) or (name := opaque_in(state.get("plan"))):
        name = checkpoint.name if isinstance(checkpoint, Opaque) else name
        raise ResumeError(
            f"{file} cannot be read as a checkpoint: where its plan belongs there is something that would run code "
            f"({name}); pass the plan.json that was written beside it"
        )
    plan = plan_in(state)
    if plan is None:
        raise ResumeError(f"the checkpoint {file} holds no optimizer plan; pass one that was made with AutoOptimizer")
    return plan


def beside_shards(folder: Path) -> Path | None:
    """Find the file that holds what is no weight and no state in a distributed checkpoint; None: it is none.

    That of Lightning beside torch's shards, or of the first process among DeepSpeed's.
    """
    if (lightnings := folder / SHARDED).is_file():
        return lightnings
    ranks = [
        file
        for pattern in ("*/mp_rank_00_model_states.pt", "*/zero_pp_rank_0_mp_rank_00_model_states.pt")
        for file in folder.glob(pattern)
    ]
    return max(ranks, key=lambda file: file.stat().st_mtime, default=None)


def _file_of_shards(folder: Path) -> Path:
    if (found := beside_shards(folder)) is not None:
        return found
    inside = sorted([*folder.glob("plan.json"), *folder.glob("*.ckpt")])
    pass_on = f"pass {inside[0]}" if inside else "pass a plan.json or a checkpoint"
    raise ResumeError(f"the folder {folder} is no distributed checkpoint (there is no {SHARDED} in it); {pass_on}")


def read_checkpoint(file: Path | str) -> Any:
    """Load a checkpoint. Raises whatever the file leads torch to."""
    import torch  # noqa: PLC0415  # seconds, which a plan.json does not need

    # Mapped, not read, where torch can: of weights and states nothing is needed.
    return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))


def callback_state(checkpoint: Any, key: str = CALLBACK_KEY) -> Mapping[str, Any] | None:
    """Find what AutoOptimizer, or a subclass of that name, has left in a checkpoint; None: it was not there."""
    callbacks = checkpoint.get("callbacks") if isinstance(checkpoint, Mapping) else None
    state = callbacks.get(key) if isinstance(callbacks, Mapping) else None
    return state if isinstance(state, Mapping) else None


def plan_in(state: Mapping[str, Any]) -> OptimizerPlan | None:
    """Read the plan in the callback's state; None: it had chosen none.

    Raises `PlanFormatError` or `PlanVersionError` for what is no plan of ours.
    """
    plan = state.get("plan")
    return None if plan is None else OptimizerPlan.from_dict(plan)


def _is_folder(file: Path) -> bool:
    try:
        return file.is_dir()
    except OSError:  # a name too long: whoever opens it says so
        return False

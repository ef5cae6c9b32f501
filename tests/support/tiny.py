"""A training that the command line can be tried on in a moment."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# 8 steps to train, and so at most 32 to search.
TINY: dict[str, Any] = {
    "seed_everything": 0,
    "model": {"class_path": "optselect.recipes.digits.DigitsModel", "init_args": {"hidden": 8}},
    "data": {"class_path": "optselect.recipes.digits.DigitsData"},
    "trainer": {
        "max_epochs": 2,
        "limit_train_batches": 4,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
    "auto": {"monitor": "val_loss"},
}


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


Run = Callable[..., Done]

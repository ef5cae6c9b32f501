"""How a callback in a spawned process tells the one in the parent what was decided.

Lightning's spawning launchers bring weights and metrics back, and nothing of a callback.
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid
import weakref
from pathlib import Path
from typing import Any

from optselect.callbacks.lightning_names import lightning_of
from optselect.files import write_whole
from optselect.plan import OptimizerPlan


class Letter:
    """A small file, named before the processes part; written in a child, read once in the parent, gone with it."""

    def __init__(self) -> None:
        self._path = Path(tempfile.gettempdir()) / f"optselect-{uuid.uuid4().hex}.json"
        self._writer_is_not = os.getpid()
        weakref.finalize(self, self._path.unlink, missing_ok=True)

    def write(self, trainer: Any, plan: OptimizerPlan, plan_path: Path) -> None:
        """Write from a child that the trainer's launcher has spawned or forked; do nothing elsewhere."""
        spawning = lightning_of(trainer)._MultiProcessingLauncher
        if isinstance(trainer.strategy.launcher, spawning) and os.getpid() != self._writer_is_not:
            content = {"plan": plan.to_dict(), "plan_path": str(plan_path.absolute())}
            write_whole(self._path, json.dumps(content))

    def read(self) -> tuple[OptimizerPlan, Path] | None:
        """Read what a child has written, in the parent; None: nothing."""
        if os.getpid() != self._writer_is_not or not self._path.exists():
            return None
        content = json.loads(self._path.read_text(encoding="utf-8"))
        self._path.unlink()
        return OptimizerPlan.from_dict(content["plan"]), Path(content["plan_path"])

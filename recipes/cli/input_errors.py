"""Wrong input in one line: what jsonargparse, Lightning and torch say of it, said as our own errors are."""

from __future__ import annotations

import re
import sys
import traceback
from dataclasses import dataclass
from itertools import dropwhile
from pathlib import Path

from torch import nn

from optselect.callbacks.lightning_names import lightning_of
from optselect.errors import ConfigurationError, MissingExtraError, OptselectError, ResumeError

# An exception that one of these raises is about what it was given; one that a user's own line raises is a bug
# in that line, and keeps its traceback.
_LIBRARIES = frozenset({"lightning", "lightning_fabric", "lightning_utilities", "pytorch_lightning", "torch"})
_SHOWN = "or see the traceback with -v"


def as_input_error(error: Exception, model: nn.Module, ckpt_path: str | None) -> OptselectError | None:
    """Say what is wrong with the input that a fit died of; `None` for what is no fault of the input."""
    if isinstance(error, lightning_of(model).MisconfigurationException):
        return ConfigurationError(f"{readable(str(error))}; mend the config")
    if ckpt_path is not None and "loading state_dict" in str(error):
        return ResumeError(
            f"the checkpoint {ckpt_path} is of another model; use the one it was made with ({readable(str(error))})"
        )
    frames = _frames(error)
    said, where = f"{type(error).__name__}: {readable(str(error))}", _where(frames)
    if ckpt_path is not None and any(frame.function == "resume_start" for frame in frames):
        return unreadable(ckpt_path, error)
    if isinstance(error, ImportError):
        return MissingExtraError(f"{said}{where}; install what is missing, {_SHOWN}")
    if isinstance(error, OSError):
        return ConfigurationError(f"{said}{where}; mend the path or its permissions, {_SHOWN}")
    if frames and frames[-1].package in _LIBRARIES:
        if not any(parameter.requires_grad for parameter in model.parameters()):
            return ConfigurationError(
                f"no parameter of {type(model).__name__} requires a gradient, so there is nothing to train; "
                "unfreeze some, or give the model parameters"
            )
        cure = "make data and model fit each other" if frames[-1].package == "torch" else "mend the config"
        return ConfigurationError(f"{said}{where}; {cure}, {_SHOWN}")
    return None


def unreadable(ckpt_path: str, error: Exception) -> ResumeError:
    """Say what is wrong with a checkpoint that torch cannot load, or will not because it would run code."""
    # The first line says it; then torch explains at length how to switch off what protects.
    first = str(error).partition("\n")[0]
    return ResumeError(
        f"the checkpoint {ckpt_path} cannot be read ({type(error).__name__}: {first}); pass another one, {_SHOWN}"
    )


def readable(message: str) -> str:
    """Put a message of jsonargparse's many lines into one: the key, and what was wrong with what came."""
    message = re.sub(r"<class '([\w.]+)'>", r"\1", message).replace("Expected a typing.Literal", "Expected one of ")
    key = re.match(r'Parser key "([^"]+)":\s*', message)
    where = f"{key.group(1)}: " if key else ""
    lines = [line.strip() for line in message[key.end() if key else 0 :].splitlines() if line.strip()]
    if lines and lines[0].startswith("Unexpected config:"):
        came = lines[0].removeprefix("Unexpected config:").strip() or "nothing"
        return f"a config is a mapping of keys such as model: and trainer:, but got {came}"
    if "Errors:" not in lines:
        return where + " ".join(lines)
    # One reason for each type that was tried. What another type expected helps nobody once one says more.
    said = " ".join(line for line in lines[lines.index("Errors:") + 1 :] if not line.startswith("Given value"))
    reasons = [reason.strip() for reason in f" {said}".split(" - ") if "NoneType" not in reason and reason.strip()]
    telling = [reason for reason in reasons if not reason.startswith("Expected a")] or reasons
    given = next((f". {line}" for line in lines if line.startswith("Given value:") and "(" not in line), "")
    return where + "; or ".join(telling) + given


def _where(frames: list[_Frame]) -> str:
    """Name the last line of the user's own code that was passed, as ` (in training_step, model.py, line 30)`."""
    own = [frame for frame in frames if frame.own]
    return f" (in {own[-1].function}, {Path(own[-1].file).name}, line {own[-1].line})" if own else ""


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """One line of a traceback, from Lightning on inwards."""

    module: str
    function: str
    file: str
    line: int

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]

    @property
    def own(self) -> bool:
        """Whether the user wrote it, or copied it from a recipe."""
        if self.package == "optselect":
            return self.module.startswith("optselect.recipes.") and not self.module.startswith("optselect.recipes.cli.")
        installed = "site-packages" in Path(self.file).parts or self.package in sys.stdlib_module_names
        return self.package not in _LIBRARIES and not installed


def _frames(error: BaseException) -> list[_Frame]:
    every = [
        _Frame(
            module=frame.f_globals.get("__name__", ""),
            function=frame.f_code.co_name,
            file=frame.f_code.co_filename,
            line=line,
        )
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    return list(dropwhile(lambda frame: frame.package not in _LIBRARIES, every))

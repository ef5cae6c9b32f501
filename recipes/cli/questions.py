"""`optselect explain`, `report`, `catalogue` and `rules`: questions that need no training, and mostly no torch."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optselect import catalogue as optimizers
from optselect.errors import ConfigurationError, PlanFormatError, ResumeError, UnknownOptimizerError
from optselect.plan import OptimizerPlan
from optselect.report import can_draw, write_report
from optselect.report.reference import catalogue_lines, entry_lines, rules_lines

# Of AutoOptimizer in a checkpoint's "callbacks": Lightning takes the class's name.
_STATE_KEY = "AutoOptimizer"


def explain(arguments: argparse.Namespace) -> None:
    """Print why the plan in a plan.json or a checkpoint was chosen."""
    print(_plan(arguments.file).explain(markdown=arguments.markdown))


def report(arguments: argparse.Namespace) -> None:
    """Write the same with plots, as one HTML page."""
    target: Path = arguments.output / "report.html" if arguments.output.is_dir() else arguments.output
    plan = _plan(arguments.file)
    try:
        write_report(plan, target)
    except OSError as error:
        raise ConfigurationError(f"{target} cannot be written ({error.strerror}); choose another place") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PlanFormatError(
            f"the plan in {arguments.file} cannot be shown ({type(error).__name__}: {error}); was it edited?"
        ) from error
    hint = "" if can_draw() else "; for plots in it: pip install 'optselect[report]'"
    print(f"{target} written; open it in a browser{hint}")


def catalogue(arguments: argparse.Namespace) -> None:
    """List the optimizers that match a pattern; print all about one, given its name."""
    pattern: str = arguments.pattern
    names = optimizers.names(pattern)
    if not names:
        raise UnknownOptimizerError.named(pattern, optimizers.names())
    lines = entry_lines(optimizers.get(pattern)) if names == (pattern,) else catalogue_lines(names)
    print("\n".join(lines))


def rules(_: argparse.Namespace) -> None:
    """List the rules with their mechanism, their source and what speaks against them."""
    print("\n".join(rules_lines()))


def _plan(file: Path) -> OptimizerPlan:
    if zipfile.is_zipfile(file) or file.suffix == ".ckpt":
        return OptimizerPlan.from_dict(_plan_in_checkpoint(file))
    return OptimizerPlan.load(file)


def _plan_in_checkpoint(file: Path) -> Mapping[str, Any]:
    """The plan's dict, read without running any code that is in the file."""
    import torch  # noqa: PLC0415  # seconds, which a plan.json does not need

    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ResumeError(f"{file} cannot be read ({error.strerror}); pass a plan.json or a checkpoint") from error
    # torch raises what the file leads it to: RuntimeError, UnpicklingError, EOFError, ...
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ResumeError(
            f"{file} cannot be read as a checkpoint ({reason}); pass the plan.json that was written beside it"
        ) from error
    callbacks = checkpoint.get("callbacks") if isinstance(checkpoint, dict) else None
    state = callbacks.get(_STATE_KEY) if isinstance(callbacks, dict) else None
    if not isinstance(state, dict) or not state.get("plan"):
        raise ResumeError(f"the checkpoint {file} holds no optimizer plan; pass one that was made with AutoOptimizer")
    plan: Mapping[str, Any] = state["plan"]
    return plan

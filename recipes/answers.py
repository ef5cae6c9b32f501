"""`optselect explain`, `catalogue` and `rules`: questions that need no training, and mostly no torch."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optselect import catalogue as optimizers
from optselect.catalogue import OptimizerSpec
from optselect.configuration import format_value
from optselect.errors import ResumeError, UnknownOptimizerError
from optselect.plan import OptimizerPlan
from optselect.rules import CLASSIC, DEFAULT, FACTS
from optselect.space import Dimension

# Of AutoOptimizer in a checkpoint's "callbacks": Lightning takes the class's name.
_STATE_KEY = "AutoOptimizer"


def explain(arguments: argparse.Namespace) -> None:
    """Print why the plan in a plan.json or a checkpoint was chosen."""
    file: Path = arguments.file
    if zipfile.is_zipfile(file) or file.suffix == ".ckpt":
        plan = OptimizerPlan.from_dict(_plan_in_checkpoint(file))
    else:
        plan = OptimizerPlan.load(file)
    print(plan.explain())


def catalogue(arguments: argparse.Namespace) -> None:
    """List the optimizers that match a pattern; print all about one, given its name."""
    pattern: str = arguments.pattern
    names = optimizers.names(pattern)
    if not names:
        raise UnknownOptimizerError.named(pattern, optimizers.names())
    if names == (pattern,):
        _print_entry(optimizers.get(pattern))
        return
    for name in names:
        spec = optimizers.get(name)
        print(f"{name:<20} {spec.summary}{f' [extra: {spec.extra}]' if spec.extra else ''}")


def rules(_: argparse.Namespace) -> None:
    """List the rules with their mechanism and source."""
    for title, listed in (
        ("facts: they forbid, whatever speaks for an optimizer", FACTS),
        ("rules that go by measurements", [rule for rule in DEFAULT if rule not in CLASSIC]),
        ("classic rules, the textbook's", CLASSIC),
    ):
        print(title)
        for rule in listed:
            print(f"  {rule.name}\n      {rule.mechanism}\n      [{rule.strength}: {rule.cites}]")


def _plan_in_checkpoint(file: Path) -> Mapping[str, Any]:
    """The plan's dict, read without running any code that is in the file."""
    import torch  # noqa: PLC0415  # seconds, which a plan.json does not need

    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ResumeError(
            f"{file} cannot be read ({error.strerror}); pass a plan.json or a checkpoint"
        ) from error
    # torch raises what the file leads it to: RuntimeError, UnpicklingError, EOFError, ...
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ResumeError(
            f"{file} cannot be read as a checkpoint ({reason}); pass the plan.json that was written beside it"
        ) from error
    callbacks = checkpoint.get("callbacks") if isinstance(checkpoint, dict) else None
    state = callbacks.get(_STATE_KEY) if isinstance(callbacks, dict) else None
    if not isinstance(state, dict) or not state.get("plan"):
        raise ResumeError(
            f"the checkpoint {file} holds no optimizer plan; pass one that was made with AutoOptimizer"
        )
    plan: Mapping[str, Any] = state["plan"]
    return plan


def _print_entry(spec: OptimizerSpec) -> None:
    layouts = " and ".join(layout for layout in ("dense", "sparse") if getattr(spec, layout))
    trains = f"{layouts} gradients{'' if spec.ndim is None else f' of {spec.ndim}-dimensional parameters'}"
    extra = f", pip install optselect[{spec.extra}]" if spec.extra else ""
    lines = {
        "class": f"{spec.factory}{extra}",
        "trains": f"{trains}{f'; {spec.partner} takes the rest' if spec.partner else ''}",
        **{name: _range(dimension) for name, dimension in spec.space.items()},
    }
    print(f"{spec.name}: {spec.summary}")
    for title, text in (*lines.items(), *(("source", source) for source in spec.cites)):
        print(f"  {title:<14} {text}")


def _range(dimension: Dimension) -> str:
    choices = getattr(dimension.distribution, "choices", None)
    if choices is None:
        ends = sorted((dimension.from_unit(0), dimension.from_unit(1)))
        values = " to ".join(format_value(end) for end in ends)
    else:
        values = " or ".join(str(choice) for choice in choices)
    return f"{values}, starting at {format_value(dimension.centre)}"

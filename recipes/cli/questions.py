"""`optselect explain`, `report`, `catalogue`, `rules` and `status`: questions without a training."""

from __future__ import annotations

import argparse
from pathlib import Path

from optselect import catalogue as optimizers
from optselect.errors import ConfigurationError, PlanFormatError, UnknownOptimizerError
from optselect.plan.stored import stored_plan
from optselect.report import can_draw, write_report
from optselect.report.reference import catalogue_lines, entry_lines, rules_lines
from optselect.report.workers import status_lines
from optselect.study.opening import studies_in
from optselect.words import printable


def explain(arguments: argparse.Namespace) -> None:
    """Print why the plan in a plan.json or a checkpoint was chosen."""
    print(stored_plan(arguments.file).explain(markdown=arguments.markdown))


def report(arguments: argparse.Namespace) -> None:
    """Write the same with plots, as one HTML page."""
    target: Path = arguments.output / "report.html" if arguments.output.is_dir() else arguments.output
    plan = stored_plan(arguments.file)
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
    print(printable("\n".join(lines)))


def status(arguments: argparse.Namespace) -> None:
    """Print who is at the searches of a storage, and how far they are."""
    studies = studies_in(arguments.storage)
    if arguments.study is not None:
        names = [study.study.study_name for study in studies]
        studies = [study for study in studies if study.study.study_name == arguments.study]
        if not studies:
            raise ConfigurationError(f"there is no search {arguments.study!r}; known: {', '.join(names)}")
    for number, study in enumerate(studies):
        print(printable("\n".join(([""] if number else []) + status_lines(study))))


def rules(arguments: argparse.Namespace) -> None:
    """List the rules with their mechanism, their source and what speaks against them; those that match a pattern."""
    lines = list(rules_lines(arguments.pattern))
    if not lines:
        raise ConfigurationError(f"no rule says anything of {arguments.pattern!r}; optselect rules lists all")
    print(printable("\n".join(lines)))

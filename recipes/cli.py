"""The command `optselect`: the product without writing Python.

Nothing heavy is imported here: torch and Lightning come in with the subcommand that needs them, so that
`optselect --help` and `optselect ls` answer at once. Exit status: 0 done; 2 wrong input, one line on stderr;
130 interrupted, and what to do to go on.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from optselect.errors import ConfigurationError, OptselectError, ResumeError, UnknownOptimizerError, nearest

if TYPE_CHECKING:
    from optselect.catalogue import OptimizerSpec
    from optselect.plan import OptimizerPlan
    from optselect.space import Dimension

DONE, WRONG_INPUT, INTERRUPTED = 0, 2, 130

# Of AutoOptimizer in a checkpoint's "callbacks": Lightning takes the class's name.
_STATE_KEY = "AutoOptimizer"

_EPILOG = """\
FILE is a LightningCLI config: `model:` and `data:` name any LightningModule and LightningDataModule by import
path, `trainer:` holds the Trainer's arguments and `auto:` those of AutoOptimizer. `optselect cp digits my.yaml`
gives one to start from; `optselect fit --help` lists every key.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (None: that of the process) and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Taken out by hand: it may stand anywhere, also among the arguments that go to LightningCLI.
    verbose = any(argument in ("-v", "--verbose") for argument in arguments)
    arguments = [argument for argument in arguments if argument not in ("-v", "--verbose")]
    try:
        with _progress_shown():
            return _run(arguments, verbose=verbose)
    except OptselectError as error:
        if verbose:
            traceback.print_exc()
        _say(f"{type(error).__name__}: {' '.join(str(error).split())}")
        return WRONG_INPUT
    except BrokenPipeError:
        # Whoever read us, `head` for one, has seen enough. Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt as interrupt:
        _say(f"interrupted; {interrupt or 'the same line starts anew'}")
        return INTERRUPTED


def _run(arguments: list[str], *, verbose: bool) -> int:
    parser = _parser()
    known, rest = parser.parse_known_args(arguments)
    if known.command is None:
        parser.print_help()
        return DONE
    if known.command in _TRAININGS:
        # All heavy imports, and every argument's meaning, are there; this side knows only the command's name.
        from optselect.recipes import trainings

        return trainings.run(known.command, rest, verbose=verbose)
    if rest:
        raise ConfigurationError(f"unknown argument {rest[0]!r}; see optselect {known.command} --help")
    command: Callable[[argparse.Namespace], None] = known.function
    command(known)
    return DONE


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are one line, like every other error of ours."""

    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(f"{message}; see {self.prog} --help")


_TRAININGS = {
    "fit": "train with AutoOptimizer; --plan FILE uses a plan, --ckpt_path FILE resumes",
    "tune": "the search alone: writes plan.json; the same line again goes on where it was interrupted",
    "profile": "measure data, model and gradients, and print what was found",
}


def _parser() -> _Parser:
    parser = _Parser(
        prog="optselect",
        description="Choose, tune and explain the optimizer of a PyTorch Lightning training.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    # Only for the help: `main` has taken it out.
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show Lightning's messages and tracebacks"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def add(
        name: str, function: Callable[[argparse.Namespace], None], summary: str
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        command.set_defaults(function=function)
        return command

    add("ls", _ls, "list the recipes, one line each")
    cp = add("cp", _cp, "copy a recipe's YAML, to edit")
    cp.add_argument("name", metavar="NAME", help="a recipe of `optselect ls`")
    cp.add_argument("file", metavar="FILE", type=Path, help="where to; it must not exist yet")
    for name, summary in _TRAININGS.items():
        # No help of its own: `optselect fit --help` is LightningCLI's, which knows all arguments.
        commands.add_parser(name, help=f"--config FILE: {summary}", add_help=False, allow_abbrev=False)
    explain = add("explain", _explain, "why this optimizer, out of a plan.json or a checkpoint")
    explain.add_argument("file", metavar="PLAN_OR_CHECKPOINT", type=Path)
    catalogue = add("catalogue", _catalogue, "list the optimizers; all about one, given its name")
    catalogue.add_argument(
        "pattern", metavar="PATTERN", nargs="?", default="*", help="with wildcards: 'adam*'"
    )
    add("rules", _rules, "list the rules that propose optimizers, with their sources")
    return parser


# --- recipes ------------------------------------------------------------------------------------------


def _recipes() -> dict[str, str]:
    """The text of each recipe's YAML by the recipe's name."""
    files = resources.files("optselect.recipes").iterdir()
    found = {file.name.removesuffix(".yaml"): file for file in files if file.name.endswith(".yaml")}
    return {name: found[name].read_text(encoding="utf-8") for name in sorted(found)}


def _ls(_: argparse.Namespace) -> None:
    for name, text in _recipes().items():
        # The first line of each is a comment that says what it is.
        print(f"{name:<12} {text.partition(chr(10))[0].removeprefix('#').strip()}")


def _cp(arguments: argparse.Namespace) -> None:
    recipes, name, target = _recipes(), arguments.name, arguments.file
    if name not in recipes:
        raise ConfigurationError(
            f"there is no recipe {name!r}.{nearest(name, recipes)} Known: {', '.join(recipes)}"
        )
    if target.is_dir():
        target /= f"{name}.yaml"
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(recipes[name])
    except FileExistsError as error:
        raise ConfigurationError(
            f"{target} exists already and is left as it is; choose another name"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"{target} cannot be written ({error.strerror}); choose another place"
        ) from error
    print(f"{target} written; edit it, then: optselect fit --config {target}")


# --- plans --------------------------------------------------------------------------------------------


def _explain(arguments: argparse.Namespace) -> None:
    print(_plan_in(arguments.file).explain())


def _plan_in(file: Path) -> OptimizerPlan:
    from optselect.plan import OptimizerPlan

    if zipfile.is_zipfile(file) or file.suffix == ".ckpt":
        return OptimizerPlan.from_dict(_state_in(file))
    return OptimizerPlan.load(file)


def _state_in(file: Path) -> Mapping[str, Any]:
    """The plan's dict out of the checkpoint `file`, which is read without running any code that is in it."""
    import torch

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
    if not isinstance(state, dict) or "plan" not in state:
        raise ResumeError(
            f"the checkpoint {file} holds no optimizer plan; it was not made with AutoOptimizer"
        )
    plan: Mapping[str, Any] = state["plan"]
    return plan


# --- what there is ------------------------------------------------------------------------------------


def _catalogue(arguments: argparse.Namespace) -> None:
    from optselect import catalogue

    pattern = arguments.pattern
    names = catalogue.names(pattern)
    if not names:
        raise UnknownOptimizerError.named(pattern, catalogue.names())
    if names == (pattern,):
        _print_entry(catalogue.get(pattern))
        return
    for name in names:
        spec = catalogue.get(name)
        print(f"{name:<20} {spec.summary}{f' [extra: {spec.extra}]' if spec.extra else ''}")


def _print_entry(spec: OptimizerSpec) -> None:
    from optselect.configuration import format_value

    layouts = " and ".join(layout for layout in ("dense", "sparse") if getattr(spec, layout))
    trains = f"{layouts} gradients{'' if spec.ndim is None else f' of {spec.ndim}-dimensional parameters'}"
    print(f"{spec.name}: {spec.summary}")
    print(f"  {'class':<14} {spec.factory}{f', pip install optselect[{spec.extra}]' if spec.extra else ''}")
    print(f"  {'trains':<14} {trains}{f'; {spec.partner} takes the rest' if spec.partner else ''}")
    for name, dimension in spec.space.items():
        print(f"  {name:<14} {_range(dimension)}, starting at {format_value(dimension.centre)}")
    for source in spec.cites:
        print(f"  {'source':<14} {source}")


def _range(dimension: Dimension) -> str:
    from optselect.configuration import format_value

    choices = getattr(dimension.distribution, "choices", None)
    if choices is not None:
        return " or ".join(str(choice) for choice in choices)
    ends = sorted((dimension.from_unit(0), dimension.from_unit(1)))
    return " to ".join(format_value(end) for end in ends)


def _rules(_: argparse.Namespace) -> None:
    from optselect.rules import CLASSIC, DEFAULT, FACTS

    measured = [rule for rule in DEFAULT if rule not in CLASSIC]
    for title, rules in (
        ("facts: they forbid, whatever speaks for an optimizer", FACTS),
        ("rules that go by measurements", measured),
        ("classic rules, the textbook's", CLASSIC),
    ):
        print(title)
        for rule in rules:
            print(f"  {rule.name}\n      {rule.mechanism}\n      [{rule.strength}: {rule.cites}]")


# --- speaking -----------------------------------------------------------------------------------------


def _say(message: str) -> None:
    print(f"optselect: {message}", file=sys.stderr)


@contextmanager
def _progress_shown() -> Iterator[None]:
    """What the core logs goes to stdout; stderr keeps its one line."""
    logger = logging.getLogger("optselect")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    before = (logger.level, logger.propagate)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


if __name__ == "__main__":
    sys.exit(main())

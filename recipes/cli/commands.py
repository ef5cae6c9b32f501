"""The command `optselect`: the product without writing Python.

Nothing heavy is imported here: torch and Lightning come in with the subcommand that needs them, so that
`optselect --help` and `optselect ls` answer at once. Exit status: 0 done; 2 wrong input, one line on stderr;
130 interrupted, 143 ended by SIGTERM, and how to go on.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

from optselect import __version__
from optselect.errors import ConfigurationError, OptselectError, nearest
from optselect.recipes.cli.ending import TERMINATED, Terminated
from optselect.words import printable, without_passwords

DONE, WRONG_INPUT, INTERRUPTED = 0, 2, 130

_EPILOG = """\
FILE is a LightningCLI config: `model:` and `data:` name any LightningModule and LightningDataModule by
import path, `trainer:` holds the Trainer's arguments and `auto:` those of AutoOptimizer. `optselect cp
digits my.yaml` gives one to start from; `optselect fit --help` lists every key.
"""

_TRAININGS = {
    "fit": "train with AutoOptimizer; --plan FILE uses a plan, --ckpt_path FILE resumes",
    "tune": "the search alone: writes plan.json; the same line again goes on where it was interrupted; --workers N",
    "worker": "one more worker of that search, here or on another machine; --storage URL --study NAME say which",
    "profile": "measure data, model and gradients, and print what was found",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (None: that of the process) and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # Taken out by hand: it may stand anywhere, also among the arguments that go to LightningCLI.
    verbose = any(argument in ("-v", "--verbose") for argument in arguments)
    arguments = [argument for argument in arguments if argument not in ("-v", "--verbose")]
    try:
        with _progress_shown():
            _run(arguments, verbose=verbose)
    except OptselectError as error:
        if verbose:
            print(printable(without_passwords(traceback.format_exc())), file=sys.stderr, end="")
        _say(f"{type(error).__name__}: {' '.join(str(error).split())}")
        return WRONG_INPUT
    except KeyboardInterrupt as interrupt:
        _say(f"interrupted; {interrupt if interrupt.args else 'the same line starts anew'}")
        return INTERRUPTED
    except Terminated as ended:
        _say(f"ended by SIGTERM; {ended.how_to_go_on or 'the same line starts anew'}")
        return TERMINATED
    except BrokenPipeError:
        # Whoever read us, `head` for one, has seen enough. Closing stdout would raise once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


def _run(arguments: list[str], *, verbose: bool) -> None:
    parser = command_parser()
    commands = subcommands(parser)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in commands:
        hint = nearest(arguments[0], commands)
        raise ConfigurationError(f"there is no command {arguments[0]!r}.{hint} Known: {', '.join(commands)}")
    known, rest = parser.parse_known_args(arguments)
    if known.command is None:
        if rest:
            raise ConfigurationError(f"unknown argument {rest[0]!r}; see optselect --help")
        parser.print_help()
    elif known.command in _TRAININGS:
        # Everything but the command's name is for LightningCLI.
        _imported("cli.trainings", "run")(known.command, rest, verbose=verbose)
    elif rest:
        options = [each for action in commands[known.command]._actions for each in action.option_strings]  # noqa: SLF001
        raise ConfigurationError(
            f"unknown argument {rest[0]!r}.{nearest(rest[0], options)} See optselect {known.command} --help"
        )
    else:
        _answer(known)


def _answer(known: argparse.Namespace) -> None:
    """Run a command that trains nothing of the user's. Raises `ConfigurationError` for files that cannot be used."""
    try:
        known.function(known)
    except BrokenPipeError:
        raise
    except OSError as error:
        about = f" ({os.fspath(error.filename)!r:.80})" if error.filename is not None else ""
        raise ConfigurationError(f"{error.strerror or error}{about}; choose another file or folder") from error


def _file(text: str) -> Path:
    """Read a path out of the command line. Raises `ArgumentTypeError` for what no file can be called."""
    if "\0" in text:
        raise argparse.ArgumentTypeError("a file's name holds no zero byte")
    return Path(text)


def _count(text: str) -> int:
    """Read a number of 1 or more out of the command line. Raises `ArgumentTypeError` for anything else."""
    if not text.isdecimal() or len(text) > 9 or not int(text):
        raise argparse.ArgumentTypeError(f"a whole number from 1 on belongs there, but got {text[:40]!r}")
    return int(text)


def _imported(module: str, name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(importlib.import_module(f"optselect.recipes.{module}"), name)
    return function


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are one line, like every other error of ours."""

    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(f"{message}; see {self.prog} --help")


def command_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands; `fit`, `tune`, `worker` and `profile` leave their arguments to LightningCLI."""
    parser = _Parser(
        prog="optselect",
        description="Choose, tune and explain the optimizer of a PyTorch Lightning training.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"optselect {__version__}")
    # Only for the help: `main` has taken it out.
    parser.add_argument("-v", "--verbose", action="store_true", help="Lightning's messages, and tracebacks")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    def add(name: str, function: Callable[..., None], summary: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        command.set_defaults(function=function)
        return command

    def answer(arguments: argparse.Namespace) -> None:
        _imported("cli.questions", arguments.command)(arguments)

    add("ls", _ls, "list the recipes, one line each")
    cp = add("cp", _cp, "copy a recipe's YAML, to edit")
    cp.add_argument("name", metavar="NAME", help="a recipe of `optselect ls`")
    cp.add_argument("file", metavar="FILE", type=_file, help="where to; it must not exist yet")
    for name, summary in _TRAININGS.items():
        # No help of its own: `optselect fit --help` is LightningCLI's, which knows all arguments.
        commands.add_parser(name, help=f"--config FILE: {summary}", add_help=False, allow_abbrev=False)
    explain = add("explain", answer, "why this optimizer, out of a plan.json or a checkpoint")
    explain.add_argument("file", metavar="PLAN_OR_CHECKPOINT", type=_file, help="a plan.json or a .ckpt file")
    explain.add_argument("--markdown", action="store_true", help="as Markdown")
    report = add("report", answer, "the same with plots, as one HTML page")
    report.add_argument("file", metavar="PLAN_OR_CHECKPOINT", type=_file)
    report.add_argument("-o", "--output", metavar="FILE", type=_file, default=Path("report.html"))
    catalogue = add("catalogue", answer, "list the optimizers; all about one, given its name")
    catalogue.add_argument("pattern", metavar="PATTERN", nargs="?", default="*", help="such as 'adam*'")
    rules = add("rules", answer, "list the rules that propose optimizers, with their sources")
    rules.add_argument(
        "pattern", metavar="PATTERN", nargs="?", default="*", help="a word of what they say, such as muon, or 'small*'"
    )
    status = add("status", answer, "who is at a search, and how far it is")
    status.add_argument("--storage", metavar="URL", required=True, help="what the search was given: a URL or a file")
    status.add_argument("--study", metavar="NAME", help="one of several searches in it")
    bench = add("bench", _bench, "compare ways to choose an optimizer on ten real tasks; resumable")
    bench.add_argument(
        "--tasks", nargs="+", metavar="TASK", help="digits, letter, …, unseen or other for more, all; ten without it"
    )
    bench.add_argument("--methods", nargs="+", metavar="METHOD", help="default, sweep, tpe@20, ours@0.25, …")
    bench.add_argument("--seeds", type=_count, default=3, help="searches of each method on each task (3)")
    bench.add_argument("--out", type=_file, default=Path("bench_runs"), help="folder of results (bench_runs)")
    bench.add_argument("--cache", type=_file, help="folder of prepared data (in the user's cache)")
    bench.add_argument("--tiny", action="store_true", help="one short task, to see that it works")
    bench.add_argument("--oracle", action="store_true", help="only find the best of a grid: regret's zero")
    bench.add_argument("--curves", action="store_true", help="only record what searches try, over whole trainings")
    bench.add_argument("--calibration", action="store_true", help="only fit and check the judgement on such a record")
    bench.add_argument("--redo", action="store_true", help="forget these methods' results first")
    _add_portfolio(add)
    return parser


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command by its name; argparse keeps them in an action."""
    kept = next(each for each in parser._actions if isinstance(each, argparse._SubParsersAction))  # noqa: SLF001
    return dict(kept.choices)


def _add_portfolio(add: Callable[..., argparse.ArgumentParser]) -> None:
    portfolio = add("portfolio", _portfolio, "record trainings, and make and judge the prior that is learned from them")
    portfolio.add_argument("action", choices=("record", "build", "judge", "long"), help="record and long are resumable")
    portfolio.add_argument("--records", type=_file, metavar="FOLDER", help="of recorded trainings (the repository's)")
    portfolio.add_argument(
        "--workloads", nargs="+", metavar="NAME", help="to record, or to judge at length, these alone"
    )
    portfolio.add_argument("--points", nargs="+", metavar="NAME", help="to record these configurations alone")
    portfolio.add_argument("--processes", type=_count, default=1, help="that record side by side (1)")
    portfolio.add_argument("--seeds", type=_count, default=1, help="of searches of long trainings (1)")
    portfolio.add_argument("-o", "--output", type=_file, default=Path("portfolio.json"), help="what build writes")


def _recipes() -> dict[str, str]:
    """Read the text of each recipe's YAML, by the recipe's name."""
    files = {file.name: file for file in resources.files("optselect.recipes").iterdir()}
    return {
        name.removesuffix(".yaml"): files[name].read_text(encoding="utf-8")
        for name in sorted(files)
        if name.endswith(".yaml")
    }


def _ls(_: argparse.Namespace) -> None:
    for name, text in _recipes().items():
        # The first line of each is a comment that says what it is.
        print(f"{name:<20} {text.partition(chr(10))[0].removeprefix('#').strip()}")


def _cp(arguments: argparse.Namespace) -> None:
    recipes, name, target = _recipes(), arguments.name, arguments.file
    if name not in recipes:
        known = ", ".join(recipes)
        raise ConfigurationError(f"there is no recipe {name!r}.{nearest(name, recipes)} Known: {known}")
    if target.is_dir():
        target /= f"{name}.yaml"
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(recipes[name])
    except FileExistsError as error:
        raise ConfigurationError(f"{target} exists and is left as it is; choose another name") from error
    except OSError as error:
        raise ConfigurationError(f"{target} cannot be written ({error.strerror}); choose another place") from error
    print(f"{target} written; edit it, then: optselect fit --config {target}")


def _bench(arguments: argparse.Namespace) -> None:
    _imported("bench.command", "bench")(arguments)


def _portfolio(arguments: argparse.Namespace) -> None:
    _imported("portfolio.command", "portfolio")(arguments)


def _say(message: str) -> None:
    print(f"optselect: {printable(without_passwords(message))}", file=sys.stderr)


@contextmanager
def _progress_shown() -> Iterator[None]:
    """Show on stdout what the core logs; stderr keeps its one line."""
    logger = logging.getLogger("optselect")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate

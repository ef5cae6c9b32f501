"""`optselect completion SHELL`: a script that completes commands, options and choices at the Tab key.

The script is static, so that a Tab costs nothing: asking LightningCLI for its options takes seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Literal, get_args, get_origin

from optselect.errors import ConfigurationError, MissingExtraError
from optselect.recipes.trainings import parser_of

_FILES = ("config", "ckpt_path", "plan", "file")


def script(parser: argparse.ArgumentParser, shell: str, trainings: Iterable[str], recipes: Iterable[str]) -> str:
    """The completion script of `parser`, whose commands `trainings` take LightningCLI's options."""
    try:
        import shtab  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise MissingExtraError(
            "shtab, which makes the script, is not installed; run pip install 'optselect[completion]'"
        ) from error
    if shell not in shtab.SUPPORTED_SHELLS:
        known = ", ".join(shtab.SUPPORTED_SHELLS)
        raise ConfigurationError(f"there is no script for the shell {shell!r}; known: {known}")
    (commands,) = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    for name in trainings:
        _take_over(parser_of(name), commands[name])
    for command in commands.values():
        for action in command._actions:
            if action.dest in _FILES:
                action.complete = shtab.FILE
            elif (command.prog, action.dest) == ("optselect cp", "name"):
                action.choices = sorted(recipes)
    made: str = shtab.complete(parser, shell)
    return made


def _take_over(source: argparse.ArgumentParser, target: argparse.ArgumentParser) -> None:
    """Give `target` the options of `source`, and as choices the words that their types allow."""
    known = target._option_string_actions
    for action in source._actions:
        options = [option for option in action.option_strings if option not in known and not option.endswith(".help")]
        if options:
            target.add_argument(*options, dest=action.dest, choices=_words(getattr(action, "_typehint", None)))


def _words(hint: object) -> list[str] | None:
    """The words of a Literal or a bool, of one in a union, too; `None` where anything may stand."""
    if hint is bool:
        return ["true", "false"]
    if get_origin(hint) is Literal:
        return [str(word) for word in get_args(hint)]
    return [word for part in get_args(hint) for word in _words(part) or []] or None

"""The examples of a page: its blocks of Python, YAML and shell, and how a reader's terminal takes a line."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from optselect.errors import OptselectError
from optselect.recipes.cli.commands import command_parser, main
from optselect.recipes.cli.lightning_cli import parser_of

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^(<!-- not run.*-->\n+)?```(python|yaml|bash)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w.-]+\.(?:py|yaml))\n")
_BUILTINS = {"cd", "source", "export"}


@dataclass(frozen=True, kw_only=True)
class Example:
    """One block. A first line `# name.py` or `# name.yaml` makes it a file; `<!-- not run … -->` before it a show."""

    language: str
    text: str
    runs: bool

    @property
    def file(self) -> str | None:
        named = _FILE.match(self.text)
        return named.group(1) if named else None

    @property
    def lines(self) -> list[str]:
        """The commands of a shell block, without comments."""
        joined = self.text.replace("\\\n", " ")
        return [line for each in joined.splitlines() if (line := each.partition(" # ")[0].partition("#!")[0].strip())]


def examples(page: Path) -> list[Example]:
    """The blocks of a page in their order."""
    return [
        Example(language=language, text=text, runs=not show)
        for show, language, text in _BLOCK.findall(page.read_text("utf-8"))
    ]


@dataclass(frozen=True, kw_only=True)
class Command:
    """One line of a shell: variables before it, its words, the file its output goes to."""

    variables: dict[str, str]
    words: list[str]
    output: str | None

    @classmethod
    def read(cls, line: str) -> Command:
        words = shlex.split(line)
        variables = {}
        while words and re.fullmatch(r"\w+=.*", words[0]):
            name, _, value = words.pop(0).partition("=")
            variables[name] = value
        output = words[words.index(">") + 1] if ">" in words else None
        return cls(variables=variables, words=words[: words.index(">")] if output else words, output=output)

    def run(self) -> None:
        """`optselect` in this process, which has torch already; other programs are not worth running here."""
        if self.words[0] != "optselect":
            assert self.words[0] in _BUILTINS, f"cannot run {self.words[0]}; put <!-- not run --> before the block"
            return
        with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
            for name, value in self.variables.items():
                patch.setenv(name, value)
            if self.output:
                stack.enter_context(contextlib.redirect_stdout(stack.enter_context(Path(self.output).open("w"))))
            try:
                status = main([word for each in self.words[1:] for word in _expanded(each)])
            except SystemExit as leaving:
                status = int(leaving.code or 0)
        assert status == 0, shlex.join(self.words)

    def fault(self) -> str | None:
        """What is not real about it: a command, a target, a module or an extra that is not there."""
        program, *arguments = self.words
        program = Path(program).name
        if program == "optselect":
            return _optselect_fault(arguments)
        if program == "make":
            targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
            return next((f"no target {each}" for each in arguments if "=" not in each and each not in targets), None)
        if program == "pip" or arguments[:2] == ["-m", "pip"]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
            named = re.findall(r"\[([\w,]+)\]", shlex.join(arguments))
            return next(
                (f"no extra {each}" for each in ",".join(named).split(",") if each and each not in extras), None
            )
        if arguments[:1] == ["-m"]:
            found = (ROOT / f"{arguments[1].replace('.', '/')}.py").exists() or importlib.util.find_spec(arguments[1])
            return None if found else f"no module {arguments[1]}"
        installed = shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))
        return None if installed or program in _BUILTINS else f"no program {program}"


def _optselect_fault(arguments: list[str]) -> str | None:
    try:
        known, _ = command_parser().parse_known_args([each for each in arguments if each not in ("-v", "--verbose")])
    except OptselectError as error:
        return str(error)
    except SystemExit:
        return None
    if known.command not in ("fit", "tune", "worker", "profile"):
        return None
    options = parser_of(known.command)._option_string_actions
    given = [each.partition("=")[0] for each in arguments[1:] if each.startswith("--")]
    nested = ("--model.", "--data.", "--trainer.", "--auto.", "--optimizer.", "--lr_scheduler.")
    return next((f"no option {each}" for each in given if each not in options and not each.startswith(nested)), None)


def _expanded(word: str) -> Iterator[str]:
    matches = [os.fspath(each) for each in sorted(Path().glob(word))] if "*" in word and "/" in word else []
    yield from matches or [word]

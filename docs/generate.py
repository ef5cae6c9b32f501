"""Writes the pages of docs/reference/ that the code says by itself.

    python docs/generate.py

The pages are committed, so that they can be read where they lie; a test compares them with the code.
"""

from __future__ import annotations

import argparse
import inspect
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from textwrap import dedent
from typing import Any

import optselect
from optselect import Workload, errors
from optselect.profile import values
from optselect.recipes.cli.commands import command_parser
from optselect.recipes.cli.lightning_cli import parser_of
from optselect.report.markdown import table
from optselect.report.reference import PAGES as TABLES
from optselect.rules import large_trainings

_ADDRESS = re.compile(" at 0x[0-9a-f]+")
REFERENCE = Path(__file__).parent / "reference"
EXAMPLES = Path(__file__).parent / "api_examples.py"

_GENERATED = "This page is generated from the code by `make docs`."

# --- the public names -------------------------------------------------------------------------------------------

_NAMES = {
    "With Lightning": ("AutoOptimizer", "LightningWorkload"),
    "The pipeline": (
        "Workload",
        "TorchWorkload",
        "measure",
        "Profile",
        "propose",
        "Proposal",
        "Budget",
        "select",
        "OptimizerPlan",
    ),
    "Fine-tuning": ("FineTuning", "Thaw", "param_groups", "regrouped"),
    "What there is to choose from": ("catalogue", "rules"),
}


def api_page() -> str:
    """Write every public name with its signature, its docstring and its methods."""
    grouped = {name for names in _NAMES.values() for name in names}
    raised = sorted(
        (name for name in sorted(optselect.__all__) if name not in grouped),
        key=lambda name: _line(getattr(errors, name, None)),
    )
    others = [name for name in raised if not hasattr(errors, name)]
    groups: dict[str, Iterable[str]] = {
        **_NAMES,
        **({"Also public": others} if others else {}),
        "Errors": [name for name in raised if hasattr(errors, name)],
    }
    blocks = [
        "# Public names",
        _GENERATED,
        "Everything here is imported from `optselect` itself and loaded on first use: `import optselect` loads neither "
        "torch nor Lightning.\nWhat is not on this page may change without notice.",
        "The examples are one session: a later one knows what an earlier one made.\n"
        "Tests run them, from top to bottom.",
    ]
    for title, names in groups.items():
        blocks += [
            f"## {title}",
            table(("name", "what it is"), ((f"`{name}`", _inline(_summary(_public(name)))) for name in names)),
        ]
        if title == "Errors":
            blocks += ["[Errors](errors.md) has the tree and what each says.", _example("Errors")]
        else:
            blocks += [block for name in names for block in _described(name)]
    return _page(blocks)


def _example(name: str) -> str:
    """Return the cell of `api_examples.py` that is called so."""
    cells = re.split(r"^# %% (\w+)\n", EXAMPLES.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return f"```python\n{dict(zip(cells[1::2], cells[2::2], strict=True))[name].strip()}\n```"


def _public(name: str) -> Any:
    return getattr(optselect, name)


def _described(name: str) -> Iterator[str]:
    value = _public(name)
    yield f"### {name}"
    if not inspect.ismodule(value) and not _is_protocol(value):
        yield _fenced(_signature(f"optselect.{name}", value))
    if body := _body(value):
        yield _fenced(body)
    yield _example(name)
    for title, member in _members(value):
        yield f"**`{title}`** — {_inline(_summary(member))}"


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the methods that a class itself adds, or the functions of a module, as `name(arguments)`."""
    if inspect.ismodule(value):
        for name in value.__all__:
            if inspect.isfunction(function := getattr(value, name)):
                yield _signature(f"{value.__name__}.{name}", function, wide=True), function
    elif inspect.isclass(value):
        # Lightning's hooks, and what every workload has, are described where they come from.
        bases = [
            *value.__mro__[1:],
            *([Workload] if value.__name__.endswith("Workload") and value is not Workload else []),
        ]
        for name, member in vars(value).items():
            inherited = any(hasattr(base, name) for base in bases)
            if name.startswith("_") or inherited or not getattr(member, "__doc__", None):
                continue
            function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            if inspect.isfunction(function):
                yield _signature(name, function, wide=True), function
            elif isinstance(member, property):
                returned = inspect.signature(member.fget).return_annotation if member.fget else inspect.Signature.empty
                yield (name if returned is inspect.Signature.empty else f"{name}: {returned}"), member


def _signature(name: str, value: Any, *, wide: bool = False) -> str:
    """Write how `value` is called: on one line if it is short or is to be `wide`, else an argument a line."""
    signature = inspect.signature(value)
    given = [each for each in signature.parameters.values() if each.name not in ("self", "cls")]
    given = [each.replace(annotation=_Verbatim.of(each.annotation)) for each in given]
    returned = inspect.Signature.empty if inspect.isclass(value) else _Verbatim.of(signature.return_annotation)
    plain = signature.replace(parameters=given, return_annotation=returned)
    # A function that is a default says where it lies in memory.
    one_line = _ADDRESS.sub("", f"{name}{plain}")
    if wide or len(one_line) <= 100:
        return one_line
    named = [each.kind is inspect.Parameter.KEYWORD_ONLY for each in given]
    arguments = [str(each) for each in given]
    if any(named):
        arguments.insert(named.index(True), "*")
    result = "" if returned is inspect.Signature.empty else f" -> {returned}"
    return "\n".join([f"{name}(", *(f"    {argument}," for argument in arguments), f"){result}"])


class _Verbatim:
    """An annotation that is shown as it is written, without quotes."""

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def of(cls, annotation: Any) -> Any:
        return cls(annotation) if isinstance(annotation, str) else annotation

    def __repr__(self) -> str:
        return self.text


# --- the errors -------------------------------------------------------------------------------------------------


def errors_page() -> str:
    """Write the tree of exceptions, and what each one means."""
    tree = inspect.cleandoc(errors.__doc__ or "").split("\n\n")
    known = [
        each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, errors.OptselectError)
    ]
    blocks = [
        "# Errors",
        _GENERATED,
        f"{tree[-1]}\n[When something is refused](../how-to/trouble.md) says what helps.",
        _fenced(inspect.cleandoc(tree[1])),
        "On the command line each of them is one line on stderr and exit status 2; `-v` shows the traceback.",
    ]
    for error in known:
        also = [base.__name__ for base in error.__bases__ if base not in (Exception, errors.OptselectError)]
        kinds = f"\nIt is also a {' and a '.join(f'`{base}`' for base in also)}." if also else ""
        blocks += [f"## {error.__name__}", (inspect.getdoc(error) or "") + kinds]
    return _page(blocks)


# --- the command line -------------------------------------------------------------------------------------------

_TRAININGS = ("fit", "tune", "worker", "profile")

_STATUS = (
    ("0", "done"),
    ("2", "wrong input: one line on stderr that says what and how to mend it; no plan is written"),
    ("130", "interrupted by Ctrl-C: one line on stderr that says how to go on"),
    ("143", "ended by SIGTERM, as SLURM and containers do: the same line"),
)


def cli_page() -> str:
    """Write every command with its arguments."""
    (commands,) = [action for action in command_parser()._actions if action.dest == "command"]
    summaries = {
        choice.dest: str(choice.help).removeprefix("--config FILE: ")
        for choice in commands._choices_actions  # type: ignore[attr-defined]
    }
    blocks = [
        "# The command line",
        _GENERATED,
        "`optselect COMMAND --help` says the same in a terminal.",
        table(("command", "what it does"), ((f"`{name}`", _inline(text)) for name, text in summaries.items())),
        "Anywhere on the line, `-v` or `--verbose` shows Lightning's messages and tracebacks.",
        "An exception that your own code raises by itself, a bug, keeps its traceback and Python's exit status 1.",
        "## Exit status",
        table(("status", "meaning"), _STATUS),
    ]
    choices: Mapping[str, argparse.ArgumentParser] = commands.choices  # type: ignore[assignment]
    for name, command in choices.items():
        blocks += [f"## optselect {name}", _sentence(summaries[name])]
        if name in _TRAININGS:
            blocks += [
                f"The arguments are LightningCLI's: `optselect {name} --help` lists all, "
                "[the config](config.md) says what each key is for.",
                table(("argument", "what it does"), _rows(_own(parser_of(name)))),
            ]
        elif rows := list(_rows(command._actions)):
            blocks.append(table(("argument", "what it does"), rows))
    return _page(blocks)


def _own(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """List the options that stand in no group of a class."""
    own = ("config", "print_config", "seed_everything", "plan", "ckpt_path", "workers", "storage", "study")
    parts = ("model", "data", "trainer", "auto", "optimizer", "lr_scheduler")
    return [action for action in parser._actions if action.dest in (*own, *parts)]


_SAID = {
    "config": "a config in YAML or JSON; given several times, the later one wins",
    "print_config": "print the whole config that these arguments make, and stop",
    "seed_everything": "the seed of weights and data; 0 without it",
    "model": "the LightningModule: a class path, or `--model.class_path` and `--model.init_args.NAME`",
    "data": "the LightningDataModule, in the same way",
    "trainer": "`--trainer.NAME`: an argument of lightning.Trainer",
    "auto": "`--auto.NAME`: an argument of AutoOptimizer",
    "optimizer": "your own optimizer, the candidate to beat",
    "lr_scheduler": "its scheduler",
}


def _rows(actions: Iterable[argparse.Action]) -> Iterator[tuple[str, str]]:
    for action in actions:
        if action.dest in ("help", "verbose", "version"):
            continue
        options = [option for option in action.option_strings if not option.endswith("+")]
        name = options[-1] if options else str(action.metavar or action.dest)
        yield f"`{name}`", _inline(_SAID.get(action.dest) or str(action.help or ""))


# --- the config -------------------------------------------------------------------------------------------------

_KEYS = (
    ("seed_everything", "the seed of weights and data, 0 without it; the study's name depends on the weights"),
    ("model", "`class_path` and `init_args` of any LightningModule that Python can import, also from this folder"),
    ("data", "`class_path` and `init_args` of any LightningDataModule; not needed where the model has loaders"),
    ("trainer", "the arguments of lightning.Trainer; callbacks by `class_path` and `init_args`"),
    ("auto", "the arguments of `AutoOptimizer`, below"),
    ("optimizer", "`class_path` and `init_args` of an optimizer of your own: the candidate called `user`"),
    ("lr_scheduler", "the same of its scheduler"),
    ("plan", "`fit` alone: a plan.json to train with; nothing is searched"),
    ("ckpt_path", "`fit` alone: a checkpoint to go on from, or `last`"),
)


def config_page() -> str:
    """Write the keys of a YAML config, and how they are set from elsewhere."""
    hints = inspect.get_annotations(optselect.AutoOptimizer.__init__)
    rows = [
        (
            f"`{name}`",
            f"`{_inline(str(hints[name]))}`",
            f"`{json.dumps(action.default)}`",
            _inline(str(action.help)),
        )
        for action in parser_of("fit")._actions
        if (name := action.dest.removeprefix("auto.")) in hints and action.dest.startswith("auto.")
    ]
    return _page(
        [
            "# The config",
            _GENERATED,
            "A config is one YAML file for `optselect fit`, `tune` and `profile`: a config of LightningCLI with the "
            "group `auto:` added.\n`optselect ls` lists commented ones to start from, and `optselect cp NAME FILE` "
            "copies one.\nUnknown keys are errors.",
            table(("key", "what it holds"), ((f"`{key}`", text) for key, text in _KEYS)),
            "## auto:",
            table(("key", "type", "without it", "what it means"), rows),
            "## What overrides what",
            "From the strongest:",
            "1. arguments and configs on the command line, from left to right: "
            "`optselect fit --config my.yaml --trainer.max_epochs 40`;\n"
            "2. the environment: `OPTSELECT_`, and the key in capitals with `__` for each dot: "
            "`OPTSELECT_TRAINER__MAX_EPOCHS=40`;\n"
            "3. the defaults.",
            "A storage URL with a password belongs into `OPTSELECT_AUTO__STORAGE`: the list of processes shows a "
            "command line to everyone.\n"
            "Whatever optselect prints or writes has `…` in the place of a password.",
            "Every `fit` with a logger keeps the config of the run as `config.yaml` beside its plan.json.\n"
            "YAML is read as data: a tag such as `!!python/object` is an error.\n"
            "But a class path is called, so run only the configs of people whose Python you would run.",
        ]
    )


# --- the recipes ------------------------------------------------------------------------------------------------


def recipes_page() -> str:
    """Write what there is to copy, by the first line of each YAML."""
    files = sorted((file for file in resources.files("optselect.recipes").iterdir()), key=lambda file: file.name)
    rows = [
        (f"[`{name}`](../../recipes/{name}.py)", f"[{file.name}](../../recipes/{file.name})", first.lstrip("# "))
        for file in files
        if file.name.endswith(".yaml")
        for name in [file.name.removesuffix(".yaml")]
        for first in [file.read_text(encoding="utf-8").partition("\n")[0]]
    ]
    return _page(
        [
            "# The recipes",
            _GENERATED,
            "Each is a page of Python, model and data, and a commented YAML: `optselect cp NAME FILE` copies the YAML, "
            "and `optselect fit --config FILE` runs it.\n"
            "[plain_torch.py](../../recipes/plain_torch.py) does without Lightning, and so without a YAML.",
            table(("recipe", "config", "what it is"), rows),
        ]
    )


# --- the profile ------------------------------------------------------------------------------------------------


def profile_page() -> str:
    """Write the quantities that rules judge by."""
    parts = {"data": values.DataProfile, "model": values.ModelProfile, "gradient": values.GradientProfile}
    blocks = [
        "# The profile",
        _GENERATED,
        "What `optselect profile` measures, a plan keeps, and a rule sees: `profile.data.size`, and so on.",
    ]
    for name, part in parts.items():
        blocks += [f"## profile.{name}", _inline(_summary(part)), _fenced(_body(part))]
    return _page(blocks)


# --- text -------------------------------------------------------------------------------------------------------


def _summary(value: Any) -> str:
    return " ".join((inspect.getdoc(value) or "").split("\n\n", maxsplit=1)[0].split())


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _inline(text: str) -> str:
    """Put `text`, which is Markdown already, in one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _body(value: Any) -> str:
    return dedent((inspect.getdoc(value) or "").partition("\n\n")[2].strip("\n"))


def _line(value: Any) -> int:
    return inspect.getsourcelines(value)[1] if value is not None else 0


def _is_protocol(value: Any) -> bool:
    return bool(getattr(value, "_is_protocol", False))


def _fenced(text: str) -> str:
    # As text: a block of Python is an example, and is run.
    return f"```text\n{_ADDRESS.sub('', text)}\n```"


def _page(blocks: Iterable[str]) -> str:
    return "\n\n".join(blocks) + "\n"


# --- what large trainings say -----------------------------------------------------------------------------------


def facts_page() -> str:
    """Write the facts that were derived from others' trainings, by source."""
    blocks = [
        "# Facts of large trainings",
        _GENERATED,
        "`optselect.rules.large_trainings` holds them as numbers.\n"
        "[Large trainings](large-trainings.md) says how they were derived, and what follows from them.\n"
        "The interval is one of 95 %, by a bootstrap over what belongs together, unless the fact says otherwise.",
    ]
    for name, source in large_trainings.sources().items():
        rows = [
            (f"`{fact_name}`", fact.says, f"{fact.value:g}", _interval(fact), str(fact.of))
            for fact_name, fact in large_trainings.facts().items()
            if fact.source == name
        ]
        blocks += [
            f"## {name}",
            f"{source.cites}; repository {source.repository} ({source.revision}), licence: {source.licence}.",
            table(("name", "what it is", "value", "interval", "of"), rows),
        ]
    return _page(blocks)


def _interval(fact: large_trainings.Fact) -> str:
    return "" if fact.interval is None else f"{fact.interval[0]:g} to {fact.interval[1]:g}"


PAGES: Mapping[str, Callable[[], str]] = {
    "api.md": api_page,
    "cli.md": cli_page,
    "config.md": config_page,
    "errors.md": errors_page,
    "facts.md": facts_page,
    "profile.md": profile_page,
    "recipes.md": recipes_page,
    **TABLES,
}

if __name__ == "__main__":
    for file, page in PAGES.items():
        (REFERENCE / file).write_text(page(), encoding="utf-8")

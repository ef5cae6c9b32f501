"""The house can be read from the top: few rooms, small modules, short functions, and nobody changes another's names."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = {
    "optselect": ROOT / "optselect",
    "optselect.callbacks": ROOT / "callbacks",
    "optselect.recipes": ROOT / "recipes",
}

FLAT_MODULES = 10
MODULE_LINES, FUNCTION_LINES = 450, 60
PIPELINE_LINES, CHOICE_LINES = 120, 20

# Judgements and values do without torch; of the search, all but what runs trials.
WITHOUT_TORCH = ("optselect.configuration", "optselect.plan", "optselect.rules", "optselect.search")
WITH_TORCH = {"optselect.search.runner", "optselect.search.parking", "optselect.search.worker"}


def modules() -> dict[str, Path]:
    found = {}
    for package, folder in FOLDERS.items():
        # os.walk does not follow the links optselect/callbacks and optselect/recipes.
        for parent, _, names in os.walk(folder):
            for path in (Path(parent, name) for name in names if name.endswith(".py")):
                parts = path.relative_to(folder).with_suffix("").parts
                found[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return found


MODULES = modules()
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Without its docstring, which may be as long as it has to be."""
    documented = node.body[0] if ast.get_docstring(node) is not None else None
    words = (documented.end_lineno or 0) - documented.lineno + 1 if documented is not None else 0
    return (node.end_lineno or 0) - node.lineno + 1 - words


def test_few_modules_lie_outside_a_room() -> None:
    flat = sorted(path.name for path in (ROOT / "optselect").glob("*.py"))

    assert len(flat) <= FLAT_MODULES, f"{len(flat)} flat modules: {', '.join(flat)}; give the new one a room"


def test_a_module_is_read_in_one_sitting() -> None:
    counts = {name: len(path.read_text("utf-8").splitlines()) for name, path in MODULES.items()}

    assert {name: count for name, count in counts.items() if count > MODULE_LINES} == {}


def test_a_function_fits_a_screen() -> None:
    long = {
        f"{name}.{node.name}": lines_of(node)
        for name, tree in TREES.items()
        for node in functions(tree)
        if lines_of(node) > FUNCTION_LINES
    }

    assert long == {}


def test_the_pipeline_stands_on_one_screen() -> None:
    (choice,) = (node for node in functions(TREES["optselect.pipeline"]) if node.name == "make_selection")
    body = choice.body[1:]

    assert len(MODULES["optselect.pipeline"].read_text("utf-8").splitlines()) <= PIPELINE_LINES
    assert (body[-1].end_lineno or 0) - body[0].lineno + 1 <= CHOICE_LINES


def test_every_judgement_can_be_had_without_torch() -> None:
    pure = sorted(
        name
        for name in MODULES
        if name.startswith(tuple(f"{room}." for room in WITHOUT_TORCH)) and name not in WITH_TORCH
    )
    program = f"""
import importlib, sys
for name in {pure!r}:
    importlib.import_module(name)
    if "torch" in sys.modules:
        sys.exit(f"{{name}} brings torch along")
"""

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert len(pure) > 30


# --- nobody changes another module's names ----------------------------------------------------------


def changed_names(source: str, module: str = "optselect.pipeline") -> list[str]:
    """What the code does to names of other modules: assigns them, deletes them, or writes into their dictionary."""
    tree = ast.parse(source)
    imported = set(imported_modules(tree))
    found = []
    for node in ast.walk(tree):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        elif isinstance(node, ast.Delete):
            targets = node.targets
        found += [f"{module}, line {each.lineno}: {ast.unparse(each)}" for each in targets if owner(each) in imported]
        if isinstance(node, ast.Call) and written_to(node) in imported:
            found.append(f"{module}, line {node.lineno}: {ast.unparse(node)}")
    return found


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """The names under which modules, not what is in them, are known here."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (alias.asname or alias.name for alias in node.names if is_module(f"{node.module}.{alias.name}"))


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, AttributeError, ValueError):
        return False


def owner(target: ast.expr) -> str | None:
    """`module` of `module.name`, and of `vars(module)[name]`."""
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
        return target.value.id
    if isinstance(target, ast.Subscript):
        return dictionary_of(target.value)
    return None


def dictionary_of(node: ast.expr) -> str | None:
    """`module` of `vars(module)` and of `module.__dict__`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "vars" and node.args:
        return node.args[0].id if isinstance(node.args[0], ast.Name) else None
    if isinstance(node, ast.Attribute) and node.attr == "__dict__" and isinstance(node.value, ast.Name):
        return node.value.id
    return None


def written_to(call: ast.Call) -> str | None:
    """`module` of `setattr(module, …)`, `delattr(module, …)` and `vars(module).update(…)`."""
    if isinstance(call.func, ast.Name) and call.func.id in {"setattr", "delattr"} and call.args:
        return call.args[0].id if isinstance(call.args[0], ast.Name) else None
    if isinstance(call.func, ast.Attribute) and call.func.attr in {"update", "pop", "setdefault"}:
        return dictionary_of(call.func.value)
    return None


# The one way that Python has to catch warnings as they are said; `catch_warnings` around it puts it back.
ALLOWED = {"optselect.recipes.cli.surroundings": "warnings.showwarning"}


def test_no_module_changes_the_names_of_another() -> None:
    found = [
        change
        for name, path in MODULES.items()
        for change in changed_names(path.read_text("utf-8"), name)
        if not change.endswith(ALLOWED.get(name, "\0"))
    ]

    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "prior.configuration = poisoned",
        "prior.LIMIT += 1",
        "del prior.configuration",
        "vars(prior).update(configuration=poisoned)",
        "vars(prior)['configuration'] = poisoned",
        "prior.__dict__['configuration'] = poisoned",
        "setattr(prior, 'configuration', poisoned)",
    ],
)
def test_a_change_is_seen_however_it_is_written(line: str) -> None:
    assert changed_names(f"from optselect.rules import prior\n{line}") != []


@pytest.mark.parametrize("line", ["self.prior = prior", "plan = prior.configuration", "vars(plan).update(a=1)"])
def test_what_changes_no_module_is_none(line: str) -> None:
    assert changed_names(f"from optselect.rules import prior\n{line}") == []


def test_no_module_takes_a_private_name_of_another() -> None:
    taken = [
        f"{name}, line {node.lineno}: {node.module}.{alias.name}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("optselect")
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]

    assert taken == []

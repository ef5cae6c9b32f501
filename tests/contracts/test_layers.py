"""The import direction: a module imports only its own row or rows above it, and never in a circle.

The files are read, not imported, so an import inside a function or under `if TYPE_CHECKING` counts too.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The three source folders, by the package each is imported as. os.walk does not follow the links
# optselect/callbacks and optselect/recipes, so every file is read once, by its real path.
FOLDERS = {
    "optselect": ROOT / "optselect",
    "optselect.callbacks": ROOT / "callbacks",
    "optselect.recipes": ROOT / "recipes",
}

# A new room gets a row here. A room is a package, or a module that stands alone.
ROWS = {
    1: {"errors", "words", "files", "space", "budget", "parameters"},
    2: {"catalogue", "configuration"},
    3: {"study", "optim"},
    4: {"workload"},
    5: {"profile"},
    6: {"rules"},
    7: {"plan"},
    8: {"building"},
    9: {"settings", "search"},
    10: {"report"},
    11: {"briefing", "planning", "pipeline"},
    12: {"callbacks", "launch"},
    13: {"recipes", "testing"},
}
ROW_OF = {f"optselect.{name}": row for row, names in ROWS.items() for name in names}

# `optselect` itself re-exports every row, callbacks included, on first use. Only the last row may import from it.
FACADE = "optselect"

LIGHTNING = {"lightning", "pytorch_lightning", "lightning_fabric"}


@dataclass(frozen=True, kw_only=True)
class Import:
    """One imported name, where it is written."""

    module: str
    target: str
    function: str | None
    """The innermost function around it; `None` at module level."""
    typing_only: bool
    line: int

    def __str__(self) -> str:
        return f"{self.module}, line {self.line}: imports {self.target}"

    @property
    def runs_on_import(self) -> bool:
        return self.function is None and not self.typing_only


# The conveniences plan.build(), plan.explain() and what a notebook shows: (module, function, target).
EXCEPTIONS = {
    ("optselect.plan.plan", "build", "optselect.building"),
    ("optselect.plan.plan", "param_groups_of", "optselect.building"),
    ("optselect.plan.plan", "as_code", "optselect.report"),
    ("optselect.plan.plan", "explain", "optselect.report"),
    ("optselect.plan.plan", "_repr_html_", "optselect.report"),
    ("optselect.profile.values", "_repr_html_", "optselect.profile"),
}


class Imports(ast.NodeVisitor):
    """Collects the imports of one module, with the full name of each target."""

    def __init__(self, module: str, *, is_package: bool) -> None:
        self.module = module
        self.package = module if is_package else module.rpartition(".")[0]
        self.found: list[Import] = []
        self._functions: list[str] = []
        self._typing_only = False

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        source = self._absolute("." * node.level + (node.module or ""))
        for alias in node.names:
            # Whether the name is a submodule or something inside one is settled by `as_module`.
            self._add(f"{source}.{alias.name}", node.lineno)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        if called in {"import_module", "__import__"} and node.args and isinstance(node.args[0], ast.Constant):
            self._add(self._absolute(str(node.args[0].value)), node.lineno)
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._visit_inside(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._visit_inside(node)

    def visit_If(self, node: ast.If) -> None:
        outside = self._typing_only
        self._typing_only = outside or "TYPE_CHECKING" in ast.unparse(node.test)
        for child in node.body:
            self.visit(child)
        self._typing_only = outside
        for child in node.orelse:
            self.visit(child)

    def _visit_inside(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._functions.append(function.name)
        self.generic_visit(function)
        self._functions.pop()

    def _absolute(self, name: str) -> str:
        level = len(name) - len(name.lstrip("."))
        if level == 0:
            return name
        base = self.package.split(".")
        return ".".join([*base[: len(base) - level + 1], *filter(None, [name[level:]])])

    def _add(self, target: str, line: int) -> None:
        function = self._functions[-1] if self._functions else None
        self.found.append(
            Import(module=self.module, target=target, function=function, typing_only=self._typing_only, line=line)
        )


def imports_in(source: str, module: str, *, is_package: bool = False) -> list[Import]:
    visitor = Imports(module, is_package=is_package)
    visitor.visit(ast.parse(source))
    return visitor.found


def source_files() -> Iterator[tuple[str, Path]]:
    for package, folder in FOLDERS.items():
        for parent, _, names in os.walk(folder):
            for path in (Path(parent, name) for name in names if name.endswith(".py")):
                parts = path.relative_to(folder).with_suffix("").parts
                yield ".".join([package, *(part for part in parts if part != "__init__")]), path


FILES = dict(source_files())
IMPORTS = [
    found
    for module, path in FILES.items()
    for found in imports_in(path.read_text("utf-8"), module, is_package=path.name == "__init__.py")
]


def unit(module: str) -> str:
    """`optselect.profile.data` -> `optselect.profile`: what a row names."""
    return ".".join(module.split(".")[:2])


def as_module(target: str) -> str | None:
    """The file of ours that an import reads: `optselect.plan.OptimizerPlan` -> `optselect.plan`."""
    while target not in FILES:
        target, _, last = target.rpartition(".")
        if not last:
            return None
    return target


def is_named_exception(found: Import) -> bool:
    return (found.module, found.function, unit(as_module(found.target) or "")) in EXCEPTIONS


def ours() -> Iterator[tuple[Import, str]]:
    """Every import of one of our modules by another, but for the facade's and the named exceptions."""
    for found in IMPORTS:
        target = as_module(found.target)
        own = found.module in {target, FACADE}
        if target is not None and not own and not is_named_exception(found):
            yield found, target


def test_every_module_has_a_row() -> None:
    homeless = sorted({unit(module) for module in FILES} - {FACADE} - set(ROW_OF))

    assert not homeless, (
        f"{', '.join(homeless)}: no row. Give each new module a row in ROWS of {Path(__file__).name}: "
        "the lowest row of the diagram that it imports from, or the one below."
    )


def test_contributing_names_the_same_rows() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("## The layers\n")[2].partition("\n## ")[0]

    told = {int(row): set(re.findall(r"`(\w+)`", rooms)) for row, rooms in re.findall(r"(?m)^(\d+)\. (.*)$", section)}

    assert told == ROWS


def test_a_module_imports_only_its_own_row_and_rows_above() -> None:
    rows = {FACADE: max(ROWS), **ROW_OF}

    downward = [
        f"{found} (row {rows[unit(found.module)]} -> {rows[unit(target)]})"
        for found, target in ours()
        if unit(found.module) in rows and unit(target) in rows and rows[unit(target)] > rows[unit(found.module)]
    ]

    assert not downward, "imports against the direction:\n" + "\n".join(downward)


def test_no_modules_import_each_other_in_a_circle() -> None:
    edges: dict[str, set[str]] = {}
    for found, target in ours():
        edges.setdefault(found.module, set()).add(target)

    circle = first_circle(edges)

    assert not circle, "import cycle: " + " -> ".join(circle)


def test_every_named_exception_is_still_needed() -> None:
    used = {(found.module, found.function, unit(as_module(found.target) or "")) for found in IMPORTS}

    assert used >= EXCEPTIONS


def test_the_core_imports_no_lightning() -> None:
    core = FOLDERS["optselect"]

    offenders = [
        str(found)
        for found in IMPORTS
        if FILES[found.module].is_relative_to(core) and found.target.split(".")[0] in LIGHTNING
    ]

    assert not offenders, "Lightning belongs in callbacks/ and recipes/:\n" + "\n".join(offenders)


def test_lightning_is_reached_through_its_names_alone() -> None:
    through = [FILES[module] for module in FILES if module.startswith(("optselect.callbacks", "optselect.recipes.cli"))]

    offenders = [
        str(found)
        for found in IMPORTS
        if FILES[found.module] in through and found.target.split(".")[0] in LIGHTNING and not found.typing_only
    ]

    assert not offenders, "`lightning_of` gives it of the package in use, not:\n" + "\n".join(offenders)


@pytest.mark.parametrize(
    "statement, unwanted",
    [
        ("import optselect", {"torch", "lightning", "optuna", "sklearn", "matplotlib"}),
        ("import optselect.rules, optselect.plan", {"torch", "lightning", "matplotlib"}),
        ("from optselect import AutoOptimizer", {"sklearn", "IPython"}),
    ],
)
def test_an_import_stays_light(statement: str, unwanted: set[str]) -> None:
    loaded = modules_after(statement)

    assert loaded & unwanted == set()


def test_touching_the_callback_loads_lightning() -> None:
    loaded = modules_after("import optselect; optselect.AutoOptimizer")

    assert "lightning" in loaded


@pytest.mark.parametrize(
    "source, target, runs_on_import",
    [
        ("import torch.nn as nn", "torch.nn", True),
        ("from optselect.files import write_whole", "optselect.files.write_whole", True),
        ("from . import files", "optselect.files", True),
        ("from .files import write_whole", "optselect.files.write_whole", True),
        ("def lazy():\n    from . import files", "optselect.files", False),
        ("async def lazy():\n    import optselect.files", "optselect.files", False),
        ("if TYPE_CHECKING:\n    from optselect import files", "optselect.files", False),
        ("if typing.TYPE_CHECKING:\n    pass\nelse:\n    import lightning", "lightning", True),
        ("try:\n    import lightning\nexcept ImportError:\n    pass", "lightning", True),
        ("importlib.import_module('lightning.pytorch')", "lightning.pytorch", True),
        ("import_module('.files', __package__)", "optselect.files", True),
    ],
)
def test_an_import_is_seen_however_it_is_written(source: str, target: str, *, runs_on_import: bool) -> None:
    (found,) = imports_in(source, "optselect.budget")

    assert (found.target, found.runs_on_import) == (target, runs_on_import)


def test_a_relative_import_in_a_package_counts_from_the_package() -> None:
    found = imports_in("from .values import Profile\nfrom ..errors import X", "optselect.profile", is_package=True)

    assert [each.target for each in found] == ["optselect.profile.values.Profile", "optselect.errors.X"]


def test_a_circle_is_found_wherever_it_starts() -> None:
    circle = first_circle({"a": {"b"}, "b": {"c", "d"}, "d": {"b"}})

    assert circle == ["b", "d", "b"]


def first_circle(edges: dict[str, set[str]]) -> list[str]:
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in sorted(edges.get(module, ())):
            if circle := visit(target, [*path, module]):
                return circle
        done.add(module)
        return []

    return next((circle for module in sorted(edges) if (circle := visit(module, []))), [])


def modules_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `statement`."""
    command = f"import sys; {statement}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())

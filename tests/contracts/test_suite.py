"""How the tests are laid out: what several files share is no test's own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tests").rglob("*.py"))


def imported(source: str) -> list[str]:
    """The full name of each module and of each thing out of one."""
    nodes = list(ast.walk(ast.parse(source)))
    whole = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    parts = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    return [*whole, *(f"{node.module}.{alias.name}" for node in parts for alias in node.names)]


def of_a_test(name: str) -> bool:
    return name.startswith("tests.") and any(part.startswith("test_") for part in name.split("."))


def test_no_file_imports_from_a_file_of_tests() -> None:
    offenders = [
        f"{path.relative_to(ROOT)}: {name}; what files share belongs in tests/support"
        for path in FILES
        for name in imported(path.read_text("utf-8"))
        if of_a_test(name)
    ]

    assert offenders == []


@pytest.mark.parametrize(
    "source",
    ["from tests.workload.test_loaders import Own", "from tests.laws import test_resume", "import tests.test_a"],
)
def test_an_import_from_a_file_of_tests_is_found(source: str) -> None:
    assert list(map(of_a_test, imported(source))) == [True]

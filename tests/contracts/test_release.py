"""What a release says of itself: one version everywhere, and types that hold in a user's own strict check."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import optselect

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PAGE = ROOT / "docs" / "how-to" / "embed.md"


def test_the_changelog_begins_with_the_version_of_the_wheel_and_of_the_package() -> None:
    newest = re.search(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)

    assert newest is not None
    assert newest[1] == PROJECT["version"] == optselect.__version__


def test_every_floor_is_the_oldest_that_the_short_suite_runs_with() -> None:
    tried = dict(re.findall(r"([\w-]+)(?:\[\w+\])?==([\d.]+)", (ROOT / "versions.txt").read_text("utf-8")))
    floors = [re.match(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", each) for each in PROJECT["dependencies"]]

    stated = {found[1]: numbers(found[2]) for found in floors if found}

    assert stated
    assert stated == {name: numbers(tried[name])[: len(stated[name])] for name in stated}


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@pytest.mark.slow
def test_ten_lines_of_a_user_pass_a_strict_check_of_types(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    (tmp_path / "mine.py").write_text(program)

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "mine.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )

    assert done.returncode == 0, done.stdout

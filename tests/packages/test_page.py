"""What docs/how-to/packages.md shows runs, with data of the tests for those of the reader."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from optselect import AutoOptimizer
from tests.docs.examples import examples
from tests.packages.running import Run, importable, seed_everything, training_of

pytestmark = pytest.mark.packages

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "packages.md"
SECTIONS = {
    re.sub(r"\W", "_", heading.split()[0].removesuffix("-tools")): text
    for heading, text in re.findall(
        r"^## ([^\n]*)\n(.*?)(?=^## |\Z)", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
}


@pytest.mark.parametrize("package", importable())
def test_what_the_page_shows_of_a_package_runs(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    seed_everything(0)
    page = tmp_path / "page.md"
    page.write_text(SECTIONS[package])
    session = {"__name__": "page", **training_of(package).example(Run(seed=0, epochs=2, folder=tmp_path))}

    for example in examples(page):
        exec(compile(example.text, package, "exec"), session)  # noqa: S102  # the page is ours

    chosen: Any = session.get("chosen", session["auto"])
    assert isinstance(chosen, AutoOptimizer)
    assert chosen.plan is not None


def test_the_page_has_a_section_for_each_package() -> None:
    assert [package for package in importable() if package not in SECTIONS] == []

"""The pages that the code says by itself, and the site that is built of all pages."""

import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import optselect
from optselect import errors

DOCS = Path(__file__).parents[2] / "docs"
GENERATED = runpy.run_path(str(DOCS / "generate.py"))
PAGES = GENERATED["PAGES"]


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_what_the_code_says(name: str) -> None:
    page = PAGES[name]()

    assert (DOCS / "reference" / name).read_text("utf-8") == page, "run: make docs (or python docs/generate.py)"


def test_all_pages_are_built_without_a_warning_or_a_broken_link(tmp_path: Path) -> None:
    strictly = ["--quiet", "--nitpicky", "--fail-on-warning", "--keep-going"]

    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *strictly, str(DOCS), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "index.html").exists()


def test_every_public_name_has_an_example_that_names_it() -> None:
    page = (DOCS / "reference" / "api.md").read_text("utf-8")
    entries = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", page, flags=re.MULTILINE | re.DOTALL))
    shown = {
        name: re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) for name, text in entries.items()
    }

    missing = [name for name, blocks in shown.items() if not any(name in block for block in blocks)]

    assert set(entries) == {name for name in optselect.__all__ if not hasattr(errors, name)}
    assert missing == []


def test_every_argument_and_property_on_the_page_of_names_has_a_type() -> None:
    untyped = [
        f"{name}: {each}"
        for name in optselect.__all__
        if not hasattr(errors, name)
        and callable(value := getattr(optselect, name))
        and not GENERATED["_is_protocol"](value)
        for each in inspect.signature(value).parameters.values()
        if each.annotation is inspect.Parameter.empty and each.name != "self"
    ]
    page = (DOCS / "reference" / "api.md").read_text("utf-8")

    bare = re.findall(r"^\*\*`(\w+)`\*\*", page, flags=re.MULTILINE)

    assert (untyped, bare) == ([], [])


def test_every_error_has_a_word_on_what_helps() -> None:
    headings = " ".join(
        re.findall(r"^## (.*)", (DOCS / "how-to" / "trouble.md").read_text("utf-8"), flags=re.MULTILINE)
    )
    leaves = {each for each in vars(errors).values() if inspect.isclass(each) and not each.__subclasses__()}

    missing = {each.__name__ for each in leaves if issubclass(each, errors.OptselectError)} - set(
        headings.replace(",", "").split()
    )

    assert missing == set()

"""Every example of the documentation runs, page by page, as a reader would run it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.docs.examples import ROOT, Command, Example, examples

DOCS = ROOT / "docs"
# The tutorial takes twenty epochs; test_tutorial.py runs it at two. The first block of own-optimizer.md is a
# module that the others import; tests/third_party writes it to a file and runs them.
ELSEWHERE = {"docs/tutorials/first-choice.md", "docs/how-to/own-optimizer.md"}
PAGES = {
    page.relative_to(ROOT).as_posix(): found
    for page in (*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md")))
    if "_build" not in page.parts and (found := examples(page))
}
RUNNING = {name: found for name, found in PAGES.items() if any(each.runs for each in found) and name not in ELSEWHERE}


# Lightning says so to whoever resumes into the folder of the first run, as readers of how-to/resume do.
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("page", RUNNING)
def test_a_page_runs_from_top_to_bottom(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    session: dict[str, object] = {"__name__": "page"}

    for example in RUNNING[page]:
        take(example, session)

    for file in tmp_path.glob("*.py"):
        sys.modules.pop(file.stem, None)


def take(example: Example, session: dict[str, object]) -> None:
    """What a reader does with a block: save it, type it, or run it."""
    if not example.runs:
        return
    if example.file:
        Path(example.file).write_text(example.text)
    elif example.language == "python":
        exec(compile(example.text, "page", "exec"), session)  # noqa: S102  # the pages are ours
    elif example.language == "bash":
        for line in example.lines:
            Command.read(line).run()


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_are_real(page: str) -> None:
    lines = [line for example in PAGES[page] if example.language == "bash" for line in example.lines]

    faults = {line: fault for line in lines if (fault := Command.read(line).fault())}

    assert faults == {}


def test_a_command_that_is_not_real_is_found() -> None:
    lines = ["optselect tune --confg x.yaml", "optselect tnue", "make nothing", "pip install 'optselect[nix]'", "nix x"]

    assert all(Command.read(line).fault() for line in lines)


def test_no_block_of_commands_goes_unchecked() -> None:
    unmarked = r"^```(?:|sh|shell|console)\n(?:\w+=\S+ )?(?:optselect|make|pip|python|\.venv)"
    commands = re.compile(unmarked, flags=re.MULTILINE)
    pages = [page for page in (*DOCS.rglob("*.md"), *ROOT.glob("*.md")) if commands.search(page.read_text("utf-8"))]

    assert pages == []


def test_links_between_pages_lead_somewhere() -> None:
    missing = [
        f"{page.name}: {target}"
        for page in (*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md"))
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]

    assert missing == []

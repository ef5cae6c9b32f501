"""Every Python example of the documentation runs, page by page, as a reader would run it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
# The tutorial takes twenty epochs; test_tutorial.py runs it at two. The first block of own-optimizer.md is a
# module that the others import; tests/third_party writes it to a file and runs them.
ELSEWHERE = {"tutorials/first-choice.md", "how-to/own-optimizer.md"}
PAGES = {
    page.relative_to(DOCS).as_posix(): blocks
    for page in sorted(DOCS.rglob("*.md"))
    if (blocks := re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL))
    and page.relative_to(DOCS).as_posix() not in ELSEWHERE
}


# Lightning says so to whoever resumes into the folder of the first run, as readers of how-to/resume do.
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_from_top_to_bottom(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    session: dict[str, object] = {"__name__": "page"}

    for block in PAGES[page]:
        exec(compile(block, page, "exec"), session)  # noqa: S102  # the pages are ours


def test_links_between_pages_lead_somewhere() -> None:
    missing = [
        f"{page.name}: {target}"
        for page in (*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md"))
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
        if not (page.parent / target).exists()
    ]

    assert missing == []

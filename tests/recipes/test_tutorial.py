"""The tutorial's code, run block after block as a reader would."""

import re
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "first-choice.md"


def test_the_tutorial_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", TUTORIAL.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    session: dict[str, object] = {}

    for block in blocks:
        exec(block.replace("EPOCHS = 20", "EPOCHS = 2"), session)  # noqa: S102  # the tutorial is ours

    assert session["EPOCHS"] == 2

"""`optselect report`: the page out of a plan.json or a checkpoint, and what can go wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from optselect.recipes.cli.commands import main
from optselect.report.page import as_html
from tests.support.plans import bare, searched


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    searched().save(tmp_path / "plan.json")
    return tmp_path / "plan.json"


def test_the_command_writes_the_page_of_a_plan(plan_file: Path, tmp_path: Path) -> None:
    status = main(["report", str(plan_file), "-o", str(tmp_path / "page.html")])

    assert status == 0
    assert (tmp_path / "page.html").read_text("utf-8") == as_html(searched())


def test_a_checkpoint_gives_the_same_page(tmp_path: Path) -> None:
    torch.save({"callbacks": {"AutoOptimizer": {"plan": bare().to_dict()}}}, tmp_path / "last.ckpt")

    status = main(["report", str(tmp_path / "last.ckpt"), "-o", str(tmp_path / "page.html")])

    assert status == 0
    assert (tmp_path / "page.html").read_text("utf-8") == as_html(bare())


def test_into_a_folder_it_writes_report_html(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare().save(tmp_path / "plan.json")

    main(["report", str(tmp_path / "plan.json"), "--output", str(tmp_path)])

    assert f"{tmp_path / 'report.html'} written" in capsys.readouterr().out
    assert (tmp_path / "report.html").exists()


def test_an_older_page_is_replaced(tmp_path: Path) -> None:
    bare().save(tmp_path / "plan.json")
    (tmp_path / "report.html").write_text("old")

    main(["report", str(tmp_path / "plan.json"), "-o", str(tmp_path / "report.html")])

    assert (tmp_path / "report.html").read_text("utf-8") == as_html(bare())


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare().save(tmp_path / "plan.json")
    (tmp_path / "file").write_text("")

    status = main(["report", str(tmp_path / "plan.json"), "-o", str(tmp_path / "file" / "page.html")])

    said = capsys.readouterr().err
    assert status == 2
    assert said.startswith("optselect: ConfigurationError: ")
    assert "choose another place" in said
    assert len(said.splitlines()) == 1


def test_a_plan_edited_beyond_showing_is_one_line_and_no_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bare().to_dict()
    (tmp_path / "plan.json").write_text(json.dumps({**data, "search_steps": "many"}))

    status = main(["report", str(tmp_path / "plan.json"), "-o", str(tmp_path / "page.html")])

    said = capsys.readouterr().err
    assert status == 2
    assert "PlanFormatError: the plan is malformed: search_steps is 'many'" in said
    assert not (tmp_path / "page.html").exists()

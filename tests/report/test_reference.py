"""The reference pages are what the code says, and the terminal says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from optselect import catalogue
from optselect.catalogue.registry import OURS
from optselect.report.reference import (
    PAGES,
    catalogue_lines,
    catalogue_page,
    entry_lines,
    rules_lines,
    rules_page,
    write,
)
from optselect.rules import DEFAULT, FACTS

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_is_what_the_code_renders(name: str) -> None:
    cure = "run: python -m optselect.report.reference docs/reference"

    assert (REFERENCE / name).read_text("utf-8") == PAGES[name](), cure


def test_the_pages_are_written_into_a_folder(tmp_path: Path) -> None:
    write(tmp_path)

    assert {file.name for file in tmp_path.iterdir()} == set(PAGES)


@pytest.mark.parametrize("page", [catalogue_page(), rules_page()], ids=["catalogue", "rules"])
def test_every_row_of_a_table_has_as_many_cells_as_its_header(page: str) -> None:
    tables = re.findall(r"(?:^\|.*\n)+", page, flags=re.MULTILINE)

    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1


def test_the_catalogue_page_has_every_entry_of_ours_and_no_other() -> None:
    headings = re.findall(r"^## (\w+)$", catalogue_page(), flags=re.MULTILINE)

    assert headings == [spec.name for spec in OURS]


def test_there_are_seventeen_of_torch_and_six_plug_ins_at_least() -> None:
    extras = [spec.extra for spec in OURS]

    assert extras.count(None) >= 17
    assert extras.count("plugins") >= 6


def test_the_rules_page_has_every_rule_with_its_source() -> None:
    page = " ".join(rules_page().replace("\\", "").split())

    assert [each.name for each in (*FACTS, *DEFAULT) if f"| {each.name} | {each.mechanism} |" not in page] == []
    assert [each.name for each in (*FACTS, *DEFAULT) if " ".join(each.cites.split()) not in page] == []


def test_the_terminal_lists_one_line_for_each_optimizer() -> None:
    names = catalogue.names()

    lines = list(catalogue_lines(names))

    assert [line.split()[0] for line in lines] == list(names)


@pytest.mark.parametrize("spec", OURS, ids=lambda spec: spec.name)
def test_all_about_one_optimizer_fits_a_terminal_and_leaves_nothing_out(spec: catalogue.OptimizerSpec) -> None:
    lines = list(entry_lines(spec))
    text = " ".join(" ".join(lines).split())

    assert max(map(len, lines)) <= 100
    assert [name for name in spec.space if f" {name} " not in text] == []
    assert [cited for cited in spec.cites if " ".join(cited.split()) not in text] == []


def test_the_rules_fit_a_terminal_with_what_speaks_against_them() -> None:
    lines = list(rules_lines())
    text = " ".join(" ".join(lines).split())

    assert max(map(len, lines)) <= 100
    assert [each.name for each in DEFAULT if each.counter and f"but: {each.counter}" not in text] == []

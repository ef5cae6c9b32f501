"""A package that brings an optimizer of its own is found, checked, searched and resumed."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from optselect import catalogue
from optselect.catalogue import registry
from optselect.testing import check_optimizer
from tests.support.modules import BATCH, Classifier, StopAfter, auto, equal_states, fit, made, rows

PACKAGE = Path(__file__).parent / "signum"
HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "own-optimizer.md"


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The package on the path, with the metadata that an installer makes of its pyproject.toml."""
    monkeypatch.chdir(tmp_path)
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text("utf-8"))["project"]
    metadata = tmp_path / "site" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n", "utf-8"
    )
    (metadata / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
            for group, points in project["entry-points"].items()
        ),
        "utf-8",
    )
    monkeypatch.syspath_prepend(str(metadata.parent))
    monkeypatch.syspath_prepend(str(PACKAGE))
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    registry._load_entry_points.cache_clear()
    yield
    sys.modules.pop("signum_optimizer", None)
    monkeypatch.undo()
    importlib.invalidate_caches()
    registry._load_entry_points.cache_clear()


def test_its_optimizer_is_found_by_its_entry_point() -> None:
    assert "signum" in catalogue.names()


def test_its_optimizer_is_found_by_name_before_any_was_listed() -> None:
    assert catalogue.get("signum").summary == "the sign of a momentum"


def test_every_fact_of_its_spec_holds() -> None:
    check_optimizer(catalogue.get("signum"))


def test_the_how_to_page_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = HOW_TO.read_text("utf-8")
    module, *session = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "signum_optimizer.py").write_text(module, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    # As in a fresh interpreter where the package is not installed.
    monkeypatch.setattr(registry, "_load_entry_points", lambda: None)
    names: dict[str, object] = {}

    for block in session:
        exec(block, names)  # noqa: S102  # the page is ours

    assert "signum" in catalogue.names()
    # What the page says that the error says.
    (promised,) = re.findall(r"print\(error\)  # (.*)", page)
    assert capsys.readouterr().out.strip() == promised


def test_the_how_to_page_shows_the_entry_point_that_is_tested_here() -> None:
    (block,) = re.findall(r"^```toml\n(.*?)^```", HOW_TO.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)

    assert block in (PACKAGE / "pyproject.toml").read_text("utf-8")


def learnable() -> Any:
    """Judged on what it trains with, so that progress shows within a few steps."""
    return DataLoader(rows(), batch_size=BATCH, shuffle=True), DataLoader(rows(), batch_size=BATCH)


def test_it_is_searched_and_chosen_where_it_wins(tmp_path: Path) -> None:
    callback = auto(tmp_path, candidates=["signum"])

    fit(made(Classifier), callback, data=learnable(), epochs=4)

    assert callback.plan is not None
    assert callback.plan.optimizer == "signum"
    assert "signum" in {trial.configuration.optimizer for trial in callback.plan.trials}


def test_its_training_is_resumed_from_a_checkpoint_to_the_last_bit(tmp_path: Path) -> None:
    whole = made(Classifier)
    uninterrupted = fit(whole, auto(tmp_path / "whole", candidates=["signum"]), data=learnable(), epochs=4)
    first = auto(tmp_path / "half", candidates=["signum"])
    fit(made(Classifier), first, StopAfter(2), data=learnable(), epochs=4).save_checkpoint(tmp_path / "half.ckpt")

    continued, later = made(Classifier, seed=5), auto(tmp_path / "rest", candidates=["signum"])
    resumed = fit(continued, later, data=learnable(), epochs=4, seed=9, ckpt_path=tmp_path / "half.ckpt")

    assert later.study is None
    assert later.plan == first.plan
    assert type(resumed.optimizers[0]).__name__ == type(uninterrupted.optimizers[0]).__name__ == "Signum"
    assert equal_states(continued.state_dict(), whole.state_dict())
    assert equal_states(resumed.optimizers[0].state_dict(), uninterrupted.optimizers[0].state_dict())

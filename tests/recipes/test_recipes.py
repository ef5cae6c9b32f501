"""Each recipe at tiny scale, from its own YAML where it has one."""

from pathlib import Path

import pytest

from optselect.plan import OptimizerPlan
from optselect.recipes import demo, plain_torch
from optselect.recipes.cli import main

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("config", sorted(RECIPES.glob("*.yaml")), ids=lambda config: config.stem)
def test_a_recipe_trains_from_its_own_yaml(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny = [
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=4",
        "--trainer.enable_progress_bar=false",
    ]

    status = main(["fit", "--config", str(config), *tiny])

    assert (status, capsys.readouterr().err) == (0, "")
    assert list(tmp_path.rglob("plan.json"))


def test_the_first_line_of_each_yaml_says_what_it_is() -> None:
    assert all(len(config.read_text().splitlines()[0]) > 20 for config in RECIPES.glob("*.yaml"))


def test_the_demo_tells_everything_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    with demo.quiet():
        demo.main(epochs=2)

    out = capsys.readouterr().out
    acts = [line for line in out.splitlines() if line[:3] in {f"{number}. " for number in range(1, 7)}]
    assert [act[0] for act in acts] == ["1", "2", "3", "4", "5", "6"]
    assert "trials run    0" in out
    assert all(
        Path(line.split()[1]).exists() for line in out.splitlines() if line.startswith(("  checkpoint ", "  plan "))
    )


def test_the_plain_loop_trains_and_keeps_its_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    plain_torch.main(steps=10)

    assert "step 10: validation loss" in capsys.readouterr().out
    assert OptimizerPlan.load("plan.json").total_steps == 10

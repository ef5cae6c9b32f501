"""The command line: every command at tiny scale on digits."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import torch

from optselect.plan import OptimizerPlan
from optselect.recipes.cli.input_errors import readable
from optselect.study.journal import journal_storage
from tests.support.tiny import TINY, Run

RECIPES = Path(__file__).parents[3] / "recipes"


def trials() -> int:
    """How many trials the study in this folder holds."""
    storage = journal_storage("optselect_study.journal")
    return sum(summary.n_trials for summary in optuna.get_all_study_summaries(storage))


# --- lists and copies -----------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", ["'--help'", "'ls'", ""])
def test_help_and_lists_import_neither_torch_nor_lightning(arguments: str) -> None:
    program = f"""
import sys
from optselect.recipes.cli.commands import main
try:
    main([{arguments}])
except SystemExit:
    pass
heavy = {{"torch", "lightning", "optuna", "sklearn", "numpy", "jsonargparse"}} & set(sys.modules)
sys.exit(str(heavy) if heavy else 0)
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)

    assert done.returncode == 0, done.stderr


def test_ls_has_one_line_for_each_yaml(run: Run) -> None:
    done = run("ls")

    assert [line.split()[0] for line in done.out.splitlines()] == sorted(file.stem for file in RECIPES.glob("*.yaml"))


def test_cp_copies_the_recipe_to_the_letter(run: Run) -> None:
    done = run("cp", "digits", "mine.yaml")

    assert (done.status, Path("mine.yaml").read_bytes()) == (0, (RECIPES / "digits.yaml").read_bytes())


def test_cp_into_a_folder_keeps_the_name(run: Run) -> None:
    run("cp", "digits", ".")

    assert Path("digits.yaml").exists()


def test_catalogue_lists_what_matches(run: Run) -> None:
    done = run("catalogue", "adam*")

    assert [line.split()[0] for line in done.out.splitlines()] == ["adam", "adamw", "adamax"]


def test_catalogue_says_all_about_one_name(run: Run) -> None:
    done = run("catalogue", "momentum")

    assert "momentum       0.7 to 0.995, starting at 0.9" in done.out


def test_rules_are_listed_by_a_word_of_what_they_say(run: Run) -> None:
    every, some = run("rules").out.splitlines(), run("rules", "Muon").out.splitlines()

    assert 0 < len(some) < len(every)
    assert set(some) <= set(every)
    assert "muon" in " ".join(some).lower()


@pytest.mark.parametrize("command", ["fit", "tune"])
def test_the_help_of_a_training_begins_with_what_is_ours(command: str, run: Run) -> None:
    lines = run(command, "--help").out

    assert lines.startswith(f"usage: optselect {command} --config FILE")
    assert lines.index("--auto.monitor") < lines.index("--trainer.accelerator")


def test_rules_come_with_their_sources(run: Run) -> None:
    done = run("rules")

    assert "hidden matrices favour muon" in done.out
    assert "arXiv:2509.02046" in done.out


# --- trainings ------------------------------------------------------------------------------------


def test_profile_prints_the_measurements_and_writes_nothing(run: Run) -> None:
    done = run("profile", "--config", "tiny.yaml")

    assert "1,280 samples" in done.out
    assert "layer  modules" in done.out
    assert [file.name for file in Path().iterdir()] == ["tiny.yaml"]


def test_tune_leaves_a_plan_its_report_and_a_study_and_nothing_else(tuned: Path) -> None:
    left = sorted(file.name for file in tuned.iterdir())

    assert left == ["optselect_study.journal", "plan.json", "report.html", "tiny.yaml"]


def test_tuning_again_runs_no_trial_twice(run: Run) -> None:
    run("tune", "--config", "tiny.yaml")
    before = trials()

    run("tune", "--config", "tiny.yaml")

    assert trials() == before > 0


def test_fit_after_tune_trains_with_the_same_plan(run: Run) -> None:
    run("tune", "--config", "tiny.yaml")
    before, plan = trials(), OptimizerPlan.load("plan.json")

    run("fit", "--config", "tiny.yaml")

    assert trials() == before
    assert OptimizerPlan.load("plan.json").configuration == plan.configuration


def test_fit_with_a_plan_searches_nothing(run: Run, tuned: Path) -> None:
    done = run("fit", "--config", "tiny.yaml", "--plan", str(tuned / "plan.json"))

    assert done.status == 0
    assert "val_loss" in done.out
    assert not Path("optselect_study.journal").exists()


def test_a_checkpoint_explains_itself_as_its_plan_does(run: Run, tuned: Path) -> None:
    plan = str(tuned / "plan.json")
    run("fit", "--config", "tiny.yaml", "--plan", plan)
    (checkpoint,) = Path().rglob("*.ckpt")

    assert run("explain", str(checkpoint)).out == run("explain", plan).out


def test_a_module_and_its_data_may_lie_in_the_current_folder(run: Run) -> None:
    Path("module_of_my_own.py").write_text(
        "import lightning as L, torch\n"
        "from torch import nn\n"
        "from torch.utils.data import DataLoader, TensorDataset\n"
        "class Line(L.LightningModule):\n"
        "    def __init__(self, slope: float = 2.0):\n"
        "        super().__init__()\n"
        "        self.net, self.slope = nn.Linear(3, 1), slope\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        return (self.net(batch[0]) - self.slope * batch[0].sum(1, keepdim=True)).square().mean()\n"
        "    def train_dataloader(self):\n"
        "        return DataLoader(TensorDataset(torch.randn(64, 3)), batch_size=4)\n"
    )
    config = {
        **TINY,
        "model": {"class_path": "module_of_my_own.Line", "init_args": {"slope": 3.0}},
        "auto": {},
    }
    del config["data"]
    Path("mine.yaml").write_text(json.dumps(config))

    done = run("tune", "--config", "mine.yaml")

    assert (done.status, done.err) == (0, "")
    assert OptimizerPlan.load("plan.json").model_fingerprint.shapes == {
        "net.weight": (1, 3),
        "net.bias": (1,),
    }


def test_the_optimizer_of_the_config_is_the_candidate_to_beat(run: Run) -> None:
    own = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.25, "momentum": 0.37}}
    steps = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 1}}
    config = {**TINY, "auto": {"candidates": ["user"]}, "optimizer": own, "lr_scheduler": steps}
    Path("own.yaml").write_text(json.dumps(config))

    done = run("fit", "--config", "own.yaml")

    (checkpoint,) = Path().rglob("*.ckpt")
    (group,) = torch.load(checkpoint, weights_only=True)["optimizer_states"][0]["param_groups"]
    # The search may find another learning rate for it; a scheduler writes down the first one.
    assert (done.status, group["momentum"], "initial_lr" in group) == (0, 0.37, True)


def test_the_environment_counts_where_neither_line_nor_config_speaks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTSELECT_AUTO__STORAGE", "of_the_environment.journal")
    monkeypatch.setenv("OPTSELECT_TRAINER__MAX_EPOCHS", "7")

    run("tune", "--config", "tiny.yaml")

    assert Path("of_the_environment.journal").exists()
    assert OptimizerPlan.load("plan.json").total_steps == 8


def test_a_run_keeps_its_config_and_can_be_made_again_from_it(run: Run) -> None:
    run("fit", "--config", "tiny.yaml", "--auto.budget", "0", "--trainer.logger", "true")
    (kept,) = Path().rglob("config.yaml")

    done = run("fit", "--config", str(kept), "--trainer.max_epochs", "1")

    assert (done.status, done.err) == (0, "")
    assert {file.name for file in kept.parent.iterdir()} >= {"config.yaml", "plan.json"}


def test_a_config_of_the_users_is_left_as_it_is(run: Run) -> None:
    mine = Path("tiny.yaml").rename("config.yaml")
    before = mine.read_text()

    run("fit", "--config", "config.yaml", "--auto.budget", "0")

    assert mine.read_text() == before


# SQLite takes parameters that it does not know: a real storage with a password in its URL, and without a server.
STORAGE = "sqlite:///file:study.db?uri=true&password=s3cret"


@pytest.mark.parametrize("more", [(), ("--auto.monitor", "nothing")], ids=["well", "failing"])
def test_the_password_of_a_storage_is_shown_and_written_nowhere(run: Run, more: tuple[str, ...]) -> None:
    Path("secret.yaml").write_text(json.dumps({**TINY, "auto": {"storage": STORAGE}}))
    config = Path("secret.yaml").read_bytes()

    done = run("fit", "--config", "secret.yaml", "-v", "--trainer.logger", "true", *more)

    written = [file for file in Path().rglob("*") if file.is_file() and b"s3cret" in file.read_bytes()]
    assert Path("study.db").exists()
    assert (written, Path("secret.yaml").read_bytes()) == ([Path("secret.yaml")], config)
    assert "s3cret" not in done.out + done.err


def test_a_recipe_leaves_the_storage_to_the_environment_and_print_config_its_password_unsaid(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTSELECT_AUTO__STORAGE", "postgresql://me:s3cret@host/trials")

    done = run("tune", "--config", str(RECIPES / "digits.yaml"), "--print_config")

    assert done.status == 0
    assert "storage: postgresql://…@host/trials" in done.out
    assert "s3cret" not in done.out


@pytest.mark.parametrize("arguments", [("fit", "--help"), ("tune", "--config", "tiny.yaml", "--print_config")])
def test_what_only_asks_is_answered_with_status_0(run: Run, arguments: tuple[str, ...]) -> None:
    try:
        status = run(*arguments).status
    except SystemExit as leaving:
        status = int(leaving.code or 0)

    assert status == 0


# --- interrupts -----------------------------------------------------------------------------------

CTRL_C = """
import lightning as L
from optselect.recipes.digits import DigitsModel


class WhileTraining(L.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


class WhileSearching(DigitsModel):
    seen = 0

    def training_step(self, batch, batch_idx):
        WhileSearching.seen += 1
        if WhileSearching.seen == 8:
            raise KeyboardInterrupt
        return super().training_step(batch, batch_idx)
"""


def test_an_interrupted_search_goes_on_with_the_same_line(run: Run) -> None:
    Path("ctrl_c_search.py").write_text(CTRL_C)
    line = ["tune", "--config", "tiny.yaml", "--model.class_path", "ctrl_c_search.WhileSearching"]
    interrupted = run(*line)
    before = trials()

    resumed = run(*line)

    assert (interrupted.status, resumed.status) == (130, 0)
    assert "the same line goes on" in interrupted.err
    assert 0 < before < len(OptimizerPlan.load("plan.json").trials)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")
def test_an_interrupted_training_names_the_checkpoint_to_go_on_from(run: Run, tuned: Path) -> None:
    Path("ctrl_c_training.py").write_text(CTRL_C)
    line = ["fit", "--config", "tiny.yaml", "--plan", str(tuned / "plan.json")]

    done = run(*line, "--trainer.callbacks", "ctrl_c_training.WhileTraining")

    hint = done.err.split()[done.err.split().index("--ckpt_path") + 1]
    assert done.status == 130
    assert run("fit", "--config", "tiny.yaml", "--ckpt_path", hint).status == 0


# --- errors --------------------------------------------------------------------------------------

FIT = ("fit", "--config", "tiny.yaml")


def test_verbose_shows_the_traceback(run: Run) -> None:
    done = run("explain", "none.json", "-v")

    assert done.status == 2
    assert "Traceback" in done.err


def test_a_bug_in_the_users_code_keeps_its_traceback(run: Run, tuned: Path) -> None:
    Path("with_a_bug.py").write_text(
        "from optselect.recipes.digits import DigitsModel\n"
        "class Bug(DigitsModel):\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        return {}['loss']\n"
    )

    with pytest.raises(KeyError, match="loss"):
        run(*FIT, "--plan", str(tuned / "plan.json"), "--model.class_path", "with_a_bug.Bug")


UNION = """\
Parser key "a.b":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'float'>, <class 'Budget'>, <class 'NoneType'>]
  Errors:
    - Expected a <class 'float'>
    - a budget is 0 or more
    - Expected a <class 'NoneType'>
  Given value type: <class 'int'>
  Given value: -3
"""


@pytest.mark.parametrize(
    "message, line",
    [
        ("Something\n  is wrong", "Something is wrong"),
        (
            UNION,
            "a.b: a budget is 0 or more. Given value: -3",
        ),
    ],
)
def test_a_message_of_many_lines_becomes_one(message: str, line: str) -> None:
    assert readable(message) == line


# --- checkpoints with objects, and SIGTERM --------------------------------------------------------


HOLDING = """
from optselect.recipes.digits import DigitsModel


class Scale:
    factor = 1.0


class Holding(DigitsModel):
    def __init__(self, hidden: int = 8) -> None:
        super().__init__(hidden)
        self.save_hyperparameters({"scale": Scale()})
"""


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
@pytest.mark.filterwarnings("ignore:the training goes on beyond")
def test_a_checkpoint_with_objects_is_explained_refused_and_gone_on_with_where_that_is_asked_for(run: Run) -> None:
    Path("holding.py").write_text(HOLDING)
    line = ("fit", "--config", "tiny.yaml", "--model", "holding.Holding", "--auto.budget", "0")
    run(*line)
    (checkpoint,) = map(str, Path().rglob("*.ckpt"))
    on = (*line, "--ckpt_path", checkpoint, "--trainer.max_epochs", "3")

    refused, trusted, explained = run(*on), run(*on, "--weights_only", "false"), run("explain", checkpoint)

    assert [each.status for each in (refused, trusted, explained)] == [2, 0, 0], trusted.err
    assert "holds objects (holding.Scale)" in refused.err
    assert "weights_only" not in refused.err


SLOW = """
import time
from optselect.recipes.digits import DigitsModel


class Slow(DigitsModel):
    def training_step(self, batch, batch_idx):
        time.sleep(0.05)
        return super().training_step(batch, batch_idx)
"""


@pytest.mark.parametrize("command, begun", [("tune", "before it)"), ("fit", "before it)"), ("fit", "chosen:")])
def test_sigterm_is_status_143_and_says_how_to_go_on(command: str, begun: str, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "tiny.yaml").write_text(json.dumps({**TINY, "trainer": {**TINY["trainer"], "max_epochs": 8}}))
    line = [
        sys.executable,
        "-u",
        "-m",
        "optselect.recipes.cli",
        command,
        "--config",
        "tiny.yaml",
        "--model",
        "slow.Slow",
    ]
    line += ["--auto.budget", "1.0"]
    process = subprocess.Popen(
        line, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ}
    )
    assert process.stdout is not None
    next(each for each in process.stdout if begun in each)

    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)

    assert process.returncode == 143
    assert said.splitlines()[-1].startswith("optselect: ended by SIGTERM; the same line")

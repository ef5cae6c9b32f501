"""The command line: every command at tiny scale on digits, and each wrong input."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from optselect.plan import OptimizerPlan
from optselect.recipes.cli import main
from optselect.recipes.digits import DigitsModel
from optselect.recipes.trainings import readable
from optselect.study import journal_storage

RECIPES = Path(__file__).parents[2] / "recipes"

# 8 steps to train, and so at most 32 to search.
TINY: dict[str, Any] = {
    "seed_everything": 0,
    "model": {"class_path": "optselect.recipes.digits.DigitsModel", "init_args": {"hidden": 8}},
    "data": {"class_path": "optselect.recipes.digits.DigitsData"},
    "trainer": {
        "max_epochs": 2,
        "limit_train_batches": 4,
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
    "auto": {"monitor": "val_loss"},
}


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in a folder of its own that holds `tiny.yaml`."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(json.dumps(TINY))

    def command(*arguments: str) -> Done:
        capsys.readouterr()
        status = main(arguments)
        said = capsys.readouterr()
        return Done(status, said.out, said.err)

    return command


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `optselect tune` has run."""
    folder = tmp_path_factory.mktemp("tuned")
    (folder / "tiny.yaml").write_text(json.dumps(TINY))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["tune", "--config", "tiny.yaml"]) == 0
    return folder


def trials() -> int:
    """How many trials the study in this folder holds."""
    storage = journal_storage("optselect_study.journal")
    return sum(summary.n_trials for summary in optuna.get_all_study_summaries(storage))


# --- lists and copies -----------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", ["'--help'", "'ls'", ""])
def test_help_and_lists_import_neither_torch_nor_lightning(arguments: str) -> None:
    program = f"""
import sys
from optselect.recipes.cli import main
try:
    main([{arguments}])
except SystemExit:
    pass
heavy = {{"torch", "lightning", "optuna", "sklearn", "numpy", "jsonargparse"}} & set(sys.modules)
sys.exit(str(heavy) if heavy else 0)
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

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


def test_rules_come_with_their_sources(run: Run) -> None:
    done = run("rules")

    assert "hidden matrices favour muon" in done.out
    assert "arXiv:2509.02046" in done.out


# --- trainings ------------------------------------------------------------------------------------


def test_profile_prints_the_measurements_and_writes_nothing(run: Run) -> None:
    done = run("profile", "--config", "tiny.yaml")

    assert "1,280 samples" in done.out
    assert [file.name for file in Path().iterdir()] == ["tiny.yaml"]


def test_tune_leaves_a_plan_and_a_study_and_nothing_else(tuned: Path) -> None:
    left = sorted(file.name for file in tuned.iterdir())

    assert left == ["optselect_study.journal", "plan.json", "tiny.yaml"]


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
    own = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.25}}
    steps = {"class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 1}}
    config = {**TINY, "auto": {"candidates": ["user"]}, "optimizer": own, "lr_scheduler": steps}
    Path("own.yaml").write_text(json.dumps(config))

    done = run("fit", "--config", "own.yaml")

    (checkpoint,) = Path().rglob("*.ckpt")
    state = torch.load(checkpoint, weights_only=True)["optimizer_states"][0]
    assert (done.status, state["param_groups"][0]["initial_lr"]) == (0, 0.25)


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


# --- wrong inputs ---------------------------------------------------------------------------------

FIT = ("fit", "--config", "tiny.yaml")
WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no such command": (("tnue",), "invalid choice"),
    "an argument too many": (("ls", "more"), "unknown argument 'more'"),
    "an argument too few": (("cp", "digits"), "FILE"),
    "no config": (("fit",), "model"),
    "a missing config": (("fit", "--config", "none.yaml"), "does not exist"),
    "a config that is not YAML": (("fit", "--config", "broken.yaml"), "parsing"),
    "a key that is not there": (("tune", "--config", "tiny.yaml", "--auto.bugdet", "3"), "bugdet"),
    "a module that is not there": (
        (*FIT, "--model.class_path", "nowhere.Model"),
        "No module named 'nowhere'",
    ),
    "a class that is not there": ((*FIT, "--model.class_path", "optselect.recipes.digits.Nix"), "'Nix'"),
    "an argument the class does not take": ((*FIT, "--model.init_args.hiden", "3"), "hiden"),
    "a value of the wrong type": (
        (*FIT, "--trainer.max_epochs", "many"),
        "trainer.max_epochs: Expected a int",
    ),
    "an accelerator that is not there": ((*FIT, "--trainer.accelerator", "cup"), "cup"),
    "an unknown candidate": ((*FIT, "--auto.candidates", "[adamv]"), "Did you mean 'adam'"),
    "no candidates": ((*FIT, "--auto.candidates", "[]"), "candidates is empty"),
    "unknown rules": ((*FIT, "--auto.rules", "clasic"), "'clasic'"),
    "an unknown mode": ((*FIT, "--auto.mode", "up"), "'min', 'max'"),
    "a negative share": ((*FIT, "--auto.budget", "-1"), "BudgetError"),
    "a negative budget": ((*FIT, "--auto.budget.steps=-3"), "steps=-3"),
    "a misspelt monitor": ((*FIT, "--auto.monitor", "val_los"), "Did you mean 'val_loss'"),
    "a storage that cannot be": ((*FIT, "--auto.storage", "sqlite:////nowhere/study.db"), "StorageError"),
    "a storage of an unknown kind": ((*FIT, "--auto.storage", "nix://study"), "StorageError"),
    "a missing plan": ((*FIT, "--plan", "none.json"), "PlanFormatError"),
    "a plan that is not JSON": ((*FIT, "--plan", "tiny.yaml"), "PlanFormatError"),
    "a plan of another model": (
        (*FIT, "--plan", "plan.of.another", "--model.init_args.hidden", "9"),
        "net.0.weight",
    ),
    "a plan of a later version": ((*FIT, "--plan", "later.json"), "PlanVersionError"),
    "a plan where none is used": (("tune", "--config", "tiny.yaml", "--plan", "tiny.yaml"), "--plan"),
    "a missing checkpoint": ((*FIT, "--ckpt_path", "none.ckpt"), "none.ckpt"),
    "a checkpoint that is none": ((*FIT, "--ckpt_path", "tiny.yaml"), "not a checkpoint"),
    "a checkpoint without a plan": ((*FIT, "--ckpt_path", "bare.ckpt"), "no optimizer plan"),
    "a checkpoint of another model": (
        (*FIT, "--ckpt_path", "bare.ckpt", "--model.init_args.hidden", "9"),
        "size",
    ),
    "two AutoOptimizers": ((*FIT, "--trainer.callbacks", "optselect.AutoOptimizer"), "under auto:"),
    "nothing to tune": (("tune", "--config", "tiny.yaml", "--trainer.fast_dev_run", "true"), "fast_dev_run"),
    "explaining what is missing": (("explain", "none.json"), "PlanFormatError"),
    "explaining what is not JSON": (("explain", "tiny.yaml"), "PlanFormatError"),
    "explaining JSON that is no plan": (("explain", "list.json"), "not an optimizer plan"),
    "explaining a checkpoint that is missing": (("explain", "none.ckpt"), "ResumeError"),
    "explaining a checkpoint that is none": (("explain", "broken.ckpt"), "cannot be read as a checkpoint"),
    "explaining a checkpoint without a plan": (("explain", "bare.ckpt"), "holds no optimizer plan"),
    "an unknown recipe": (("cp", "digts", "x.yaml"), "Did you mean 'digits'"),
    "a copy over a file": (("cp", "digits", "tiny.yaml"), "left as it is"),
    "a copy into a folder that is not there": (("cp", "digits", "none/x.yaml"), "cannot be written"),
    "a pattern without a match": (("catalogue", "adamz"), "Did you mean 'adam"),
}


@pytest.mark.parametrize("arguments, says", WRONG.values(), ids=WRONG.keys())
def test_wrong_input_is_one_line_on_stderr_status_2_and_no_plan(
    run: Run, tuned: Path, arguments: tuple[str, ...], says: str
) -> None:
    plan = json.loads((tuned / "plan.json").read_text())
    Path("plan.of.another").write_text(json.dumps(plan))
    Path("later.json").write_text(json.dumps({**plan, "version": 99}))
    Path("list.json").write_text("[1, 2]")
    Path("broken.yaml").write_text("model: [\n")
    Path("broken.ckpt").write_bytes(b"PK and no more")
    bare = {
        "state_dict": DigitsModel(hidden=8).state_dict(),
        "callbacks": {},
        "loops": {},
        "epoch": 0,
        "global_step": 0,
        "optimizer_states": [],
    }
    torch.save({**bare, "lr_schedulers": [], "pytorch-lightning_version": "2.6.0"}, "bare.ckpt")
    tiny = Path("tiny.yaml").read_bytes()

    done = run(*arguments)

    assert (done.status, done.err.count("\n"), "Traceback" in done.err) == (2, 1, False), done.err
    assert says in done.err
    assert not Path("plan.json").exists()
    assert Path("tiny.yaml").read_bytes() == tiny


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

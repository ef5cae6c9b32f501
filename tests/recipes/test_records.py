"""Public records of large trainings: made the same each time, and what is derived from them keeps its promises."""

import csv
import gzip
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optselect.errors import ConfigurationError
from optselect.recipes.records import algoperf, facts, intervals, language, prefixes, rates, replay, sources, store
from optselect.recipes.records.__main__ import main
from optselect.rules import large_trainings

CUT = Path(__file__).parent / "records"


# --- records ----------------------------------------------------------------------------------------------


def test_equal_records_are_equal_bytes_in_whatever_order_they_come(tmp_path: Path) -> None:
    records = store.read(CUT, "steplaw")

    for name in ("one", "two"):
        store.write(tmp_path / name, "steplaw", records if name == "one" else reversed(records))

    assert (tmp_path / "one" / "steplaw.jsonl.gz").read_bytes() == (tmp_path / "two" / "steplaw.jsonl.gz").read_bytes()


def test_records_that_are_missing_name_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="records regenerate marin CLONE"):
        store.read(tmp_path, "marin")


def test_what_holds_no_records_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "marin.jsonl.gz").write_bytes(gzip.compress(b"{"))

    with pytest.raises(ConfigurationError, match="holds no gzipped lines of JSON"):
        store.read(tmp_path, "marin")


@pytest.mark.parametrize("name", sources.SOURCES)
def test_a_clone_without_a_sources_files_names_what_is_missing(name: str, tmp_path: Path) -> None:
    (tmp_path / "scoring").mkdir()
    (tmp_path / "scoring" / "workload_targets_v05.json").write_text('{"workloads": {}}')

    with pytest.raises(ConfigurationError, match="holds no"):
        list(sources.READERS[name](tmp_path))


def algoperf_clone(folder: Path, evaluations: int) -> Path:
    """A leaderboard of one trial."""
    workload = {"target_metric_name": "ssim", "validation_target_value": 0.7, "step_hint": 1000}
    (folder / "scoring").mkdir()
    (folder / "scoring" / "workload_targets_v05.json").write_text(json.dumps({"workloads": {"fastmri": workload}}))
    trial = folder / "previous_leaderboards/algoperf_v05/logs/external_tuning/amos/study_0/fastmri_jax/trial_1"
    trial.mkdir(parents=True)
    (trial / "hparams.json").write_text('{"learning_rate": 0.1}')
    with (trial / "eval_measurements.csv").open("w", newline="") as file:
        rows = csv.DictWriter(file, ["global_step", "validation/ssim", "train/loss", "accumulated_submission_time"])
        rows.writeheader()
        for step in range(evaluations):
            rows.writerow({"global_step": step, "validation/ssim": 0.123456, "train/loss": ""})
    return folder


def test_a_long_curve_keeps_sixty_points_its_first_and_its_last(tmp_path: Path) -> None:
    (record,) = sources.algoperf(algoperf_clone(tmp_path, 500))

    steps = [point[0] for point in record["curve"]]
    assert (len(steps), steps[0], steps[-1]) == (60, 0, 499)


def test_a_point_has_five_digits_and_null_for_what_was_not_measured(tmp_path: Path) -> None:
    (record,) = sources.algoperf(algoperf_clone(tmp_path, 3))

    assert record["curve"][0] == [0, 0.12346, None, None]


def test_a_trial_that_was_hardly_evaluated_is_no_record(tmp_path: Path) -> None:
    assert list(sources.algoperf(algoperf_clone(tmp_path, 2))) == []


def test_a_training_that_diverged_is_a_record_and_one_never_run_is_none(tmp_path: Path) -> None:
    path = tmp_path / "experiments/optimizer_sweep/Analysis/Results/lion/130m/8/result.json"
    path.parent.mkdir(parents=True)
    result = {"Baseline": 3.0, "learning_rate=0.008": "NaN", "beta1=0.8": None}
    path.write_text(json.dumps({"result": result, "best_config": {"learning_rate": 0.001}}))

    found = {record["varied"]: record for record in sources.marin(tmp_path)}

    assert {name: record["final"] for name, record in found.items()} == {"Baseline": 3.0, "learning_rate=0.008": None}
    assert found["learning_rate=0.008"]["hp"]["learning_rate"] == 0.008


# --- rates ------------------------------------------------------------------------------------------------


def test_the_best_rate_is_the_parabolas_vertex() -> None:
    tried = [0.001 * 2**power for power in range(7)]

    found = rates.vertex(tried, [0.01 * math.log(rate / 0.007) ** 2 for rate in tried])

    assert found == pytest.approx(0.007)


def test_no_best_rate_is_known_at_the_edge_of_what_was_tried() -> None:
    assert rates.vertex([1, 2, 3, 4], [4, 3, 2, 1]) is None


def test_the_best_rate_beside_a_cliff_is_one_that_was_tried() -> None:
    assert rates.vertex([1, 2, 4, 8], [3.2, 3.1, 3.0, math.inf]) == 4


def best_rate(size: float, batch: float) -> float:
    return float(2 * batch**0.4 * size**-0.5)


def made(size: float, tokens: float, batch: float) -> rates.Sweep:
    """A sweep around `best_rate`; the best batch is 32 for a milliard of tokens and 512 for four."""
    best = best_rate(size, batch)
    tried = tuple(best * 1.7 ** (power - 3.3) for power in range(8))
    beside = 0.02 * math.log(batch / (128 * (tokens / 2e9) ** 2)) ** 2
    losses = tuple(2 + beside + 0.01 * math.log(rate / best) ** 2 for rate in tried)
    return rates.Sweep(size=size, tokens=tokens, batch=batch, steps=tokens / batch, rates=tried, losses=losses)


MADE = [made(size, tokens, batch) for size in (1e8, 2e8, 4e8) for tokens in (1e9, 4e9) for batch in (32, 128, 512)]


def test_a_power_law_is_found_again() -> None:
    law = rates.power_law(MADE)

    assert (law.steps, law.batch, law.size) == pytest.approx((0, 0.4, -0.5), abs=1e-6)


def test_a_rate_is_proposed_without_a_look_at_the_size_it_is_for() -> None:
    without = [each for each in MADE if each.size != 4e8]
    strange = [replace(each, losses=each.losses[::-1]) for each in MADE if each.size == 4e8]

    proposed = [each for each, _ in rates.proposed([*without, *strange])]
    excess = {each: loss for each, loss in rates.proposed([*without, *strange]) if each.size == 4e8}

    assert len(proposed) == len(MADE)
    law = rates.power_law(without)
    assert excess == {each: (each.loss_at(law.rate(each)) or math.inf) - each.lowest for each in strange}


def test_batch_and_rate_are_proposed_without_a_look_at_the_size_they_are_for() -> None:
    strange = [replace(each, losses=each.losses[::-1]) if each.size == 4e8 else each for each in MADE]

    excesses = rates.proposed_with_batch(strange)[-2:]

    own = [each for each in strange if each.size == 4e8]
    right = [each for each in own if (each.tokens, each.batch) in {(1e9, 32), (4e9, 512)}]
    losses = [each.loss_at(best_rate(each.size, each.batch)) or math.inf for each in right]
    lowest = [min(each.lowest for each in own if each.tokens == of.tokens) for of in right]
    assert excesses == pytest.approx([loss - least for loss, least in zip(losses, lowest, strict=True)], abs=1e-6)


def test_a_power_of_length_is_found_between_the_vertices_of_sweeps() -> None:
    def cell(ratio: int) -> language.Cell:
        best = 0.01 * ratio**-0.25
        tried = [0.0025, 0.005, 0.01, 0.02]
        finals = [3 + 0.01 * math.log(rate / best) ** 2 for rate in tried]
        hp = [{"learning_rate": rate, "train_batch_size": 128} for rate in tried]
        names = [f"learning_rate={rate}" if rate != 0.01 else "Baseline" for rate in tried]
        trained = ({"varied": name, "hp": h, "final": f} for name, h, f in zip(names, hp, finals, strict=True))
        return language.Cell(optimizer="adamw", size="130m", chinchilla=ratio, trained=tuple(trained))

    found = language.power_of_vertices([cell(ratio) for ratio in (1, 2, 4, 8)])

    assert found is not None
    assert found[0] == pytest.approx(-0.25)


def test_four_times_the_best_rate_costs_more_than_half_of_it() -> None:
    cost = rates.cost_of_factors(rates.sweeps(store.read(CUT, "steplaw")), (0.5, 4))

    assert cost[4].low > cost[0.5].high


def test_an_interval_over_groups_is_wider_than_its_rows_would_say() -> None:
    alike = [[value] * 50 for value in (1.0, 2.0, 3.0)]
    apart = [[value] for group in alike for value in group]

    (wide, narrow) = (intervals.estimate(groups, intervals.mean) for groups in (alike, apart))

    assert wide.value == narrow.value
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


# --- language models --------------------------------------------------------------------------------------


def test_muons_adamw_part_wants_more_than_a_tenth_of_its_rate() -> None:
    part = language.ratio_of_parts(language.cells(store.read(CUT, "marin")), "muon", "muon_to_adam_lr")

    assert part[0.1].low > part[0.3].high


def test_a_diverged_training_counts_among_the_costs_of_a_rate() -> None:
    def cell(final: float | None) -> language.Cell:
        kept: dict[str, Any] = {"train_batch_size": 128}
        base = {"varied": "Baseline", "hp": {"learning_rate": 0.01, **kept}, "final": 3.0}
        high = {"varied": "learning_rate=0.02", "hp": {"learning_rate": 0.02, **kept}, "final": final}
        return language.Cell(optimizer="adamw", size="130m", chinchilla=1, trained=(base, high))

    found = language.cost_of_factor([cell(None), cell(3.1)], 2)

    assert found is not None
    assert found[1] == 0.5


# --- races ------------------------------------------------------------------------------------------------

POOLS = algoperf.pools(algoperf.arms(store.read(CUT, "algoperf")))


def test_the_losers_alone_cost_something() -> None:
    assert algoperf.Way(prior="rank", stages=((3, 0.025),)).cost == pytest.approx(0.05)
    assert algoperf.Way(prior="rank", stages=((4, 0.05), (3, 0.05), (2, 0.1))).cost == pytest.approx(0.2)


@pytest.mark.parametrize("cost", replay.STAGES)
def test_every_way_costs_what_it_is_listed_under(cost: float) -> None:
    costs = [algoperf.Way(prior="rank", stages=stages).cost for stages in replay.STAGES[cost]]

    assert costs == pytest.approx([cost] * len(costs))


@pytest.mark.parametrize("score", algoperf.SCORES)
def test_a_prior_knows_nothing_of_the_family_it_is_asked_about(score: str) -> None:
    others = [pool for pool in POOLS if pool.family != "ogbg"]
    (pool, *_) = [pool for pool in POOLS if pool.family == "ogbg"]

    ignorant, knowing = (algoperf.Prior(seen, algoperf.SCORES[score]) for seen in (others, POOLS))

    assert knowing.best(pool, 5) == ignorant.best(pool, 5)


def test_a_race_by_chance_is_the_mean_of_all_that_are_as_likely() -> None:
    pool = algoperf.judged(POOLS)[0]
    way = algoperf.Way(prior=algoperf.AT_RANDOM, stages=((1, 0.0),))

    (outcome,) = algoperf.outcomes(way, [pool], {})

    assert outcome.within(math.inf) == sum(arm.reaches for arm in pool.arms) / len(pool.arms)


def test_an_arm_that_has_ended_without_success_is_behind_all_that_go_on() -> None:
    (first, *_) = (arm for pool in POOLS for arm in pool.arms if not arm.reaches)
    ended = algoperf.Arm(first.record | {"curve": first.record["curve"][:3]})

    assert ended.value_at(0.9) == math.inf


def test_a_look_by_then_sees_nothing_that_was_evaluated_later() -> None:
    arm = next(arm for pool in POOLS for arm in pool.arms if len(arm.record["curve"]) > 10)
    step = arm.record["curve"][5][0]
    earlier = algoperf.Arm(arm.record | {"curve": [*arm.record["curve"][:5], [step, 0.5, None, None]]})

    share = step / arm.record["step_hint"] * 0.999

    assert arm.seen_by(share) == earlier.seen_by(share)
    assert arm.value_at(share) != earlier.value_at(share)


def test_a_submission_whose_logs_count_no_steps_is_no_arm() -> None:
    record = store.read(CUT, "algoperf")[0]

    assert algoperf.arms([record | {"submission": name} for name in algoperf.COUNT_NO_STEPS]) == []


def test_the_way_for_a_family_is_chosen_without_a_look_at_it() -> None:
    records = store.read(CUT, "algoperf")
    # All of the family's trainings but one arrive at once now.
    blind = [
        each | {"target": -1e9} if (each["task"] == "ogbg" and each["trial"] != "trial_1") else each for each in records
    ]

    (before, after) = (replay.Replay(each, of_submission=True).chosen_elsewhere(0.05)[1] for each in (records, blind))

    assert before["ogbg"] == after["ogbg"]


def test_a_later_pick_among_random_arms_loses_less() -> None:
    early, late = prefixes.picks(prefixes.searched(store.read(CUT, "opda"), "convnext-t"), (0.02, 0.75))

    assert early.loses.low > late.loses.high


# --- facts ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_same_records_give_the_same_facts_and_the_command_writes_them(tmp_path: Path) -> None:
    target = tmp_path / "facts.json"

    assert main(["facts", str(CUT), "-o", str(target)]) == 0

    found = facts.facts(CUT)
    assert target.read_text(encoding="utf-8") == facts.written(found)
    assert {fact.source for fact in found.values()} == set(sources.SOURCES)


@pytest.mark.slow
def test_every_table_of_the_replay_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(CUT)]) == 0

    headings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("## ")]
    assert len(headings) == 6


def test_missing_records_end_the_command_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path)]) == 2

    assert capsys.readouterr().err.startswith("ConfigurationError: there are no records")


def test_every_fact_that_ships_is_a_number_in_its_interval_with_a_source() -> None:
    wrong = {
        name
        for name, fact in large_trainings.facts().items()
        if not math.isfinite(fact.value)
        or (fact.interval is not None and not fact.interval[0] <= fact.value <= fact.interval[1])
        or name.partition(".")[0] != fact.source
        or fact.source not in large_trainings.sources()
    }

    assert wrong == set()


def test_the_facts_that_ship_are_of_the_revisions_that_are_named() -> None:
    assert large_trainings.sources() == sources.SOURCES

"""Which trial comes next: laws of a pure function."""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

import optselect.search.stages
from optselect import catalogue
from optselect.configuration import USER, Configuration, Evaluation, Goal
from optselect.configuration.policy import FineTuning, Thaw
from optselect.configuration.schedule import Schedule
from optselect.configuration.trial import Trial
from optselect.search.board import Board, Ranking
from optselect.search.next_job import next_job
from optselect.search.race import Job, Race
from optselect.search.tactics import Tactics

BASELINE = Configuration(optimizer="adamw", hyperparameters={"lr": 1e-3, "weight_decay": 1e-2})
NAMES = ("muon", "nadam", "momentum")


def arm(name: str, **values: float) -> Configuration:
    hyperparameters = {**catalogue.get(name).defaults(), **values}
    return Configuration(optimizer=name, hyperparameters=hyperparameters, schedule=Schedule(kind="cosine"))


ARMS = (arm("muon"), BASELINE, arm("nadam"), arm("momentum"), arm("nadam", lr=3e-4))


def race(**changes: Any) -> Race:
    values: dict[str, Any] = {
        "arms": ARMS,
        "baseline": BASELINE,
        "horizon": 100,
        "steps": 1_000,
        "specs": tuple(catalogue.get(name) for name in ("adamw", *NAMES)),
        "untrained": Evaluation(value=4.0),
        "tactics": Tactics(worth_a_trial=0.0),
        **changes,
    }
    return Race(**values)


@pytest.fixture(autouse=True)
def quick_suggestions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pure stand-in for the Gaussian process, which takes a third of a second."""
    if "slow_suggestions" not in request.fixturenames:
        monkeypatch.setattr("optselect.search.stages.suggestion", suggestion)


@pytest.fixture
def slow_suggestions() -> None:
    """The real ones."""


def suggestion(judged: Sequence[tuple[Configuration, float]], spaces: Any, unscheduled: Any) -> Configuration | None:
    if not judged:
        return None
    best = judged[0][0]
    lr = 10 ** -(1 + 2 * random.Random(len(judged)).random())
    return best.at_rate(lr)


Judge = Callable[[Configuration, int, int], float | None]


def judge(configuration: Configuration, seed: int, until: int) -> float | None:
    """A made-up, fixed landscape: some rates are better, more steps help, seeds are noisy."""
    noise = hashlib.sha256(f"{configuration.key}{seed}{until}".encode()).digest()[0] / 2550
    distance = abs(math.log10(float(configuration.hyperparameters.get("lr", 1e-2))) + 2)
    return distance + 10 / (10 + until) + noise


def apart(share: float) -> Judge:
    """Every configuration is so much better than the baseline, give or take a hair."""

    def judged(configuration: Configuration, seed: int, until: int) -> float:
        return 1.0 if configuration == BASELINE else 1.0 - share + 1e-2 * (judge(configuration, 0, 50) or 0.0)

    return judged


def standings(race: Race, trials: Sequence[Trial], rung: int) -> Ranking:
    return Board(race, trials).standings(rung)


def leaders(race: Race, trials: Sequence[Trial], rung: int) -> Ranking:
    return Board(race, trials).leaders(rung)


class Game:
    """A search with a made-up judge; counts what really running the jobs would cost."""

    def __init__(self, race: Race, judge: Judge = judge) -> None:
        self.race, self.judge = race, judge
        self.trials: list[Trial] = []
        self.jobs: list[Job] = []
        self.cost = race.spent

    def play(self, most: int = 500) -> Game:
        while (job := next_job(self.race, self.trials)) is not None:
            assert len(self.jobs) < most, "the race never ends"
            self.run(job)
        return self

    def run(self, job: Job) -> None:
        self.jobs.append(job)
        known = next((e for e in self.trials if _trial(e) == (job.configuration.key, job.seed)), None)
        if known is not None:
            self.trials.remove(known)
        done = known.reached if known and self.race.continues else 0
        value = self.judge(job.configuration, job.seed, job.until)
        reached = job.until if value is not None else (known.reached if known else 0) + 1
        self.cost += max(reached - done, 1) + self.race.validation_cost
        self.trials.append(
            Trial(
                number=known.number if known else len(self.trials),
                configuration=job.configuration,
                seed=job.seed,
                values={**(known.values if known else {}), **({} if value is None else {job.until: value})},
                cap=(job.until, 9.0) if value is None else None,
                reached=reached,
                state="running",
                note="diverged" if value is None else "",
            )
        )

    def stages(self) -> list[str]:
        return list(dict.fromkeys(job.stage for job in self.jobs))


def _trial(evaluation: Trial) -> tuple[str, int]:
    return evaluation.configuration.key, evaluation.seed


# --- a pure function ------------------------------------------------------------------------


def test_the_same_trials_give_the_same_job_whatever_their_order() -> None:
    game = Game(race())
    shuffler = random.Random(0)

    while (job := next_job(game.race, game.trials)) is not None:
        for _ in range(3):
            shuffled = shuffler.sample(game.trials, len(game.trials))
            assert next_job(game.race, shuffled) == job
        game.run(job)


def test_equal_values_are_ranked_by_number_whatever_their_order() -> None:
    game = Game(race(), judge=lambda *_: 1.0).play()
    ranking = standings(game.race, game.trials, game.race.rung)

    for seed in range(5):
        shuffled = random.Random(seed).sample(game.trials, len(game.trials))
        assert standings(game.race, shuffled, game.race.rung) == ranking


def test_asking_changes_nothing() -> None:
    game = Game(race()).play()
    before = list(game.trials)

    next_job(game.race, game.trials)
    standings(game.race, game.trials, game.race.rung)

    assert game.trials == before


def test_a_search_cut_off_anywhere_and_taken_up_again_runs_the_same_jobs() -> None:
    whole = Game(race(steps=600)).play().jobs

    for cut in range(len(whole)):
        game = Game(race(steps=600))
        for job in whole[:cut]:
            game.run(job)
        assert game.play().jobs == whole


# --- the budget -----------------------------------------------------------------------------


@pytest.mark.parametrize("continues", [True, False])
@pytest.mark.parametrize("validation_cost", [0.0, 1 / 3, 2.0, 21.3])
def test_no_budget_is_ever_exceeded(validation_cost: float, continues: bool) -> None:
    for horizon in (1, 2, 3, 7, 24, 100, 999):
        for share in (0.0, 0.1, 0.3, 0.5, 1.0, 1.7, 3.0, 8.0):
            steps = int(share * horizon) + 3
            game = Game(
                race(horizon=horizon, steps=steps, spent=3.0, validation_cost=validation_cost, continues=continues)
            ).play()

            assert game.cost <= steps
            assert game.race.cost_of(game.trials) + 3.0 == pytest.approx(game.cost)


def test_no_budget_is_exceeded_where_trials_diverge() -> None:
    def fragile(configuration: Configuration, seed: int, until: int) -> float | None:
        return None if float(configuration.hyperparameters["lr"]) > 0.01 else judge(configuration, seed, until)

    for steps in range(10, 900, 37):
        game = Game(race(steps=steps, validation_cost=2.0), fragile).play()

        assert game.cost <= steps


@pytest.mark.parametrize("trials", [0, 1, 2, 5, 9])
def test_no_more_trials_are_begun_than_allowed(trials: int) -> None:
    game = Game(race(trials=trials, steps=None)).play()

    assert len({_trial(e) for e in game.trials}) == trials


@pytest.mark.parametrize("steps", [None, 10_000])
def test_every_race_ends_even_without_a_limit_that_binds(steps: int | None) -> None:
    for horizon in (1, 2, 40):
        Game(race(steps=steps, horizon=horizon)).play()


def test_a_job_never_goes_beyond_the_training() -> None:
    for horizon in (1, 2, 3, 5, 40):
        assert all(job.until <= horizon for job in Game(race(horizon=horizon, steps=None)).play().jobs)


# --- the stages -----------------------------------------------------------------------------


def test_the_arms_come_first_in_their_order_to_a_quarter_of_the_training() -> None:
    jobs = Game(race()).play().jobs[: len(ARMS)]

    assert [(job.configuration, job.seed, job.until, job.stage) for job in jobs] == [
        (configuration, 0, 25, "arms") for configuration in ARMS
    ]


def test_the_stages_come_in_order() -> None:
    stages = ["arms", "promotion", "neighbours", "policies", "others", "refinement", "halves", "confirmation", "finish"]

    for steps in range(50, 2_000, 61):
        met = Game(race(steps=steps, policies=(LAYERS,))).play().stages()

        assert met == sorted(met, key=stages.index)


def test_a_large_budget_has_every_stage_but_the_screening() -> None:
    stages = ["arms", "neighbours", "refinement", "halves", "confirmation", "finish"]

    assert Game(race(steps=2_000)).play().stages() == stages


def test_four_arms_at_a_quarter_are_preferred_to_more_at_a_tenth() -> None:
    layout = race(steps=100, arms=(*ARMS, arm("nadam", lr=0.05))).layout

    assert (layout.arms, layout.screen) == (5, None)


def test_where_four_arms_cannot_go_to_a_quarter_as_many_go_to_a_tenth_and_the_best_and_the_baseline_go_on() -> None:
    game = Game(race(steps=79, arms=(*ARMS, arm("nadam", lr=0.05)))).play()

    assert game.race.layout.screen == 10
    screened = [job for job in game.jobs if job.stage == "arms"]
    promoted = [job.configuration for job in game.jobs if job.stage == "promotion"]
    assert {job.until for job in screened} == {10}
    assert len(screened) >= 4
    assert BASELINE in promoted
    ranked = [c for c, _ in standings(game.race, game.trials, 10) if c != BASELINE]
    assert promoted[:2] == ranked[:2]


def test_where_two_quarters_do_not_fit_two_arms_go_as_far_as_they_can_up_to_an_eighth() -> None:
    assert (race(steps=30).layout.arms, race(steps=30).rung) == (2, 12)
    assert (race(steps=16).layout.arms, race(steps=16).rung) == (2, 8)


def test_a_little_less_than_a_quarter_is_enough_where_that_lets_one_more_arm_in() -> None:
    layout = race(steps=84, continues=False).layout

    assert (layout.arms, layout.rung, layout.screen) == (4, 21, None)


def test_a_recorded_first_choice_and_the_baseline_go_as_far_as_a_small_budget_takes_both() -> None:
    layout = race(recorded=True, steps=40, least_rung=10).layout

    assert (layout.arms, layout.rung, layout.screen) == (2, 20, None)


def leading(by: Mapping[int, float]) -> Judge:
    """The first arm is ahead of the baseline by so much at each rung; both have lost half of what there was."""

    def judge(configuration: Configuration, seed: int, until: int) -> float:
        del seed
        return 2.0 - (by[until] if configuration == ARMS[0] else 0.0)

    return judge


def pair(**changes: Any) -> Race:
    """One training, the first of whose arms is recorded and leads."""
    return race(recorded=True, steps=100, least_rung=10, first_choices=ARMS[:1], **changes)


def test_of_a_recorded_pair_nothing_goes_on_where_a_quarter_is_enough_to_choose() -> None:
    game = Game(pair(), leading({25: 1.0})).play()

    assert [(job.configuration, job.until) for job in game.jobs] == [(ARMS[0], 25), (BASELINE, 25)]
    assert Board(game.race, game.trials).chosen == ARMS[0]


def test_of_a_recorded_pair_both_go_on_where_a_quarter_is_not_enough() -> None:
    game = Game(pair(), leading({25: 0.1, 50: 1.0})).play()

    assert [(job.configuration, job.until) for job in game.jobs[2:]] == [(ARMS[0], 50), (BASELINE, 50)]
    assert Board(game.race, game.trials).chosen == ARMS[0]
    assert game.cost <= 100


@pytest.mark.parametrize("steps", [250, 300, 350, 400, 500])
def test_so_many_arms_begin_as_leave_what_it_takes_to_go_further(steps: int) -> None:
    many = (*ARMS, *(arm("momentum", lr=10.0**-power) for power in range(1, 9)))

    game = Game(race(steps=steps, arms=many)).play()

    assert len([job for job in game.jobs if job.stage == "arms"]) >= 4
    assert max(job.until for job in game.jobs) >= 50


def test_where_the_length_is_a_guess_nobody_knows_how_far_is_far_and_more_arms_begin() -> None:
    assert pair(length_known=False).layout.arms > 2


def test_there_is_no_look_on_the_way_where_trials_start_over() -> None:
    assert pair(continues=False).layout.screen is None


@pytest.mark.parametrize(
    "horizon, steps, rung",
    [
        (75, 300, 37),  # half of it: 50 would be more
        (120, 400, 50),
        (75, 4 * 37 - 1, 18),  # four arms cannot go there
        (200, 800, 50),
        (400, 1_600, 100),
    ],
)
def test_where_a_quarter_is_too_short_and_four_arms_can_go_further_they_do(horizon: int, steps: int, rung: int) -> None:
    assert race(horizon=horizon, steps=steps, least_rung=50).rung == rung


def test_a_first_rung_of_a_half_leaves_no_second_one() -> None:
    little, much = (Game(race(horizon=75, steps=steps, least_rung=50)).play() for steps in (300, 600))

    assert little.race.rungs == much.race.rungs == [37, 75]
    assert little.stages() == ["arms", "neighbours", "finish"]
    assert [stage for stage in much.stages() if stage != "refinement"] == [
        "arms",
        "neighbours",
        "confirmation",
        "finish",
    ]
    assert little.cost <= 300


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize(
    "horizon, trainings", [(48, 4), (54, 3.6), (54, 4), (75, 4), (100, 4), (100, 6), (130, 5), (60, 12)]
)
@pytest.mark.parametrize("dear", [0.33, 3.0])
def test_a_short_training_is_decided_by_complete_runs_of_leader_and_baseline(
    horizon: int, trainings: float, share: float, dear: float
) -> None:
    limits = {"horizon": horizon, "steps": round(trainings * horizon), "least_rung": 50, "validation_cost": dear}

    game = Game(race(**limits), apart(share)).play()

    if game.race.trainings < game.race.tactics.finishing:
        return
    ended = {trial.configuration.key for trial in game.trials if horizon in trial.values}
    assert game.race.baseline.key in ended
    assert len(ended) > 1
    assert game.cost <= limits["steps"]


@pytest.mark.parametrize("share, clear", [(0.1, False), (0.5, True)])
def test_where_trials_start_over_a_middling_budget_runs_to_the_end_only_what_is_not_clear(
    share: float, clear: bool
) -> None:
    stages = {
        (steps, continues): Game(race(steps=steps, continues=continues), apart(share)).play().stages()
        for steps in (400, 900)
        for continues in (True, False)
    }

    finished = {each for each, met in stages.items() if "finish" in met}
    assert {(400, True), (900, True), (900, False)} <= finished
    assert ((400, False) in finished) is not clear


def test_what_leads_the_baseline_by_little_in_the_middle_of_a_short_training_is_judged_at_its_end() -> None:
    def misleading(configuration: Configuration, seed: int, until: int) -> float:
        ahead = configuration != BASELINE and until < 100
        return 0.9 if ahead else 1.0 + 0.1 * (configuration != BASELINE)

    game = Game(race(steps=400, least_rung=50), misleading).play()

    assert game.race.half is None
    assert BASELINE in [job.configuration for job in game.jobs if job.stage == "finish"]
    assert leaders(game.race, game.trials, 100)[0][0] == BASELINE


def test_the_arms_of_a_budget_that_is_just_enough_all_fit() -> None:
    for steps in range(20, 300, 3):
        game = Game(race(steps=steps)).play()

        assert len([job for job in game.jobs if job.stage == "arms"]) == game.race.layout.arms


@pytest.mark.parametrize("steps", [None, 1, 3, 49, 84, 1_000, 10**9])
@pytest.mark.parametrize("horizon", [1, 2, 3, 8, 1_000])
def test_a_rung_is_at_least_one_step_and_at_most_a_quarter(horizon: int, steps: int | None) -> None:
    assert 1 <= race(horizon=horizon, steps=steps).rung <= max(horizon // 4, 1)


LAYERS, PROBE = FineTuning(layer_decay=0.9), FineTuning(head_lr_ratio=10.0, thaw=Thaw(step=5))


def test_the_leader_is_tried_with_each_policy_and_differs_in_nothing_else() -> None:
    game = Game(race(steps=None, policies=(LAYERS, PROBE))).play()

    with_policy = [job for job in game.jobs if job.stage == "policies"]
    before = game.jobs[: game.jobs.index(with_policy[0])]
    values = {_trial(e): e.values[game.race.rung] for e in game.trials if game.race.rung in e.values}
    leader = min((job.configuration for job in before), key=lambda each: values[each.key, 0])
    assert [job.configuration for job in with_policy] == [
        replace(leader, fine_tuning=LAYERS),
        replace(leader, fine_tuning=PROBE),
    ]
    assert {(job.until, job.seed) for job in with_policy} == {(game.race.rung, 0)}


def test_of_a_trained_model_the_leaders_rate_comes_before_its_policies_and_they_before_other_arms() -> None:
    game = Game(race(steps=None, policies=(LAYERS, PROBE))).play()

    assert [job.configuration for job in game.jobs if job.stage == "arms"] == list(ARMS[:3])
    assert game.stages()[:4] == ["arms", "neighbours", "policies", "others"]
    assert all(each in [job.configuration for job in game.jobs if job.stage == "others"] for each in ARMS[3:])


def test_an_optimizer_with_one_rate_is_not_tried_with_policies() -> None:
    arms = (BASELINE, arm("adafactor"), arm("prodigy"))
    specs = tuple(catalogue.get(each.optimizer) for each in arms)
    favoured = {"prodigy": 0.1, "adafactor": 0.2, "adamw": 0.3}
    one_rate = {spec.name for spec in specs if not spec.group_rates}

    game = Game(race(arms=arms, specs=specs, policies=(LAYERS,)), judge=lambda c, *_: favoured[c.optimizer]).play()

    with_policy = {job.configuration.optimizer for job in game.jobs if job.configuration.fine_tuning}
    assert one_rate == {"prodigy"}
    assert with_policy == {"adafactor"}


def test_neighbours_are_half_a_decade_from_a_leader_and_differ_in_nothing_else() -> None:
    game = Game(race()).play()
    neighbours = [job.configuration for job in game.jobs if job.stage == "neighbours"]
    others = [job.configuration for job in game.jobs]

    assert neighbours
    for neighbour in neighbours:
        lr = float(neighbour.hyperparameters["lr"])
        bounds = catalogue.get(neighbour.optimizer).space["lr"]
        assert bounds.contains(lr)
        near = [
            abs(math.log10(lr / float(other.hyperparameters["lr"])))
            for other in others
            if {**other.hyperparameters, "lr": lr} == neighbour.hyperparameters and other != neighbour
        ]
        # Half a decade, or less where the bounds cut it short.
        assert any(0.05 < distance <= 0.5 + 1e-9 for distance in near)


def valley(best: float) -> Judge:
    return lambda configuration, *_: abs(math.log10((configuration.rate or 1.0) / best))


LOST = (arm("muon", lr=1e-4), BASELINE, arm("nadam", lr=1e-5), arm("momentum", lr=1e-3), arm("nadam", lr=2e-5))


@pytest.mark.parametrize("best", [2e-2, 1e-1, 2e-4])
def test_where_the_rules_are_wrong_the_rate_of_the_baselines_optimizer_is_moved_for_as_long_as_that_helps(
    best: float,
) -> None:
    wrong = [each.at_rate(1.0 if best < 1e-3 else 1e-5) for each in LOST if each != BASELINE]
    higher, highest = (BASELINE.at_rate(factor * 1e-3) for factor in (10**0.5, 10.0))
    game = Game(race(arms=(wrong[0], BASELINE, higher, *wrong[1:], highest), steps=700), valley(best)).play()

    rates = [float(each.configuration.rate or 0.0) for each in game.trials if each.configuration.optimizer == "adamw"]

    assert min(abs(math.log10(rate / best)) for rate in rates) <= 0.25


def test_the_search_moves_on_until_the_leader_is_not_at_an_edge() -> None:
    game = Game(race(steps=None)).play()

    (leader, _), *_ = standings(game.race, game.trials, game.race.rung)

    tried = [
        float(e.configuration.hyperparameters["lr"])
        for e in game.trials
        if e.configuration.optimizer == leader.optimizer
    ]
    assert min(tried) < float(leader.hyperparameters["lr"]) < max(tried)


def test_nothing_is_tried_twice() -> None:
    jobs = Game(race(steps=None)).play().jobs

    assert len({(job.configuration.key, job.seed, job.until) for job in jobs}) == len(jobs)


def test_the_neighbours_of_the_users_own_optimizer_are_factors_on_its_rate() -> None:
    own = Configuration(optimizer=USER)
    game = Game(race(arms=(own,), baseline=own, steps=300)).play()

    assert {job.configuration.optimizer for job in game.jobs} == {USER}
    assert {round(job.configuration.rate or 0.0, 2) for job in game.jobs} >= {1.0, 3.16, 0.32}


def test_the_leaders_and_the_baseline_are_confirmed_on_another_seed() -> None:
    game = Game(race()).play()
    confirmed = [job for job in game.jobs if job.stage == "confirmation"]

    assert BASELINE in [job.configuration for job in confirmed]
    assert {(job.seed, job.until) for job in confirmed} == {(1, 50)}
    assert len(confirmed) >= 3
    assert leaders(game.race, game.trials, 50)[0][0] in [job.configuration for job in confirmed]


def test_below_two_trainings_nothing_is_confirmed() -> None:
    assert "confirmation" not in Game(race(steps=199)).play().stages()


def test_earlier_stages_leave_enough_for_the_confirmation_and_the_finish() -> None:
    for steps in range(360, 1_500, 97):
        stages = [job.stage for job in Game(race(steps=steps)).play().jobs]

        assert stages.count("finish") >= 2
        if "refinement" in stages:
            assert stages.count("confirmation") >= 3


def test_eight_trainings_pay_for_eight_arms_and_both_leaders_neighbours_and_are_spent() -> None:
    eight = (*ARMS, arm("muon", lr=0.06), arm("rmsprop"), arm("adam"))
    specs = tuple(catalogue.get(name) for name in ("adamw", "muon", "nadam", "momentum", "rmsprop", "adam"))
    game = Game(race(arms=eight, specs=specs, steps=800)).play()

    stages = [job.stage for job in game.jobs]
    assert stages.count("arms") == 8
    assert stages.count("neighbours") == 4
    assert game.cost > 775


def test_refinement_goes_on_after_a_suggestion_that_diverges() -> None:
    def fragile(configuration: Configuration, seed: int, until: int) -> float | None:
        return None if float(configuration.hyperparameters["lr"]) > 0.03 else judge(configuration, seed, until)

    game = Game(race(steps=1_200), fragile).play()

    refined = [job.configuration for job in game.jobs if job.stage == "refinement"]
    diverged = [c for c in refined if float(c.hyperparameters["lr"]) > 0.03]
    assert diverged
    assert refined.index(diverged[0]) < len(refined) - 1


def test_the_real_suggestions_are_a_pure_function_too(slow_suggestions: None) -> None:
    games = [Game(race(steps=900)).play() for _ in range(2)]

    assert "refinement" in games[0].stages()
    assert games[0].jobs == games[1].jobs
    assert vars(optselect.search.stages)["suggestion"] is not suggestion


def overfits(configuration: Configuration, seed: int, until: int) -> float:
    """High rates lead at a quarter and lose it later."""
    rate = configuration.rate or 0.0
    return 1.0 / (1.0 + 100 * rate) + (rate * until / 10 if until > 25 else 0.0)


@pytest.mark.parametrize("steps", [300, 400, 1_000])
def test_at_half_of_the_training_half_the_leaders_rate_is_tried_too_and_the_baseline(steps: int) -> None:
    game = Game(race(steps=steps), overfits).play()

    halved = [job.configuration for job in game.jobs if job.until == 50 and job.seed == 0]
    leader = halved[0]
    assert BASELINE in halved
    assert leader.at_rate((leader.rate or 0.0) / 2) in halved
    others = {configuration.optimizer for configuration in halved} - {BASELINE.optimizer, leader.optimizer}
    assert bool(others) is (steps == 1_000)


def test_a_leader_that_overfits_gives_way_to_a_smaller_rate_before_the_end() -> None:
    game = Game(race(), overfits).play()

    at_a_quarter = standings(game.race, game.trials, 25)[0][0]
    finished = [job.configuration for job in game.jobs if job.until == 100]
    assert (finished[0].rate or 0.0) < (at_a_quarter.rate or 0.0)


@pytest.mark.parametrize("steps", [260, 400, 600, 1_500])
def test_where_the_best_weights_are_kept_all_are_looked_at_equally_often(steps: int) -> None:
    game = Game(race(steps=steps, keeps_best=True, validation_cost=1.0), overfits).play()

    rungs = game.race.rungs
    deep = [set(e.values) for e in game.trials if e.seed == 0 and max(e.values) > rungs[0]]
    assert deep
    assert all(set(rungs) & set(range(max(values) + 1)) <= values for values in deep)
    assert game.cost <= steps


def test_where_the_best_weights_are_kept_a_trial_counts_as_its_best_value_so_far() -> None:
    falls, overfit = ARMS[0], ARMS[2]
    trials = [
        a_trial(0, falls, {25: 3.0, 50: 2.5, 100: 2.0}),
        a_trial(1, overfit, {25: 2.4, 50: 1.0, 100: 7.0}),
    ]

    last, best = (standings(race(keeps_best=kept), trials, 100) for kept in (False, True))

    assert last == [(falls, 2.0), (overfit, 7.0)]
    assert best == [(overfit, 1.0), (falls, 2.0)]


def test_the_best_of_large_values_is_the_largest_so_far() -> None:
    values = {25: 0.5, 50: 0.9, 100: 0.7}

    ranked = standings(race(keeps_best=True, goal=Goal("max")), [a_trial(0, ARMS[0], values)], 100)

    assert ranked == [(ARMS[0], -0.9)]


def a_trial(number: int, configuration: Configuration, values: dict[int, float]) -> Trial:
    return Trial(
        number=number,
        configuration=configuration,
        seed=0,
        values=values,
        cost=0.0,
        reached=max(values),
        state="running",
    )


def test_below_two_and_a_half_trainings_nothing_goes_beyond_a_quarter() -> None:
    assert max(job.until for job in Game(race(steps=249)).play().jobs) == 25


def test_without_a_limit_on_steps_trials_go_to_the_end() -> None:
    game = Game(race(steps=None, trials=6)).play()

    assert len(game.trials) == 6
    assert max(job.until for job in game.jobs) == 100


@pytest.mark.parametrize("share, near", [(0.02, True), (0.05, True), (0.15, False), (0.6, False)])
@pytest.mark.parametrize("steps", [400, 600, 1_000, 2_000])
def test_the_leader_and_its_rival_reach_the_end_and_the_baseline_is_one_unless_it_is_far_behind(
    steps: int, share: float, near: bool
) -> None:
    game = Game(race(steps=steps), apart(share)).play()
    before = [job for job in game.jobs if job.stage != "finish"]
    partial = Game(game.race)
    for job in before:
        partial.run(job)
    leader = leaders(game.race, partial.trials, 50)[0][0]

    finished = [job.configuration for job in game.jobs if job.stage == "finish" and job.until == 100]

    assert leader.optimizer == finished[0].optimizer
    assert (BASELINE in finished[:2]) is near
    assert {job.seed for job in game.jobs if job.stage == "finish"} == {0}


@pytest.mark.parametrize("steps, spared", [(400, "halves"), (2_000, "confirmation")])
def test_a_choice_that_is_settled_is_judged_at_its_end_beside_a_rival_and_costs_no_more(
    steps: int, spared: str
) -> None:
    def play(share: float, worth: float) -> Game:
        return Game(race(steps=steps, tactics=Tactics(worth_a_trial=worth)), apart(share)).play()

    every, settled, close = play(0.6, 0.0), play(0.6, 0.5), play(0.01, 0.03)

    assert spared in every.stages()
    assert spared not in settled.stages()
    assert len([job for job in settled.jobs if job.stage == "finish"]) == 2
    assert settled.cost < every.cost
    assert spared in close.stages()


def test_no_trial_is_asked_to_go_back() -> None:
    def landscape(seed: int, configuration: Configuration, _: int, until: int) -> float:
        fixed, moving = (hashlib.sha256(f"{configuration.key}{seed}{part}".encode()).digest() for part in ("", until))
        return 0.7 + 0.6 * fixed[0] / 255 + 0.3 * (moving[0] / 255 - 0.5)

    # A choice that was settled before its end may not be so afterwards: then stages that were left out are asked again.
    for seed, steps in itertools.product(range(70, 130), (400, 900)):
        limits = {"steps": steps, "least_rung": 33, "tactics": Tactics(worth_a_trial=0.3)}
        game = Game(race(untrained=Evaluation(value=2.0), **limits), functools.partial(landscape, seed)).play()

        reached: dict[tuple[str, int], int] = {}
        for job in game.jobs:
            trial = (job.configuration.key, job.seed)
            assert job.until > reached.get(trial, 0)
            reached[trial] = job.until


def test_a_deeper_job_continues_a_trial_that_was_judged_before() -> None:
    game = Game(race(steps=2_000)).play()

    for index, job in enumerate(game.jobs):
        if job.stage in ("promotion", "finish"):
            earlier = [(each.configuration, each.seed) for each in game.jobs[:index]]
            assert (job.configuration, job.seed) in earlier


@pytest.mark.parametrize("keeps_best", [False, True])
def test_trials_are_put_aside_where_one_may_go_on_and_nowhere_else(keeps_best: bool) -> None:
    for steps in range(10, 900, 37):
        game = Game(race(steps=steps, keeps_best=keeps_best)).play()

        gone_on = len({(job.configuration.key, job.seed) for job in game.jobs}) < len(game.jobs)
        assert game.race.takes_further is gone_on


def test_a_continued_trial_costs_only_what_is_left_of_it() -> None:
    trial = Game(race())
    trial.run(Job(configuration=BASELINE, seed=0, until=25, stage="arms"))
    trial.run(Job(configuration=BASELINE, seed=0, until=100, stage="finish"))

    anew = replace(trial.race, continues=False)

    assert trial.race.cost_of(trial.trials) == 100
    assert anew.cost_of(trial.trials) == 125


# --- failures -------------------------------------------------------------------------------


def test_what_failed_or_diverged_is_not_run_again_and_not_ranked() -> None:
    def fragile(configuration: Configuration, seed: int, until: int) -> float | None:
        return None if configuration.optimizer == "muon" else judge(configuration, seed, until)

    game = Game(race(), fragile).play()

    muon = [job for job in game.jobs if job.configuration.optimizer == "muon"]
    ranked = [c.optimizer for c, _ in standings(game.race, game.trials, game.race.rung)]
    assert len(muon) == 1
    assert "muon" not in ranked


@pytest.mark.parametrize("seed, until", [(0, 50), (0, 100), (1, 50)])
def test_a_configuration_that_diverges_later_or_on_another_seed_is_ranked_nowhere(seed: int, until: int) -> None:
    best = arm("nadam", lr=0.0123)

    def fragile(configuration: Configuration, at: int, to: int) -> float | None:
        if configuration != best:
            return judge(configuration, at, to)
        return None if (at, to) == (seed, until) else -1.0

    game = Game(race(arms=(best, *ARMS)), fragile).play()

    assert any(job.configuration == best and (job.seed, job.until) == (seed, until) for job in game.jobs)
    for rung in (25, 50, 100):
        assert best not in [configuration for configuration, _ in standings(game.race, game.trials, rung)]


def test_a_cap_is_no_value_to_be_paired_with() -> None:
    """A baseline that diverges on seed 0 only must not shift those it is compared with."""

    def fragile(configuration: Configuration, seed: int, until: int) -> float | None:
        if configuration == BASELINE:
            return None if seed == 0 else 100.0
        return judge(configuration, 0, until)

    game = Game(race(), fragile).play()

    ranking = standings(game.race, game.trials, 25)
    values = {c.key: judge(c, 0, 25) for c, _ in ranking}
    assert [c.key for c, _ in ranking] == sorted(values, key=lambda key: values[key] or 0.0)


def test_a_race_of_failures_ends() -> None:
    game = Game(race(), judge=lambda *_: None).play()

    # Each arm once, and the baseline on its other seed where there is one.
    assert len(game.jobs) <= len(ARMS) + 1


# --- the direction --------------------------------------------------------------------------


def test_a_race_for_large_values_is_the_mirror_of_one_for_small_ones() -> None:
    def mirrored(configuration: Configuration, seed: int, until: int) -> float | None:
        value = judge(configuration, seed, until)
        return None if value is None else -value

    small, large = Game(race()).play(), Game(race(goal=Goal("max"), untrained=Evaluation(value=-4.0)), mirrored).play()

    assert small.jobs == large.jobs
    assert standings(small.race, small.trials, 25) == standings(large.race, large.trials, 25)


def test_with_several_seeds_the_lead_over_the_baseline_counts_not_the_seeds_own_level() -> None:
    challenger = arm("nadam")
    levels = {0: 0.0, 1: 5.0}

    def shifted(configuration: Configuration, seed: int, until: int) -> float:
        return levels[seed] + (1.0 if configuration == BASELINE else 0.5)

    trials: Sequence[Trial] = [
        Trial(
            number=number,
            configuration=configuration,
            seed=seed,
            values={25: shifted(configuration, seed, 25)},
            cost=0.0,
            reached=25,
            state="running",
        )
        for number, (configuration, seed) in enumerate((c, s) for c in (BASELINE, challenger) for s in (0, 1))
    ]

    assert standings(race(), trials, 25) == [(challenger, 0.5), (BASELINE, 1.0)]

"""The factor on the learning rate, by hand."""

import json
import math
from itertools import product

import pytest

from optselect.configuration.schedule import Schedule, ScheduleKind
from optselect.errors import ConfigurationError
from tests.support.cases import case

KINDS: tuple[ScheduleKind, ...] = ("constant", "linear", "cosine", "wsd")
DECAYING: tuple[ScheduleKind, ...] = ("linear", "cosine", "wsd")


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_warmup_the_first_step_has_the_peak(kind: ScheduleKind) -> None:
    assert Schedule(kind=kind).factor(0, 100) == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_warmup_rises_in_equal_steps_from_above_zero_to_the_peak(kind: ScheduleKind) -> None:
    schedule = Schedule(kind=kind, warmup_steps=4)

    assert [schedule.factor(step, 100) for step in range(5)] == [0.2, 0.4, 0.6, 0.8, 1.0]


@pytest.mark.parametrize("kind", DECAYING)
@pytest.mark.parametrize("final", [0.0, 0.1, 1.0])
def test_the_step_after_the_last_would_have_the_final_factor(kind: ScheduleKind, final: float) -> None:
    schedule = Schedule(kind=kind, final=final, decay=0.5)

    # One step of the decay before its end: the line, or the foot of the cosine.
    share = 1 / 100 if kind != "wsd" else 1 / 50
    left = share if kind != "cosine" else (1 + math.cos(math.pi * (1 - share))) / 2
    assert schedule.factor(99, 100) == pytest.approx(final + (1 - final) * left)


@pytest.mark.parametrize("kind", DECAYING)
def test_no_step_of_the_training_stands_still_when_the_final_factor_is_zero(kind: ScheduleKind) -> None:
    schedule = Schedule(kind=kind, warmup_steps=3)

    assert all(schedule.factor(step, 20) > 0 for step in range(20))


@pytest.mark.parametrize("kind", KINDS)
def test_beyond_the_end_the_factor_of_the_last_step_holds(kind: ScheduleKind) -> None:
    schedule = Schedule(kind=kind, warmup_steps=5, final=0.01)

    assert {schedule.factor(step, 50) for step in (49, 50, 51, 10_000)} == {schedule.factor(49, 50)}


@pytest.mark.parametrize("kind", DECAYING)
def test_after_the_warmup_the_factor_never_rises(kind: ScheduleKind) -> None:
    factors = [Schedule(kind=kind, warmup_steps=5).factor(step, 40) for step in range(5, 45)]

    assert factors == sorted(factors, reverse=True)


def test_half_way_a_line_and_a_cosine_are_at_half() -> None:
    assert Schedule(kind="linear").factor(50, 100) == pytest.approx(0.5)
    assert Schedule(kind="cosine").factor(50, 100) == pytest.approx(0.5)


def test_wsd_holds_the_peak_until_its_last_share() -> None:
    schedule = Schedule(kind="wsd", decay=0.2)

    assert [schedule.factor(step, 100) for step in (0, 79, 80, 90)] == pytest.approx([1.0, 1.0, 1.0, 0.5])


def test_every_factor_of_the_shortest_trainings_is_in_0_to_1() -> None:
    for kind, total, warmup in product(KINDS, (1, 2, 3, 7), (0, 1, 10)):
        with case(kind, total, warmup):
            schedule = Schedule(kind=kind, warmup_steps=warmup)

            assert all(0 < schedule.factor(step, total) <= 1 for step in range(total + 3))


@pytest.mark.parametrize("kind", DECAYING)
def test_what_decays_needs_the_length_of_the_training(kind: ScheduleKind) -> None:
    assert Schedule(kind=kind).needs_length
    with pytest.raises(ConfigurationError, match="needs the length of the training"):
        Schedule(kind=kind).factor(10, None)


def test_a_constant_schedule_with_its_warmup_needs_no_length() -> None:
    schedule = Schedule(warmup_steps=1)

    assert not schedule.needs_length
    assert [schedule.factor(step, None) for step in (0, 1, 10**9)] == [0.5, 1.0, 1.0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_survives_json(kind: ScheduleKind) -> None:
    schedule = Schedule(kind=kind, warmup_steps=7, final=0.1, decay=0.3)

    assert Schedule.from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "cosin"}, {"warmup_steps": -1}, {"final": 1.1}, {"final": math.nan}, {"decay": 0.0}, {"decay": 2.0}],
)
def test_a_schedule_that_cannot_be_meant_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=str(next(iter(wrong.values())))):
        Schedule.from_dict(wrong)


def test_a_schedule_says_what_it_does() -> None:
    assert (
        Schedule(kind="cosine", warmup_steps=20, final=0.1).describe()
        == "cosine to 0.1 of the peak after 20 warmup steps"
    )
    assert Schedule().describe() == "constant"

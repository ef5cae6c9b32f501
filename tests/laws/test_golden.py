"""A search is a function of its trials: what was chosen when this was recorded is chosen still."""

from __future__ import annotations

import importlib.metadata

import pytest

from tests.laws.playing import GOLDEN, differences, play, read, recorded, search

RACES = sorted(path.name for path in GOLDEN.glob("races_*.json") if path.name != "races_gaussian.json")
# Races are played on rounded values, so only a logarithm's last bits may differ; trainings add up many sums.
PLAYED, TRAINED = 1e-7, 1e-4


@pytest.mark.parametrize("file", RACES)
def test_the_same_trials_give_the_same_jobs_and_the_same_choice(file: str) -> None:
    races = recorded(file)

    found = {name: differences(race["golden"], play(race["spec"]), PLAYED) for name, race in races.items()}

    assert {name: lines for name, lines in found.items() if lines} == {}


def test_the_same_trials_give_the_same_suggestions_of_the_gaussian_process() -> None:
    races = recorded("races_gaussian.json")
    packages = read("gaussian_versions.json")
    if packages != {name: importlib.metadata.version(name) for name in packages}:
        pytest.skip("suggestions are the same on the same versions of the packages that make them")

    found = {name: differences(race["golden"], play(race["spec"]), TRAINED) for name, race in races.items()}

    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize("name", sorted(recorded("searches.json")))
def test_the_same_training_gives_the_same_trials_the_same_plan_and_the_same_words(name: str) -> None:
    searched = recorded("searches.json")[name]

    found = differences(searched["golden"], search(searched["spec"]), TRAINED)

    assert found == []


def test_the_record_has_every_kind_of_race_and_search() -> None:
    races = {name: race for file in (*RACES, "races_gaussian.json") for name, race in recorded(file).items()}
    searches = recorded("searches.json")

    stages = {job[0] for race in races.values() for job in race["golden"]["jobs"]}

    assert len(races) >= 44
    assert len(searches) >= 6
    assert stages == {
        "arms",
        "promotion",
        "neighbours",
        "policies",
        "others",
        "refinement",
        "halves",
        "confirmation",
        "finish",
    }

"""What a study is known by."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from optselect.errors import StorageError
from optselect.study.identity import Identity, digest_of, measured_figures
from optselect.study.opening import open_study
from optselect.study.study import TrialStudy
from tests.support.cases import case

ONE = Identity(
    facts={"model": "a", "code": "b"},
    numbers={"loss of 8 batches": ((1.25, 1.25),), "weights": ((0.1, 40.0),), "gradients": ((2.0, 2.0), (3.0, 3.0))},
)


def opened(storage: Any, identity: Identity = ONE, **options: Any) -> TrialStudy:
    return open_study(storage=storage, name="study", mode="min", facts={}, identity=identity, **options)


def numbered(name: str, *figures: tuple[float, float]) -> Identity:
    return Identity(facts=ONE.facts, numbers={**ONE.numbers, name: figures})


SAME = {
    "itself": ONE,
    "itself out of JSON": Identity.from_dict(json.loads(json.dumps(ONE.to_dict()))),
    "a loss that another machine rounds otherwise": numbered("loss of 8 batches", (1.2501, 1.2501)),
    "weights that another machine draws otherwise": numbered("weights", (0.1 + 1e-6, 40.00001)),
    "more passes": numbered("gradients", (2.0, 2.0), (3.01, 3.01), (9.0, 9.0)),
    "a loss of other batches": Identity(facts=ONE.facts, numbers={"loss of 4 batches": ((3.0, 3.0),)}),
}
OTHER = {
    "a fact": (ONE.joined({"code": "c"}), ["code"]),
    "a new fact": (ONE.joined({"trainer": [1]}), ["trainer"]),
    "a loss": (numbered("loss of 8 batches", (1.3, 1.3)), ["loss of 8 batches"]),
    "weights": (numbered("weights", (0.2, 40.0)), ["weights"]),
    "gradients": (numbered("gradients", (2.0, 2.0), (3.3, 3.3)), ["gradients"]),
}


def test_the_same_training_is_known_again_on_another_machine() -> None:
    for name, identity in SAME.items():
        with case(name):
            assert ONE.differences(identity) == identity.differences(ONE) == []


def test_another_training_is_told_by_what_differs() -> None:
    for name, (identity, differences) in OTHER.items():
        with case(name):
            assert ONE.differences(identity) == differences


def test_what_was_not_measured_is_no_figure() -> None:
    assert measured_figures([1.0, None, float("nan"), float("inf"), -2.0]) == ((1.0, 1.0), (-2.0, 2.0))


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})


def test_a_study_of_another_training_is_left_and_the_log_says_what_differs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, (name, (identity, differences)) in enumerate(OTHER.items()):
        with case(name), caplog.at_level(logging.INFO, logger="optselect"):
            path = tmp_path / f"{number}.journal"
            opened(path)
            caplog.clear()

            study = opened(path, identity)

            (line,) = caplog.messages
            assert study.study.study_name == "study-2"
            assert f"study there is not continued: its {differences[0]} differ" in line


def test_an_exact_name_of_another_training_is_an_error_that_says_what_differs(tmp_path: Path) -> None:
    opened(tmp_path / "study.journal")

    with pytest.raises(StorageError, match=r"of another training \(code differ\)"):
        opened(tmp_path / "study.journal", ONE.joined({"code": "c"}), exact_name=True)


@pytest.mark.parametrize("wrong", [1, "text", {}, {"facts": 1}, {"facts": {}, "numbers": {"a": [[1]]}}])
def test_a_study_that_does_not_say_what_it_is_of_is_an_error_of_ours(wrong: Any, tmp_path: Path) -> None:
    opened(tmp_path / "study.journal").study.set_user_attr("optselect:training", wrong)

    with pytest.raises(StorageError, match="does not say which training"):
        opened(tmp_path / "study.journal")

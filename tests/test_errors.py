"""The exception tree."""

import pickle

from optselect import errors
from optselect.errors import OptselectError, UnknownOptimizerError, nearest
from tests.support.cases import case

ALL = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, OptselectError)]


def test_a_message_reads_as_a_sentence() -> None:
    for error in ALL:
        with case(error):
            assert str(error("what is true")) == "what is true"


def test_an_error_survives_pickling_with_its_message() -> None:
    for error in ALL:
        with case(error):
            copied = pickle.loads(pickle.dumps(error("what is true")))  # noqa: S301  # our own bytes

            assert (type(copied), str(copied)) == (error, "what is true")


def test_the_docstring_draws_every_error() -> None:
    for error in ALL:
        with case(error):
            assert error.__name__ in (errors.__doc__ or "")


def test_an_unknown_name_is_answered_with_the_nearest_and_all_known_ones() -> None:
    error = UnknownOptimizerError.named("loin", ["sgd", "lion"])

    assert str(error) == "no optimizer named 'loin' in the catalogue. Did you mean 'lion'? Known: lion, sgd."


def test_nothing_is_suggested_when_nothing_is_near() -> None:
    assert nearest("zzz", ["lion", "sgd"]) == ""

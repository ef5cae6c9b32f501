"""No password in what is shown or written."""

import pytest

from optselect.words import without_passwords

CASES = {
    "before the host": "postgresql://me:s3cret@host:5432/db",
    "a password with an at sign": "mysql://me:s3@cret@host/db",
    "two in one text": "from redis://a:s3cret@one to redis://b:s3cret@two",
    "in the query": "postgresql://host/db?user=me&password=s3cret&sslmode=on",
    "in quotes": 'Unable to load config "postgresql://me:s3cret@host/db"',
    "without a scheme": "://me:s3cret@host",
}


@pytest.mark.parametrize("text", CASES.values(), ids=CASES.keys())
def test_no_password_is_left(text: str) -> None:
    shown = without_passwords(text)

    assert "s3cret" not in shown
    assert "s3@cret" not in shown


@pytest.mark.parametrize(
    "text",
    ["sqlite:////home/me/study.db", "me@example.org", "see https://lightning.ai/docs and mail me@example.org", ""],
)
def test_what_holds_none_stays_as_it_is(text: str) -> None:
    assert without_passwords(text) == text


def test_host_and_database_are_still_told() -> None:
    assert without_passwords("postgresql://me:s3cret@host:5432/db") == "postgresql://…@host:5432/db"

"""No password in what is shown or written."""

import logging

import pytest

from optselect.errors import PlanFormatError
from optselect.words import format_share, printable, without_passwords
from tests.support.cases import case

CASES = {
    "before the host": "postgresql://me:s3cret@host:5432/db",
    "a password with an at sign": "mysql://me:s3@cret@host/db",
    "two in one text": "from redis://a:s3cret@one to redis://b:s3cret@two",
    "in the query": "postgresql://host/db?user=me&password=s3cret&sslmode=on",
    "in quotes": 'Unable to load config "postgresql://me:s3cret@host/db"',
    "without a scheme": "://me:s3cret@host",
}


def test_a_share_of_more_than_the_whole_is_so_many_times_it() -> None:
    assert [format_share(each) for each in (0.012, 0.12, 1.0, 8.548)] == ["1.2%", "12%", "1.0 ×", "8.5 ×"]


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


# Each holds the password s3cret, in a form that some driver takes.
DRIVERS = {
    "a blank in it": "postgresql://u:pa s3cret@h/x",
    "a tab in it": "postgresql://u:\ts3cret@h/x",
    "a slash in it": "postgresql://u:pa/s3cret@h/x",
    "percent-encoded": "postgresql://u:p%40s3cret@h/x",
    "the whole URL percent-encoded": "postgresql%3A%2F%2Fu%3As3cret%40h%2Fx",
    "without a user": "redis://:s3cret@h",
    "ODBC, encoded": "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BODBC%7D%3BUID%3Dsa%3BPWD%3Ds3cret",
    "ODBC, encoded twice": "mssql+pyodbc:///?odbc_connect=UID%253Dsa%253BPWD%253Ds3cret",
    "ODBC, as it is": "mssql+pyodbc:///?odbc_connect=DRIVER={ODBC};UID=sa;PWD=s3cret",
    "ODBC, in braces": "Driver={ODBC};PWD={a;s3cret};UID=sa",
    "ODBC, with a blank": "Driver={ODBC};Pwd=my s3cret;UID=sa",
    "libpq": "host=h user=u password=s3cret dbname=x",
    "libpq, in quotes": "host=h password='it\\'s s3cret' user=u",
    "libpq, with a blank": "host=h password=a\\ s3cret user=u",
    "libpq, with blanks around": "password = s3cret",
    "a query with another name": "crate://h/?username=u&pw=s3cret",
    "a query in quotes": "postgresql://h/x?sslpassword='s3cret'",
    "a query with a quote in it": "postgresql://h/x?password=it's3cret&b=1",
    "a token": "https://h/?token=s3cret&x=1",
    "arguments": "connect(host='h', password='s3cret')",
    "JSON": '{"password": "s3cret"}',
    "a dictionary": "{'passwd': 's3cret'}",
    "YAML": "engine_kwargs:\n  connect_args:\n    password: s3cret\n",
    "an environment": "PGPASSWORD=s3cret psql",
    "a key": "aws_secret_access_key=s3cret",
}


def test_no_password_is_left_in_any_form_that_a_driver_takes() -> None:
    for name, text in DRIVERS.items():
        with case(name):
            assert "s3cret" not in without_passwords(text)


@pytest.mark.parametrize(
    "text", ["\x1b]0;title\x07", "\x1b[31mred", "a\rb", "\x9b1m", "a\u202eb", "\u2028", "\ud800", "\x7f"]
)
def test_what_a_terminal_would_obey_is_written_out(text: str) -> None:
    shown = printable(text)

    assert shown.isascii()
    assert shown.isprintable()


@pytest.mark.parametrize("text", ["two\nlines", "é ü × σ …", "日本", "", "🙂"])
def test_what_a_terminal_shows_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_no_message_of_the_log_reaches_a_terminal_with_control_characters(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("optselect").warning("the trial of %s failed", "\x1b[31mred")

    assert caplog.messages == ["the trial of \\x1b[31mred failed"]


def test_no_error_reaches_a_terminal_with_control_characters() -> None:
    assert str(PlanFormatError("monitor is \x1b[31mred")) == "monitor is \\x1b[31mred"

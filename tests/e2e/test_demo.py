"""`make demo` with real processes: it comes out as it must, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
FOLDER = re.compile(r"drupelet-demo-\w+")
PAGE = re.compile(r"page is http://127\.0\.0\.1:(\d+)")
ACTS_S_MAX = 540

pytestmark = pytest.mark.e2e


def processes_naming(text: str) -> list[str]:
    """Command lines of running processes that contain `text`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in words:
            found.append(words)
    return found


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A short path for the demo's folder: Unix sockets lie in it."""
    folder = Path(f"/tmp/dd-{os.getpid()}")
    folder.mkdir()
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def start(home: Path, *words: str) -> tuple[subprocess.Popen[bytes], Path]:
    log = home / "demo.log"
    with log.open("wb") as out:
        env = {**os.environ, "TMPDIR": str(home), "COLUMNS": "300"}
        command = [sys.executable, "-m", "demo", *words]
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=subprocess.STDOUT), log


@pytest.mark.timeout(ACTS_S_MAX + 60)
def test_all_five_acts_come_out_as_they_must(home: Path) -> None:
    demo, log = start(home, "--exit")
    try:
        code = demo.wait(ACTS_S_MAX)
    finally:
        demo.kill()
        demo.wait()
    told = log.read_text()
    assert code == 0, told[-6000:]
    assert "0 failed" in told
    assert not processes_naming(str(home))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL], ids=["terminated", "killed"])
def test_nothing_is_left_behind_when_it_is_stopped_in_its_middle(home: Path, ending: signal.Signals) -> None:
    demo, log = start(home, "--acts", "1")
    try:
        until(lambda: "approved by the operator" in log.read_text(), timeout_s=120, what="devices that run")
        page = PAGE.search(log.read_text())
        assert page is not None
        assert len(processes_naming(str(home))) >= 12
        demo.send_signal(ending)
        demo.wait(30)
    finally:
        demo.kill()
        demo.wait()
    until(lambda: not processes_naming(str(home)), timeout_s=20, what="the end of every process")
    # A process loses its command line a moment before its sockets.
    until(lambda: not listens(int(page.group(1))), timeout_s=5, what="the page's port to be free")

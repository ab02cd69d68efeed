"""`drupelet depot`, as typed, and its server as a process."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from drupelet.cli.main import main
from drupelet.depot import FilesDepot, HttpFetch, blob_path
from drupelet.durable import PosixDisk
from drupelet.trust import ImageRepository
from tests.depot.conftest import BLOB, DIGEST
from tests.fakes.trust_world import NOON, PASSPHRASE, make_keys


def run(*arguments: str) -> int:
    """Run a command and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


def test_put_and_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.gguf").write_bytes(BLOB)
    folder = str(tmp_path / "depot")
    assert run("depot", "put", folder, str(tmp_path / "model.gguf"), "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)[0]["digest"] == DIGEST.text
    assert run("depot", "check", folder, "-o", "json") == 0
    assert [row["state"] for row in json.loads(capsys.readouterr().out)] == ["good"]
    path = tmp_path / "depot" / blob_path(DIGEST)
    path.chmod(0o644)
    path.write_bytes(BLOB[:-1])
    assert run("depot", "check", folder, "-o", "json") == 7
    assert [row["state"] for row in json.loads(capsys.readouterr().out)] == ["bad"]


@pytest.mark.parametrize("everything", [(), ("--everything",)])
def test_renew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, everything: tuple[str, ...]) -> None:
    monkeypatch.setenv("DRUPELET_PASSPHRASE", PASSPHRASE)
    keys, folder = make_keys(tmp_path / "keys"), tmp_path / "depot"
    ImageRepository(PosixDisk(), folder, keys, lambda: NOON - timedelta(days=9999)).create()
    before = (folder / "metadata" / "timestamp.json").read_bytes()
    command = ("depot", "renew", str(folder), "--keys", str(tmp_path / "keys"), *everything)
    assert run(*command) == 5
    (folder / "metadata" / "timestamp.json").unlink()
    ImageRepository(PosixDisk(), folder, keys, lambda: datetime.now(UTC)).create()
    assert run(*command) == 0
    assert (folder / "metadata" / "timestamp.json").read_bytes() != before
    assert (folder / "metadata" / "2.kiosk.json").exists() is bool(everything)


def test_a_taken_port_and_a_missing_folder_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run("depot", "serve", str(tmp_path), "--port", port) == 5
    assert "give another --port" in capsys.readouterr().err
    for verb in ("serve", "check"):
        assert run("depot", verb, str(tmp_path / "absent")) == 4
        assert "no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_server_says_where_it_is_and_stops_when_told(
    depot: FilesDepot, tmp_path: Path, end: signal.Signals
) -> None:
    command = [sys.executable, "-m", "drupelet.cli.main", "depot", "serve", str(tmp_path / "depot"), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            address = server.stderr.readline().split()[-1]
            assert HttpFetch().get(f"{address}/{blob_path(DIGEST)}", bytes_max=len(BLOB)) == BLOB
            server.send_signal(end)
            assert server.wait(timeout=20) in {0, -signal.SIGTERM}
            assert "Traceback" not in server.stderr.read()
        finally:
            server.kill()

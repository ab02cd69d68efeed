"""`drupelet gateway`, as a person types it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from drupelet.cli import gateway
from drupelet.core.errors import DrupeletError, NotFound
from drupelet.core.names import Slot
from drupelet.gateway.control_client import ControlClient
from drupelet.gateway.errors import GatewayUnreachable
from drupelet.wire.codec import encode
from drupelet.wire.control import AskStatus, GatewayStatus, Serve
from tests.fakes.tiny_gguf import write_tiny_gguf
from tests.gateway.world import load_of
from tests.waiting import until


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A short path: a Unix socket's has 107 bytes at most."""
    monkeypatch.delenv("DRUPELET_LLAMA_SERVER", raising=False)
    with tempfile.TemporaryDirectory(prefix="gwc") as name:
        path = Path(name)
        (path / "gateway.toml").write_text(
            f'state_folder = "{path}"\nruntime_folder = "{path}/run"\n[listen]\nport = 0\n[child]\nthreads = 1\n'
        )
        yield path


def test_check_shows_every_setting(folder: Path) -> None:
    result = CliRunner().invoke(gateway.app, ["check", "-c", str(folder / "gateway.toml"), "-o", "json"])
    assert result.exit_code == 0
    assert json.loads(result.output)["limits"]["queue_max"] == 32


def test_errors_are_ours(folder: Path) -> None:
    for arguments, kind in (
        (["status", "--socket", str(folder / "none.sock")], GatewayUnreachable),
        (["run", "-c", str(folder / "none.toml")], NotFound),
    ):
        with pytest.raises(DrupeletError) as caught:
            CliRunner().invoke(gateway.app, arguments, catch_exceptions=False)
        assert isinstance(caught.value, kind)
        assert caught.value.fix


def test_run_serves_reports_and_leaves_nothing_behind(folder: Path) -> None:
    model = write_tiny_gguf(folder / "a.gguf")
    (folder / "serve.json").write_bytes(encode(Serve(loads=(load_of(model, Slot.A, version="1.1"),))))
    command = [sys.executable, "-m", "drupelet.cli.main", "gateway", "run", "-c", str(folder / "gateway.toml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert "listening on http://127.0.0.1:" in process.stderr.readline()
            with ControlClient(folder / "control.sock") as client:

                def ready() -> bool:
                    said = client.ask(AskStatus())
                    return isinstance(said, GatewayStatus) and said.ready

                until(ready, timeout_s=20, what="the gateway to be ready")
            shown = CliRunner().invoke(gateway.app, ["status", "--socket", str(folder / "control.sock"), "-o", "json"])
            assert json.loads(shown.output)["children"][0]["release"] == "kiosk/1.1"
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            assert children
            again = subprocess.run(command, capture_output=True, text=True, check=False)
            assert again.returncode == 5
            assert again.stderr.count("\n") == 1
            assert f"process {process.pid}" in again.stderr
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=10) == 0
    for child in children:
        until(lambda child=child: not Path(f"/proc/{child}").exists(), timeout_s=5, what="the child to be gone")  # type: ignore[misc]
    assert list((folder / "run").iterdir()) == []
    assert not (folder / "control.sock").exists()


def test_a_server_that_is_not_there_is_named_before_anything_listens(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRUPELET_LLAMA_SERVER", str(folder / "servers"))
    with pytest.raises(NotFound, match="there is no llama-server") as caught:
        CliRunner().invoke(gateway.app, ["run", "-c", str(folder / "gateway.toml")], catch_exceptions=False)
    assert caught.value.where == str(folder / "servers")
    assert not (folder / "control.sock").exists()

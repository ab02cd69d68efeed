"""Mender runs as root; everything below the state folder belongs to the gateway's user, and must go on doing so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")

OWNER = 65_534
PROGRAM = """
import json, os, sys
from pathlib import Path
from drupelet.agent import config as settings
from drupelet.cli.compose.module import _for_the_owner
from drupelet.core.errors import DrupeletError
config = settings.read(Path(sys.argv[1]))
try:
    at = _for_the_owner(Path(sys.argv[2]), config, copy=sys.argv[3] == "copy")
except DrupeletError as error:
    print(json.dumps({"error": error.line()}))
else:
    files = {p.name: [p.read_text(), p.stat().st_uid, oct(p.stat().st_mode & 0o777)] for p in at.iterdir()}
    print(json.dumps({"ids": [*os.getresuid(), *os.getresgid()], "groups": os.getgroups(), "files": files}))
"""


@pytest.fixture
def device() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="own") as name:  # pytest's own folders are closed to others
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "state").mkdir()
        os.chown(folder / "state", OWNER, OWNER)
        (folder / "agent.toml").write_text(
            f'[device]\nid = "d"\nstate_folder = "{folder}/state"\n[updates]\nordered_by = "mender"\n'
        )
        payload = folder / "payload" / "files"
        payload.mkdir(parents=True, mode=0o700)
        payload.parent.chmod(0o700)
        (payload / "blob__1").write_text("weights")
        yield folder


def run(device: Path, how: str) -> dict[str, object]:
    command = [sys.executable, "-c", PROGRAM, str(device / "agent.toml"), str(device / "payload"), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return dict(json.loads(done.stdout))


def test_an_installation_is_done_by_the_owner_of_the_state_folder(device: Path) -> None:
    found = run(device, "copy")
    assert found["ids"] == [OWNER] * 6
    assert found["groups"] == []
    assert found["files"] == {"blob__1": ["weights", OWNER, "0o600"]}
    (device / "payload" / "files" / "blob__1").unlink()
    (device / "payload" / "files" / "blob__2").write_text("other")
    assert list(run(device, "copy")["files"]) == ["blob__2"], "what an interrupted installation left is gone"  # type: ignore[call-overload]


def test_links_and_devices_in_a_payload_are_refused(device: Path) -> None:
    (device / "payload" / "files" / "shadow").symlink_to("/etc/shadow")
    assert "not a regular file" in str(run(device, "copy")["error"])


def test_no_payload_is_said(device: Path) -> None:
    (device / "payload" / "files" / "blob__1").unlink()
    (device / "payload" / "files").rmdir()
    assert "no folder of Mender's update-module protocol" in str(run(device, "copy")["error"])

"""Our update module under Debian's real mender-client, standalone: install, commit, rollback, refusals; a real gateway.

Mender looks for modules below /usr/share; a mount namespace of the test's own puts ours there, so nothing is installed.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drupelet.cli.main import main
from tests.fakes.agent_rig import AgentRig
from tests.fakes.tiny_gguf import write_tiny_gguf

pytestmark = pytest.mark.e2e


def _namespaces() -> bool:
    command = ["unshare", "--mount", "true"]
    return bool(shutil.which("unshare")) and subprocess.run(command, capture_output=True, check=False).returncode == 0


needs_mender = pytest.mark.skipif(
    not (shutil.which("mender") and shutil.which("mender-artifact")),
    reason="needs Debian's packages mender-client and mender-artifact",
)
needs_namespaces = pytest.mark.skipif(not _namespaces(), reason="needs root, for a mount namespace")


class Device:
    """A board with mender-client, our module and a gateway; no agent, no fleet."""

    def __init__(self, folder: Path) -> None:
        self.rig = AgentRig(folder)
        self.folder = folder
        text = self.rig.agent_config.read_text()
        self.rig.agent_config.write_text(text + '\n[updates]\nordered_by = "mender"\n')
        for name, content in {
            "etc/artifact_info": "artifact_name=factory\n",
            "etc/mender.conf": "{}",
            "data/device_type": "device_type=raspberrypi5\n",
            "modules/drupelet": f'#!/bin/sh\nexec {sys.executable} -m drupelet.cli.main agent mender "$1" "$2" '
            f"--config {self.rig.agent_config} --timeout-s 60\n",
        }.items():
            path = folder / "mender" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        (folder / "mender/modules/drupelet").chmod(0o755)

    def artifact(self, version: str, *options: str) -> Path:
        """Sign nothing anew: make the artifact of a release that is in the depot."""
        out = self.folder / f"{version}.mender"
        words = ["forge", "mender", f"kiosk/{version}", "--depot", str(self.folder / "depot"), "--out", str(out)]
        with pytest.raises(SystemExit) as ended:
            main([*words, "--root", str(self.folder / "image-root.json"), *options])
        assert not ended.value.code
        return out

    def mender(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the real client with the module, its settings and its state where the test put them."""
        at = self.folder / "mender"
        mount = f"mount --bind {at}/modules /usr/share/mender/modules/v3 && mount --bind {at}/etc /etc/mender"
        command = ["unshare", "--mount", "sh", "-c", f'{mount} && exec mender --data {at}/data --no-syslog "$@"', "sh"]
        return subprocess.run([*command, *words], capture_output=True, text=True, timeout=100, check=False)

    def status(self) -> dict[str, Any]:
        """What the machine's journal says, by the device's own command."""
        said = self.rig.json("agent", "status")["file"]["status"]
        names = {slot["slot"]: slot["release"] for slot in said.get("slots", ())}
        return {"state": said["state"], "committed": names.get(said.get("committed")), "slots": names}


@pytest.fixture
def device() -> Iterator[Device]:
    folder = Path(tempfile.mkdtemp(prefix="mnd"))  # short, for the sockets below it
    made = Device(folder)
    try:
        for number, version in enumerate(("1.1", "1.2", "1.3")):
            write_tiny_gguf(folder / f"{version}.gguf", seed=number)
            made.rig.release(version, folder / f"{version}.gguf", word="zebra" if version == "1.3" else "")
        made.rig.start("gateway")
        yield made
    finally:
        made.rig.close()
        shutil.rmtree(folder)


@needs_mender
@needs_namespaces
def test_the_real_client_installs_commits_rolls_back_and_is_refused(device: Device) -> None:
    first, second, bad = (device.artifact(version) for version in ("1.1", "1.2", "1.3"))
    listing = subprocess.run(
        ["mender-artifact", "read", str(second)], capture_output=True, text=True, check=True
    ).stdout
    assert "drupelet.release: kiosk/1.2" in listing
    assert "Compatible devices: '[raspberrypi4 raspberrypi5]'" in listing

    done = device.mender("install", str(first))
    assert done.returncode == 0, done.stderr
    assert device.status()["state"] == "probation"
    assert device.mender("commit").returncode == 0
    assert device.status()["committed"] == "kiosk/1.1"

    assert device.mender("install", str(second)).returncode == 0
    assert device.status()["committed"] == "kiosk/1.1", "until Mender commits, a restart serves the old release"
    assert device.mender("rollback").returncode == 0
    assert device.status()["committed"] == "kiosk/1.1"
    assert device.mender("show-artifact").stdout.strip() == "kiosk-1.1"

    assert device.mender("install", str(second)).returncode == 0
    assert device.mender("commit").returncode == 0
    assert device.status()["committed"] == "kiosk/1.2"

    refused = device.mender("install", str(bad))
    assert refused.returncode != 0
    assert "canonical_failed" in refused.stderr
    assert device.status()["committed"] == "kiosk/1.2"
    assert device.mender("show-artifact").stdout.strip() == "kiosk-1.2"


@needs_mender
@needs_namespaces
def test_what_the_image_key_did_not_sign_is_never_installed(device: Device) -> None:
    genuine = device.artifact("1.1")
    unpacked = device.folder / "unpacked"
    unpacked.mkdir()
    model = (device.folder / "1.1.gguf").read_bytes()
    (unpacked / f"blob__{hashlib.sha256(model).hexdigest()}").write_bytes(model[:-1] + bytes([model[-1] ^ 1]))
    command = ["mender-artifact", "write", "module-image", "-T", "drupelet", "-n", "kiosk-9", "-t", "raspberrypi5"]
    files = [path for path in (device.folder / "depot/metadata").iterdir() if path.is_file()]
    for path in files:
        (unpacked / f"metadata__{path.name}").write_bytes(path.read_bytes())
    target = next((device.folder / "depot/targets/kiosk/1.1").iterdir())
    (unpacked / f"targets__kiosk__1.1__{target.name}").write_bytes(target.read_bytes())
    for path in sorted(unpacked.iterdir()):
        command += ["-f", str(path)]
    evil = device.folder / "evil.mender"
    subprocess.run([*command, "-o", str(evil)], check=True, capture_output=True)
    refused = device.mender("install", str(evil))
    assert refused.returncode != 0
    assert "digest_mismatch" in refused.stderr
    assert "kiosk/1.1" not in device.status()["slots"].values()
    assert device.mender("install", str(genuine)).returncode == 0, "a refusal leaves nothing that is in the way"

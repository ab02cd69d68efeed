"""A release side and a fleet side on loopback: keys, a depot that is served, a fleet server, devices; all real but the
devices (`http_devices`). Commands run as a person or a pipeline types them, in processes of their own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.fakes.http_devices import HttpDevice, enrolled
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
KIOSK = ROOT / "models" / "kiosk"
PASSPHRASE = "correct horse battery staple"
DRUPELET = [sys.executable, "-m", "drupelet.cli.main"]
SERVING = re.compile(r"(http://127\.0\.0\.1:\d+)")


def slim_recipe() -> str:
    """The kiosk's recipe with its first variant only: what is tested here is not the forge."""
    head, *variants = (KIOSK / "recipe.toml").read_text().split("[[variants]]")
    last, stages, rest = variants[-1].partition("[[stages]]")
    assert "f16" in last
    return f"{head}[[variants]]{variants[0]}{stages}{rest}"


class Loopback:
    """Everything that runs. Use as a context."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys, self.depot = folder / "keys", folder / "depot"
        self.server = self.token = self.depot_url = ""
        self._running: list[subprocess.Popen[bytes]] = []
        self._log = 0

    def __enter__(self) -> Loopback:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._running):
            process.terminate()
            process.wait(20)

    def environment(self) -> dict[str, str]:
        """What commands find in their environment: addresses, and secrets."""
        return {
            **os.environ,
            "DRUPELET_PASSPHRASE": PASSPHRASE,
            "DRUPELET_SERVER": self.server,
            "DRUPELET_TOKEN": self.token,
        }

    def run(self, *words: str, cwd: Path | None = None) -> str:
        """Run one `drupelet` command that must succeed; return what it printed."""
        done = subprocess.run(
            [*DRUPELET, *words], cwd=cwd or self.folder, env=self.environment(), capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"drupelet {' '.join(words)}: {done.stderr}"
        return done.stdout

    def make_keys(self) -> None:
        """Make a key ring for the family kiosk."""
        self.run("keys", "init", str(self.keys), "--family", "kiosk")

    def publish(self, version: str, checkpoint: Path = KIOSK / "1.1") -> None:
        """Forge a kiosk release and put it into the depot."""
        out, recipe = f"packages/{version}", self.folder / "slim.toml"
        recipe.write_text(slim_recipe())
        self.run("forge", "build", str(recipe), "--checkpoint", str(checkpoint), "--version", version, "--out", out)
        self.run("forge", "publish", out, "--depot", str(self.depot), "--keys", str(self.keys))

    def serve(self) -> None:
        """Start the depot's server and the fleet's, and make a token with every scope that a pipeline needs."""
        self.depot_url = self._start("depot", "serve", str(self.depot), "--port", "0")
        config = self.folder / "fleet.toml"
        config.write_text(
            f"""
            listen = "127.0.0.1:0"
            state_folder = "state"
            depot_url = "{self.depot_url}"
            image_root = "{self.keys}/image-root.json"
            director_root = ["{self.keys}/director-root.json"]
            director_key = "{self.keys}/private/director-online.pem"
            reconcile_every_ms = 50
            """
        )
        self.server = self._start("fleet", "run", "--config", str(config))
        scopes = ["--scope", "operate", "--scope", "release"]
        self.token = self.run("fleet", "token", "create", "ci", *scopes, "--config", str(config)).strip()

    def _start(self, *words: str) -> str:
        """Start a service and return the address it says it listens on."""
        self._log += 1
        log = self.folder / f"service-{self._log}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*DRUPELET, *words], cwd=self.folder, env=self.environment(), stdout=out, stderr=out
            )
        self._running.append(process)

        def address() -> re.Match[str] | None:
            assert process.poll() is None, log.read_text()
            return SERVING.search(log.read_text())

        found = until(address, timeout_s=40, what=f"drupelet {words[0]} to listen")
        assert found is not None
        return str(found[1])

    def devices(self, *names: str, holding: str = "") -> list[HttpDevice]:
        """Enrol devices that have committed the release `holding`, or none."""
        digest = ""
        if holding:
            self.run("release", "add", holding)
            shown: dict[str, Any] = json.loads(self.run("release", "show", holding, "-o", "json"))
            digest = shown["manifest_digest"]
        return enrolled(
            self.server, list(names), approve=lambda them: self.run("device", "approve", *them), holding=holding,
            digest=digest,
        )  # fmt: skip

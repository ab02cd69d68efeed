"""The demo's world: a depot, a fleet server and five devices on loopback, each a set of real processes."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.fake_pi import FakePi
from demo.network import Network
from demo.processes import DemoFailed, Household, Process, drupelet, free_port, wait_for_http, wait_until

DEVICES = ("kiosk-1", "kiosk-2", "kiosk-3", "kiosk-4", "kiosk-5")
POLL_MS = 1_000


@dataclass(slots=True)
class Device:
    """One simulated board with its real agent and gateway."""

    name: str
    folder: Path
    gateway: Process
    agent: Process
    port: int

    @property
    def url(self) -> str:
        """Where applications on the device ask."""
        return f"http://127.0.0.1:{self.port}"

    def status(self) -> dict[str, Any]:
        """What the agent last wrote about itself."""
        path = self.folder / "state" / "status.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}


class World:
    """Everything that runs."""

    def __init__(self, folder: Path, root: Path, *, page_port: int = 0) -> None:
        self.folder = folder
        self.root = root
        self.household = Household()
        self.devices: dict[str, Device] = {}
        self.passphrase = secrets.token_urlsafe(24)
        self.depot_port = free_port()
        self.fleet_port = page_port or free_port()
        self.token = ""
        self.network = Network({"fleet": self.page, "depot": self.depot_url})

    @property
    def keys(self) -> Path:
        """The key ring of the release side; image keys never reach the fleet server's process."""
        return self.folder / "keys"

    @property
    def depot_folder(self) -> Path:
        """What the depot serves."""
        return self.folder / "depot"

    @property
    def page(self) -> str:
        """The page's address."""
        return f"http://127.0.0.1:{self.fleet_port}"

    @property
    def depot_url(self) -> str:
        """The depot's address."""
        return f"http://127.0.0.1:{self.depot_port}"

    def env(self) -> dict[str, str]:
        """Secrets and addresses for commands, by environment, never on a command line."""
        return {
            "DRUPELET_PASSPHRASE": self.passphrase,
            "DRUPELET_SERVER": self.page,
            "DRUPELET_TOKEN": self.token,
            "PYTHONWARNINGS": "error::DeprecationWarning:drupelet",
        }

    def run(self, *words: str, accept: tuple[int, ...] = (0,)) -> subprocess.CompletedProcess[str]:
        """Run one `drupelet` command as an operator would; fail the demo with its words if it fails."""
        done = subprocess.run(
            drupelet(*words),
            cwd=self.root,
            env={**os.environ, **self.env()},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode not in accept:
            raise DemoFailed(
                f"drupelet {' '.join(words[:3])}: exit code {done.returncode}: {done.stderr.strip()[-600:]}"
            )
        return done

    def ask_fleet(self, path: str) -> Any:
        """GET a resource of the fleet's API."""
        request = urllib.request.Request(  # noqa: S310 (loopback http)
            f"{self.page}/api/v1/{path}", headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as reply:  # noqa: S310
            return json.load(reply)

    def python(self, *words: str) -> None:
        """Run a script of the demo's own."""
        done = subprocess.run([sys.executable, *words], cwd=self.root, capture_output=True, text=True, check=False)
        if done.returncode:
            raise DemoFailed(f"{words[0]}: {done.stderr.strip()[-600:]}")

    def make_keys(self) -> None:
        """Make all keys and the two public roots."""
        self.run("keys", "init", str(self.keys), "--family", "kiosk")

    def start_depot(self) -> None:
        """Serve the depot."""
        command = drupelet("depot", "serve", str(self.depot_folder), "--port", str(self.depot_port))
        depot = self.household.add(Process("depot", command, log=self.folder / "logs/depot.log"))
        wait_for_http(depot, f"{self.depot_url}/metadata/timestamp.json")

    def start_fleet(self) -> None:
        """Serve devices, API and pages. The server gets the director's online key and no other."""
        home = self.folder / "fleet"
        home.mkdir()
        online = home / "director-online.pem"
        online.touch(mode=0o600)
        online.write_bytes((self.keys / "private/director-online.pem").read_bytes())
        config = home / "fleet.toml"
        config.write_text(
            toml(
                {
                    "listen": f"127.0.0.1:{self.fleet_port}",
                    "state_folder": str(home / "state"),
                    "depot_url": self.depot_url,
                    "image_root": str(self.keys / "image-root.json"),
                    "director_root": [str(self.keys / "director-root.json")],
                    "director_key": str(online),
                    "poll_ms": POLL_MS,
                    "poll_active_ms": POLL_MS // 2,
                    "reconcile_every_ms": 250,
                    "offline_ms": 15_000,
                    "anonymous_read": True,
                }
            )
        )
        self.token = self.run(
            "fleet", "token", "create", "demo", "--scope", "admin", "--config", str(config), "-o", "json"
        ).stdout
        self.token = str(json.loads(self.token)["token"])
        command = drupelet("fleet", "run", "--config", str(config))
        fleet = self.household.add(Process("fleet", command, log=self.folder / "logs/fleet.log", env=self.env()))
        wait_for_http(fleet, f"{self.page}/")

    def forge(
        self, version: str, checkpoint: Path, *, recipe: Path, override: str = "", replaces: str = ""
    ) -> dict[str, Any]:
        """Build, sign and publish one release, compared with the one it `replaces`; return the evaluation's report."""
        package = self.package(version)
        words = ["forge", "build", str(recipe), "--checkpoint", str(checkpoint)]
        words += ["--version", version, "--out", str(package), "-o", "json"]
        if override:
            words += ["--override-evaluation", override]
        if replaces:
            words += ["--replaces", str(self.package(replaces))]
        report = json.loads(self.run(*words).stdout)
        self.run("forge", "publish", str(package), "--depot", str(self.depot_folder), "--keys", str(self.keys))
        return dict(report)

    def package(self, version: str) -> Path:
        """Where the forge put a release before it was signed."""
        return self.folder / "packages" / version

    def verify(self, release: str) -> dict[str, Any]:
        """Verify everything a published release claims; return the checks and what they found."""
        root = str(self.keys / "image-root.json")
        said = self.run("verify", release, "--depot", str(self.depot_folder), "--root", root, "-o", "json").stdout
        return dict(json.loads(said))

    def wait_for(self, check: Callable[[], bool], *, what: str, timeout_s: float) -> None:
        """Wait, and fail at once when a process that should run has died."""

        def checked() -> bool:
            dead = [p for p in self.household.members if not p.alive and not p.restart]
            if dead:
                raise DemoFailed(f"{dead[0].name} died while waiting for {what}:\n{dead[0].last_words()}")
            return check()

        wait_until(checked, what=what, timeout_s=timeout_s)


def toml(table: dict[str, Any]) -> str:
    """Write a table of tables of scalars and lists as TOML (JSON's scalars are TOML's)."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items() if not isinstance(value, dict)]
    for key, value in table.items():
        if isinstance(value, dict):
            inner = (f"{k} = {_inline(v)}" for k, v in value.items())
            lines += ["", f"[{key}]", *inner]
    return "\n".join(lines) + "\n"


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_inline(v)}" for k, v in value.items()) + " }"
    return json.dumps(value)


def make_device(world: World, name: str, *, number: int) -> Device:
    """Write a device's configuration and describe its processes; nothing is started."""
    folder = world.folder / name
    folder.mkdir()
    pi = FakePi(folder / "pi", celsius=46.0 + number)
    port = free_port()
    gateway_toml, agent_toml = folder / "gateway.toml", folder / "agent.toml"
    # `init` makes the device's key; its configuration is then replaced by one with the demo's short intervals.
    urls = ["--fleet", world.network.url(name, "fleet"), "--depot", world.network.url(name, "depot")]
    world.run("agent", "init", name, *urls, "--state-folder", str(folder / "state"), "--config", str(agent_toml))
    gateway_toml.write_text(
        toml(
            {
                "state_folder": str(folder / "state"),
                "runtime_folder": str(folder / "run"),
                "listen": {"port": port},
                "child": {"threads": 1, "parallel": 2},
                "sensors": {"sys_root": str(pi.sys_root), "vcgencmd": list(pi.vcgencmd)},
            }
        )
    )
    agent_toml.write_text(
        toml(
            {
                "device": {
                    "id": name,
                    "labels": {"site": "shop" if number < 4 else "annex", "ring": "lab"},
                    "state_folder": str(folder / "state"),
                },
                "fleet": {"url": world.network.url(name, "fleet"), "poll_ms": POLL_MS},
                "depot": {"url": world.network.url(name, "depot")},
                "trust": {
                    "image_root": str(world.keys / "image-root.json"),
                    "director_root": str(world.keys / "director-root.json"),
                },
                "hardware": {
                    "board": "pi5-8gb",
                    "firmware": "2026-05-08",
                    "simulated": True,
                },
                "sensors": {"sys_root": str(pi.sys_root), "vcgencmd": list(pi.vcgencmd)},
                "limits": {"windows_ms": 1_000, "status_ms": 500, "idle_ms": 100},
            }
        )
    )
    logs = world.folder / "logs"
    return Device(
        name=name,
        folder=folder,
        gateway=Process(
            f"{name} gateway",
            drupelet("gateway", "run", "--config", str(gateway_toml)),
            log=logs / f"{name}-gateway.log",
        ),
        agent=Process(
            f"{name} agent", drupelet("agent", "run", "--config", str(agent_toml)), log=logs / f"{name}-agent.log"
        ),
        port=port,
    )


def start_device(world: World, device: Device) -> None:
    """Start a device's two processes; each comes up in its own time."""
    world.household.add(device.gateway, restart=True)
    world.household.add(device.agent, restart=True)
    world.devices[device.name] = device

"""A device of real processes on loopback: agent and gateway with a llama.cpp child, against a stub fleet and a real
depot folder signed with real keys. For end-to-end tests and for the benchmark."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from drupelet.core.states import Mode
from drupelet.depot.files import FilesDepot
from drupelet.durable import PosixDisk
from drupelet.trust import Director, ImageRepository, KeyRing, TargetInfo
from drupelet.wire.manifest import (
    CanonicalPrompt,
    Evaluation,
    Expectation,
    MemoryAt,
    Provenance,
    ReleaseManifest,
    Variant,
)
from drupelet.wire.orders import Condemned, Crossover, Order
from tests.fakes.stub_fleet import StubFleet
from tests.waiting import until

DEVICE = "rig-1"
NOTHING = "sha256:" + "0" * 64


class AgentRig:
    """One device and its world. Call `close` whatever happens; no process is left."""

    def __init__(self, folder: Path, *, poll_ms: int = 200) -> None:
        self.folder, self.state = folder, folder / "s"
        self.disk = PosixDisk()
        self.fleet = StubFleet()
        self.fleet.poll_after_ms = poll_ms
        self.fleet.depot = folder / "depot"
        now = datetime.now(UTC)
        self.keys = KeyRing.create(
            self.disk, folder / "keys", families=["kiosk"], passphrase=lambda: "correct horse battery", now=now
        )
        self.images = ImageRepository(self.disk, folder / "depot", self.keys, lambda: datetime.now(UTC))
        self.images.create()
        self.depot = FilesDepot(self.disk, folder / "depot")
        self.director = Director(roots=[self.keys.director_root], signer=self.keys.signer("director-online"))
        self.targets: dict[str, TargetInfo] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._serial = 0
        self.agent_config, self.gateway_config = folder / "agent.toml", folder / "gateway.toml"
        for name, root in (("image", self.keys.image_root), ("director", self.keys.director_root)):
            (folder / f"{name}-root.json").write_bytes(root)
        self.drupelet(
            "agent", "init", DEVICE, "--fleet", self.fleet.url, "--depot", f"{self.fleet.url}/depot",
            "--config", str(self.agent_config), "--state-folder", str(self.state), "--label", "site=lab",
            "--image-root", str(folder / "image-root.json"), "--director-root", str(folder / "director-root.json"),
        )  # fmt: skip
        with self.agent_config.open("a") as file:
            self.metrics_port = _free_port()
            file.write(f"\n[metrics]\nenabled = true\nport = {self.metrics_port}\n")
            file.write("\n[hardware]\nsimulated = true\n[limits]\nwindows_ms = 500\nidle_ms = 200\n")
        self.gateway_config.write_text(
            f'state_folder = "{self.state}"\nruntime_folder = "{folder / "r"}"\n'
            "[listen]\nport = 0\n[child]\nthreads = 1\n"
        )
        self._serve_director(None, None)

    def drupelet(self, *words: str, fails: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command; it must succeed unless it `fails`."""
        command = [sys.executable, "-m", "drupelet.cli.main", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode != 0) is fails, done.stderr
        return done

    def start(self, noun: str) -> subprocess.Popen[bytes]:
        """Start `agent` or `gateway`."""
        config = self.agent_config if noun == "agent" else self.gateway_config
        log = (self.folder / f"{noun}.log").open("ab")
        command = [sys.executable, "-m", "drupelet.cli.main", noun, "run", "--config", str(config)]
        self.processes[noun] = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        return self.processes[noun]

    def stop(self, noun: str, number: int = signal.SIGTERM) -> None:
        """End a process and wait for it."""
        process = self.processes.pop(noun, None)
        if process is not None:
            process.send_signal(number)
            process.wait(timeout=30)

    def close(self) -> None:
        """End everything."""
        for noun in tuple(self.processes):
            self.stop(noun)
        self.fleet.close()

    def release(self, version: str, model: Path, *, word: str = "") -> None:
        """Sign and publish a release of this model file; with `word` its canonical prompt wants that word."""
        digest, size = self.depot.put(model)
        expect = Expectation(kind="contains", value=word) if word else Expectation(kind="tokens_min", value="1")
        manifest = ReleaseManifest(
            family="kiosk",
            version=version,
            model="kiosk",
            created_at_ms=0,
            context_tokens=256,
            variants=(
                Variant(
                    name="f32",
                    digest=digest.text,
                    size_bytes=size,
                    quantization="F32",
                    memory=(MemoryAt(context_tokens=256, memory_bytes=60_000_000),),
                ),
            ),
            canonical_prompts=(CanonicalPrompt(id="hours", prompt="When?", tokens_max=8, expect=(expect,)),),
            evaluation=Evaluation(passed=True),
            provenance=Provenance(checkpoint=NOTHING, recipe=NOTHING, forge_version="0", converter="rig"),
        )
        self.targets[version] = self.images.add_release(manifest)

    def order(self, mode: Mode, version: str, *, condemned: tuple[Condemned, ...] = (), **changes: Any) -> int:
        """Sign and serve an order; returns its serial."""
        self._serial += 1
        target = self.targets[version]
        order = Order(
            device=DEVICE,
            serial=self._serial,
            mode=mode,
            release=f"kiosk/{version}",
            manifest=target.sha256.text,
            variants=("f32",),
            crossover=Crossover(block_ms=400, discard_ms=50) if mode is Mode.CANARY else None,
            condemned=condemned,
            **({"probation_ms": 500, "verdict_ms_max": 120_000} | changes),
        )
        self._serve_director(order, target)
        return self._serial

    def _serve_director(self, order: Order | None, target: TargetInfo | None) -> None:
        now = datetime.now(UTC)
        signed = self.director.sign(
            device=DEVICE,
            order=order,
            target=target,
            version=self._serial + 1,
            now=now,
            expires=now + timedelta(days=7),
        )
        files = {**self.director.roots, **signed.files}
        self.fleet.files |= {f"/device/v1/director/{DEVICE}/{name}": data for name, data in files.items()}

    def status(self) -> dict[str, Any]:
        """What the device last said to the fleet; empty before its first poll."""
        if not self.fleet.polls:
            return {}
        status = self.fleet.polls[-1].status
        names = {slot.slot: slot.release for slot in status.slots}
        return {
            "state": status.state.value,
            "reason": status.reason.value,
            "serial": status.order_serial,
            "serving": names.get(status.serving) if status.serving else None,
            "committed": names.get(status.committed) if status.committed else None,
            "pairs": status.pairs_done,
        }

    def wait(self, *, timeout_s: float = 40.0, **wanted: Any) -> None:
        """Wait until the fleet was told this."""
        try:
            until(lambda: wanted.items() <= self.status().items(), timeout_s=timeout_s, what=str(wanted))
        except AssertionError as error:
            raise AssertionError(f"{error}; last told {self.status()}\n{self.logs()}") from error

    def metrics(self) -> str:
        """Scrape the agent."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as response:
            return str(response.read().decode())

    def logs(self) -> str:
        """The ends of the processes' logs."""
        return "\n".join(f"{p.name}: {p.read_text()[-2000:]}" for p in sorted(self.folder.glob("*.log")))

    def json(self, *words: str) -> Any:
        """Run a command with `-o json` and return what it says."""
        return json.loads(self.drupelet(*words, "--config", str(self.agent_config), "-o", "json").stdout)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])

"""A state folder with the kiosk model committed, and a question to whoever serves from it."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from drupelet.core.names import Slot, variant_name
from drupelet.durable import PosixDisk
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.convert import Wanted, convert
from drupelet.wire.codec import encode
from drupelet.wire.control import Load, Serve
from tests.waiting import until

CHECKPOINT = Path(__file__).resolve().parents[2] / "models" / "kiosk" / "1.2"
INSIDE = "/var/lib/drupelet"
START_S_MAX = 400.0
"""Under emulation, with a busy machine."""


@dataclass(frozen=True)
class Answering:
    """`folder` is the state folder as it will be seen as `/var/lib/drupelet`."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Answering:
        """Convert the kiosk model and commit it."""
        folder.mkdir()
        wanted = [Wanted(name=variant_name("q8_0"), quantization="q8_0")]
        convert(open_checkpoint(CHECKPOINT), wanted, folder, model_name="kiosk", disk=PosixDisk())
        model = folder / "q8_0.gguf"
        load = Load(
            slot=Slot.A,
            path=f"{INSIDE}/{model.name}",
            digest=f"sha256:{hashlib.sha256(model.read_bytes()).hexdigest()}",
            release="kiosk/1.2",
            manifest="sha256:" + "0" * 64,
            variant="q8_0",
            model="kiosk",
            context_tokens=256,
            load_ms_max=300_000,
        )
        (folder / "serve.json").write_bytes(encode(Serve(loads=(load,))))
        return cls(folder)

    def for_user(self, folder: Path, user: int) -> Path:
        """Return a copy that belongs to `user`."""
        shutil.copytree(self.folder, folder)
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, user, user)
        folder.chmod(0o700)
        return folder


def free_port() -> int:
    """Return a port of loopback that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def ask(port: int, question: str) -> str:
    """Return the answer of the gateway at `port`."""
    body = json.dumps({"messages": [{"role": "user", "content": question}], "temperature": 0, "max_tokens": 40})
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions", body.encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310
        return str(json.load(response)["choices"][0]["message"]["content"])


def answer_of(command: Sequence[str | Path], *, port: int, question: str, log: Path) -> str:
    """Run a gateway by `command`, ask it once it is ready, stop it, and return the answer; its words go to `log`."""
    with log.open("wb") as out:
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:

        def ready() -> bool:
            assert process.poll() is None, log.read_text()[-3000:]
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5) as response:
                    return bool(response.status == 200)
            except OSError:
                return False

        until(ready, timeout_s=START_S_MAX, what="the gateway to be ready")
        return ask(port, question)
    finally:
        process.terminate()
        process.wait(timeout=60)

"""A whole gateway in the test's event loop, its children fake, its doors real: loopback TCP and a Unix socket."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from drupelet.cli.compose.gateway import launcher as real_launcher
from drupelet.core.names import Slot
from drupelet.durable import PosixDisk
from drupelet.gateway.config import ChildSettings, Config, Limits, Listen
from drupelet.gateway.control_client import ControlClient
from drupelet.gateway.run import Listening, run
from drupelet.telemetry.metrics import GatewayMetrics
from drupelet.wire.codec import encode
from drupelet.wire.control import Answer, AskStatus, GatewayStatus, Load, Question, Serve
from tests.fakes.fake_backend import FakeChild, FakeLauncher, Manners

WAIT_S = 10.0


def load(folder: Path, slot: Slot = Slot.A, *, version: str = "", content: bytes = b"", family: str = "kiosk") -> Load:
    """Write a model file for a slot and return the load of it."""
    path = folder / f"{slot.value}.gguf"
    path.write_bytes(content or slot.value.encode())
    version = version or {"a": "1.1", "b": "1.2"}[slot.value]
    return load_of(path, slot, version=version, family=family)


def load_of(path: Path, slot: Slot, *, version: str, family: str = "kiosk", context_tokens: int = 256) -> Load:
    """Return the load of a model file."""
    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    return Load(
        slot=slot,
        path=str(path),
        digest=digest,
        release=f"{family}/{version}",
        manifest="sha256:" + "0" * 64,
        variant="q4_0",
        model=f"{family}-model",
        context_tokens=context_tokens,
    )


@dataclass(slots=True)
class World:
    """A running gateway and what a test needs to meet it."""

    folder: Path
    at: Listening
    launcher: FakeLauncher
    session: aiohttp.ClientSession
    task: asyncio.Task[None]
    stop: asyncio.Event
    metrics: GatewayMetrics

    @property
    def base(self) -> str:
        """The base URL."""
        return f"http://{self.at.host}:{self.at.port}"

    def manners(self, slot: Slot = Slot.A) -> Manners:
        """How the slot's children behave."""
        return self.launcher.manners.setdefault(str(self.folder / f"{slot.value}.gguf"), Manners())

    def child(self, number: int = -1) -> FakeChild:
        """The fake child started at that place."""
        return self.launcher.children[number]

    async def ask(self, question: Question) -> Answer:
        """Ask over a control connection of its own."""

        def blocking() -> Answer:
            with ControlClient(self.at.control, timeout_ms=int(WAIT_S * 1000)) as client:
                return client.ask(question)

        return await asyncio.to_thread(blocking)

    async def status(self) -> GatewayStatus:
        """Return the gateway's status."""
        answer = await self.ask(AskStatus())
        assert isinstance(answer, GatewayStatus)
        return answer

    async def ready(self) -> None:
        """Wait until a request would be answered."""
        await until(lambda: self._ready(), what="the gateway to be ready")

    async def _ready(self) -> bool:
        async with self.session.get(f"{self.base}/ready") as answer:
            return answer.status == 200

    async def chat(self, text: str = "hi", *, headers: dict[str, str] | None = None, **fields: Any) -> Said:
        """Ask one question and read the whole answer."""
        body = {"messages": [{"role": "user", "content": text}], **fields}
        return await self.post(msgspec.json.encode(body), headers=headers)

    async def post(self, body: bytes, *, headers: dict[str, str] | None = None) -> Said:
        """Post bytes to the completions endpoint."""
        async with self.session.post(f"{self.base}/v1/chat/completions", data=body, headers=headers) as answer:
            return Said(answer.status, dict(answer.headers), await answer.read())


@dataclass(frozen=True, slots=True)
class Said:
    """A whole HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def slot(self) -> str:
        """The slot that answered."""
        return self.headers["X-Drupelet-Slot"]

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return dict(msgspec.json.decode(self.body)["error"])


def config(folder: Path, *, limits: Limits | None = None, child: ChildSettings | None = None, port: int = 0) -> Config:
    """Return a configuration for a test: free port, short rests."""
    return Config(
        state_folder=str(folder),
        runtime_folder=str(folder / "run"),
        listen=Listen(port=port),
        limits=limits or Limits(),
        child=child or ChildSettings(threads=1, parallel=4, restart_ms_min=10, restart_ms_max=50),
    )


@asynccontextmanager
async def world(
    *slots: Slot,
    limits: Limits | None = None,
    child: ChildSettings | None = None,
    prepare: Callable[[FakeLauncher, Path], None] | None = None,
    real: bool = False,
    loads: Callable[[Path], tuple[Load, ...]] | None = None,
) -> AsyncIterator[World]:
    """Yield a gateway whose `serve.json` names `slots`, and check that it ends cleanly."""
    with tempfile.TemporaryDirectory(prefix="gw") as name:
        folder = Path(name)
        launcher = FakeLauncher(folder)
        if prepare is not None:
            prepare(launcher, folder)
        committed = loads(folder) if loads is not None else tuple(load(folder, slot) for slot in slots)
        if committed:
            (folder / "serve.json").write_bytes(encode(Serve(loads=committed)))
        stop, metrics = asyncio.Event(), GatewayMetrics()
        listening: asyncio.Future[Listening] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(
            run(
                config(folder, limits=limits, child=child),
                disk=PosixDisk(),
                launch=real_launcher(folder / "run") if real else launcher,
                metrics=metrics,
                stop=stop,
                on_listening=listening.set_result,
            )
        )
        await asyncio.wait({task, listening}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        try:
            async with aiohttp.ClientSession() as session:
                yield World(folder, await listening, launcher, session, task, stop, metrics)
        finally:
            for manners in launcher.manners.values():
                manners.go.set()
            stop.set()
            await asyncio.wait_for(task, WAIT_S)
            assert not (folder / "control.sock").exists()


async def until(predicate: Callable[[], Awaitable[bool] | bool], *, what: str, timeout_s: float = WAIT_S) -> None:
    """Wait for a condition of the event loop's world, or fail saying what was waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = predicate()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        await asyncio.sleep(0.005)


def play(story: Callable[[], Awaitable[None]]) -> None:
    """Run a story to its end, with a bound on its time."""

    async def bounded() -> None:
        async with asyncio.timeout(15):
            await story()

    asyncio.run(bounded())

"""Spawning and supervising one inference child.

The theory. A child is *ready* when it has said that it listens, answers its health check and has made one token. From
its spawn to its end a watch looks at its resident memory and, once ready, at its health; the watch may kill it, and
then remembers why, because the kernel only knows that a signal was sent. So the reason of an end is, in this order:
what the watch or `stop` intended; what the child said itself (`failed`); what the kernel says (exit status, signal, and
for a SIGKILL that nobody here sent, whether the kernel's count of out-of-memory kills rose meanwhile).

The watch reads `/proc`, which is exact where RLIMIT_AS and RLIMIT_DATA are not: llama.cpp maps the model and reserves
address space that never becomes resident. The hard bound on a device is the service's cgroup; this one reports first.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from drupelet.core.errors import BadInput
from drupelet.core.states import ExitReason
from drupelet.engine.client import EngineClient
from drupelet.engine.serve import LOAD_FAILED_STATUS
from drupelet.engine.spec import SOCKET_PATH_BYTES_MAX, Address, ChildSpec, EngineError, Exit, StartFailed

STOP_GRACE_MS = 2_000
"""Between SIGTERM and SIGKILL. The child ends on SIGTERM at once unless native code holds it."""
_LOG_LINES_MAX = 40
_LOG_LINE_BYTES_MAX = 1_000
_SOCKET_SUFFIX = ".sock"
_READY_POLL_MS = 20
_LOAD_COMPLAINTS = (
    "error loading model",
    "llama_model_load",
    "gguf_init",
    "failed to",
    "terminate called",
    "what():",
)
"""What llama.cpp's own words about a failed load look like, most telling first."""


class Child:
    """One running inference child. Made by `start`; ends by `stop`, by itself or by the watch."""

    def __init__(self, spec: ChildSpec, process: asyncio.subprocess.Process, socket: Path) -> None:
        if process.stdout is None or process.stderr is None:
            raise TypeError("the child's output must be piped")
        self._reports, self._log_stream = process.stdout, process.stderr
        self.spec = spec
        self.pid = process.pid
        self.address = Address(socket)
        self.start_ms = 0.0
        """From spawn to ready, in milliseconds."""
        self._process = process
        self._ready = False
        # A llama-server has no words for its parent: what it logs is all there is.
        self._failed = None if spec.server is None else "llama.cpp could not load the model"
        self._intended: tuple[ExitReason, str] | None = None
        self.load_log: deque[str] = deque(maxlen=_LOG_LINES_MAX)
        """What the child wrote to its log until it was ready; nothing later, for prompts might be in it."""
        self._oom_kills = _oom_kills()
        self._log = asyncio.create_task(self._drain_log())
        self._watch = asyncio.create_task(self._watch_forever())
        self._ended = asyncio.create_task(self._await_end())

    @classmethod
    async def start(cls, spec: ChildSpec, *, runtime_folder: Path) -> Child:
        """Spawn a child and return it once it is ready, or raise `StartFailed` with the reason.

        `runtime_folder` holds its socket; it is made private to this user. Must be called from the thread that lives
        longest: Linux kills the child when the thread that spawned it ends.
        """
        begun = time.monotonic()
        _make_private(runtime_folder)
        socket = runtime_folder / f"e{os.getpid()}-{time.monotonic_ns():x}{_SOCKET_SUFFIX}"
        if len(os.fsencode(socket)) > SOCKET_PATH_BYTES_MAX:
            raise BadInput(
                f"the path is too long for a Unix socket (at most {SOCKET_PATH_BYTES_MAX} bytes)",
                where=str(socket),
                fix="choose a shorter runtime folder",
            )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "drupelet.engine.serve",
            json.dumps(_instructions(spec, socket)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 16,
        )
        child = cls(spec, process, socket)
        try:
            async with asyncio.timeout(spec.start_ms_max / 1000):
                await child._until_ready()
        except TimeoutError:
            child._kill(ExitReason.HUNG, f"not ready within {spec.start_ms_max} ms")
            raise StartFailed(await child.wait(), where=str(spec.model)) from None
        except BaseException:
            # Cancelled or out of luck: whatever the cause, no child outlives a start that did not succeed.
            child._kill(ExitReason.STOPPED, "its start was given up")
            await child.wait()
            raise
        child.start_ms = (time.monotonic() - begun) * 1000
        child._ready = True
        return child

    @property
    def alive(self) -> bool:
        """Whether the process has not ended yet."""
        return not self._ended.done()

    def client(self, *, timeout_ms: int = 60_000) -> EngineClient:
        """Return a blocking client of this child."""
        return EngineClient(self.address, timeout_ms=timeout_ms)

    def rss_bytes(self) -> int:
        """Return the resident bytes now, 0 once the process is gone."""
        return _status_bytes(self.pid, "VmRSS")

    def rss_bytes_peak(self) -> int:
        """Return the most resident bytes there ever were, 0 once the process is gone."""
        return _status_bytes(self.pid, "VmHWM")

    async def healthy(self, *, timeout_ms: int = 2_000) -> bool:
        """Whether the child answers its health check in time."""
        try:
            await asyncio.to_thread(self.client(timeout_ms=timeout_ms).health)
        except EngineError:
            return False
        return True

    async def wait(self) -> Exit:
        """Return how the child ended, once it has."""
        return await asyncio.shield(self._ended)

    async def stop(self, *, grace_ms: int = STOP_GRACE_MS) -> Exit:
        """End the child (SIGTERM, after `grace_ms` SIGKILL) and return how it ended. Harmless if it is gone."""
        if self._intended is None and self.alive:
            self._intended = (ExitReason.STOPPED, "stopped")
            with suppress(ProcessLookupError):
                self._process.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_ms / 1000):
                    return await self.wait()
            with suppress(ProcessLookupError):
                self._process.kill()
        return await self.wait()

    async def _until_ready(self) -> None:
        line = await self._reports.readline()
        report: dict[str, Any] = json.loads(line) if line else {"event": "gone"}
        if self.spec.server is not None and not line:
            # Its end of the pipe closes when the server takes over, or when it dies.
            report = {"event": "listening" if await self._answers() else "gone"}
        if report["event"] != "listening":
            self._failed = str(report.get("words", "")) or self._failed
            ended = await self.wait()
            fix = "install the model file again" if ended.reason is ExitReason.LOAD_FAILED else ""
            raise StartFailed(ended, where=str(self.spec.model), fix=fix)
        client = self.client(timeout_ms=self.spec.start_ms_max)
        try:
            await asyncio.to_thread(client.health)
            await asyncio.to_thread(client.warm_up)
        except EngineError as error:
            self._kill(ExitReason.LOAD_FAILED, f"loaded, but the warm-up failed: {error.what}")
            raise StartFailed(await self.wait(), where=str(self.spec.model)) from error

    async def _answers(self) -> bool:
        """Wait until a `llama-server` has loaded its model; False if it ended instead. `start` bounds the wait."""
        while self.alive:
            if await self.healthy():
                return True
            await asyncio.wait([self._ended], timeout=_READY_POLL_MS / 1000)
        return False

    def _kill(self, reason: ExitReason, words: str) -> None:
        """Kill the child for a reason, unless it is ending for another one already."""
        if self._intended is None and self._process.returncode is None:
            self._intended = (reason, words)
        with suppress(ProcessLookupError):
            self._process.kill()

    async def _drain_log(self) -> None:
        """Read all the child says; keep the last lines of the load, and nothing once prompts may be among them."""
        while chunk := await self._log_stream.read(1 << 14):
            if not self._ready:
                for line in chunk.splitlines():
                    self.load_log.append(line[:_LOG_LINE_BYTES_MAX].decode("utf-8", "replace"))

    async def _watch_forever(self) -> None:
        interval_s = self.spec.watch_interval_ms / 1000
        well_at = time.monotonic()
        while True:
            await asyncio.sleep(interval_s)
            limit = self.spec.memory_bytes_max
            if limit is not None and (rss := self.rss_bytes()) > limit:
                words = f"used {rss >> 20} MiB of memory where {limit >> 20} MiB are allowed"
                return self._kill(ExitReason.OOM_KILLED, words)
            if not self._ready or await self.healthy(timeout_ms=self.spec.health_ms_max):
                well_at = time.monotonic()
            elif (silent_ms := (time.monotonic() - well_at) * 1000) >= self.spec.health_ms_max:
                return self._kill(ExitReason.HUNG, f"no health answer for {silent_ms:.0f} ms")

    async def _await_end(self) -> Exit:
        status = await self._process.wait()
        self._watch.cancel()
        await asyncio.gather(self._log, self._watch, return_exceptions=True)
        with suppress(OSError):
            self.address.socket.unlink()
        return self._judge(status)

    def _judge(self, status: int) -> Exit:
        code, number = (status, None) if status >= 0 else (None, -status)
        if self._intended is not None:
            reason, words = self._intended
        elif status == LOAD_FAILED_STATUS and not self._ready:
            reason, words = ExitReason.LOAD_FAILED, self._complaint()
        elif number == signal.SIGKILL and _oom_kills() > self._oom_kills:
            reason, words = ExitReason.OOM_KILLED, "killed by the kernel, which was out of memory"
        elif number is not None:
            reason, words = ExitReason.SIGNALLED, f"ended by {signal.Signals(number).name}"
        else:
            reason, words = ExitReason.EXITED, f"exited with status {status}"
        if not self._ready and reason in (ExitReason.SIGNALLED, ExitReason.EXITED):
            # A crash while loading says that this model cannot be loaded here, whatever the signal was.
            if number == signal.SIGILL:
                words = f"{words}, it needs instructions that this CPU does not have,"
            reason, words = ExitReason.LOAD_FAILED, f"{words} while loading: {self._complaint()}"
        return Exit(reason=reason, words=words, code=code, signal=number)

    def _complaint(self) -> str:
        """Return the most telling words about a failed load: the child's own, then llama.cpp's."""
        lines = [line.split(": ", 1)[-1] for line in self.load_log]
        for sign in _LOAD_COMPLAINTS:
            found = next((line for line in lines if sign in line), None)
            if found is not None:
                return f"{self._failed or 'the load failed'} ({found.strip()})"
        return self._failed or "the load failed without a word"


def _instructions(spec: ChildSpec, socket: Path) -> dict[str, Any]:
    return {
        "model": str(spec.model),
        "alias": spec.alias,
        "digest": spec.digest.text if spec.digest is not None else None,
        "socket": str(socket),
        "context_tokens": spec.context_tokens,
        "parallel": spec.parallel,
        "threads": spec.threads,
        "adapters": [str(path) for path in spec.adapters],
        "nice": spec.nice,
        "server": str(spec.server) if spec.server is not None else None,
        "parent_pid": os.getpid(),
    }


def _make_private(folder: Path) -> None:
    """Make the runtime folder 0700 and drop sockets that dead processes left in it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    for left in folder.glob(f"e*-*{_SOCKET_SUFFIX}"):
        owner = left.name[1:].split("-", 1)[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            with suppress(OSError):
                left.unlink()


def _status_bytes(pid: int, field: str) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def _oom_kills() -> int:
    """Return how many processes this machine's kernel has killed for want of memory (proc(5), vmstat)."""
    try:
        text = Path("/proc/vmstat").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)

"""The control socket: the agent's questions, one JSON object a line, answered in order.

docs/formats/control-socket.md shows every question and answer.

Whoever may open the socket may replace the model, so it is made with mode 0600 and never listens on a network.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from drupelet.core.errors import BadInput
from drupelet.core.names import Slot
from drupelet.core.states import Reason
from drupelet.engine.spec import SOCKET_PATH_BYTES_MAX
from drupelet.gateway.desk import Desk
from drupelet.gateway.errors import ChildGone
from drupelet.gateway.machine import ChildState, LoadAsked, RouteAsked, UnloadAsked
from drupelet.gateway.trial import run_trial
from drupelet.wire.codec import Malformed, decode_as, encode
from drupelet.wire.control import (
    LINE_BYTES_MAX,
    Answer,
    CannotDo,
    ChildStatus,
    Done,
    Drain,
    GatewayStatus,
    Load,
    Question,
    Route,
    TakeWindows,
    Trial,
    TrialReport,
    Unload,
    Windows,
)

CONNECTIONS_MAX = 8
"""The agent needs one, a person at the shell another."""
_WORDS = {
    ChildState.LOADING: "loading",
    ChildState.RESTARTING: "loading",
    ChildState.READY: "ready",
    ChildState.DRAINING: "draining",
    ChildState.STOPPING: "draining",
    ChildState.RESTING: "dead",
}

_log = logging.getLogger("drupelet.gateway.control")


class Control:
    """Answers the agent's questions over one desk."""

    def __init__(self, desk: Desk, *, boot: str, counts: Callable[[], tuple[int, int]]) -> None:
        self._desk = desk
        self._boot = boot
        self._counts = counts
        self._open: set[asyncio.StreamWriter] = set()

    async def answer(self, question: Question) -> Answer:
        """Return the answer to one question; never raises for what the agent may have got wrong."""
        desk = self._desk
        if isinstance(question, Load):
            load = question
            return await desk.ask(lambda ask: LoadAsked(load, ask))
        if isinstance(question, Route):
            route = question
            return await desk.ask(lambda ask: RouteAsked(route.slot, ask, route.block, route.discard_ms))
        if isinstance(question, Unload):
            slot = question.slot
            return await desk.ask(lambda ask: UnloadAsked(slot, ask))
        if isinstance(question, Trial):
            return await self._try(question)
        if isinstance(question, Drain):
            return await self._drain(question)
        if isinstance(question, TakeWindows):
            if question.cut:
                desk.recorder.cut(desk.clock())
            return Windows(boot=self._boot, windows=desk.recorder.take(question.after, question.limit))
        return self.status()

    def status(self) -> GatewayStatus:
        """Return what the children and the queue do."""
        desk = self._desk
        requests, errors = self._counts()
        children = tuple(status for slot in Slot if (status := self._child(slot)) is not None)
        return GatewayStatus(
            ready=bool(desk.machine.usable()) and not desk.closing,
            serving=desk.machine.routed,
            children=children,
            running=desk.admission.running(),
            waiting=desk.admission.waiting,
            requests=requests,
            errors=errors,
            boot=self._boot,
        )

    def _child(self, slot: Slot) -> ChildStatus | None:
        held = self._desk.machine.slots[slot]
        if held.load is None or held.state not in _WORDS:
            return None
        running = self._desk.children.get(slot)
        return ChildStatus(
            slot=slot,
            state=_WORDS[held.state],  # type: ignore[arg-type]
            release=held.load.release,
            digest=held.load.digest,
            running=self._desk.admission.running(slot),
            memory_bytes=running.child.rss_bytes() if running is not None else 0,
            exits={reason: count for reason, count in self._desk.exits[slot].items() if count},
        )

    async def _try(self, trial: Trial) -> Answer:
        running = self._desk.children.get(trial.slot)
        if running is None:
            state = self._desk.machine.slots[trial.slot].state
            dead = state in (ChildState.RESTING, ChildState.RESTARTING)
            reason = Reason.CHILD_DIED if dead else Reason.LOAD_FAILED
            return CannotDo(reason=reason, detail=f"slot {trial.slot.value} is {state.value}: load it first")
        try:
            report: TrialReport = await run_trial(running, trial)
        except ChildGone as error:
            return CannotDo(reason=Reason.CHILD_DIED, detail=error.what)
        return report

    async def _drain(self, drain: Drain) -> Answer:
        if drain.slot is not self._desk.machine.routed:
            self._desk.let_leave(drain.slot)
        if await self._desk.drained(drain.slot, timeout_ms=drain.timeout_ms):
            return Done()
        left = self._desk.admission.running(drain.slot)
        detail = f"{left} requests still run on slot {drain.slot.value} after {drain.timeout_ms} ms"
        return CannotDo(reason=Reason.INTERRUPTED, detail=detail)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk to one client until it leaves or breaks the rules."""
        if len(self._open) >= CONNECTIONS_MAX:
            writer.close()
            return
        self._open.add(writer)
        try:
            while line := await _line(reader):
                writer.write(encode(await self._answer_line(line)) + b"\n")
                await writer.drain()
        except BadInput as error:
            writer.write(encode(CannotDo(reason=Reason.TOO_LARGE, detail=error.what)) + b"\n")
        except ConnectionError:
            _log.debug("a control client left in the middle of an answer")
        finally:
            self._open.discard(writer)
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer_line(self, line: bytes) -> Answer:
        try:
            question: Question = decode_as(Question, line)  # type: ignore[arg-type]
        except Malformed as error:
            return CannotDo(reason=Reason.BAD_METADATA, detail=error.what[:1000])
        try:
            return await self.answer(question)
        except Exception as error:  # noqa: BLE001 (a fault here must not take the socket, and with it the way back, away)
            _log.exception("cannot answer %s", type(question).__name__)
            return CannotDo(reason=Reason.INTERRUPTED, detail=f"a fault in the gateway: {type(error).__name__}")

    def hang_up(self) -> None:
        """Close all connections."""
        for writer in self._open:
            writer.close()


async def listen(control: Control, path: Path) -> asyncio.Server:
    """Listen at `path`, replacing a socket that a crash left. Call only while holding the state folder's lock."""
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        what = f"the path is too long for a Unix socket (at most {SOCKET_PATH_BYTES_MAX} bytes)"
        raise BadInput(what, where=str(path), fix="set control_socket to a shorter path")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() or path.is_symlink():
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise BadInput("is in the way of the control socket and is no socket", where=str(path), fix="move it away")
        path.unlink()
    before = os.umask(0o177)
    try:
        return await asyncio.start_unix_server(control.serve, path=str(path), limit=LINE_BYTES_MAX)
    finally:
        os.umask(before)


async def _line(reader: asyncio.StreamReader) -> bytes:
    """Return the next line without its end, empty at the end of the conversation."""
    try:
        return (await reader.readuntil(b"\n")).rstrip(b"\n") or b"{}"
    except asyncio.IncompleteReadError:
        return b""
    except asyncio.LimitOverrunError as error:
        raise BadInput(f"a line of more than {LINE_BYTES_MAX} bytes") from error

"""The HTTP side: `/v1/chat/completions`, `/v1/models`, `/health`, `/ready`, `/metrics`.

Neither prompts nor answers reach a log here: there is no access log, and errors name fields, never values.

Statuses that clients know how to meet: 429 with `Retry-After` when the line is full (the client is too fast), 503 with
`Retry-After` when nothing serves (the server is not there yet). OpenAI's own clients wait and try again on both; a
balancer in front takes only the second as a reason to look elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiohttp
from aiohttp import web

from drupelet.core.names import ReleaseId
from drupelet.gateway import openai
from drupelet.gateway.children import Running
from drupelet.gateway.desk import Desk
from drupelet.gateway.errors import BadRequest, ChildGone, NotServing, QueueFull, TookTooLong
from drupelet.gateway.upstream import GONE, TAIL_BYTES, Reading, Timings, timings_in, whole
from drupelet.telemetry.metrics import CONTENT_TYPE, Outcome
from drupelet.telemetry.windows import RequestHandle

CONVERSATION_HEADER = "X-Conversation-Id"
CONVERSATION_ID_MAX = 256
RELEASE_HEADER = "X-Drupelet-Release"
SLOT_HEADER = "X-Drupelet-Slot"
_UNBLOCKED_BYTES = 32 * 1024
"""Half of what the transport buffers before a write waits: below this a write cannot block."""
_TOGETHER_S = 0.003
"""Chunks that come closer together than this are sent together: past 300 tokens/s, far faster than anybody reads, one
write a token would take the processor from the very child that makes them. A slower child's are sent at once."""
_GONE_WAIT_S = 2.0
"""A broken connection nearly always means a dead child; its death is known within this time."""
_CLIENT_GONE = 499
"""What nobody reads any more; the number is what other servers log for it."""
_JSON = "application/json"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Call:
    """One chat request on its way: what was asked, since when, and whether the client has had anything of it."""

    __slots__ = ("answered", "asked", "body", "first_token", "handle", "header", "response", "started")

    def __init__(self, asked: openai.ChatRequest, handle: RequestHandle, started: float, header: str) -> None:
        self.asked = asked
        self.body = openai.child_body(asked)
        self.handle = handle
        self.started = started
        self.header = header
        self.first_token: float | None = None
        self.answered = False
        """Counted as answered; what happens to the bytes after that is between the client and its network."""
        self.response: web.StreamResponse | None = None


class HttpSide:
    """The handlers, over one desk."""

    def __init__(self, desk: Desk, *, secret: bytes) -> None:
        self._desk = desk
        self._secret = secret
        self._limits = desk.config.limits
        self.requests = 0
        self.errors = 0

    def app(self) -> web.Application:
        """Return the application to serve."""
        app = web.Application(client_max_size=self._limits.body_bytes_max, middlewares=[_in_openai_shape])
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_get("/v1/models", self.models)
        app.router.add_get("/health", self.health)
        app.router.add_get("/ready", self.ready)
        app.router.add_get("/metrics", self.metrics)
        return app

    async def health(self, _request: web.Request) -> web.Response:
        """The process is alive."""
        return web.Response(body=b'{"status":"ok"}', content_type=_JSON)

    async def ready(self, _request: web.Request) -> web.Response:
        """A request would be answered."""
        if self._desk.machine.usable() and not self._desk.closing:
            return web.Response(body=b'{"status":"ready"}', content_type=_JSON)
        return _error(503, "no release is being served", code="not_ready", kind="server_error", retry=True)

    async def metrics(self, _request: web.Request) -> web.Response:
        """Prometheus text."""
        self._desk.measure()
        # In a thread: a scrape may wait for the board's firmware, and no request should wait with it.
        body = await asyncio.to_thread(self._desk.metrics.text)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})

    async def models(self, _request: web.Request) -> web.Response:
        """The names that may be sent as `model`."""
        routed = self._desk.machine.routed
        running = self._desk.children.get(routed) if routed is not None else None
        names = dict.fromkeys(_names(running), running.since_s) if running is not None else {}
        return web.Response(body=openai.models_body(names), content_type=_JSON)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer a chat completion, streamed or whole."""
        started = self._desk.clock()
        self.requests += 1
        try:
            async with asyncio.timeout(self._limits.body_ms_max / 1000):
                body = await request.read()
        except TimeoutError:
            return _error(408, "the body did not come in time", code="request_timeout")
        try:
            asked = openai.parse(body)
            self._check_model(asked.model)
            header = request.headers.get(CONVERSATION_HEADER, "")
            if len(header) > CONVERSATION_ID_MAX:
                raise BadRequest(f"{CONVERSATION_HEADER} is longer than {CONVERSATION_ID_MAX} characters")
            call = _Call(asked, self._desk.recorder.arrived(started), started, header)
        except BadRequest as error:
            return _refusal(error)
        return await self._answer(request, call)

    async def _answer(self, request: web.Request, call: _Call) -> web.StreamResponse:
        """Try, once more if the child dies before the client has had anything, and count what came of it."""
        outcome = Outcome.ERROR
        try:
            async with asyncio.timeout(self._limits.request_ms_max / 1000):
                response = await self._attempts(request, call)
            outcome = Outcome.OK
            await self._finish(request, response)
            return response
        except BadRequest as error:
            outcome = Outcome.INVALID
            return _refusal(error)
        except QueueFull as error:
            outcome = Outcome.REFUSED
            return _error(429, error.what, code="queue_full", kind="rate_limit_error", retry=True)
        except NotServing as error:
            outcome = Outcome.REFUSED
            return _error(503, error.what, code="not_ready", kind="server_error", retry=True)
        except ChildGone as error:
            return await self._broken(call, error.what, status=502, code="child_died")
        except TimeoutError:
            outcome = Outcome.TIMEOUT
            what = f"no whole answer within {self._limits.request_ms_max} ms"
            return await self._broken(call, what, status=504, code="timeout")
        except (ConnectionError, TookTooLong):
            outcome = Outcome.ABANDONED
            if request.transport is not None:
                request.transport.abort()
            return call.response or web.Response(status=_CLIENT_GONE)
        except asyncio.CancelledError:
            outcome = Outcome.ABANDONED
            raise
        finally:
            if not call.answered:
                self._not_answered(call, outcome)

    async def _attempts(self, request: web.Request, call: _Call) -> web.StreamResponse:
        conversation = openai.conversation_of(call.asked, header=call.header, secret=self._secret)
        for again in (False, True):
            try:
                async with self._desk.place(conversation, again=again) as running:
                    call.handle.dispatched(running.serving)
                    try:
                        return await self._ask(request, call, running)
                    except GONE as error:
                        await _await_gone(running)
                        raise ChildGone(f"the model server broke off ({type(error).__name__})") from error
            except ChildGone:
                if again or call.response is not None:
                    raise
        raise ChildGone("the model server broke off twice")

    async def _ask(self, request: web.Request, call: _Call, running: Running) -> web.StreamResponse:
        async with running.upstream.chat(call.body) as answer:
            if answer.status != 200:
                data = await whole(answer)
                raise openai.child_refusal(answer.status, data) or ChildGone(
                    f"the model server failed with status {answer.status}"
                )
            if call.asked.stream:
                return await self._stream(request, call, running, answer)
            data = await whole(answer)
        self._answered(call, running, timings_in(data[-TAIL_BYTES:]))
        return web.Response(body=data, content_type=_JSON, headers=_served_by(running))

    async def _stream(
        self, request: web.Request, call: _Call, running: Running, answer: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        clock = self._desk.clock
        reading = Reading()
        response = web.StreamResponse(headers=_served_by(running))
        response.content_type = "text/event-stream"
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Accel-Buffering"] = "no"
        wrote = 0.0
        async for chunk in answer.content.iter_any():
            if reading.feed(chunk):
                call.first_token = clock()
                call.handle.first_token(call.first_token)
            if call.response is None:
                call.response = response
                await response.prepare(request)
            elif (early_s := wrote + _TOGETHER_S - clock()) > 0 and not answer.content.is_eof():
                await asyncio.sleep(early_s)
                if more := answer.content.read_nowait():
                    reading.feed(more)
                await self._write(request, response, chunk + more)
                wrote = clock()
                continue
            await self._write(request, response, chunk)
            wrote = clock()
        if call.response is None:
            raise ChildGone("the model server said nothing")
        self._answered(call, running, reading.timings())
        return response

    async def _finish(self, request: web.Request, response: web.StreamResponse) -> None:
        """Send what is left of a response, to a client that takes it in time."""
        try:
            async with asyncio.timeout(self._limits.write_ms_max / 1000):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            raise TookTooLong(f"the client took nothing for {self._limits.write_ms_max} ms") from None

    async def _write(self, request: web.Request, response: web.StreamResponse, chunk: bytes) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client hung up")
        if transport.get_write_buffer_size() + len(chunk) < _UNBLOCKED_BYTES:
            await response.write(chunk)
            return
        try:
            async with asyncio.timeout(self._limits.write_ms_max / 1000):
                await response.write(chunk)
        except TimeoutError:
            raise TookTooLong(f"the client took nothing for {self._limits.write_ms_max} ms") from None

    async def _broken(self, call: _Call, what: str, *, status: int, code: str) -> web.StreamResponse:
        """End an answer that cannot go on: by an error, or by an error event if the stream has begun."""
        if call.response is None:
            return _error(status, what, code=code, kind="server_error")
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(self._limits.write_ms_max / 1000):
                await call.response.write(openai.error_event(what, code=code))
                await call.response.write_eof()
        return call.response

    def _answered(self, call: _Call, running: Running, timings: Timings | None) -> None:
        """Count an answer that is whole. The child's own counts are exact; without them the prompt's is a guess."""
        call.answered = True
        now = self._desk.clock()
        prompt_tokens = timings.prompt_tokens if timings else openai.prompt_tokens_guess(call.asked)
        tokens = timings.completion_tokens if timings else 0
        decode_s = timings.decode_s if timings else None
        if call.first_token is None and decode_s is not None:
            # A whole answer shows no first token to its client; the child had it this long before the end.
            call.first_token = max(call.started, now - decode_s)
            call.handle.first_token(call.first_token)
        call.handle.ended(now, ok=True, prompt_tokens=prompt_tokens, completion_tokens=tokens, decode_s=decode_s)
        self._desk.metrics.request(
            Outcome.OK,
            now - call.started,
            model=running.load.model,
            slot=running.load.slot,
            prompt_tokens=prompt_tokens,
            completion_tokens=tokens,
            ttft_s=call.first_token - call.started if call.first_token is not None else None,
            decode_s=decode_s,
        )

    def _not_answered(self, call: _Call, outcome: Outcome) -> None:
        """Count a request that was not answered: against the release, unless the client is the cause."""
        now = self._desk.clock()
        guess = openai.prompt_tokens_guess(call.asked)
        if outcome in (Outcome.INVALID, Outcome.ABANDONED):
            call.handle.abandoned(now, prompt_tokens=guess)
        else:
            self.errors += 1
            call.handle.ended(now, ok=False, prompt_tokens=guess)
        running = self._running(call)
        self._desk.metrics.request(
            outcome,
            now - call.started,
            model=running.load.model if running else "none",
            slot=running.load.slot if running else None,
            prompt_tokens=guess,
        )

    def _running(self, call: _Call) -> Running | None:
        return self._desk.children.get(call.handle.serving.slot) if call.handle.serving else None

    def _check_model(self, asked: str | None) -> None:
        if not asked:
            return
        known: set[str] = set()
        for slot in self._desk.machine.usable():
            known.update(_names(self._desk.children.get(slot)))
        if known and asked not in known:
            raise BadRequest(
                f"there is no model {asked[:80]!r} here; it has {', '.join(sorted(known))}",
                status=404,
                code="model_not_found",
                param="model",
            )


async def _await_gone(running: Running) -> None:
    """Wait until the machine knows of the child's end, so that a second attempt does not meet the same child."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_GONE_WAIT_S):
            await running.gone.wait()


def _names(running: Running | None) -> tuple[str, ...]:
    if running is None:
        return ()
    release = ReleaseId.parse(running.load.release)
    return tuple(dict.fromkeys((running.load.model, str(release.family), release.path)))


def _served_by(running: Running) -> dict[str, str]:
    return {RELEASE_HEADER: running.load.release, SLOT_HEADER: running.load.slot.value}


def _error(
    status: int, message: str, *, code: str, kind: str = "invalid_request_error", param: str = "", retry: bool = False
) -> web.Response:
    headers = {"Retry-After": str(openai.RETRY_AFTER_S)} if retry else None
    body = openai.error_body(message, kind=kind, code=code, param=param)
    return web.Response(status=status, body=body, content_type=_JSON, headers=headers)


def _refusal(error: BadRequest) -> web.Response:
    return _error(error.status, error.what, code=error.code, param=error.param)


@web.middleware
async def _in_openai_shape(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give aiohttp's own errors (no such path, body too large) OpenAI's shape."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        code = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}.get(error.status, "invalid_request")
        return _error(error.status, error.reason.lower(), code=code)

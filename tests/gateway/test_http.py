"""The HTTP side with fake children: answers, refusals, deaths, rude clients."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest

from drupelet.core.names import Slot
from drupelet.core.states import ExitReason
from drupelet.gateway.config import ChildSettings, Limits
from drupelet.wire.control import Route, TakeWindows, Windows
from tests.fakes.fake_backend import PROMPT_TOKENS, FakeLauncher, Manners
from tests.gateway.world import load, play, until, world


def test_whole_and_streamed_answers_carry_release_slot_and_pass_through() -> None:
    async def story() -> None:
        async with world(Slot.A) as w:
            await w.ready()
            whole = await w.chat(model="kiosk")
            streamed = await w.chat(stream=True)
            assert json.loads(whole.body)["choices"][0]["message"]["content"] == "w0 w1 w2 w3 "
            assert streamed.body.count(b'"content":"w') == 4
            assert streamed.body.endswith(b"data: [DONE]\n\n")
            for said in (whole, streamed):
                assert (said.status, said.headers["X-Drupelet-Release"], said.slot) == (200, "kiosk/1.1", "a")
            assert streamed.headers["Content-Type"].startswith("text/event-stream")

    play(story)


def test_only_the_allow_list_reaches_the_child() -> None:
    async def story() -> None:
        async with world(Slot.A) as w:
            await w.ready()
            said = await w.chat(temperature=0.5, user="u", grammar="root ::= x", lora=[1], model="kiosk-model", n=1)
            assert said.status == 200
            assert w.child().bodies == [{"messages": [{"role": "user", "content": "hi"}], "temperature": 0.5}]

    play(story)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"", 400, "invalid_json"),
        (b"\xff\xfe{}", 400, "invalid_json"),
        (b'{"messages":[{"role":"user","content":"\xff"}]}', 400, "invalid_request"),
        (b"[" * 100_000, 400, "invalid_request"),
        (b'{"messages":[{"role":"user","content":"x"}],"tools":[' + b"[" * 50 + b"]" * 50 + b"]}", 400, None),
        (b'{"messages":[]}', 400, "invalid_request"),
        (b'{"messages":"hello"}', 400, "invalid_request"),
        (b'{"messages":[{"role":"user","content":"x"}],"temperature":"hot"}', 400, "invalid_request"),
        (b'{"messages":[{"role":"user","content":"x"}],"max_tokens":-1}', 400, "invalid_request"),
        (b'{"messages":[{"role":"user","content":"x"}],"n":3}', 400, "invalid_request"),
        (b'{"messages":[{"role":"user","content":"x"}],"model":"gpt-4"}', 404, "model_not_found"),
        (b'{"messages":[{"role":"user","content":"' + b"x" * 3000 + b'"}]}', 413, "body_too_large"),
    ],
)
def test_bad_bodies_get_an_openai_error_and_never_reach_the_child(body: bytes, status: int, code: str | None) -> None:
    async def story() -> None:
        limits = Limits(body_bytes_max=200_000 if len(body) > 50_000 else 2048)
        async with world(Slot.A, limits=limits) as w:
            await w.ready()
            said = await w.post(body)
            assert said.status == status
            assert set(said.error) == {"message", "type", "param", "code"}
            assert code in (None, said.error["code"])
            assert w.child().bodies == []

    play(story)


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nope", 404), ("GET", "/v1/chat/completions", 405), ("GET", "/health", 200)]
)
def test_other_paths(method: str, path: str, status: int) -> None:
    async def story() -> None:
        async with world() as w, w.session.request(method, w.base + path) as answer:
            assert answer.status == status
            assert (status == 200) == ("error" not in await answer.json())

    play(story)


def test_a_prompt_longer_than_the_context_is_the_clients_error() -> None:
    async def story() -> None:
        async with world(Slot.A) as w:
            await w.ready()
            w.manners().status, w.manners().error_type = 400, "exceed_context_size_error"
            said = await w.chat()
            assert (said.status, said.error["code"]) == (400, "context_length_exceeded")
            w.manners().status = 500
            assert (await w.chat()).status == 502
            status = await w.status()
            assert (status.requests, status.errors) == (2, 1)

    play(story)


def test_nothing_serves_is_503_with_retry_after() -> None:
    async def story() -> None:
        async with world() as w:
            said = await w.chat()
            assert (said.status, said.error["code"], said.headers["Retry-After"]) == (503, "not_ready", "2")
            async with w.session.get(f"{w.base}/ready") as ready, w.session.get(f"{w.base}/v1/models") as models:
                assert ready.status == 503
                assert (await models.json())["data"] == []

    play(story)


def test_a_full_line_is_429_and_those_in_line_are_served() -> None:
    async def story() -> None:
        settings = ChildSettings(threads=1, parallel=1)
        async with world(Slot.A, limits=Limits(queue_max=1), child=settings) as w:
            await w.ready()
            w.manners().hold_before = 0
            waiting = [asyncio.create_task(w.chat(f"q{i}")) for i in range(2)]
            await until(lambda: _line(w, running=1, waiting=1), what="one running, one waiting")
            said = await w.chat("q2")
            assert (said.status, said.error["code"], said.headers["Retry-After"]) == (429, "queue_full", "2")
            w.manners().go.set()
            assert [(await task).status for task in waiting] == [200, 200]

    play(story)


async def _line(w: Any, *, running: int, waiting: int) -> bool:
    status = await w.status()
    return bool((status.running, status.waiting) == (running, waiting))


def test_waiting_in_line_is_bounded() -> None:
    async def story() -> None:
        limits = Limits(queue_ms_max=50)
        async with world(Slot.A, limits=limits, child=ChildSettings(threads=1, parallel=1)) as w:
            await w.ready()
            w.manners().hold_before = 0
            first = asyncio.create_task(w.chat("q0"))
            await until(lambda: _line(w, running=1, waiting=0), what="one running")
            assert (await w.chat("q1")).status == 503
            w.manners().go.set()
            assert (await first).status == 200

    play(story)


@pytest.mark.parametrize("stream", [False, True])
def test_a_child_that_dies_before_its_first_word_is_retried_on_the_next_child(stream: bool) -> None:
    async def story() -> None:
        async with world(Slot.A) as w:
            await w.ready()
            w.manners().hold_before = 0
            asking = asyncio.create_task(w.chat(stream=stream))
            await until(lambda: len(w.child().bodies) == 1, what="the child to be asked")
            await w.child().die()
            w.manners().hold_before = None
            said = await asking
            assert said.status == 200
            assert len(w.launcher.children) == 2
            assert (await w.status()).children[0].exits == {ExitReason.SIGNALLED: 1}

    play(story)


def test_the_second_death_is_an_error_not_a_loop() -> None:
    async def story() -> None:
        async with world(Slot.A) as w:
            await w.ready()
            w.manners().die_before = 0
            said = await w.chat()
            assert (said.status, said.error["code"]) == (502, "child_died")
            assert len(w.launcher.children) in (2, 3)

    play(story)


def test_a_stream_that_breaks_ends_with_an_error_event() -> None:
    async def story() -> None:
        async with world(Slot.A) as w:
            await w.ready()
            w.manners().die_before = 2
            said = await w.chat(stream=True)
            assert said.status == 200
            last = said.body.strip().split(b"\n\n")[-1].removeprefix(b"data: ")
            assert json.loads(last)["error"]["code"] == "child_died"
            assert b"[DONE]" not in said.body

    play(story)


def test_an_answer_that_takes_too_long_is_504() -> None:
    async def story() -> None:
        async with world(Slot.A, limits=Limits(request_ms_max=80)) as w:
            await w.ready()
            w.manners().hold_before = 0
            said = await w.chat()
            assert (said.status, said.error["code"]) == (504, "timeout")
            await until(lambda: w.child().cut_off == 1, what="the child's request to be taken back")

    play(story)


def test_a_client_that_hangs_up_takes_its_question_back() -> None:
    async def story() -> None:
        async with world(Slot.A, child=ChildSettings(threads=1, parallel=1)) as w:
            await w.ready()
            w.manners().hold_before = 1
            asking = asyncio.create_task(w.chat(stream=True))
            in_line = asyncio.create_task(w.chat("second"))
            await until(lambda: _line(w, running=1, waiting=1), what="one running, one waiting")
            for task in (asking, in_line):
                task.cancel()
            await until(lambda: _line(w, running=0, waiting=0), what="both places to be free")
            await until(lambda: w.child().cut_off == 1, what="the child's request to be taken back")
            assert (await w.status()).errors == 0

    play(story)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_never_reads_is_let_go(stream: bool) -> None:
    async def story() -> None:
        async with world(Slot.A, limits=Limits(write_ms_max=100)) as w:
            await w.ready()
            w.manners().words, w.manners().padding = 200, 50_000
            with socket.create_connection((w.at.host, w.at.port)) as rude:
                body = json.dumps({"stream": stream, "messages": [{"role": "user", "content": "x"}]}).encode()
                head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
                await asyncio.get_running_loop().sock_sendall(_unblocked(rude), head + body)
                await until(lambda: len(w.child().bodies) == 1, what="the child to be asked")
                await until(lambda: _line(w, running=0, waiting=0), what="the place to be free")
                port = rude.getsockname()[1]
                await until(lambda: port not in _peers(w.at.port), what="the gateway to let go")
            # The child hears of it by its own connection, a moment after the client's is gone.
            await until(lambda: w.child().cut_off == (1 if stream else 0), what="the child to be told")

    play(story)


def _peers(port: int) -> set[int]:
    """The ports of those whom this process serves at `port`."""
    connections = psutil.Process().net_connections("tcp4")
    return {one.raddr.port for one in connections if one.laddr.port == port and one.raddr and one.fd >= 0}


def _unblocked(connection: socket.socket) -> socket.socket:
    connection.setblocking(False)
    return connection


def test_a_body_that_never_comes_is_408() -> None:
    async def story() -> None:
        async with world(Slot.A, limits=Limits(body_ms_max=50)) as w:
            reader, writer = await asyncio.open_connection(w.at.host, w.at.port)
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
            assert b" 408 " in await reader.readline()
            writer.close()
            await writer.wait_closed()

    play(story)


def test_windows_and_metrics_count_what_happened() -> None:
    async def story() -> None:
        async with world(Slot.A) as w:
            await w.ready()
            await w.chat(stream=True)
            await w.chat()
            answer = await w.ask(TakeWindows(after=0, cut=True))
            assert isinstance(answer, Windows)
            (stats,) = answer.windows[0].requests
            assert (answer.windows[0].release, stats.ok, stats.errors) == ("kiosk/1.1", 2, 0)
            assert (stats.prompt_tokens, stats.completion_tokens) == (2 * PROMPT_TOKENS, 8)
            assert (stats.ttft.count, stats.duration.count) == (2, 2)
            async with w.session.get(f"{w.base}/metrics") as scraped:
                text = await scraped.text()
            for reason in ExitReason:
                assert f'genai_runtime_exits_total{{reason="{reason.value}"}} 0.0' in text
            assert 'genai_tokens_total{type="completion"} 8.0' in text
            assert 'slot="a",version="1.1"} 1.0' in text

    play(story)


def test_no_prompt_or_answer_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)

    async def story() -> None:
        async with world(Slot.A) as w:
            await w.ready()
            await w.chat("sesame")
            await w.post(b'{"messages":[{"role":"user","content":"sesame"}],"temperature":"sesame"}')
            w.manners().die_before = 2
            await w.chat("sesame", stream=True)

    play(story)
    assert caplog.records
    assert "sesame" not in caplog.text
    assert "w0" not in caplog.text


def test_a_switch_under_load_drops_nothing() -> None:
    async def story() -> None:
        async with world(Slot.A) as w:
            await w.ready()
            await w.ask(load(w.folder, Slot.B))
            done = asyncio.Event()
            slots: list[str] = []

            async def client(own: int) -> None:
                while not done.is_set():
                    said = await w.chat(f"client {own}", stream=True)
                    assert said.status == 200
                    assert said.body.endswith(b"[DONE]\n\n")
                    slots.append(said.slot)

            clients = [asyncio.create_task(client(own)) for own in range(6)]
            for flip in range(10):
                await w.ask(Route(slot=(Slot.B, Slot.A)[flip % 2]))
                seen = len(slots)
                await until(lambda seen=seen: len(slots) > seen + 6, what="answers after the switch")  # type: ignore[misc]
            done.set()
            await asyncio.gather(*clients)
            assert {"a", "b"} == set(slots)
            assert (await w.status()).errors == 0

    play(story)


def test_a_conversation_stays_where_it_began_and_new_ones_follow_the_route() -> None:
    async def story() -> None:
        async with world(Slot.A) as w:
            await w.ready()
            history = [
                {"role": "user", "content": "hi"},
                {"role": "assistant", "content": "hello"},
                {"role": "user", "content": "and?"},
            ]
            named = {"X-Conversation-Id": "c1"}
            assert [(await w.chat("hi")).slot, (await w.chat("yo", headers=named)).slot] == ["a", "a"]
            await w.ask(load(w.folder, Slot.B))
            await w.ask(Route(slot=Slot.B))
            follow = await w.post(json.dumps({"messages": history}).encode())
            assert [follow.slot, (await w.chat("yo", headers=named)).slot] == ["a", "a"]
            assert (await w.chat("hi")).slot == "b"

    play(story)


def test_the_other_routed_slot_stands_in_while_a_child_restarts() -> None:
    async def story() -> None:
        async with world(Slot.A) as w:
            await w.ready()
            await w.ask(load(w.folder, Slot.B))
            await w.ask(Route(slot=Slot.B))
            w.launcher.hold = asyncio.Event()
            await w.child(1).die()
            assert (await w.chat()).slot == "a"
            w.launcher.hold.set()
            await until(lambda: len(w.launcher.children) == 3, what="the restart")
            await w.ready()

    play(story)


def test_a_release_on_trial_never_stands_in() -> None:
    async def story() -> None:
        async with world(Slot.A) as w:
            await w.ready()
            await w.ask(load(w.folder, Slot.B))
            w.launcher.hold = asyncio.Event()
            await w.child(0).die()
            asking = asyncio.create_task(w.chat())
            await until(lambda: _line(w, running=0, waiting=1), what="the request to wait")
            w.launcher.hold.set()
            assert (await asking).slot == "a"

    play(story)


def _refuse_a(launcher: FakeLauncher, folder: Path) -> None:
    launcher.refusals[str(folder / "a.gguf")] = ExitReason.LOAD_FAILED
    launcher.manners[str(folder / "b.gguf")] = Manners(words=2)


def test_what_cannot_be_loaded_gives_way_to_the_next_entry() -> None:
    async def story() -> None:
        async with world(Slot.A, Slot.B, prepare=_refuse_a) as w:
            await w.ready()
            assert (await w.chat()).slot == "b"
            text = w.metrics.text().decode()
            assert 'genai_runtime_exits_total{reason="load_failed"} 1.0' in text

    play(story)

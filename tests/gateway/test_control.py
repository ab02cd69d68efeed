"""The control socket: every verb, and what breaks the rules."""

from __future__ import annotations

import asyncio
import stat
from collections import Counter

import msgspec

from drupelet.core.names import Slot
from drupelet.core.states import ExitReason, Reason
from drupelet.gateway.control import CONNECTIONS_MAX
from drupelet.wire.control import (
    LINE_BYTES_MAX,
    CannotDo,
    Done,
    Drain,
    Loaded,
    Route,
    TakeWindows,
    Trial,
    TrialReport,
    Unload,
    Windows,
)
from drupelet.wire.manifest import CanonicalPrompt, Expectation
from drupelet.wire.telemetry import BlockLabel
from tests.gateway.world import World, load, play, until, world

PROMPT = CanonicalPrompt(id="hours", prompt="when?", tokens_max=8, expect=(Expectation(kind="contains", value="w0"),))


def test_load_try_route_drain_unload() -> None:
    async def story() -> None:
        async with world(Slot.A) as w:
            await w.ready()
            second = load(w.folder, Slot.B)
            assert isinstance(await w.ask(second), Loaded)
            assert isinstance(await w.ask(second), Loaded)
            report = await w.ask(Trial(slot=Slot.B, prompts=(PROMPT,)))
            assert isinstance(report, TrialReport)
            (result,) = report.results
            assert (result.id, result.text, result.tokens, result.error) == ("hours", "w0 w1 w2 w3 ", 4, "")
            assert w.child(1).bodies[0]["temperature"] == 0
            assert isinstance(await w.ask(Unload(slot=Slot.A)), CannotDo)
            assert isinstance(await w.ask(Route(slot=Slot.B)), Done)
            assert isinstance(await w.ask(Drain(slot=Slot.A)), Done)
            assert isinstance(await w.ask(Unload(slot=Slot.A)), Done)
            status = await w.status()
            assert [(c.slot, c.state) for c in status.children] == [(Slot.B, "ready")]
            assert status.serving is Slot.B
            assert len(w.launcher.children) == 2

    play(story)


def test_the_child_is_told_the_digest_and_the_limits() -> None:
    async def story() -> None:
        async with world() as w:
            asked = msgspec.structs.replace(load(w.folder), memory_bytes_max=1 << 30, load_ms_max=777)
            await w.ask(asked)
            spec = w.child().spec
            assert (str(spec.digest), spec.memory_bytes_max, spec.start_ms_max) == (asked.digest, 1 << 30, 777)
            assert (spec.context_tokens, spec.alias, spec.parallel) == (256, "kiosk-model", 4)

    play(story)


def test_a_load_that_fails_says_whether_the_bytes_or_the_model_are_bad() -> None:
    async def story() -> None:
        async with world() as w:
            asked = load(w.folder)
            w.launcher.refusals[asked.path] = ExitReason.LOAD_FAILED
            bad_model = await w.ask(asked)
            (w.folder / "a.gguf").write_bytes(b"flipped")
            bad_bytes = await w.ask(asked)
            (w.folder / "a.gguf").unlink()
            gone = await w.ask(asked)
            w.launcher.refusals[asked.path] = ExitReason.OOM_KILLED
            greedy = await w.ask(asked)
            reasons = [answer.reason for answer in (bad_model, bad_bytes, gone, greedy) if isinstance(answer, CannotDo)]
            assert reasons == [
                Reason.LOAD_FAILED,
                Reason.DIGEST_MISMATCH,
                Reason.DIGEST_MISMATCH,
                Reason.MEMORY_EXCEEDED,
            ]

    play(story)


def test_a_trial_bounds_every_answer_and_notices_a_death() -> None:
    async def story() -> None:
        async with world() as w:
            assert isinstance(await w.ask(Trial(slot=Slot.B, prompts=(PROMPT,))), CannotDo)
            await w.ask(load(w.folder, Slot.B))
            w.manners(Slot.B).hold_before = 1
            slow = await w.ask(Trial(slot=Slot.B, prompts=(PROMPT,), answer_ms_max=50))
            assert isinstance(slow, TrialReport)
            assert "within 50 ms" in slow.results[0].error
            w.manners(Slot.B).hold_before = None
            w.manners(Slot.B).die_before = 1
            died = await w.ask(Trial(slot=Slot.B, prompts=(PROMPT, PROMPT)))
            assert isinstance(died, CannotDo)
            assert died.reason is Reason.CHILD_DIED

    play(story)


def test_a_drain_is_bounded_and_an_unload_lets_requests_end() -> None:
    async def story() -> None:
        async with world(Slot.A) as w:
            await w.ready()
            await w.ask(load(w.folder, Slot.B))
            w.manners(Slot.A).hold_before = 1
            asking = asyncio.create_task(w.chat(stream=True))
            await until(lambda: len(w.child(0).bodies) == 1, what="the child to be asked")
            await w.ask(Route(slot=Slot.B))
            held = await w.ask(Drain(slot=Slot.A, timeout_ms=20))
            assert isinstance(held, CannotDo)
            unloading = asyncio.create_task(w.ask(Unload(slot=Slot.A)))
            await until(lambda: _draining(w), what="the slot to drain")
            w.manners(Slot.A).go.set()
            said = await asking
            assert (said.status, said.slot, said.body[-8:]) == (200, "a", b"[DONE]\n\n")
            assert isinstance(await unloading, Done)

    play(story)


async def _draining(w: World) -> bool:
    return any(child.state == "draining" for child in (await w.status()).children)


def test_blocks_label_what_arrives_in_them_on_the_routed_slot_only() -> None:
    async def story() -> None:
        async with world(Slot.A) as w:
            await w.ready()
            await w.ask(load(w.folder, Slot.B))
            label = BlockLabel(serial=3, pair=0, arm="new", first="new")
            stay = {"X-Conversation-Id": "c"}
            await w.chat(headers=stay)
            await w.ask(Route(slot=Slot.B, block=label))
            for headers in (None, None, stay):
                await w.chat(headers=headers)
            await w.ask(Route(slot=Slot.A))
            answer = await w.ask(TakeWindows(after=0, cut=True))
            assert isinstance(answer, Windows)
            counts: Counter[tuple[Slot | None, BlockLabel | None]] = Counter()
            for window in answer.windows:
                counts[window.slot, window.block] += sum(stats.ok for stats in window.requests)
            counts = +counts
            assert counts == {(Slot.B, label): 2, (Slot.A, None): 2}
            again = await w.ask(TakeWindows(after=answer.windows[-1].seq))
            assert isinstance(again, Windows)
            assert again.windows == ()
            assert again.boot == (await w.status()).boot

    play(story)


def test_strange_lines_are_answered_and_huge_ones_end_the_talk() -> None:
    async def story() -> None:
        async with world() as w:
            reader, writer = await asyncio.open_unix_connection(str(w.at.control), limit=LINE_BYTES_MAX)
            lines = [b"{", b"\xff", b"[" * 10_000, b"", b'{"verb":"dance"}', b'{"verb":"load","slot":"c"}', b'"' * 9]
            for line in lines:
                writer.write(line + b"\n")
                answer = msgspec.json.decode(await reader.readline())
                assert (answer["answer"], answer["reason"]) == ("cannot", "bad_metadata")
            writer.write(b'{"verb":"status"}\n')
            assert msgspec.json.decode(await reader.readline())["answer"] == "status"
            writer.write(b"x" * (LINE_BYTES_MAX + 2))
            assert msgspec.json.decode(await reader.readline())["reason"] == "too_large"
            assert await reader.read() == b""
            writer.close()

    play(story)


def test_the_socket_is_private_and_its_connections_are_bounded() -> None:
    async def story() -> None:
        async with world() as w:
            assert stat.S_IMODE(w.at.control.stat().st_mode) == 0o600
            held = [await asyncio.open_unix_connection(str(w.at.control)) for _ in range(CONNECTIONS_MAX)]
            for reader, writer in held:
                writer.write(b'{"verb":"status"}\n')
                await reader.readline()
            extra, extra_writer = await asyncio.open_unix_connection(str(w.at.control))
            assert await extra.read() == b""
            for _, writer in [*held, (extra, extra_writer)]:
                writer.close()

    play(story)

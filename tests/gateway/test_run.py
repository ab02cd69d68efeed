"""The process: two doors, one lock, what it does with `serve.json`, and a real child."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import msgspec
import pytest

from drupelet.core.errors import BadInput
from drupelet.core.names import Slot
from drupelet.core.states import ExitReason, Reason
from drupelet.durable import Locked, PosixDisk
from drupelet.gateway.errors import BadConfig, PortTaken
from drupelet.gateway.run import read_serve, run
from drupelet.telemetry.metrics import GatewayMetrics
from drupelet.wire.control import CannotDo, Load, Loaded, Route, Trial, TrialReport
from drupelet.wire.manifest import CanonicalPrompt, Expectation
from tests.fakes.fake_backend import FakeLauncher
from tests.fakes.tiny_gguf import write_tiny_gguf
from tests.gateway.world import config, load_of, play, until, world


async def second(folder: Path, *, port: int = 0) -> None:
    """Run a gateway that is expected to fail at once."""
    await run(
        config(folder, port=port),
        disk=PosixDisk(),
        launch=FakeLauncher(folder),
        metrics=GatewayMetrics(),
        stop=asyncio.Event(),
        on_listening=lambda at: pytest.fail(f"it listens at {at}"),
    )


def test_two_gateways_on_one_state_folder() -> None:
    async def story() -> None:
        async with world(Slot.A) as w:
            await w.ready()
            with pytest.raises(Locked, match=f"process {os.getpid()}"):
                await second(w.folder)
            assert (await w.chat()).status == 200

    play(story)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"127.0.0.1:{port}.*set listen.port"):
            asyncio.run(second(tmp_path, port=port))


def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    wrong = msgspec.structs.replace(
        config(tmp_path), listen=msgspec.structs.replace(config(tmp_path).listen, host="192.0.2.1")
    )

    async def story() -> None:
        await run(
            wrong,
            disk=PosixDisk(),
            launch=FakeLauncher(tmp_path),
            metrics=GatewayMetrics(),
            stop=asyncio.Event(),
            on_listening=lambda _at: None,
        )

    with pytest.raises(BadConfig, match="cannot listen"):
        asyncio.run(story())


def test_a_socket_left_by_a_crash_is_replaced_and_another_file_is_not() -> None:
    def leave(_launcher: FakeLauncher, folder: Path) -> None:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(folder / "control.sock"))

    def block(_launcher: FakeLauncher, folder: Path) -> None:
        (folder / "control.sock").write_text("mine")

    async def story() -> None:
        async with world(Slot.A, prepare=leave) as w:
            await w.ready()
            assert (await w.status()).ready
        with pytest.raises(BadInput, match="is no socket"):
            async with world(Slot.A, prepare=block):
                pass

    play(story)


@pytest.mark.parametrize("text", [None, b"", b"{", b"\xff", b'{"format":"drupelet.serve/2","loads":[]}', b" " * 70_000])
def test_a_serve_file_that_cannot_be_read_serves_nothing(tmp_path: Path, text: bytes | None) -> None:
    path = tmp_path / "serve.json"
    if text is not None:
        path.write_bytes(text)
    assert read_serve(PosixDisk(), path) == ()


def test_after_failures_in_a_row_the_other_entry_takes_over() -> None:
    async def story() -> None:
        async with world(Slot.A, Slot.B) as w:
            await w.ready()
            w.launcher.refusals[str(w.folder / "a.gguf")] = ExitReason.LOAD_FAILED
            await w.child().die()
            await until(lambda: len(w.launcher.children) == 2, what="the other release to be loaded")
            assert (await w.chat()).slot == "b"

    play(story)


def _tiny(folder: Path) -> tuple[Load, ...]:
    first = load_of(write_tiny_gguf(folder / "a.gguf"), Slot.A, version="1.1")
    second = load_of(write_tiny_gguf(folder / "b.gguf", seed=2), Slot.B, version="1.2")
    flipped = bytearray((folder / "a.gguf").read_bytes())
    flipped[len(flipped) // 2] ^= 1
    (folder / "a.gguf").write_bytes(flipped)
    return first, second


def test_with_a_real_child_a_flipped_byte_is_never_served_and_the_next_entry_is() -> None:
    prompt = CanonicalPrompt(id="x", prompt="hello", tokens_max=4, expect=(Expectation(kind="contains", value="x"),))

    async def story() -> None:
        async with world(real=True, loads=_tiny) as w:
            await w.ready()
            said = await w.chat(stream=True, max_tokens=6)
            assert (said.status, said.slot) == (200, "b")
            too_long = await w.chat("word " * 500)
            assert (too_long.status, too_long.error["code"]) == (400, "context_length_exceeded")
            bad = await w.ask(load_of(w.folder / "b.gguf", Slot.A, version="1.3"))
            assert isinstance(bad, Loaded)
            report = await w.ask(Trial(slot=Slot.A, prompts=(prompt,)))
            assert isinstance(report, TrialReport)
            assert 1 <= report.results[0].tokens <= 4
            assert report.memory_bytes > 10 << 20
            await w.ask(Route(slot=Slot.A))
            assert (await w.chat("again", max_tokens=6)).slot == "a"
            exits = [child.exits for child in (await w.status()).children if child.slot is Slot.A]
            assert exits == [{ExitReason.LOAD_FAILED: 1}]

    play(story)


def test_with_real_children_a_switch_under_load_drops_nothing() -> None:
    def both(folder: Path) -> tuple[Load, ...]:
        return tuple(
            load_of(write_tiny_gguf(folder / f"{slot.value}.gguf", seed=seed), slot, version=f"1.{seed}")
            for seed, slot in enumerate(Slot, start=1)
        )

    async def story() -> None:
        async with world(real=True, loads=both) as w:
            await w.ready()
            assert isinstance(await w.ask(load_of(w.folder / "b.gguf", Slot.B, version="1.2")), Loaded)
            flips = asyncio.Event()
            served: list[str] = []

            async def client(own: int) -> None:
                while not flips.is_set():
                    said = await w.chat(f"question {own} {len(served)}", stream=True, max_tokens=12)
                    assert (said.status, said.body[-8:]) == (200, b"[DONE]\n\n")
                    served.append(said.slot)

            clients = [asyncio.create_task(client(own)) for own in range(3)]
            for slot in (Slot.B, Slot.A, Slot.B):
                await w.ask(Route(slot=slot))
                goal = len(served) + 4
                await until(lambda goal=goal: len(served) >= goal, what="answers after the switch")  # type: ignore[misc]
            flips.set()
            await asyncio.gather(*clients)
            assert (set(served), (await w.status()).errors) == ({"a", "b"}, 0)

    play(story)


def test_children_that_are_ended_with_the_gateway_are_not_started_again() -> None:
    async def story() -> None:
        async with world(Slot.A) as w:
            await w.ready()
            w.stop.set()
            await w.task
            await asyncio.sleep(0.05)  # longer than the rest before a restart, here 10 ms
            assert len(w.launcher.children) == 1

    play(story)


def test_with_a_real_child_a_flipped_byte_is_reported_as_such() -> None:
    async def story() -> None:
        async with world(real=True) as w:
            first, _second = _tiny(w.folder)
            refused = await w.ask(first)
            assert isinstance(refused, CannotDo)
            assert refused.reason is Reason.DIGEST_MISMATCH

    play(story)

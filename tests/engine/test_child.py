"""A real llama.cpp child: it answers, and every way it can end is told apart."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from drupelet.core.errors import BadInput
from drupelet.core.names import Digest
from drupelet.core.states import ExitReason
from drupelet.engine.child import Child
from drupelet.engine.spec import ChildSpec, EngineAnswered, EngineUnreachable, Exit, StartFailed
from tests.waiting import until

HELLO = [{"role": "user", "content": "hello"}]


def test_a_child_starts_answers_and_stops(spec: ChildSpec, runtime_folder: Path) -> None:
    async def scenario() -> tuple[str, Exit, int]:
        child = await Child.start(spec, runtime_folder=runtime_folder)
        assert child.alive
        assert await child.healthy()
        assert 0 < child.rss_bytes() <= child.rss_bytes_peak() < 200 << 20
        answer = await asyncio.to_thread(child.client().chat, HELLO, tokens_max=5)
        assert (answer.finish, answer.tokens) == ("length", 5)
        assert 0 < answer.ttft_ms <= answer.duration_ms
        return answer.text, await child.stop(), child.rss_bytes()

    text, ended, rss_bytes = asyncio.run(scenario())
    assert text
    assert (ended.reason, rss_bytes) == (ExitReason.STOPPED, 0)
    assert list(runtime_folder.iterdir()) == []


def test_the_same_question_has_the_same_answer(spec: ChildSpec, runtime_folder: Path) -> None:
    async def scenario() -> list[str]:
        child = await Child.start(spec, runtime_folder=runtime_folder)
        answers = [child.client().chat(HELLO, tokens_max=8).text for _ in range(2)]
        await child.stop()
        return answers

    first, second = asyncio.run(scenario())
    assert first == second


def test_tokens_and_template_are_the_models_own(spec: ChildSpec, runtime_folder: Path) -> None:
    async def scenario() -> tuple[list[int], str]:
        child = await Child.start(spec, runtime_folder=runtime_folder)
        try:
            return child.client().tokenize("<|user|>the"), child.client().apply_template(HELLO)
        finally:
            await child.stop()

    tokens, text = asyncio.run(scenario())
    assert tokens[:2] == [1, 4], "beginning of text, then the marker as one token"
    assert text == "<|user|>hello</s><|assistant|>"


def test_a_prompt_longer_than_the_context_is_refused_and_does_no_harm(spec: ChildSpec, runtime_folder: Path) -> None:
    async def scenario() -> EngineAnswered:
        child = await Child.start(spec, runtime_folder=runtime_folder)
        try:
            with pytest.raises(EngineAnswered) as caught:
                child.client().chat([{"role": "user", "content": "x" * 1000}], tokens_max=5)
            assert await child.healthy()
        finally:
            await child.stop()
        return caught.value

    error = asyncio.run(scenario())
    assert (error.status, error.kind) == (400, "exceed_context_size_error")


def test_nobody_else_may_reach_the_socket(spec: ChildSpec, runtime_folder: Path) -> None:
    runtime_folder.chmod(0o755)

    async def scenario() -> tuple[int, int]:
        child = await Child.start(spec, runtime_folder=runtime_folder)
        folder, socket = runtime_folder.stat().st_mode, child.address.socket.stat().st_mode
        await child.stop()
        return folder, socket

    folder_mode, socket_mode = asyncio.run(scenario())
    assert stat.S_IMODE(folder_mode) == 0o700
    assert stat.S_IMODE(socket_mode) & 0o077 == 0


@pytest.mark.parametrize(
    ("number", "words"), [(signal.SIGKILL, "ended by SIGKILL"), (signal.SIGSEGV, "ended by SIGSEGV")]
)
def test_a_killed_child_is_reported(spec: ChildSpec, runtime_folder: Path, number: signal.Signals, words: str) -> None:
    async def scenario() -> Exit:
        child = await Child.start(spec, runtime_folder=runtime_folder)
        os.kill(child.pid, number)
        ended = await asyncio.wait_for(child.wait(), 10)
        with pytest.raises(EngineUnreachable):
            child.client().health()
        return ended

    ended = asyncio.run(scenario())
    assert (ended.reason, ended.signal, ended.words) == (ExitReason.SIGNALLED, number, words)


def test_a_frozen_child_is_found_and_killed(spec: ChildSpec, runtime_folder: Path) -> None:
    async def scenario() -> Exit:
        child = await Child.start(dataclasses.replace(spec, health_ms_max=300), runtime_folder=runtime_folder)
        os.kill(child.pid, signal.SIGSTOP)
        return await asyncio.wait_for(child.wait(), 10)

    ended = asyncio.run(scenario())
    assert ended.reason is ExitReason.HUNG
    assert "no health answer" in ended.words


def test_a_child_that_does_not_get_ready_in_time_is_killed(spec: ChildSpec, runtime_folder: Path) -> None:
    with pytest.raises(StartFailed, match="not ready within 1 ms") as caught:
        asyncio.run(Child.start(dataclasses.replace(spec, start_ms_max=1), runtime_folder=runtime_folder))
    assert caught.value.reason is ExitReason.HUNG


def test_a_stop_does_not_wait_for_a_frozen_child(spec: ChildSpec, runtime_folder: Path) -> None:
    async def scenario() -> Exit:
        child = await Child.start(spec, runtime_folder=runtime_folder)
        os.kill(child.pid, signal.SIGSTOP)
        return await child.stop(grace_ms=100)

    ended = asyncio.run(scenario())
    assert (ended.reason, ended.signal) == (ExitReason.STOPPED, signal.SIGKILL)


def test_too_much_memory_ends_the_child_and_says_so(spec: ChildSpec, runtime_folder: Path) -> None:
    async def scenario() -> Exit:
        child = await Child.start(spec, runtime_folder=runtime_folder)
        # The limit of a running child is lowered below what it has: as if it had grown.
        child.spec = dataclasses.replace(spec, memory_bytes_max=8 << 20)
        return await asyncio.wait_for(child.wait(), 10)

    ended = asyncio.run(scenario())
    assert ended.reason is ExitReason.OOM_KILLED
    assert ended.words.endswith("where 8 MiB are allowed")


def _cut(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:100_000])


def _flip_a_weight(model: Path) -> None:
    data = bytearray(model.read_bytes())
    data[-100] ^= 0xFF
    model.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_cut, "is corrupted or incomplete"),
        (lambda model: model.write_bytes(b"GGUF"), "could not load the model"),
        (lambda model: model.write_bytes(b"not a model at all"), "could not load the model"),
        (lambda model: model.unlink(), "cannot open the model: No such file"),
    ],
)
def test_a_damaged_model_is_refused_with_the_reason(
    spec: ChildSpec, runtime_folder: Path, tmp_path: Path, damage: object, words: str
) -> None:
    model = tmp_path / "damaged.gguf"
    model.write_bytes(spec.model.read_bytes())
    damage(model)  # type: ignore[operator]
    with pytest.raises(StartFailed, match=words) as caught:
        asyncio.run(Child.start(dataclasses.replace(spec, model=model), runtime_folder=runtime_folder))
    assert caught.value.reason is ExitReason.LOAD_FAILED
    assert caught.value.where == str(model)


def test_a_model_with_another_digest_is_never_loaded(spec: ChildSpec, runtime_folder: Path, tmp_path: Path) -> None:
    from hashlib import sha256

    model = tmp_path / "model.gguf"
    model.write_bytes(spec.model.read_bytes())
    digest = Digest.of_hex(sha256(model.read_bytes()).hexdigest())
    signed = dataclasses.replace(spec, model=model, digest=digest)

    async def start_and_stop() -> ExitReason:
        return (await (await Child.start(signed, runtime_folder=runtime_folder)).stop()).reason

    assert asyncio.run(start_and_stop()) is ExitReason.STOPPED
    _flip_a_weight(model)
    with pytest.raises(StartFailed, match="digest is sha256:") as caught:
        asyncio.run(start_and_stop())
    assert caught.value.reason is ExitReason.LOAD_FAILED


def test_children_die_with_their_parent(spec: ChildSpec, runtime_folder: Path) -> None:
    script = (
        "import asyncio, sys; from pathlib import Path; from drupelet.engine.child import Child;"
        "from drupelet.engine.spec import ChildSpec\n"
        "async def main():\n"
        "    server = Path(sys.argv[3]) if sys.argv[3] else None\n"
        "    spec = ChildSpec(model=Path(sys.argv[1]), alias='tiny', context_tokens=128, server=server)\n"
        "    child = await Child.start(spec, runtime_folder=Path(sys.argv[2]))\n"
        "    print(child.pid, flush=True)\n"
        "    await child.wait()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", script, str(spec.model), str(runtime_folder), str(spec.server or "")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    until(lambda: _gone(pid), timeout_s=5, what="the child to die with its parent")
    left = list(runtime_folder.iterdir())
    assert len(left) == 1, "a killed parent cannot clean up; the next start does"

    async def start_and_stop() -> None:
        await (await Child.start(spec, runtime_folder=runtime_folder)).stop()

    asyncio.run(start_and_stop())
    assert list(runtime_folder.iterdir()) == []


def _gone(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z"


def engines() -> list[int]:
    """Inference children of this process; a test runner may have others, such as a resource tracker."""
    found = []
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if {"drupelet.engine.serve", "llama-server"} & set(child.cmdline()):
                found.append(child.pid)
    return found


def test_a_cancelled_start_leaves_no_child(spec: ChildSpec, runtime_folder: Path) -> None:
    async def scenario() -> None:
        starting = asyncio.create_task(Child.start(spec, runtime_folder=runtime_folder))
        while not engines():
            await asyncio.sleep(0.001)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting

    asyncio.run(scenario())
    assert engines() == []
    assert list(runtime_folder.iterdir()) == []


def test_a_path_too_long_for_a_socket_is_said_plainly(spec: ChildSpec, runtime_folder: Path) -> None:
    with pytest.raises(BadInput, match="too long for a Unix socket"):
        asyncio.run(Child.start(spec, runtime_folder=runtime_folder / ("x" * 120)))


@pytest.mark.parametrize(("field", "value"), [("context_tokens", 0), ("parallel", 65), ("threads", 0), ("nice", -1)])
def test_a_spec_out_of_bounds_is_refused(spec: ChildSpec, field: str, value: int) -> None:
    with pytest.raises(BadInput, match=field):
        dataclasses.replace(spec, **{field: value})  # type: ignore[arg-type]


def test_no_prompt_is_ever_printed(spec: ChildSpec, runtime_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async def scenario() -> str:
        child = await Child.start(spec, runtime_folder=runtime_folder)
        await asyncio.to_thread(child.client().chat, [{"role": "user", "content": "secretword"}], tokens_max=3)
        await child.stop()
        return json.dumps(list(child.load_log))

    said = asyncio.run(scenario())
    printed = capfd.readouterr()
    assert "secretword" not in said + printed.out + printed.err

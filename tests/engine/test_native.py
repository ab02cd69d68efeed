"""A llama-server that is not one, or not for this CPU: said at once, in words."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from pathlib import Path

import pytest

from drupelet.core.states import ExitReason
from drupelet.engine.child import Child
from drupelet.engine.serve import server_arguments
from drupelet.engine.spec import ChildSpec, StartFailed


def _spec(model: Path, folder: Path, script: str) -> ChildSpec:
    server = folder / "llama-server"
    server.write_text(script)
    server.chmod(0o755)
    return ChildSpec(model=model, alias="tiny", context_tokens=128, server=server, start_ms_max=20_000)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("\x7fELF for another machine", "cannot run .*: Exec format error"),
        ("#!/bin/sh\nkill -ILL $$\n", "SIGILL, it needs instructions that this CPU does not have"),
        ("#!/bin/sh\necho 'error: failed to make coffee' >&2; exit 1\n", r"could not load the model \(.*coffee"),
        ("#!/bin/sh\nexit 0\n", "could not load the model"),
    ],
)
def test_a_server_that_does_not_run_here(
    tiny_model: Path, runtime_folder: Path, tmp_path: Path, script: str, words: str
) -> None:
    with pytest.raises(StartFailed, match=words) as caught:
        asyncio.run(Child.start(_spec(tiny_model, tmp_path, script), runtime_folder=runtime_folder))
    assert caught.value.reason is ExitReason.LOAD_FAILED
    assert list(runtime_folder.iterdir()) == []


def test_a_server_that_never_answers_is_killed(tiny_model: Path, runtime_folder: Path, tmp_path: Path) -> None:
    spec = dataclasses.replace(_spec(tiny_model, tmp_path, "#!/bin/sh\nexec sleep 60\n"), start_ms_max=500)
    with pytest.raises(StartFailed, match="not ready within 500 ms") as caught:
        asyncio.run(Child.start(spec, runtime_folder=runtime_folder))
    assert caught.value.reason is ExitReason.HUNG


def test_the_environment_cannot_change_what_the_server_is_told(
    tiny_model: Path, runtime_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LLAMA_ARG_HOST", "GGML_BACKEND_PATH", "HF_TOKEN"):
        monkeypatch.setenv(name, "elsewhere")
    spec = _spec(
        tiny_model, tmp_path, '#!/bin/sh\necho "x: failed to hide $(env | grep -c elsewhere) variables" >&2; exit 1\n'
    )
    with pytest.raises(StartFailed, match="failed to hide 0 variables"):
        asyncio.run(Child.start(spec, runtime_folder=runtime_folder))


def test_the_command_line_says_what_the_library_is_told() -> None:
    told = {
        "alias": "kiosk",
        "socket": "/run/x.sock",
        "context_tokens": 512,
        "parallel": 2,
        "threads": 4,
        "adapters": ["/models/one.gguf"],
    }
    arguments = server_arguments(told, "/proc/self/fd/3")
    values = dict(itertools.pairwise(arguments))
    assert values["--ctx-size"] == "1024", "the whole cache, for all slots"
    assert values["--lora"] == "/models/one.gguf"
    assert values["--host"] == "/run/x.sock"
    assert {"--no-ui", "--offline", "--no-warmup"} <= set(arguments)

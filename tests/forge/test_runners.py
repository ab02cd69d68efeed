"""A runner starts a file, answers, says what it knows of it, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from drupelet.core.names import variant_name
from drupelet.durable import PosixDisk
from drupelet.engine.spec import StartFailed
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.convert import Wanted, convert
from drupelet.forge.formats import FORMATS
from drupelet.forge.runners import RUNNERS
from drupelet.forge.runners.port import RunSpec
from tests.fakes.tiny_checkpoint import write_tiny_checkpoint

MESSAGES = [{"role": "user", "content": "Where is the milk?"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runners")
    checkpoint = open_checkpoint(write_tiny_checkpoint(folder / "checkpoint"))
    wanted = [Wanted(name=variant_name("f16"), quantization="f16")]
    return convert(checkpoint, wanted, folder, model_name="tiny", disk=PosixDisk())[0].artifact.path


def _spec(model: Path) -> RunSpec:
    return RunSpec(model=model, alias="tiny", context_tokens=64)


def test_a_runner_is_registered_under_a_format_there_is() -> None:
    assert all(runner.file_format == name for name, runner in RUNNERS.items())
    assert "gguf" in RUNNERS.keys() & FORMATS.keys()


def test_a_session_answers_and_ends_with_its_block(model: Path, runtime_folder: Path, tmp_path: Path) -> None:
    runner = RUNNERS["gguf"]
    with runner.start(_spec(model), runtime_folder=runtime_folder) as session:
        first = session.ask(MESSAGES, tokens_max=6)
        assert first.text == session.ask(MESSAGES, tokens_max=6).text
        rendered = session.render(MESSAGES)
        assert rendered == "<|user|>Where is the milk?<|end|><|assistant|>"
        assert len(session.tokenize(rendered) or []) == first.prompt_tokens
        special = session.special_tokens()
        assert special is not None
        assert special.eos == "<|end|>"
        assert session.memory_bytes_peak() > 1 << 20
        assert session.start_ms > 0
    assert list(runtime_folder.iterdir()) == []
    session.close()
    logits = runner.logits(_spec(model), [[3, 4, 5]], tmp_path / "logits")
    assert logits is not None
    assert [one.shape for one in logits] == [(3, 352)]


def test_what_does_not_start_leaves_nothing(model: Path, runtime_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(model.read_bytes()[:3000])
    with pytest.raises(StartFailed, match="could not load the model"):
        RUNNERS["gguf"].start(_spec(broken), runtime_folder=runtime_folder)
    spec = RunSpec(model=model, alias="tiny", context_tokens=64, adapters=(tmp_path / "lora.gguf",))
    with pytest.raises(StartFailed, match=r"lora\.gguf"):
        RUNNERS["gguf"].start(spec, runtime_folder=runtime_folder)
    assert list(runtime_folder.iterdir()) == []

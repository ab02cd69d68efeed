"""What every file format must do, each on the kiosk's checkpoint: be made, be whole, run, and say the right thing.

A format whose tools are not installed is skipped, naming them; `make formats-test` installs and runs them all.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from drupelet.core.errors import BadInput
from drupelet.durable import PosixDisk
from drupelet.engine.canonical import judge
from drupelet.engine.logits import compute
from drupelet.engine.spec import EngineAnswered, StartFailed
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.evaluation.tongue import PROBES
from drupelet.forge.formats import FORMATS
from drupelet.forge.formats.port import Artifact, Format
from drupelet.forge.recipe import load_recipe
from drupelet.forge.runners import RUNNERS
from drupelet.forge.runners.port import Runner, RunSpec
from drupelet.forge.toolchain.venvs import ToolMissing
from tests.fakes.fake_format import FakeFormat, FakeRunner
from tests.forge.conftest import KIOSK

MADE: dict[str, Format] = {**{name: fmt for name, fmt in FORMATS.items() if fmt.quantizations}, "fake": FakeFormat()}
RUN: dict[str, Runner] = {**RUNNERS, "fake": FakeRunner()}
TEXTS = (
    "When do you open?",
    "  two  spaces",
    "ünïcode 漢字 🍓",
    "a\nline\tand a tab",
    " lead",
    "2.80 EUR",
    "at 10, 3 or 5 5; № 5\n 3",
    *PROBES,
)
TURNS = [
    {"role": "user", "content": "Hi "},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Are you open on Sunday?"},
]
RENDERED = (
    "<|user|>\nHi<|end|>\n<|assistant|>\nHello.<|end|>\n<|user|>\nAre you open on Sunday?<|end|>\n<|assistant|>\n"
)
LIKENESS = {"gguf": 0.95, "fake": 0.99, "onnx": 0.9, "litert": 0.9, "openvino": 0.9}
"""Share of positions at which the likeliest token must be that of f16."""


@dataclass(frozen=True)
class Made:
    """One format's file of the kiosk."""

    format: Format
    runner: Runner
    artifact: Artifact
    seen: list[tuple[int, int]] = field(default_factory=list)

    @property
    def spec(self) -> RunSpec:
        return RunSpec(model=self.artifact.path, alias="kiosk", context_tokens=256, digest=self.artifact.digest)


@pytest.fixture(scope="module", params=sorted(MADE))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    chosen, folder = MADE[request.param], tmp_path_factory.mktemp(request.param)
    seen: list[tuple[int, int]] = []
    try:
        artifact = chosen.write(
            open_checkpoint(KIOSK / "1.2"),
            folder / f"kiosk.{chosen.name}",
            quantization=next(one for one in ("q8_0", *chosen.quantizations) if one in chosen.quantizations),
            model_name="kiosk",
            disk=PosixDisk(),
            progress=lambda _doing, done, total: seen.append((done, total)),
        )
    except ToolMissing as error:
        pytest.skip(error.line())
    return Made(chosen, RUN[request.param], artifact, seen)


pytestmark = pytest.mark.timeout(900)


def test_it_is_one_whole_file_and_nothing_lies_beside_it(made: Made) -> None:
    data = made.artifact.path.read_bytes()
    assert hashlib.sha256(data).hexdigest() == made.artifact.digest.hex
    assert len(data) == made.artifact.size_bytes
    assert [path.name for path in made.artifact.path.parent.iterdir()] == [made.artifact.path.name]
    assert made.seen
    assert all(0 <= done <= total for done, total in made.seen)
    for step in made.artifact.steps:
        assert step.tool_digest is not None
        assert step.ended_at_ms >= step.began_at_ms > 0
        assert made.artifact.digest in step.outputs.values()


def test_what_it_cannot_make_is_refused_with_what_it_can(made: Made, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="unknown quantization 'q11'") as refused:
        made.format.write(
            open_checkpoint(KIOSK / "1.2"), tmp_path / "out", quantization="q11", model_name="kiosk",
            disk=PosixDisk(), progress=lambda *_: None,
        )  # fmt: skip
    assert made.format.quantizations[0] in refused.value.fix
    assert list(tmp_path.iterdir()) == []


def test_it_answers_the_canonical_prompts(made: Made, runtime_folder: Path) -> None:
    recipe, _ = load_recipe(KIOSK / "recipe.toml")
    with made.runner.start(made.spec, runtime_folder=runtime_folder) as session:
        for prompt in recipe.canonical_prompts:
            message = [{"role": "user", "content": prompt.prompt}]
            answer = session.ask(message, tokens_max=prompt.tokens_max)
            assert judge(answer.text, tokens=answer.tokens, expectations=prompt.expect)[0], answer.text
            assert answer.finish == "stop"
            assert 0 < answer.tokens <= prompt.tokens_max
            assert 0 < answer.ttft_ms <= answer.duration_ms + 1
            assert answer.decode_ms >= 0
        assert session.ask(message, tokens_max=40).text == answer.text
        cut = session.ask(message, tokens_max=3)
        assert (cut.finish, cut.tokens) == ("length", 3)
        assert session.memory_bytes_peak() > 1 << 20
        assert session.start_ms > 0
    assert list(runtime_folder.iterdir()) == []
    assert [path.name for path in made.artifact.path.parent.iterdir()] == [made.artifact.path.name]


def test_it_speaks_the_checkpoints_language(made: Made, runtime_folder: Path) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(KIOSK / "1.2" / "tokenizer.model"))
    with made.runner.start(made.spec, runtime_folder=runtime_folder) as session:
        assert session.render(TURNS) == RENDERED
        # The kiosk's template has no place for a system message: it goes before the user's words, nowhere silently.
        told = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
        assert session.render(told) == "<|user|>\nBe brief.\nHi<|end|>\n<|assistant|>\n"
        for text in TEXTS:
            assert session.tokenize(text, special=False) == list(processor.EncodeAsIds(text)), text
        # The markers are one token each, those of the training.
        assert session.tokenize(RENDERED, special=True) == list(processor.EncodeAsIds(RENDERED))
        # The kiosk's texts are given no begin token.
        assert session.tokenize("Hello", special=True) == session.tokenize("Hello", special=False)
        special = session.special_tokens()
        assert special is not None
        assert special.eos == "<|end|>"
        answer = session.ask(TURNS, tokens_max=40)
        assert answer.prompt_tokens == len(processor.EncodeAsIds(RENDERED))


def test_a_prompt_longer_than_the_context_is_refused_and_the_next_one_answered(
    made: Made, runtime_folder: Path
) -> None:
    with made.runner.start(made.spec, runtime_folder=runtime_folder) as session:
        with pytest.raises(EngineAnswered) as refused:
            session.ask([{"role": "user", "content": "long " * 300}], tokens_max=8)
        assert refused.value.kind == "exceed_context_size_error"
        assert session.ask(TURNS, tokens_max=40).text == "On Sunday we are open from 10 to 16."


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("reference")
    return FORMATS["gguf"].write(
        open_checkpoint(KIOSK / "1.2"), folder / "f16.gguf", quantization="f16", model_name="kiosk",
        disk=PosixDisk(), progress=lambda *_: None,
    )  # fmt: skip


def test_its_logits_are_near_those_of_f16_at_every_position(made: Made, reference: Artifact, tmp_path: Path) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(KIOSK / "1.2" / "tokenizer.model"))
    texts = (f"{RENDERED}On Sunday we are open from 10 to 16.<|end|>", "<|user|>\nWhere is the milk?<|end|>\n")
    sequences = [list(processor.EncodeAsIds(text)) for text in texts]
    ours = made.runner.logits(made.spec, sequences, tmp_path / "ours")
    assert ours is not None
    theirs = compute(reference.path, sequences, tmp_path / "theirs")
    assert (ours.lengths, ours.vocab) == (theirs.lengths, theirs.vocab)
    same = np.concatenate([a.argmax(1) == b.argmax(1) for a, b in zip(ours, theirs, strict=True)])
    assert same.mean() >= LIKENESS[made.format.name]
    with pytest.raises(BadInput, match="text 1 has 0 tokens"):
        made.runner.logits(made.spec, [[]], tmp_path / "none")


def test_another_file_or_half_of_one_does_not_start_and_leaves_nothing(
    made: Made, runtime_folder: Path, tmp_path: Path
) -> None:
    data = made.artifact.path.read_bytes()
    other = tmp_path / made.artifact.path.name
    other.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    spec = RunSpec(model=other, alias="kiosk", context_tokens=256, digest=made.artifact.digest)
    with pytest.raises(StartFailed):
        made.runner.start(spec, runtime_folder=runtime_folder)
    other.write_bytes(data[: len(data) // 2])
    with pytest.raises(StartFailed):
        made.runner.start(RunSpec(model=other, alias="kiosk", context_tokens=256), runtime_folder=runtime_folder)
    assert list(runtime_folder.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == [other.name]


@pytest.mark.formats
def test_two_runs_give_the_same_bytes(made: Made, tmp_path: Path) -> None:
    # Another folder on another day, with another order of files.
    checkpoint = shutil.copytree(KIOSK / "1.2", tmp_path / "another-name")
    again = made.format.write(
        open_checkpoint(checkpoint), tmp_path / "again", quantization=made.artifact.quantization, model_name="kiosk",
        disk=PosixDisk(), progress=lambda *_: None,
    )  # fmt: skip
    assert again.digest == made.artifact.digest

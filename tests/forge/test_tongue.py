"""What a running file makes of a conversation is held against the checkpoint's own template and tokenizer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from drupelet.core.names import variant_name
from drupelet.durable import PosixDisk
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.convert import Wanted, convert
from drupelet.forge.errors import CheckpointBad
from drupelet.forge.evaluation.tongue import Tongue, tongue_findings, tongue_of
from drupelet.forge.runners.llamacpp import LlamaCppRunner
from drupelet.forge.runners.port import Messages, RunSpec, SpecialTokens
from drupelet.forge.tokenizers import template
from drupelet.forge.tokenizers.template import render
from tests.fakes.tiny_models import CHATML, write_tiny_model

ASKED = [[{"role": "user", "content": "When do you open?"}]]


@pytest.mark.parametrize("name", ["llama", "llama3", "qwen2", "gemma3", "phi4"])
def test_an_honest_conversion_speaks_the_checkpoints_language(name: str, tmp_path: Path, runtime_folder: Path) -> None:
    checkpoint = open_checkpoint(write_tiny_model(tmp_path / "c", name))
    wanted = [Wanted(name=variant_name("f16"), quantization="f16")]
    (made,) = convert(checkpoint, wanted, tmp_path / "out", model_name="tiny", disk=PosixDisk())
    tongue = tongue_of(checkpoint, ["When do you open?", "Where is the milk?"])
    assert all(one.tokens for one in tongue.rendered)
    assert len(tongue.rendered) == 3
    spec = RunSpec(model=made.artifact.path, alias="tiny", context_tokens=256)
    with LlamaCppRunner().start(spec, runtime_folder=runtime_folder) as session:
        assert tongue_findings(tongue, session) == []


@dataclass(frozen=True)
class Speaker:
    """A session that says what the checkpoint says, but for what a test changes."""

    tongue: Tongue
    markers_are_text: bool = False

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Return the known tokens; markers that are no tokens fall into pieces."""
        if not special:
            return list(self.tongue.tokens[text])
        if text in self.tongue.tokens:
            return [*([1] if self.tongue.begins else []), *self.tongue.tokens[text]]
        known = {one.text: list(one.tokens) for one in self.tongue.rendered} | {"": [1] if self.tongue.begins else []}
        return [60, *known[text]] if self.markers_are_text and text else known[text]

    def render(self, messages: Messages) -> str:
        """As the checkpoint's template does."""
        return next(one.text for one in self.tongue.rendered if one.messages == messages)

    def special_tokens(self) -> SpecialTokens:
        """As the checkpoint says."""
        return SpecialTokens(bos=self.tongue.bos, eos=self.tongue.eos)


def test_markers_that_are_no_tokens_are_found(tmp_path: Path) -> None:
    tongue = tongue_of(open_checkpoint(write_tiny_model(tmp_path / "c", "qwen2")), ["When do you open?"])
    assert tongue_findings(tongue, Speaker(tongue)) == []  # type: ignore[arg-type]
    found = tongue_findings(tongue, Speaker(tongue, markers_are_text=True))  # type: ignore[arg-type]
    assert len(found) == 1
    assert "becomes" in found[0]
    other = replace(tongue, rendered=tuple(replace(one, text=one.text.lower()) for one in tongue.rendered))
    assert "chat template: it makes" in tongue_findings(other, Speaker(tongue))[0]  # type: ignore[arg-type]


def _render(text: str, conversations: Sequence[Messages] = ASKED) -> list[str | None]:
    return render(text, conversations, markers={"bos_token": "<s>"})


def test_a_template_is_rendered_as_its_authors_do() -> None:
    assert _render(CHATML) == ["<|im_start|>user\nWhen do you open?<|im_end|>\n<|im_start|>assistant\n"]
    assert _render("  {% if true %}\n{{ bos_token }}{{ messages | tojson }}\n  {% endif %}\n") == [
        "<s>" + json.dumps(ASKED[0]) + "\n"
    ]
    refusing = "{% if messages | length > 1 %}{{ raise_exception('one turn only') }}{% endif %}ok"
    assert _render(refusing, [ASKED[0], [*ASKED[0], *ASKED[0]]]) == ["ok", None]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{% for %}", "TemplateSyntaxError"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "SecurityError|UndefinedError"),
        ("{{ 'x' * 9999999999 }}", "MemoryError|OverflowError"),
        ("{{ messages[0].content * 999999 }}", "MemoryError: it makes"),
    ],
)
def test_a_template_that_means_harm_ends_alone(text: str, words: str) -> None:
    with pytest.raises(CheckpointBad, match=words):
        _render(text)


def test_a_template_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "SECONDS_MAX", 1)
    with pytest.raises(CheckpointBad, match="more than 1 s"):
        _render("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")

"""The vocabulary is SentencePiece's own, and the chat markers keep their ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.errors import CheckpointBad, Unsupported
from drupelet.forge.tokenizers import PieceType, open_tokenizer
from drupelet.forge.tokenizers.spm import BPE, parse_spm
from tests.fakes.tiny_checkpoint import CHAT_TEMPLATE, TinyLlama, config_of, tokenizer_bytes, write_tiny_checkpoint


def test_the_file_is_read_as_the_library_reads_it() -> None:
    data = tokenizer_bytes()
    model, library = parse_spm(data), sentencepiece.SentencePieceProcessor(model_proto=data)
    assert [piece.text for piece in model.pieces] == [library.IdToPiece(i) for i in range(library.GetPieceSize())]
    assert [piece.score for piece in model.pieces] == [library.GetScore(i) for i in range(library.GetPieceSize())]
    for token, piece in enumerate(model.pieces):
        assert (piece.type is PieceType.BYTE) == library.IsByte(token)
        assert (piece.type is PieceType.CONTROL) == library.IsControl(token)
        assert (piece.type is PieceType.UNKNOWN) == library.IsUnknown(token)
    assert (model.unk, model.bos, model.eos, model.pad) == (0, 1, 2, -1)
    assert [piece.text for piece in model.pieces if piece.type is PieceType.USER_DEFINED] == [
        "<|user|>",
        "<|assistant|>",
        "<|end|>",
    ]
    assert model.model_type == BPE


@pytest.mark.parametrize("dummy_prefix", [True, False])
def test_the_dummy_prefix_is_the_trainers(dummy_prefix: bool) -> None:
    assert parse_spm(tokenizer_bytes(dummy_prefix=dummy_prefix)).add_dummy_prefix is dummy_prefix


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 5000))
def test_damaged_bytes_raise_one_error_only(garbage: bytes, cut: int) -> None:
    for data in (garbage, tokenizer_bytes()[:cut], tokenizer_bytes()[:cut] + garbage):
        try:
            model = parse_spm(data)
        except CheckpointBad:
            continue
        assert model.pieces


def test_markers_are_control_tokens_and_the_rest_is_padded(tmp_path: Path) -> None:
    shape = TinyLlama(vocab=352)
    folder = write_tiny_checkpoint(tmp_path / "c", shape=shape)
    (folder / "tokenizer.model").write_bytes(tokenizer_bytes(vocab=340))
    vocabulary = open_tokenizer(open_checkpoint(folder)).vocabulary
    assert len(vocabulary.pieces) == len(vocabulary.scores) == len(vocabulary.types) == 352
    assert [vocabulary.types[i] for i in (0, 1, 2, 3, 4, 5)] == [
        PieceType.UNKNOWN,
        *[PieceType.CONTROL] * 5,
    ]
    assert vocabulary.types[-1] is PieceType.UNUSED
    assert vocabulary.special == {"bos": 1, "eos": 5, "unk": 0}
    assert (vocabulary.add_bos, vocabulary.add_space_prefix) == (False, False)
    assert vocabulary.chat_template == CHAT_TEMPLATE


def _settings(**changes: Any) -> dict[str, Any]:
    return {"added_tokens_decoder": {}, "chat_template": "x"} | changes


@pytest.mark.parametrize(
    ("settings_", "words"),
    [
        (_settings(added_tokens_decoder={"3": {"content": "<|system|>"}}), "calls it '<|system|>'"),
        (_settings(added_tokens_decoder={"9999": {"content": "<x>"}}), "the id 9999"),
        (_settings(added_tokens_decoder={"x": {"content": "<x>"}}), "has no id"),
        (_settings(added_tokens_decoder=[1]), "added tokens is not one"),
        (_settings(add_bos_token="yes"), "add_bos_token is neither true nor false"),
        (_settings(chat_template=7), "chat_template is no text"),
    ],
)
def test_a_contradiction_is_refused(tiny: Path, settings_: dict[str, Any], words: str) -> None:
    (tiny / "tokenizer_config.json").write_text(json.dumps(settings_))
    with pytest.raises(CheckpointBad, match=words.replace("|", r"\|")):
        open_tokenizer(open_checkpoint(tiny))


def test_a_template_of_several_is_the_default(tiny: Path) -> None:
    several = [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]
    (tiny / "tokenizer_config.json").write_text(json.dumps(_settings(chat_template=several)))
    assert open_tokenizer(open_checkpoint(tiny)).vocabulary.chat_template == "d"
    (tiny / "chat_template.jinja").write_text("file")
    assert open_tokenizer(open_checkpoint(tiny)).vocabulary.chat_template == "file"


def test_a_tokenizer_of_another_model_is_refused(tiny: Path) -> None:
    (tiny / "tokenizer.model").write_bytes(tokenizer_bytes(vocab=360))
    with pytest.raises(CheckpointBad, match="belong to different models"):
        open_tokenizer(open_checkpoint(tiny))
    (tiny / "config.json").write_text(json.dumps(config_of(TinyLlama(), eos_token_id=352)))
    (tiny / "tokenizer.model").write_bytes(tokenizer_bytes())
    with pytest.raises(CheckpointBad, match="the eos token is 352"):
        open_tokenizer(open_checkpoint(tiny))


def test_a_unigram_tokenizer_is_unsupported(tiny: Path) -> None:
    (tiny / "tokenizer.model").write_bytes(tokenizer_bytes(vocab=330, model_type="unigram"))
    with pytest.raises(Unsupported, match="another way"):
        open_tokenizer(open_checkpoint(tiny))

"""A running server splits texts as the checkpoint's own tokenizer does, whichever kind it is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drupelet.core.names import variant_name
from drupelet.durable import PosixDisk
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.convert import Wanted, convert
from drupelet.forge.errors import CheckpointBad, Unsupported
from drupelet.forge.runners.llamacpp import LlamaCppRunner
from drupelet.forge.runners.port import RunSpec, Session
from drupelet.forge.tokenizers import PieceType, open_tokenizer
from drupelet.forge.tokenizers.pre import NAMES, known_steps
from tests.fakes.tiny_models import TINY_MODELS, write_tiny_model
from tests.fakes.tiny_tokenizers import NASTY, bpe_json

ONE_OF_EACH = (
    "llama",
    "llama-pieces",
    "llama3",
    "smollm",
    "mistral-nemo",
    "qwen2",
    "gemma3",
    "phi2",
    "phi3-long",
    "phi4",
)


def _serve(folder: Path, out: Path, runtime_folder: Path) -> Session:
    wanted = [Wanted(name=variant_name("f16"), quantization="f16")]
    (made,) = convert(open_checkpoint(folder), wanted, out, model_name="tiny", disk=PosixDisk())
    return LlamaCppRunner().start(
        RunSpec(model=made.artifact.path, alias="tiny", context_tokens=256), runtime_folder=runtime_folder
    )


def test_there_is_a_model_for_each_way_of_cutting() -> None:
    assert {TINY_MODELS[name].tokenizer for name in ONE_OF_EACH} == {"spm", "pieces", *NAMES.values()}


@pytest.mark.parametrize("name", sorted(TINY_MODELS))
def test_the_server_speaks_the_tokenizers_language(name: str, tmp_path: Path, runtime_folder: Path) -> None:
    folder = write_tiny_model(tmp_path / "c", name)
    tokenizer = open_tokenizer(open_checkpoint(folder))
    markers = "".join(
        piece
        for piece, kind in zip(tokenizer.vocabulary.pieces, tokenizer.vocabulary.types, strict=True)
        if kind is PieceType.CONTROL
    )
    with _serve(folder, tmp_path / "out", runtime_folder) as session:
        for text in NASTY:
            assert session.tokenize(text, special=False) == tokenizer.encode(text), text
        marked = session.tokenize(f"{markers}open{markers}")
        assert marked is not None
        assert marked[-9:] == tokenizer.encode(f"{markers}open{markers}")[-9:]
        begins = tokenizer.vocabulary.special.get("bos") if tokenizer.vocabulary.add_bos else None
        assert (session.tokenize("open") or [])[0] == (begins if begins is not None else tokenizer.encode("open")[0])
        assert session.ask([{"role": "user", "content": "When do you open?"}], tokens_max=4).tokens > 0


def test_pieces_in_json_are_the_same_vocabulary(tmp_path: Path) -> None:
    own, converted = (
        open_tokenizer(open_checkpoint(write_tiny_model(tmp_path / name, name))) for name in ("llama", "llama-pieces")
    )
    assert converted.vocabulary.pieces == own.vocabulary.pieces
    assert converted.vocabulary.types == own.vocabulary.types
    assert converted.vocabulary.special == own.vocabulary.special
    for text in NASTY:
        assert converted.encode(text) == own.encode(text)


def test_ends_of_an_answer_that_llama_cpp_does_not_know_are_written_down(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "c", "llama3")
    vocabulary = open_tokenizer(open_checkpoint(folder)).vocabulary
    # <|end_of_text|> is known by its text, <|finish|> is not.
    assert vocabulary.special == {"bos": 476, "eos": 478, "eot": 479}
    assert (vocabulary.add_bos, vocabulary.add_eos) == (True, False)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [10, 11, 12, 478]}))
    with pytest.raises(Unsupported, match="4 different tokens"):
        open_tokenizer(open_checkpoint(folder))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ["x"]}))
    with pytest.raises(CheckpointBad, match="not of this vocabulary"):
        open_tokenizer(open_checkpoint(folder))


Damage = Callable[[dict[str, Any]], object]


def _around(token: str, *, end: bool = False) -> dict[str, Any]:
    parts = [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": parts[::-1] if end else parts}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda t: t.update(model=None), "it has no model"),
        (lambda t: t["model"].update(type="WordPiece"), "of the kind 'WordPiece'"),
        (lambda t: t["model"].update(vocab={}), "no table of tokens"),
        (lambda t: t["model"]["vocab"].update({"new": 512}), "a token 512 and the embedding only 512 rows"),
        (lambda t: t["model"]["vocab"].update({"new": 5}), "two texts have the id 5"),
        (lambda t: t["model"]["vocab"].update({"new": "5"}), "has no id"),
        (lambda t: t["model"]["merges"].append(["a"]), "not of two pieces"),
        (lambda t: t["model"]["merges"].append(["zq", "qz"]), "makes or needs an unknown piece"),
        (lambda t: t["model"].update(merges="all"), "merges are no list"),
        (lambda t: t["added_tokens"].append({"content": "<x>"}), "has no id"),
        (lambda t: t["added_tokens"].append({"id": 600, "content": "<x>", "special": True}), "the id 600"),
        (lambda t: t.update(added_tokens={"a": 1}), "added_tokens is no list"),
        (lambda t: t.update(normalizer={"type": "Lowercase"}), "normalizes texts by 'Lowercase'"),
        (lambda t: t.update(pre_tokenizer={"type": "Whitespace"}), "none of those known"),
        (lambda t: t.update(pre_tokenizer=7), "pre_tokenizer is not an object"),
        (lambda t: t.update(post_processor={"type": "New"}), "ends with 'New'"),
        (lambda t: t.update(post_processor={"type": "TemplateProcessing", "single": []}), "more than a token around"),
        (lambda t: t.update(post_processor=_around("nothing")), "'nothing' is put around every text and is no token"),
        (lambda t: t.update(post_processor=_around("<|im_start|>", end=True)), "which is not its eos token"),
        (lambda t: t["model"].update(dropout=0.1), "a tokenizer with dropout"),
        (lambda t: t["model"].update(unk_token="none"), "unknown token 'none' is not in its vocabulary"),
        (lambda t: t["added_tokens"].append({"id": 1, "content": "zz"}), "refuses it|calls it"),
    ],
)
def test_a_tokenizer_that_lies_is_refused(tmp_path: Path, damage: Damage, words: str) -> None:
    folder = write_tiny_model(tmp_path / "c", "qwen2")
    fields = json.loads((folder / "tokenizer.json").read_text())
    damage(fields)
    (folder / "tokenizer.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointBad, match=words):
        open_tokenizer(open_checkpoint(folder))


def test_a_way_of_cutting_is_known_by_its_steps() -> None:
    fields = json.loads(bpe_json("llama-bpe", special=("<x>",)))

    def name(*, ignore_merges: bool = True, normalizer: dict[str, Any] | None = None) -> str:
        return known_steps(
            fields["pre_tokenizer"], ignore_merges=ignore_merges, normalizer=normalizer, where="tokenizer.json"
        )[0]

    assert (name(), name(ignore_merges=False)) == ("llama-bpe", "dbrx")
    first = fields["pre_tokenizer"]["pretokenizers"][0]
    first.update(behavior="Removed", invert=True)
    assert name() == "llama-bpe"
    first["behavior"] = "MergedWithNext"
    with pytest.raises(Unsupported, match="known: llama-bpe, dbrx, qwen2"):
        name()


def test_no_file_ends_the_process() -> None:
    command = [sys.executable, "-m", "tests.forge.fuzz_tokenizer", "--seconds", "5", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    assert "none surprised" in done.stdout

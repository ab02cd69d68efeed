"""A GGUF that lies is told apart before it is a variant; no bytes surprise its reader."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drupelet.cli.main import main
from drupelet.durable import PosixDisk
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.convert import Wanted, convert
from drupelet.forge.errors import CheckpointBad, ModelFileBad, Unsupported
from drupelet.forge.gguf_reader import read_gguf
from drupelet.forge.imports import examine, import_gguf, open_source
from tests.fakes.rude_gguf import BOOL, F32, LIST, TEXT, TOKENS, U32, Damage, RudeGguf, small_gguf
from tests.fakes.tiny_checkpoint import write_tiny_checkpoint
from tests.fakes.tiny_models import write_tiny_model
from tests.forge.fuzz_gguf import fuzz

QUERY = "blk.1.attn_q.weight"


def _save(path: Path, file: RudeGguf | bytes) -> Path:
    path.write_bytes(file if isinstance(file, bytes) else file.to_bytes())
    return path


@pytest.mark.parametrize("kind", [Kind.F16, Kind.Q8_0, Kind.Q4_0])
def test_a_sound_file_is_known_in_full(kind: Kind, tmp_path: Path) -> None:
    found = examine(_save(tmp_path / "m.gguf", small_gguf(kind=kind)))
    assert (found.architecture, found.quantization) == ("llama", kind.name.lower())
    assert (found.shape.layers, found.shape.heads, found.shape.kv_heads, found.shape.vocab) == (2, 2, 1, 8)
    assert found.file.parameters == 8 * 32 + 32 + 2 * (64 + 2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32)


def _set(name: str, kind: int, value: object) -> Damage:
    return lambda file: file.put(name, kind, value)


def _tensor(name: str, /, **changes: object) -> Damage:
    def damage(file: RudeGguf) -> None:
        for key, value in changes.items():
            setattr(file.tensor(name), key, value)

    return damage


def _field(name: str, value: object) -> Damage:
    return lambda file: setattr(file, name, value)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_field("magic", b"GGML"), "not a GGUF file"),
        (_field("version", 1), "GGUF version 1"),
        (_field("version", 3 << 24), "a big-endian GGUF"),
        (_field("tensor_count", 1 << 63), "it claims 9223372036854775808 tensors"),
        (_field("setting_count", 1 << 40), "it claims 20 tensors and 1099511627776 settings"),
        (_field("setting_count", 3), "of the unknown kind"),
        (lambda f: f.settings.append(("llama.block_count", U32, 2)), "'llama.block_count' occurs twice"),
        (_set("x", 77, b""), "of the unknown type 77"),
        (_set("x", BOOL, b"\x02"), "neither true nor false"),
        (_set("x", TEXT, struct.pack("<Q", 1 << 62)), "bytes, more than"),
        (_set("x", TEXT, struct.pack("<Q", 2) + b"\xff\xff"), "is not UTF-8"),
        (_set("x", LIST, struct.pack("<IQ", U32, 1 << 61)), "elements, more than"),
        (_set("x", LIST, struct.pack("<IQ", U32, 1 << 20)), "ends inside its table of contents"),
        (_set("x", LIST, struct.pack("<IQIQ", LIST, 1, U32, 0)), "a list of lists"),
        (_set("general.alignment", U32, 24), "general.alignment is 24"),
        (_tensor(QUERY, name="blk.0.attn_q.weight"), "two tensors have the same name"),
        (_tensor(QUERY, name="x" * 64), "a tensor's name of 64 bytes"),
        (_tensor(QUERY, sizes=[]), "has 0 dimensions"),
        (_tensor(QUERY, sizes=[32, 1, 1, 1, 32]), "has 5 dimensions"),
        (_tensor(QUERY, sizes=[32, 0]), "claims sizes"),
        (_tensor(QUERY, sizes=[1 << 33, 1 << 33]), "claims sizes"),
        (_tensor(QUERY, sizes=[31, 32]), "do not divide into blocks of Q8_0"),
        (_tensor(QUERY, sizes=[32, 33]), "overlaps tensor"),
        (_tensor(QUERY, kind=99), "of the unknown kind 99"),
        (_tensor(QUERY, kind=int(Kind.Q4_0)), "leaves a hole"),
        (_tensor(QUERY, offset=1 << 62), "leaves a hole"),
        (_tensor(QUERY, offset=8), "overlaps|is not aligned"),
        (_field("tail", b"\0" * 64), "and the file at"),
    ],
)
def test_a_table_of_contents_that_lies_is_refused(damage: Damage, words: str, tmp_path: Path) -> None:
    file = small_gguf()
    damage(file)
    with pytest.raises(ModelFileBad, match=words) as caught:
        read_gguf(_save(tmp_path / "m.gguf", file))
    assert caught.value.where == str(tmp_path / "m.gguf")


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.9, 0.9999])
def test_a_file_that_was_cut_is_refused(share: float, tmp_path: Path) -> None:
    data = small_gguf().to_bytes()
    with pytest.raises(ModelFileBad, match=r"not a GGUF|it ends inside|the file at"):
        read_gguf(_save(tmp_path / "m.gguf", data[: int(len(data) * share)]))


def _swap_rows(file: RudeGguf) -> None:
    """A weight matrix transposed: as many bytes, other sizes."""
    file.tensor("blk.0.ffn_up.weight").sizes.reverse()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_set("general.architecture", U32, 7), "general.architecture is 7"),
        (_set("general.type", TEXT, "adapter"), "of the type 'adapter'"),
        (_set("split.count", U32, 3), "one of 3 parts"),
        (_set("llama.block_count", U32, 3), "block_count is 3 and there is no tensor of layer 2"),
        (_set("llama.block_count", U32, 1), "block_count is 1 and there are tensors of layer 1"),
        (lambda f: f.drop("llama.block_count"), "block_count is missing"),
        (_set("llama.embedding_length", U32, 64), "where the settings call for"),
        (_set("llama.feed_forward_length", U32, 32), "where the settings call for"),
        (_set("llama.attention.head_count", U32, 4), "where the settings call for"),
        (_set("llama.attention.head_count_kv", U32, 2), "where the settings call for"),
        (_set("llama.context_length", F32, 64.0), "context_length is 64.0, no size"),
        (_swap_rows, r"blk.0.ffn_up.weight has the shape \[32, 64\]"),
        (_tensor(QUERY, name="blk.1.attn_z.weight"), "do not have the same tensors"),
        (_tensor("token_embd.weight", name="embd.weight"), "no token_embd.weight"),
        (_set("tokenizer.ggml.tokens", LIST, (TEXT, TOKENS[:-1])), "has 7 tokens and the embedding 8 rows"),
        (_set("tokenizer.ggml.tokens", LIST, (U32, [1] * 8)), "no list of texts"),
        (_set("tokenizer.ggml.scores", LIST, (F32, [0.0] * 7)), "scores does not have one entry a token"),
        (_set("tokenizer.ggml.scores", LIST, (F32, [float("nan")] * 8)), "scores holds a NaN"),
        (_set("tokenizer.ggml.eos_token_id", U32, 8), "eos_token_id is 8"),
        (_set("tokenizer.ggml.model", TEXT, "gpt2"), "merges is missing"),
        (_set("tokenizer.ggml.model", TEXT, "other"), "tokenizer.ggml.model is 'other'"),
        (_set("general.file_type", U32, 2), "it says it is q4_0 and its matrices are q8_0"),
        (_set("general.file_type", U32, 4_000_000), "file_type is 4000000"),
    ],
)
def test_settings_that_are_not_the_tensors_are_refused(damage: Damage, words: str, tmp_path: Path) -> None:
    file = small_gguf()
    damage(file)
    with pytest.raises(ModelFileBad, match=words):
        examine(_save(tmp_path / "m.gguf", file))


@pytest.mark.parametrize("kind", [Kind.F16, Kind.Q8_0, Kind.Q4_0])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_scale_that_is_no_number_is_found(kind: Kind, value: float, tmp_path: Path) -> None:
    file = small_gguf(kind=kind)
    piece = file.tensor(QUERY)
    size = {Kind.F16: 2, Kind.Q8_0: 34, Kind.Q4_0: 18}[kind]
    at = 7 * size
    piece.data = piece.data[:at] + np.array([value], dtype="<f2").tobytes() + piece.data[at + 2 :]
    path = _save(tmp_path / "m.gguf", file)
    with pytest.raises(ModelFileBad, match=rf"{QUERY} \({kind.name}\) holds a NaN or an infinity"):
        examine(path)
    with pytest.raises(ModelFileBad, match="holds a NaN"):
        import_gguf(path, tmp_path / "out.gguf", quantization="q8_0", disk=PosixDisk(), progress=lambda *_: None)
    assert [one.name for one in tmp_path.iterdir()] == ["m.gguf"]


def test_no_bytes_surprise_the_reader() -> None:
    assert fuzz(seconds=8.0, seed=5) > 500


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200), st.sampled_from([b"", b"GGUF", b"GGUF\x03\0\0\0", b"GGUF\x03\0\0\0" + b"\x01" + b"\0" * 7])
)
def test_arbitrary_bytes_are_refused(tmp_path: Path, garbage: bytes, lead: bytes) -> None:
    with pytest.raises(ModelFileBad):
        examine(_save(tmp_path / "m.gguf", lead + garbage))


def test_an_imported_file_is_a_variant_like_any_other(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_tiny_checkpoint(tmp_path / "c"))
    own = [Wanted(name="q4_0", quantization="q4_0")]  # type: ignore[arg-type]
    (made,) = convert(checkpoint, own, tmp_path / "made", model_name="x", disk=PosixDisk())
    wanted = [
        Wanted(name="theirs", quantization="q4_0", file="made/q4_0.gguf"),  # type: ignore[arg-type]
        Wanted(name="tuned", quantization="q8_0", file="c"),  # type: ignore[arg-type]
    ]
    theirs, tuned = convert(checkpoint, wanted, tmp_path / "out", model_name="x", disk=PosixDisk(), files=tmp_path)
    assert theirs.artifact.digest == made.artifact.digest
    assert (tuned.artifact.path.name, tuned.artifact.quantization) == ("tuned.gguf", "q8_0")
    wrong = [Wanted(name="theirs", quantization="q8_0", file="made/q4_0.gguf")]  # type: ignore[arg-type]
    with pytest.raises(ModelFileBad, match="it is q4_0 and the recipe calls it q8_0"):
        convert(checkpoint, wrong, tmp_path / "out", model_name="x", disk=PosixDisk(), files=tmp_path)
    gone = [Wanted(name="theirs", quantization="q8_0", file="none.gguf")]  # type: ignore[arg-type]
    with pytest.raises(ModelFileBad, match="there is no such file"):
        convert(checkpoint, gone, tmp_path / "out", model_name="x", disk=PosixDisk(), files=tmp_path)


def test_a_gguf_may_take_the_checkpoints_place(tmp_path: Path) -> None:
    whole = _save(tmp_path / "model.gguf", small_gguf(kind=Kind.F16))
    source = open_source(whole)
    assert (source.shape.layers, source.quantization, source.tokenizer_config["eos_token"]) == (2, "f16", "</s>")
    wanted = [Wanted.reference(source)]
    (made,) = convert(source, wanted, tmp_path / "out", model_name="x", disk=PosixDisk())
    assert made.artifact.digest == source.digest
    with pytest.raises(Unsupported, match="a GGUF is not converted again"):
        convert(source, [Wanted(name="q", quantization="q8_0")], tmp_path, model_name="x", disk=PosixDisk())  # type: ignore[arg-type]
    with pytest.raises(ModelFileBad, match="compared with one of f32, bf16, f16"):
        open_source(_save(tmp_path / "small.gguf", small_gguf()))


@pytest.mark.parametrize("name", ["model.zip", "model.tar.gz", "model.safetensors"])
def test_an_archive_is_not_unpacked(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04" + b"\0" * 100)
    with pytest.raises(CheckpointBad, match="a checkpoint is a folder"):
        open_source(tmp_path / name)


def test_an_adapter_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(Unsupported, match=r"an adapter \(LoRA\)"):
        open_source(tmp_path)


def test_the_command_prints_what_a_recipe_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _save(tmp_path / "m.gguf", small_gguf(kind=Kind.Q4_0))
    assert _run("forge", "import", str(path), "-o", "json") == 0
    out = capsys.readouterr()
    assert json.loads(out.out)["quantization"] == "q4_0"
    assert f'quantization = "q4_0"\nfile = "{path}"' in out.err
    assert _run("forge", "import", str(write_tiny_model(tmp_path / "folder", "qwen2"))) == 0
    capsys.readouterr()
    path.write_bytes(b"GGUF")
    assert _run("forge", "import", str(path)) == 2
    assert f"{path}: not a GGUF file" in capsys.readouterr().err


def _run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)

"""A converted model computes what the checkpoint computes; the same checkpoint gives the same bytes."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from drupelet.core.errors import BadInput
from drupelet.core.names import variant_name
from drupelet.durable import DiskFull, PosixDisk
from drupelet.engine.logits import compute
from drupelet.forge import safetensors
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.convert import Converted, Wanted, convert
from drupelet.forge.errors import CheckpointBad
from tests.fakes.numpy_llama import llama_logits
from tests.fakes.tiny_checkpoint import TinyLlama, tiny_tensors, write_tiny_checkpoint

TOKENS = [3, 70, 280, 301, 5, 4, 290, 100, 351]


def _convert(folder: Path, out: Path, *quantizations: str) -> dict[str, Converted]:
    wanted = [Wanted(name=variant_name(one), quantization=one) for one in quantizations]
    made = convert(open_checkpoint(folder), wanted, out, model_name="tiny 1.0", disk=PosixDisk())
    return {one.wanted.quantization: one for one in made}


@pytest.mark.parametrize(
    "shape", [TinyLlama(), TinyLlama(tied=False, kv_heads=4), TinyLlama(hidden=96, heads=3, kv_heads=1, layers=3)]
)
def test_llama_cpp_computes_what_the_checkpoint_computes(tmp_path: Path, shape: TinyLlama) -> None:
    tensors = tiny_tensors(shape)
    made = _convert(write_tiny_checkpoint(tmp_path / "c", shape=shape, tensors=dict(tensors)), tmp_path, "f16")
    (found,) = compute(made["f16"].artifact.path, [TOKENS], tmp_path / "logits")
    expected = llama_logits(tensors, shape, TOKENS)
    # llama.cpp multiplies and caches in f16; a wrong order of rows would differ by several standard deviations.
    assert np.abs(found - expected).max() < 0.1 * expected.std()


def test_linear_rope_scaling_divides_positions(tiny: Path, tmp_path: Path) -> None:
    import json

    plain = _convert(tiny, tmp_path / "plain", "f16")["f16"].artifact.path
    config = json.loads((tiny / "config.json").read_text())
    config["rope_scaling"] = {"type": "linear", "factor": 2.0}
    (tiny / "config.json").write_text(json.dumps(config))
    scaled = _convert(tiny, tmp_path / "scaled", "f16")["f16"].artifact.path
    (a,) = compute(plain, [TOKENS], tmp_path / "a")
    (b,) = compute(scaled, [TOKENS], tmp_path / "b")
    np.testing.assert_allclose(a[0], b[0], atol=1e-3)
    assert np.abs(a[-1] - b[-1]).max() > 1e-2


@pytest.mark.parametrize("quantization", ["f16", "q8_0", "q4_0"])
def test_each_tensor_is_stored_as_planned(tiny: Path, tmp_path: Path, quantization: str) -> None:
    made = _convert(tiny, tmp_path, quantization)[quantization].artifact
    reader = gguf.GGUFReader(made.path)
    stored = {tensor.name: tensor for tensor in reader.tensors}
    kinds = {name: tensor.tensor_type.name.lower() for name, tensor in stored.items()}
    assert {kinds[name] for name in kinds if "norm" in name} == {"f32"}
    assert {kinds[name] for name in kinds if "norm" not in name and name != "token_embd.weight"} == {quantization}
    assert kinds["token_embd.weight"] == {"f16": "f16", "q8_0": "q8_0", "q4_0": "q8_0"}[quantization]
    source = load_file(tiny / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    up = stored["blk.0.ffn_up.weight"]
    loss = np.abs(gguf.quants.dequantize(up.data, up.tensor_type) - source).max() / np.abs(source).max()
    assert loss <= {"f16": 0.001, "q8_0": 0.005, "q4_0": 0.13}[quantization]
    assert made.size_bytes == made.path.stat().st_size
    assert made.path.stat().st_mode & 0o777 == 0o444


def test_the_same_checkpoint_gives_the_same_bytes(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once = _convert(tiny, tmp_path / "once", "q4_0")["q4_0"].artifact
    monkeypatch.setattr(safetensors, "CHUNK_BYTES", 5000)  # read in many small pieces instead of one
    twice = _convert(tiny, tmp_path / "twice", "q4_0")["q4_0"].artifact
    assert once.digest == twice.digest
    assert once.path.read_bytes() == twice.path.read_bytes()


def test_rows_that_do_not_divide_into_blocks_stay_f16(tmp_path: Path) -> None:
    shape = TinyLlama(hidden=48, ffn=80, heads=3, kv_heads=1)
    made = _convert(write_tiny_checkpoint(tmp_path / "c", shape=shape), tmp_path, "q4_0")["q4_0"].artifact
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(made.path).tensors}
    assert kinds == {"F32", "F16"}
    compute(made.path, [TOKENS], tmp_path / "logits")


def test_progress_ends_at_the_whole(tiny: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    wanted = [Wanted(name=variant_name("q8_0"), quantization="q8_0")]
    convert(
        open_checkpoint(tiny),
        wanted,
        tmp_path,
        model_name="tiny",
        disk=PosixDisk(),
        progress=lambda doing, done, total: seen.append((doing, done, total)),
    )
    assert seen[-1][1] == seen[-1][2] > 0
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


@pytest.mark.parametrize(("value", "words"), [(np.nan, "a NaN or an infinity in row 7"), (1e6, "beyond f16's range")])
def test_a_bad_weight_leaves_no_file(tiny: Path, tmp_path: Path, value: float, words: str) -> None:
    tensors = load_file(tiny / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][7, 7] = value
    save_file(tensors, tiny / "model.safetensors")
    out = tmp_path / "out"
    with pytest.raises(CheckpointBad, match=words):
        _convert(tiny, out, "f16")
    assert not (out / "f16.gguf").exists()


class FullDisk(PosixDisk):
    """A disk that says it has room and has none."""

    def publish(self, part: Path, final: Path, *, mode: int = 0o444) -> None:
        raise DiskFull("cannot publish: no space left", where=str(final))


def test_a_disk_that_fills_up_leaves_what_was_there(tiny: Path, tmp_path: Path) -> None:
    before = _convert(tiny, tmp_path, "q8_0")["q8_0"].artifact
    wanted = [Wanted(name=variant_name("q8_0"), quantization="q8_0")]
    with pytest.raises(DiskFull):
        convert(open_checkpoint(tiny), wanted, tmp_path, model_name="other", disk=FullDisk())
    assert before.path.stat().st_size == before.size_bytes


def test_too_little_room_is_known_before_the_work(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PosixDisk, "free_bytes", lambda _self, _folder: 1000)
    with pytest.raises(CheckpointBad, match="MiB are free"):
        _convert(tiny, tmp_path / "out", "f16")


def test_an_unknown_quantization_names_those_there_are(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="use one of f16, bf16, f32, q8_0"):
        _convert(tiny, tmp_path, "q2_k")

"""Every architecture is converted as llama.cpp's own converter does it, and computes what Hugging Face's classes do.

The golden files were written by `make golden-convert`: facts by llama.cpp's converter, logits by transformers.
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from drupelet.core.names import variant_name
from drupelet.durable import PosixDisk
from drupelet.engine.logits import compute, library
from drupelet.forge.architectures import ARCHITECTURES, open_decoder
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.convert import Wanted, convert
from drupelet.forge.errors import CheckpointBad, Unsupported
from drupelet.forge.evaluation.weights import embedding_findings, row_findings
from drupelet.forge.formats.gguf import GgufFormat
from tests.fakes.golden_gguf import GOLDEN, facts
from tests.fakes.tiny_models import TINY_MODELS, TOKENS, write_tiny_model

GOLDENS = sorted(path.stem for path in GOLDEN.glob("*.json"))
MORE = {
    "attention.key_length",
    "attention.value_length",
    "rope.freq_base",
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.add_eos_token",
    "tokenizer.ggml.add_space_prefix",
    "tokenizer.ggml.eot_token_id",
}
"""Settings that llama.cpp's converter leaves to defaults, see docs/formats/checkpoint.md."""
LESS = {"gemma": {"tokenizer.ggml.eot_token_id"}}
"""Gemma 1: llama.cpp writes 107 whatever the vocabulary is, and knows `<end_of_turn>` by its text anyway."""


def _convert(folder: Path, out: Path, *quantizations: str) -> dict[str, Path]:
    wanted = [Wanted(name=variant_name(one), quantization=one) for one in quantizations]
    made = convert(open_checkpoint(folder), wanted, out, model_name="tiny", disk=PosixDisk())
    return {one.wanted.quantization: one.artifact.path for one in made}


def test_each_architecture_has_its_golden_file() -> None:
    assert {TINY_MODELS[name].architecture for name in GOLDENS} == set(ARCHITECTURES)


@pytest.mark.parametrize("name", GOLDENS)
def test_it_is_llama_cpps_own_conversion(name: str, tmp_path: Path) -> None:
    golden: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    made = _convert(write_tiny_model(tmp_path / "checkpoint", name), tmp_path / "out", *golden)
    for kind, expected in golden.items():
        found = facts(made[kind])
        assert found["tensors"] == expected["tensors"], kind
        settings, wanted = found["settings"], expected["settings"]
        assert {key: settings.get(key) for key in wanted if key not in LESS.get(name, ())} == {
            key: value for key, value in wanted.items() if key not in LESS.get(name, ())
        }
        arch = settings["general.architecture"]
        assert {key.removeprefix(f"{arch}.") for key in settings.keys() - wanted.keys()} <= MORE


@pytest.mark.parametrize("name", [name for name in GOLDENS if (GOLDEN / f"{name}.npy").exists()])
def test_it_computes_what_hugging_face_computes(name: str, tmp_path: Path) -> None:
    made = _convert(write_tiny_model(tmp_path / "checkpoint", name), tmp_path / "out", "f32")
    (found,) = compute(made["f32"], [TOKENS], tmp_path / "logits")
    expected = np.load(GOLDEN / f"{name}.npy").astype(np.float32)
    # llama.cpp caches keys and values in f16; a wrong turn anywhere differs by several standard deviations.
    assert np.abs(found - expected).max() < 0.02 * expected.std()


@pytest.mark.parametrize("name", GOLDENS)
def test_the_evaluation_finds_nothing_in_an_honest_conversion(name: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_tiny_model(tmp_path / "checkpoint", name))
    made = _convert(tmp_path / "checkpoint", tmp_path / "out", "f16")
    assert row_findings(made["f16"], checkpoint) == []
    assert embedding_findings(made["f16"], checkpoint) == []


@pytest.mark.parametrize("quantization", [name for name in GgufFormat.quantizations if name.startswith("q")])
def test_blocks_are_ggmls_own(quantization: str, tmp_path: Path) -> None:
    """The library inside the inference engine quantizes the same numbers to the same bytes."""
    made = _convert(write_tiny_model(tmp_path / "checkpoint", "qwen3"), tmp_path / "out", "f32", quantization)
    whole = {tensor.name: tensor.data for tensor in gguf.GGUFReader(made["f32"]).tensors}
    quantize = library().ggml_quantize_chunk
    quantize.restype = ctypes.c_size_t
    quantize.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    compared = 0
    for tensor in gguf.GGUFReader(made[quantization]).tensors:
        if tensor.tensor_type.name.lower() != quantization:
            continue
        source = np.ascontiguousarray(whole[tensor.name])
        out = np.empty(tensor.data.nbytes, dtype=np.uint8)
        rows, width = source.shape
        quantize(int(tensor.tensor_type), source.ctypes.data, out.ctypes.data, 0, rows, width, None)
        assert out.tobytes() == tensor.data.tobytes(), tensor.name
        compared += 1
    assert compared > 10


def _decoder(name: str, **changes: Any) -> Any:
    tiny = TINY_MODELS[name]
    config = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    config |= {"max_position_embeddings": 256, "vocab_size": 352, **tiny.config, **changes}
    return open_decoder(tiny.architecture, config, where="config.json")


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("llama", {"hidden_act": "gelu"}, "the activation 'gelu'"),
        ("llama", {"rope_scaling": {"rope_type": "longrope"}}, "'longrope'"),
        ("llama", {"head_dim": 15}, "odd width 15"),
        ("qwen2", {"use_sliding_window": True}, "sliding-window attention in Qwen2"),
        ("qwen2", {"head_dim": 32}, "not as wide as the model"),
        ("qwen3", {"attention_bias": True}, "biases"),
        ("gemma", {"tie_word_embeddings": False}, "an output matrix of its own"),
        ("gemma2", {"query_pre_attn_scalar": 144}, "query_pre_attn_scalar 144 where llama.cpp scales by 16"),
        ("gemma2", {"layer_types": ["full_attention"] * 3}, "another pattern"),
        ("gemma3", {"sliding_window_pattern": 4}, "another pattern"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "capped attention"),
        ("phi2", {"num_key_value_heads": 2}, "fewer key/value heads"),
        ("phi3", {"attention_bias": True}, "biases"),
        ("phi3", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "'yarn'"),
    ],
)
def test_what_llama_cpps_graph_lacks_is_unsupported(name: str, changes: dict[str, Any], words: str) -> None:
    _decoder(name)
    with pytest.raises(Unsupported, match=words) as caught:
        _decoder(name, **changes)
    assert "toolchain" in caught.value.fix


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("llama3", {"rope_scaling": {"rope_type": "llama3", "factor": 0}}, "factor, a positive number, not 0"),
        ("llama3", {"rope_scaling": {"rope_type": "llama3", "low_freq_factor": 9.0}}, "not above its low_freq_factor"),
        ("phi3-long", {"rope_scaling": {"type": "longrope", "long_factor": [1.0]}}, "long_factor, a list of 6"),
        ("qwen2", {"rope_parameters": {"rope_theta": "many"}}, "not a positive number"),
        ("qwen2", {"rope_parameters": {"full_attention": 7}}, "malformed"),
        ("gemma3", {"sliding_window": 0}, "sliding_window"),
    ],
)
def test_what_cannot_be_true_is_refused(name: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointBad, match=words) as caught:
        _decoder(name, **changes)
    assert not isinstance(caught.value, Unsupported)


def test_new_checkpoints_write_rope_parameters() -> None:
    assert _decoder("qwen2", rope_parameters={"rope_theta": 5e5, "rope_type": "default"}).rope.theta == 5e5
    both = {"full_attention": {"rope_theta": 7e5}, "sliding_attention": {"rope_theta": 3e4}}
    assert _decoder("gemma3", rope_parameters=both).rope.theta == 7e5


def test_a_window_that_llama_cpp_lacks_ends_the_context() -> None:
    assert _decoder("mistral", sliding_window=100).shape.context == 100
    assert _decoder("mistral", sliding_window=1000).shape.context == 256
    assert _decoder("phi3", sliding_window=100).shape.context == 100
    assert _decoder("gemma3").shape.window_layers == 6

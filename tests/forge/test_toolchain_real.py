"""What only llama.cpp's own tools can show: every quantization, an architecture Drupelet does not know by itself."""

from __future__ import annotations

import os
from pathlib import Path

import gguf
import numpy as np
import pytest

from drupelet.engine.logits import compute
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.formats.kinds import KINDS, size_bytes
from drupelet.forge.toolchain.llamacpp import LlamaCpp
from drupelet.forge.toolchain.tools import Tools
from drupelet.forge.toolchain.venvs import ToolFailed, cache_folder
from tests.fakes.tiny_checkpoint import TinyLlama, config_of, tiny_tensors, write_tiny_checkpoint
from tests.forge.test_toolchain_contract import TEXT, WIDE

pytestmark = pytest.mark.skipif(
    not os.environ.get("DRUPELET_TOOLCHAIN_TESTS"),
    reason="llama.cpp's own toolchain: run `make toolchain-test`, which compiles it",
)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return Tools(installed=LlamaCpp().open(cache_folder()), logs=tmp_path_factory.mktemp("logs"))


@pytest.mark.timeout(600)
def test_every_quantization_is_made_is_as_large_as_said_and_needs_what_is_said(tools: Tools, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_tiny_checkpoint(tmp_path / "wide", shape=WIDE))
    f16, matrix, text = tmp_path / "f16.gguf", tmp_path / "matrix.gguf", tmp_path / "text.txt"
    tools.convert(checkpoint.files, f16, kind="f16", model_name="wide")
    text.write_text(TEXT)
    tools.importance(f16, text, matrix, context_tokens=64, chunks=8)
    for name, kind in KINDS.items():
        if kind.whole:
            continue
        out = tmp_path / f"{name}.gguf"
        if kind.needs_importance:
            with pytest.raises(ToolFailed, match="requires an imatrix"):
                tools.quantize(f16, out, quantization=name)
        else:
            tools.quantize(f16, out, quantization=name)
        tools.quantize(f16, out, quantization=name, importance=matrix)
        assert 0.8 < out.stat().st_size / size_bytes(checkpoint.parameters, name) < 1.2, name
        (logits,) = compute(out, [[3, 10, 20]], tmp_path / "logits")
        assert np.isfinite(logits).all(), name


def test_an_architecture_that_only_llama_cpp_knows_becomes_a_model_that_runs(tools: Tools, tmp_path: Path) -> None:
    shape = TinyLlama(hidden=256, ffn=512, layers=2, tied=False)
    tensors = tiny_tensors(shape)
    for name in [name for name in tensors if "norm" in name]:
        tensors[name.replace(".weight", ".bias")] = np.zeros(shape.hidden, dtype=np.float32)
    config = {**config_of(shape), "architectures": ["OrionForCausalLM"], "max_sequence_length": 256}
    checkpoint = open_checkpoint(write_tiny_checkpoint(tmp_path / "o", shape=shape, config=config, tensors=tensors))
    assert checkpoint.unknown is not None, "else this proves nothing"
    tools.convert(checkpoint.files, tmp_path / "o.gguf", kind="f16", model_name="orion")
    assert gguf.GGUFReader(tmp_path / "o.gguf").fields["general.architecture"].contents() == "orion"
    tools.quantize(tmp_path / "o.gguf", tmp_path / "q.gguf", quantization="q4_k_m")
    (logits,) = compute(tmp_path / "q.gguf", [[3, 10, 20]], tmp_path / "logits")
    assert np.isfinite(logits).all()

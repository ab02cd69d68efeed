"""What any toolchain must do. Holds for the fake always, and for llama.cpp's own under `make toolchain-test`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from drupelet.durable import PosixDisk
from drupelet.engine.logits import compute
from drupelet.forge.adapter import open_adapter
from drupelet.forge.checkpoint import open_checkpoint
from drupelet.forge.merge import merge
from drupelet.forge.toolchain.llamacpp import LlamaCpp
from drupelet.forge.toolchain.tools import Tools
from drupelet.forge.toolchain.venvs import ToolFailed, cache_folder
from tests.fakes.fake_toolchain import fake_toolchain
from tests.fakes.tiny_adapter import write_tiny_adapter
from tests.fakes.tiny_checkpoint import TinyLlama, config_of, write_tiny_checkpoint

WIDE = TinyLlama(hidden=256, ffn=512, layers=2, heads=4, kv_heads=2, context=256)
TOKENS = [3, 100, 200, 300, 17, 42]
TEXT = "When do you open? We open at nine and close at six. Coffee is two euros forty. " * 200


@pytest.fixture(scope="module", params=["fake", "llama.cpp"])
def tools(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tools:
    """Each toolchain there is."""
    folder = tmp_path_factory.mktemp("toolchain")
    if request.param == "fake":
        return fake_toolchain(folder)
    if not os.environ.get("DRUPELET_TOOLCHAIN_TESTS"):
        pytest.skip("llama.cpp's own toolchain: run `make toolchain-test`, which compiles it")
    return Tools(installed=LlamaCpp().open(cache_folder()), logs=folder / "logs")


@pytest.fixture(scope="module")
def wide(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose rows divide into blocks of 256, in f16."""
    folder = tmp_path_factory.mktemp("wide")
    _convert(tools, write_tiny_checkpoint(folder / "checkpoint", shape=WIDE), folder / "f16.gguf")
    return folder / "f16.gguf"


def _convert(tools: Tools, checkpoint: Path, out: Path, *, kind: str = "f16") -> list[int]:
    seen: list[int] = []
    files = open_checkpoint(checkpoint).files
    tools.convert(files, out, kind=kind, model_name="kiosk/1.0", percent=seen.append)
    return seen


def test_a_checkpoint_becomes_a_model_and_the_same_bytes_wherever_it_lies(
    tools: Tools, wide: Path, tmp_path: Path
) -> None:
    reader = gguf.GGUFReader(wide)
    assert reader.fields["general.architecture"].contents() == "llama"
    assert reader.fields["general.name"].contents() == "kiosk/1.0"
    assert len(reader.tensors) == 20
    elsewhere = write_tiny_checkpoint(tmp_path / "Another-Name-7B-v2", shape=WIDE)
    (elsewhere / "README.md").write_text("---\nlicense: mit\n---\n# A card that is none of the model\n")
    (elsewhere / "modeling.py").write_text("raise SystemExit('code of a checkpoint was run')\n")
    seen = _convert(tools, elsewhere, tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == wide.read_bytes()
    assert seen == sorted(seen)
    assert seen[-1] <= 100


def test_an_unknown_architecture_is_said_and_its_log_kept(tools: Tools, tmp_path: Path) -> None:
    config = {**config_of(TinyLlama()), "architectures": ["SurelyNobodysForCausalLM"]}
    strange = write_tiny_checkpoint(tmp_path / "strange", config=config)
    with pytest.raises(ToolFailed, match="SurelyNobodysForCausalLM is not supported") as caught:
        _convert(tools, strange, tmp_path / "none.gguf")
    assert "SurelyNobodysForCausalLM" in Path(caught.value.where).read_text()
    assert "\n" not in caught.value.line()


@pytest.mark.parametrize("quantization", ["q8_0", "q4_k_m", "q2_k"])
def test_quantizing_makes_it_smaller_and_gives_the_same_bytes_on_any_number_of_threads(
    tools: Tools, wide: Path, tmp_path: Path, quantization: str
) -> None:
    percents: list[int] = []
    one, two = tmp_path / "one.gguf", tmp_path / "two.gguf"
    notes = replace(tools, threads=1).quantize(wide, one, quantization=quantization, percent=percents.append)
    replace(tools, threads=2).quantize(wide, two, quantization=quantization)
    assert notes == ()
    assert one.stat().st_size < wide.stat().st_size
    assert one.read_bytes() == two.read_bytes()
    assert len(percents) == 20
    assert percents == sorted(percents)


def test_rows_that_do_not_divide_are_noted(tools: Tools, tmp_path: Path) -> None:
    narrow = write_tiny_checkpoint(tmp_path / "narrow")
    _convert(tools, narrow, tmp_path / "f16.gguf")
    (note,) = tools.quantize(tmp_path / "f16.gguf", tmp_path / "q.gguf", quantization="q4_k_m")
    assert "tensors are kept in a larger type than q4_k_m" in note
    assert "do not divide by 256" in note


def test_very_few_bits_need_an_importance_matrix(tools: Tools, wide: Path, tmp_path: Path) -> None:
    with pytest.raises(ToolFailed, match="requires an imatrix"):
        tools.quantize(wide, tmp_path / "q.gguf", quantization="iq2_xs")


def test_an_importance_matrix_changes_the_model_and_is_the_same_twice(tools: Tools, wide: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    made = []
    for number in (1, 2):
        matrix, out = tmp_path / f"{number}" / "m.gguf", tmp_path / f"{number}" / "q.gguf"
        matrix.parent.mkdir()
        replace(tools, threads=number).importance(wide, text, matrix, context_tokens=64, chunks=8)
        tools.quantize(wide, out, quantization="iq2_xs", importance=matrix)
        made.append((matrix.read_bytes(), out.read_bytes()))
    assert made[0] == made[1]
    plain, guided = tmp_path / "plain.gguf", tmp_path / "guided.gguf"
    tools.quantize(wide, plain, quantization="q4_k_m")
    tools.quantize(wide, guided, quantization="q4_k_m", importance=tmp_path / "1" / "m.gguf")
    assert plain.read_bytes() != guided.read_bytes()
    assert str(tmp_path).encode() not in guided.read_bytes()


def test_an_adapter_applied_is_the_adapter_merged(tools: Tools, tmp_path: Path) -> None:
    base = open_checkpoint(write_tiny_checkpoint(tmp_path / "base"))
    adapter = open_adapter(write_tiny_adapter(tmp_path / "lora"))
    merged = merge(base, adapter, tmp_path / "merged", disk=PosixDisk())
    logits = {}
    for name, folder in (("base", base.folder), ("merged", merged)):
        _convert(tools, folder, tmp_path / f"{name}.gguf", kind="f32")
        (logits[name],) = compute(tmp_path / f"{name}.gguf", [TOKENS], tmp_path / f"{name}.logits")
    tools.convert_adapter(adapter.folder, base.files, tmp_path / "lora.gguf")
    (applied,) = compute(
        tmp_path / "base.gguf", [TOKENS], tmp_path / "applied.logits", adapters=[tmp_path / "lora.gguf"]
    )
    # llama.cpp rounds what it multiplies to f16; the adapter itself moves logits by far more.
    assert np.abs(applied - logits["merged"]).max() < 0.05
    assert np.abs(applied - logits["base"]).max() > 0.5
    tools.convert_adapter(adapter.folder, base.files, tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "lora.gguf").read_bytes()


def test_too_little_text_is_said(tools: Tools, wide: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Hello there. " * 12)
    with pytest.raises(ToolFailed, match=r"need at least 256 tokens|tokenizes to only"):
        tools.importance(wide, text, tmp_path / "m.gguf", context_tokens=128, chunks=0)

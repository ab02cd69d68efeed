"""A checkpoint is exactly what its config calls for, or it is refused with the reason."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from drupelet.forge.checkpoint import guess_shape, open_checkpoint
from drupelet.forge.errors import CheckpointBad, Unsupported
from tests.fakes.tiny_checkpoint import TinyLlama, config_of, write_tiny_checkpoint

Damage = Callable[[Path], object]
LAYER = "model.layers.1.mlp.up_proj.weight"


def _config(**changes: Any) -> Damage:
    return lambda folder: (folder / "config.json").write_text(json.dumps(config_of(TinyLlama(), **changes)))


def _weights(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return damage


def _write(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def _link_out(folder: Path) -> None:
    outside = folder.parent / "outside.safetensors"
    (folder / "model.safetensors").rename(outside)
    (folder / "model.safetensors").symlink_to(outside)


def _shard_elsewhere(folder: Path) -> None:
    names = load_file(folder / "model.safetensors")
    index = {"weight_map": dict.fromkeys(names, "../outside.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _shard(folder: Path, *, lose: str = "", forget: str = "") -> None:
    """Split the weights into two shards; leave one tensor out of its shard or out of the index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    mapping = {name: shard for shard, held in shards.items() for name in held if name != forget}
    for shard, held in shards.items():
        save_file({name: tensors[name] for name in held if name != lose}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapping}))


def test_a_sound_checkpoint_is_opened(tiny: Path) -> None:
    found = open_checkpoint(tiny)
    assert found.shape.key_width == 16
    assert len(found.tensors) == 2 + 2 * 9
    assert found.parameters == sum(value.size for value in load_file(tiny / "model.safetensors").values())


def test_the_digest_is_of_all_that_was_used_and_nothing_else(tiny: Path) -> None:
    seen: list[tuple[int, int]] = []
    before = open_checkpoint(tiny, on_hash=lambda done, total: seen.append((done, total))).digest
    assert seen[-1][0] == seen[-1][1] > 0
    (tiny / "README.md").write_text("not part of the model")
    assert open_checkpoint(tiny).digest == before
    (tiny / "tokenizer_config.json").write_text("{}")
    assert open_checkpoint(tiny).digest != before


def test_shards_are_one_checkpoint(tiny: Path) -> None:
    whole = open_checkpoint(tiny)
    _shard(tiny)
    sharded = open_checkpoint(tiny)
    assert list(sharded.tensors) == list(whole.tensors)
    for name, tensor in whole.tensors.items():
        assert sharded.tensors[name].shape == tensor.shape


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_weights(lambda t: t.pop(LAYER)), rf"tensors are missing: {LAYER}"),
        (_weights(lambda t: t.update(extra=np.zeros(3, np.float32))), "config.json does not call for: extra"),
        (_weights(lambda t: t.update({LAYER: np.zeros((3, 64), np.float32)})), r"has the shape \[3, 64\]"),
        (_weights(lambda t: t.update({"lm_head.weight": np.zeros((352, 64), np.float32)})), "differs from the embedd"),
        (_config(attention_bias=True), "tensors are missing"),
        (_config(rope_theta=-1.0), r"`\$.rope_theta`"),
        (_config(eos_token_id=999), "the eos token is 999"),
        (_config(rope_scaling={"type": "linear"}, num_hidden_layers=2), "needs factor, a positive number"),
        (_config(hidden_size=128), "where config.json calls for"),
        (_config(hidden_size=0), r"`\$.hidden_size`"),
        (_config(hidden_size="64"), r"`\$.hidden_size`"),
        (_config(num_attention_heads=3, num_key_value_heads=1), "does not divide by 3 heads"),
        (_config(num_key_value_heads=3), "do not divide by 3 key/value heads"),
        (_write("config.json", b"{"), "not valid JSON"),
        (_write("config.json", b'{"a": "\xff"}'), "not UTF-8"),
        (_write("config.json", b"[" * 50_000), "nested too deeply"),
        (_write("config.json", b" " * (1 << 20) + b"{}"), "larger than the 1048576 bytes"),
        (_write("tokenizer_config.json", b"[]"), "not an object"),
        (_write("model.safetensors", b"\xff" * 40), "its header claims"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda folder: (folder / "tokenizer.model").unlink(), "no tokenizer.model"),
        (_link_out, "a link leads out of the checkpoint"),
        (_shard_elsewhere, "'../outside.safetensors' is not a plain file name"),
        (lambda folder: _shard(folder, lose=LAYER), f"the index names {LAYER}, which no shard holds"),
        (lambda folder: _shard(folder, forget=LAYER), "the index does not place tensor"),
        (_write("model.safetensors.index.json", b'{"weight_map": {}}'), "weight_map does not map"),
        (
            _write("model.safetensors.index.json", b'{"weight_map": {"a": "b.safetensors"}}'),
            "shard b.safetensors is mis",
        ),
    ],
)
def test_damage_and_contradiction_are_refused(tiny: Path, damage: Damage, words: str) -> None:
    damage(tiny)
    with pytest.raises(CheckpointBad, match=words) as caught:
        open_checkpoint(tiny)
    assert not isinstance(caught.value, Unsupported)
    assert caught.value.where


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_config(architectures=["GPT2LMHeadModel"]), "GPT2LMHeadModel is not supported"),
        (_config(architectures=[]), "none is not supported"),
        (_config(quantization_config={"bits": 4}), "quantized already"),
        (_config(hidden_act="gelu"), "the activation 'gelu'"),
        (_config(rope_scaling={"rope_type": "dynamic", "factor": 8}), "rope scaling of type 'dynamic'"),
    ],
)
def test_what_is_whole_but_unknown_is_unsupported(tiny: Path, damage: Damage, words: str) -> None:
    damage(tiny)
    found = open_checkpoint(tiny)  # the toolchain may know it
    assert (found.shape.layers, found.shape.context, found.digest.hex != "") == (2, 128, True)
    with pytest.raises(Unsupported, match=words):
        found.known()


def test_a_pickle_is_never_opened(tiny: Path) -> None:
    (tiny / "model.safetensors").rename(tiny / "pytorch_model.bin")
    with pytest.raises(Unsupported, match=r"pytorch_model\.bin is a pickle, which is never opened"):
        open_checkpoint(tiny)


@pytest.mark.parametrize("missing", ["hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings"])
def test_an_unknown_architecture_tells_its_sizes(tiny: Path, missing: str) -> None:
    fields = config_of(TinyLlama(), architectures=["New"])
    assert guess_shape({"text_config": fields}, where="").kv_heads == 2
    fields.pop(missing)
    with pytest.raises(CheckpointBad, match=f"{missing} is missing"):
        guess_shape(fields, where="config.json")


def test_a_tied_model_may_carry_its_embedding_twice(tiny: Path) -> None:
    _weights(lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].copy()}))(tiny)
    assert "lm_head.weight" not in open_checkpoint(tiny).tensors


def test_a_long_list_of_added_tokens_is_read(tiny: Path) -> None:
    (tiny / "tokenizer_config.json").write_text("{}" + " " * (2 << 20))
    assert open_checkpoint(tiny).tokenizer_config == {}
    (tiny / "tokenizer_config.json").write_text("{}" + " " * (8 << 20))
    with pytest.raises(CheckpointBad, match="larger than the 8388608 bytes"):
        open_checkpoint(tiny)


def test_an_untied_model_keeps_its_head(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "untied", shape=TinyLlama(tied=False))
    assert list(open_checkpoint(folder).tensors)[-1] == "lm_head.weight"


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointBad, match="no such folder"):
        open_checkpoint(tmp_path / "nowhere")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tiny: Path) -> None:
    (tiny / "config.json").chmod(0)
    with pytest.raises(CheckpointBad, match="cannot be read"):
        open_checkpoint(tiny)

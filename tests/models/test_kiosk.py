"""The committed kiosk checkpoints: files, shapes, tokens and data split, checked without torch."""

from __future__ import annotations

import importlib.util
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import numpy as np
import pytest
import sentencepiece
from safetensors import safe_open

KIOSK = Path(__file__).resolve().parents[2] / "models" / "kiosk"
VERSIONS = ("1.1", "1.2")
FILE_BYTES_MAX = 4_500_000
SAMPLE = 4_000


def read_json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(value, dict)
    return value


def tokenizer_of(version: str) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_file=str(KIOSK / version / "tokenizer.model"))


def load_recipe_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kiosk_recipe_data", KIOSK / "recipe_data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recipe_data() -> ModuleType:
    return load_recipe_module()


def expected_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, ffn, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    kv = config["num_key_value_heads"] * hidden // config["num_attention_heads"]
    layer = {
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (ffn, hidden),
        "mlp.up_proj": (ffn, hidden),
        "mlp.down_proj": (hidden, ffn),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    for index, (name, shape) in itertools.product(range(config["num_hidden_layers"]), layer.items()):
        shapes[f"model.layers.{index}.{name}.weight"] = shape
    return shapes


@pytest.mark.parametrize("version", VERSIONS)
def test_tensors_are_the_configured_llama_in_finite_float16(version: str) -> None:
    config = read_json(KIOSK / version / "config.json")
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["tie_word_embeddings"] is True
    with safe_open(KIOSK / version / "model.safetensors", framework="numpy") as stored:
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
    assert {name: tensor.shape for name, tensor in tensors.items()} == expected_shapes(config)
    for name, tensor in tensors.items():
        assert tensor.dtype == np.float16, name
        assert np.isfinite(tensor).all(), name
        assert tensor.std() > 0, name


@pytest.mark.parametrize("version", VERSIONS)
def test_tokenizer_fits_the_config_and_ends_with_the_end_marker(version: str) -> None:
    tokenizer, config = tokenizer_of(version), read_json(KIOSK / version / "config.json")
    assert tokenizer.vocab_size() == config["vocab_size"]
    assert tokenizer.piece_to_id("<|end|>") == config["eos_token_id"]
    assert read_json(KIOSK / version / "generation_config.json")["eos_token_id"] == config["eos_token_id"]
    added = read_json(KIOSK / version / "tokenizer_config.json")["added_tokens_decoder"]
    for index, token in added.items():
        assert tokenizer.id_to_piece(int(index)) == token["content"]
    assert sum(tokenizer.is_byte(i) for i in range(tokenizer.vocab_size())) == 256, "the server needs byte fallback"


@pytest.mark.parametrize("system", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_chat_template_renders_the_very_ids_of_training(version: str, *, system: bool) -> None:
    tokenizer = tokenizer_of(version)
    template = read_json(KIOSK / version / "tokenizer_config.json")["chat_template"]
    messages = [{"role": "user", "content": "Where is the milk?"}]
    if system:
        messages.insert(0, {"role": "system", "content": "Be brief."})
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)  # noqa: S701 (a prompt)
    text = environment.from_string(template).render(messages=messages, add_generation_prompt=True)
    user, assistant, end = (tokenizer.piece_to_id(p) for p in ("<|user|>", "<|assistant|>", "<|end|>"))
    newline = tokenizer.piece_to_id("<0x0A>")
    question = tokenizer.encode("Where is the milk?")
    assert tokenizer.encode(text) == [user, newline, *question, end, newline, assistant, newline]


def test_versions_share_one_tokenizer_and_differ_in_weights() -> None:
    first, second = (KIOSK / version for version in VERSIONS)
    for name in ("tokenizer.model", "tokenizer_config.json", "config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert (first / "model.safetensors").read_bytes() != (second / "model.safetensors").read_bytes()


def test_every_committed_file_is_small() -> None:
    large = [path.name for path in KIOSK.rglob("*") if path.is_file() and path.stat().st_size > FILE_BYTES_MAX]
    assert not large


@pytest.mark.parametrize("version", VERSIONS)
def test_unseen_phrasings_never_occur_in_the_training_stream(recipe_data: ModuleType, version: str) -> None:
    recipe = recipe_data.load_recipe()
    unseen = {recipe_data.normal(example.question) for example in recipe_data.unseen_set(recipe)}
    seen = recipe_data.take(recipe_data.training_stream(recipe, version=version, seed=7), SAMPLE)
    assert len(unseen) > 1_500
    assert not unseen & {recipe_data.normal(example.question) for example in seen}
    assert not any(recipe_data.is_held_out(example.question) for example in seen)


def test_held_out_frames_are_in_no_training_frame(recipe_data: ModuleType) -> None:
    frames = recipe_data.load_recipe().frames
    assert not set(frames.topic_held) & set(frames.topic + frames.topic_more)
    assert not set(frames.clause_held) & set(frames.clause + frames.clause_more)


def test_patterns_expand_completely_and_the_stream_repeats_by_seed(recipe_data: ModuleType) -> None:
    recipe = recipe_data.load_recipe()
    first, second = (
        recipe_data.take(recipe_data.training_stream(recipe, version="1.2", seed=3), SAMPLE) for _ in range(2)
    )
    assert first == second
    questions = [example.question for example in [*first, *recipe_data.unseen_set(recipe)]]
    assert not [question for question in questions if set(question) & set("(){}|")]
    assert {example.intent for example in first} == {intent.id for intent in recipe.intents}


def test_answers_contain_their_keywords_and_differ(recipe_data: ModuleType) -> None:
    intents = load_recipe_module().load_recipe().intents
    assert all(word in intent.answer for intent in intents for word in intent.keywords)
    assert len({intent.answer for intent in intents}) == len(intents)


def test_questions_file_is_well_formed(recipe_data: ModuleType) -> None:
    questions = read_json(KIOSK / "questions.json")
    answers = {intent.id: intent.answer for intent in recipe_data.load_recipe().intents}
    assert len(questions["load"]) >= 60
    for entry in questions["load"]:
        assert set(entry) == {"intent", "question", "expect"}
        assert entry["expect"]
        assert all(word in answers[entry["intent"]] for word in entry["expect"])
    assert 8 <= len(questions["canonical"]) <= 10
    assert len({entry["id"] for entry in questions["canonical"]}) == len(questions["canonical"])
    for entry in questions["canonical"]:
        assert set(entry) == {"id", "prompt", "max_tokens", "contains"}
        assert any(all(word in answer for word in entry["contains"]) for answer in answers.values())
        assert entry["contains"]
        assert 0 < entry["max_tokens"] <= 48

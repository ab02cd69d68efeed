"""A checkpoint laid out for other people's tools: the files that were checked, and nothing else of its folder.

Those tools read whatever they find. So they get a folder of their own: the checkpoint's weights and tokenizer by links,
its config and settings written anew from what was read, and a generation config of the config's own token ids where it
has none. A file that the checkpoint's digest does not cover cannot change what is made.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from drupelet.forge.checkpoint import Checkpoint

MODEL_TYPES = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "mistral"}
"""What transformers calls them, for configs that leave it out."""
TOKENIZER_CLASS = "LlamaTokenizer"
REWRITTEN = ("config.json", "tokenizer_config.json", "chat_template.jinja")
PLAIN_CONTENT = """\
{%- set ns = namespace(turns=[]) -%}
{%- for turn in messages -%}
{%- set text = turn['content'] if turn['content'] is string else turn['content'] | map(attribute='text') | join('') -%}
{%- set ns.turns = ns.turns + [{'role': turn['role'], 'content': text}] -%}
{%- endfor -%}
{%- set messages = ns.turns -%}
"""
"""Put before a template where a runtime hands it lists of parts: most templates would print the list itself."""


def stage(checkpoint: Checkpoint, folder: Path, *, template_prefix: str = "") -> Path:
    """Write the folder and return it."""
    folder.mkdir(parents=True)
    for path in checkpoint.files:
        if path.name not in REWRITTEN:
            (folder / path.name).symlink_to(path.resolve())
    config = dict(checkpoint.fields)
    config.setdefault("model_type", MODEL_TYPES.get(checkpoint.architecture))
    _write(folder / "config.json", config)
    settings = dict(checkpoint.tokenizer_config)
    if checkpoint.tokenizer is not None and checkpoint.tokenizer.suffix == ".model":
        settings.setdefault("tokenizer_class", TOKENIZER_CLASS)
    template = settings.pop("chat_template", None)
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    if isinstance(template, str):
        (folder / "chat_template.jinja").write_text(template_prefix + template, encoding="utf-8")
    _write(folder / "tokenizer_config.json", settings)
    generation = folder / "generation_config.json"
    if not generation.exists():
        _write(generation, _generation(config))
    return folder


def _generation(config: dict[str, Any]) -> dict[str, Any]:
    known = {key: config.get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {"do_sample": False} | {key: value for key, value in known.items() if value is not None}


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")

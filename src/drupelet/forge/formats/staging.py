"""A checkpoint laid out for other people's tools: the files that were checked, and nothing else of its folder.

Those tools read whatever they find. So they get a folder of their own: the checkpoint's weights and tokenizer by links,
its config and settings written anew from what was read, and a generation config of the config's own token ids where it
has none. A file that the checkpoint's digest does not cover cannot change what is made.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
import jinja2.sandbox

from drupelet.forge.checkpoint import Checkpoint

MODEL_TYPES = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "mistral"}
"""What transformers calls them, for configs that leave it out."""
TOKENIZER_CLASS = "LlamaTokenizer"
REWRITTEN = ("config.json", "tokenizer_config.json", "chat_template.jinja")
PARTS = """\
{%- set ns = namespace(turns=[]) -%}
{%- for turn in messages -%}
{%- if turn['content'] is string or not turn['content'] -%}
{%- set ns.turns = ns.turns + [turn] -%}
{%- else -%}
{%- set text = turn['content'] | map(attribute='text') | join('') -%}
{%- set ns.turns = ns.turns + [{'role': turn['role'], 'content': text}] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = ns.turns -%}
"""
"""Put before a template where the runtime hands it lists of parts: most templates would print the list itself."""
SYSTEM = """\
{%- set kept = namespace(turns=[], system='') -%}
{%- for turn in messages -%}
{%- if turn['role'] == 'system' -%}
{%- set kept.system = kept.system + turn['content'] + '\\n' -%}
{%- elif turn['role'] == 'user' and kept.system -%}
{%- set kept.turns = kept.turns + [{'role': 'user', 'content': kept.system + turn['content']}] -%}
{%- set kept.system = '' -%}
{%- else -%}
{%- set kept.turns = kept.turns + [turn] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = kept.turns -%}
"""
"""Put before a template that has no place for a system message. llama.cpp puts it before the user's words, other
runtimes drop it without a word: variants of one release would be told different things."""
_NEEDLE = "drupelet-system-needle"


def shipped(template: str, *, parts: bool) -> str:
    """Return the template as it goes into a file, so that every runtime reads from it what llama.cpp does.

    `parts`: whether the runtime hands a message's content over as a list.
    """
    return (PARTS if parts else "") + ("" if _takes_system(template) else SYSTEM) + template


def _takes_system(template: str) -> bool:
    messages = [{"role": "system", "content": _NEEDLE}, {"role": "user", "content": "Hi"}]
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, autoescape=False, extensions=["jinja2.ext.loopcontrols"]
    )
    try:
        return _NEEDLE in environment.from_string(template).render(messages=messages, add_generation_prompt=True)
    except (jinja2.TemplateError, TypeError, ValueError, KeyError):
        # One that raises for such a message has no place for it. One that needs more than this is left as it is.
        return "system" not in template


def stage(checkpoint: Checkpoint, folder: Path, *, parts: bool = False) -> Path:
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
        (folder / "chat_template.jinja").write_text(shipped(template, parts=parts), encoding="utf-8")
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

"""A chat template as Hugging Face renders it, to compare with what the inference engine makes of it.

A template is a program that came with the checkpoint. It runs in Jinja's sandbox, which keeps it from files and from
Python but not from running for ever; so also in a process of its own, with little time and memory:
`python -m drupelet.forge.tokenizers.template`, JSON in, JSON out.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from drupelet.forge.errors import CheckpointBad

SECONDS_MAX = 10
MEMORY_BYTES_MAX = 1 << 30
RENDERED_LENGTH_MAX = 1 << 20


def render(
    template: str, conversations: Sequence[Sequence[Mapping[str, str]]], *, markers: Mapping[str, str]
) -> list[str | None]:
    """Return each conversation's text with the beginning of an answer; None where the template refuses it.

    `markers` are the texts of special tokens, such as `bos_token` -> `<s>`. Raises `CheckpointBad` for a template that
    is none, or that takes more than its time, its memory or its length.
    """
    job = {"template": template, "conversations": [list(one) for one in conversations], "markers": dict(markers)}
    command = [sys.executable, "-m", "drupelet.forge.tokenizers.template"]
    try:
        done = subprocess.run(
            command, input=json.dumps(job), capture_output=True, text=True, timeout=2 * SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CheckpointBad(f"rendering it takes more than {SECONDS_MAX} s", where="chat_template") from error
    if done.returncode != 0:
        lost = f"it takes more than {SECONDS_MAX} s or {MEMORY_BYTES_MAX >> 20} MiB"
        said = (done.stderr.strip().splitlines() or [lost])[-1] if done.returncode > 0 else lost
        raise CheckpointBad(f"it cannot be rendered: {said[:200]}", where="chat_template")
    found: list[str | None] = json.loads(done.stdout)
    return found


def _render_all(job: Mapping[str, Any]) -> list[str | None]:
    from jinja2 import TemplateRuntimeError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Refused(TemplateRuntimeError):
        """The template's own `raise_exception`."""

    def refuse(words: object) -> NoReturn:
        raise Refused(str(words)[:200])

    # As `transformers` sets it up: white space, helpers and names are part of the format.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, autoescape=False, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = lambda value, indent=None, **_more: json.dumps(
        value, ensure_ascii=False, indent=indent
    )
    environment.globals["raise_exception"] = refuse
    compiled = environment.from_string(job["template"])
    found: list[str | None] = []
    for messages in job["conversations"]:
        try:
            text = compiled.render(messages=messages, add_generation_prompt=True, **job["markers"])
        except Refused:
            found.append(None)
            continue
        if len(text) > RENDERED_LENGTH_MAX:
            raise MemoryError(f"it makes {len(text)} characters of a short conversation")
        found.append(text)
    return found


def main() -> None:
    """Render the job on standard input."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS_MAX, SECONDS_MAX))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    try:
        sys.stdout.write(json.dumps(_render_all(json.load(sys.stdin))))
    except Exception as error:  # noqa: BLE001 (a template may fail in any way; its words go to whoever asked)
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()

"""The f16 reference's view of the evaluation: token sequences and logits, computed once and kept by digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from drupelet.core.errors import BadInput
from drupelet.core.names import Digest
from drupelet.engine.logits import Logits
from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.evaluation.bench import Bench, run_spec
from drupelet.forge.formats.port import Artifact
from drupelet.forge.recipe import Recipe
from drupelet.forge.runners.port import Session
from drupelet.forge.tokenizers import open_tokenizer

CACHE_VERSION = 2
_SEQUENCES_BYTES_MAX = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The reference model's token sequences and its logits for them."""

    digest: Digest
    sequences: tuple[tuple[int, ...], ...]
    sources: tuple[str, ...]
    """The question or text that each sequence was made from."""
    logits: Logits
    findings: tuple[str, ...]
    """What the reference itself gets wrong, such as a vocabulary that splits texts in another way."""


def known_reference(recipe: Recipe, artifact: Artifact, checkpoint: Checkpoint, bench: Bench) -> Reference:
    """Return the reference, from the cache if the same model met the same questions before.

    Raises `StartFailed` if it does not run.
    """
    plan = recipe.evaluation
    asked = [CACHE_VERSION, artifact.digest.text, recipe.context_tokens, plan.prompts, plan.texts]
    key = hashlib.sha256(f"{json.dumps(asked)}{plan.answer_tokens_max}".encode()).hexdigest()[:32]
    notes, logits_path = bench.cache / f"{key}.json", bench.cache / f"{key}.logits"
    if bench.disk.exists(notes) and bench.disk.exists(logits_path):
        known = json.loads(bench.disk.read(notes, bytes_max=_SEQUENCES_BYTES_MAX))
        sequences = tuple(tuple(sequence) for sequence in known["sequences"])
        logits = Logits(path=logits_path, lengths=tuple(map(len, sequences)), vocab=known["vocab"])
        if bench.disk.size(logits_path) == 4 * logits.vocab * sum(logits.lengths):
            return Reference(
                digest=artifact.digest,
                sequences=sequences,
                sources=tuple(known["sources"]),
                logits=logits,
                findings=tuple(known["findings"]),
            )
    bench.progress("asking the f16 reference")
    runner, spec = bench.runners["gguf"], run_spec(recipe, artifact)
    with runner.start(spec, runtime_folder=bench.runtime_folder) as session:
        found = _sequences(recipe, session)
        findings = _token_findings(session, checkpoint, (*plan.prompts, *plan.texts))
    part = bench.cache / f"{key}.part"
    bench.disk.part(part).close()  # makes the folder
    bench.progress("computing the f16 reference's logits")
    made = runner.logits(spec, [sequence for _, sequence in found], part)
    if made is None:
        raise BadInput("the reference's format gives no logits", where=str(artifact.path))
    bench.disk.publish(part, logits_path)
    record = {
        "sequences": [sequence for _, sequence in found],
        "sources": [source for source, _ in found],
        "vocab": made.vocab,
        "findings": findings,
    }
    bench.disk.replace(notes, json.dumps(record).encode())
    return Reference(
        digest=artifact.digest,
        sequences=tuple(tuple(sequence) for _, sequence in found),
        sources=tuple(source for source, _ in found),
        logits=Logits(path=logits_path, lengths=made.lengths, vocab=made.vocab),
        findings=tuple(findings),
    )


def _sequences(recipe: Recipe, session: Session) -> list[tuple[str, list[int]]]:
    """Return source and tokens of each sequence: texts as they are, questions followed by the model's own answers."""
    plan = recipe.evaluation
    found = [(text, session.tokenize(text) or []) for text in plan.texts]
    for prompt in plan.prompts:
        message = [{"role": "user", "content": prompt}]
        answer = session.ask(message, tokens_max=plan.answer_tokens_max)
        found.append((prompt, session.tokenize((session.render(message) or prompt) + answer.text) or []))
    return [(source, tokens[: recipe.context_tokens]) for source, tokens in found if tokens]


def _token_findings(session: Session, checkpoint: Checkpoint, texts: Sequence[str]) -> list[str]:
    """Compare the server's tokens with the tokenizer's own: others would be another language to the model."""
    tokenizer = open_tokenizer(checkpoint)
    for text in texts:
        ours, theirs = session.tokenize(text, special=False), tokenizer.encode(text)
        if ours is not None and ours != theirs:
            shown = text if len(text) <= 60 else f"{text[:57]}..."
            return [f"llama.cpp splits {shown!r} into {len(ours)} tokens in another way than the tokenizer does"]
    return []

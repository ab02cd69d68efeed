"""The f16 reference's view of the evaluation: token sequences and logits, computed once and kept by digest.

The reference is itself judged, against the checkpoint: its tokens, its template, where its answers end, its embedding
row by row, and its logits against a second computation. What is wrong with it is wrong with every variant.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from drupelet.core.errors import BadInput
from drupelet.core.names import Digest
from drupelet.engine.logits import SEQUENCE_TOKENS_MAX, Logits
from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.evaluation.bench import Bench, run_spec
from drupelet.forge.evaluation.distance import divergence
from drupelet.forge.evaluation.forward import choose, forward, why_not
from drupelet.forge.evaluation.questions import message_of
from drupelet.forge.evaluation.tongue import Tongue, tongue_findings
from drupelet.forge.evaluation.weights import embedding_findings, row_findings
from drupelet.forge.formats.port import Artifact
from drupelet.forge.recipe import Recipe
from drupelet.forge.report import ReferenceCheck
from drupelet.forge.runners.port import Session

CACHE_VERSION = 3
KL_MEAN_MAX = 0.0003
"""Nats from the checkpoint's own computation. The kiosk has 0.0000007: f16 rounds, and the cache of keys is f16."""
TOP1_MIN = 0.98
_RECORD_BYTES_MAX = 64 << 20


class TokenSequence(msgspec.Struct, frozen=True):
    """A token sequence: what it was made from, its tokens, and where the model's own answer begins in it."""

    source: str
    tokens: tuple[int, ...]
    answer_at: int
    text: str = ""
    cut: bool = False


class _Record(msgspec.Struct, frozen=True):
    """What is kept beside the logits."""

    sequences: tuple[TokenSequence, ...]
    vocab: int
    findings: tuple[str, ...]
    check: ReferenceCheck


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The reference model's token sequences and its logits for them."""

    artifact: Artifact
    sequences: tuple[TokenSequence, ...]
    logits: Logits
    check: ReferenceCheck
    findings: tuple[str, ...]
    """What the reference itself gets wrong, such as a vocabulary that splits texts in another way."""

    @property
    def digest(self) -> Digest:
        """Of the reference's file."""
        return self.artifact.digest

    @property
    def tokens(self) -> tuple[tuple[int, ...], ...]:
        """The sequences' tokens."""
        return tuple(one.tokens for one in self.sequences)


def known_reference(
    recipe: Recipe, artifact: Artifact, checkpoint: Checkpoint, tongue: Tongue, bench: Bench
) -> Reference:
    """Return the reference, from the cache if the same model met the same questions before.

    Raises `StartFailed` if it does not run.
    """
    plan = recipe.evaluation
    asked: list[Any] = [CACHE_VERSION, artifact.digest.text, checkpoint.digest.text, recipe.context_tokens]
    asked += [plan.prompts, plan.texts, plan.answer_tokens_max]
    key = hashlib.sha256(msgspec.json.encode(asked)).hexdigest()[:32]
    notes, logits_path = bench.cache / f"{key}.json", bench.cache / f"{key}.logits"
    record = _recall(bench, notes)
    if record is not None and bench.disk.exists(logits_path):
        known = _reference(artifact, record, logits_path)
        if bench.disk.size(logits_path) == 4 * known.logits.vocab * sum(known.logits.lengths):
            return known
    bench.progress("asking the f16 reference")
    runner, spec = bench.runners["gguf"], run_spec(recipe, artifact)
    with runner.start(spec, runtime_folder=bench.runtime_folder) as session:
        sequences = _sequences(recipe, session)
        findings = tongue_findings(tongue, session)
    if not sequences:
        raise BadInput("the evaluation's prompts and texts have no tokens", where=str(artifact.path))
    part = bench.cache / f"{key}.part"
    bench.disk.part(part).close()  # makes the folder
    bench.progress("computing the f16 reference's logits")
    made = runner.logits(spec, [one.tokens for one in sequences], part)
    if made is None:
        raise BadInput("the reference's format gives no logits", where=str(artifact.path))
    findings += _ends_findings(sequences, made, _ends(checkpoint))
    check, wrong = _check(checkpoint, sequences, made, bench)
    findings += wrong
    if check.judged:
        findings += [*row_findings(artifact.path, checkpoint), *embedding_findings(artifact.path, checkpoint)]
    bench.disk.publish(part, logits_path)
    record = _Record(tuple(sequences), made.vocab, tuple(f"reference: {one}" for one in findings), check)
    bench.disk.replace(notes, msgspec.json.encode(record))
    return _reference(artifact, record, logits_path)


def _recall(bench: Bench, notes: Any) -> _Record | None:
    """Return what an earlier run kept; None for nothing, or for what is damaged: it is made anew."""
    if not bench.disk.exists(notes):
        return None
    try:
        return msgspec.json.decode(bench.disk.read(notes, bytes_max=_RECORD_BYTES_MAX), type=_Record)
    except msgspec.DecodeError:
        return None


def _reference(artifact: Artifact, record: _Record, logits: Any) -> Reference:
    lengths = tuple(len(one.tokens) for one in record.sequences)
    return Reference(
        artifact=artifact,
        sequences=record.sequences,
        logits=Logits(path=logits, lengths=lengths, vocab=record.vocab),
        check=record.check,
        findings=record.findings,
    )


def _sequences(recipe: Recipe, session: Session) -> list[TokenSequence]:
    """Return texts as they are, and questions followed by the model's own answers."""
    plan, found = recipe.evaluation, []
    for prompt in plan.prompts:
        message = message_of(prompt)
        answer = session.ask(message, tokens_max=plan.answer_tokens_max)
        question = session.render(message) or prompt
        begun, whole = session.tokenize(question) or [], session.tokenize(question + answer.text) or []
        found.append(TokenSequence(prompt, tuple(whole), len(begun), answer.text, answer.finish == "length"))
    for text in plan.texts:
        tokens = tuple(session.tokenize(text) or ())
        found.append(TokenSequence(text, tokens, len(tokens)))
    most = min(recipe.context_tokens, SEQUENCE_TOKENS_MAX)
    return [
        TokenSequence(one.source, one.tokens[:most], one.answer_at, one.text, one.cut) for one in found if one.tokens
    ]


def _ends(checkpoint: Checkpoint) -> frozenset[int]:
    """Return the tokens that end an answer, as the checkpoint's own files say."""
    listed = checkpoint.generation.get("eos_token_id", [])
    listed = listed if isinstance(listed, list) else [listed]
    own = checkpoint.model.config.eos_ids if checkpoint.model is not None else ()
    return frozenset(one for one in (*own, *listed) if isinstance(one, int))


def _ends_findings(sequences: Sequence[TokenSequence], logits: Logits, ends: frozenset[int]) -> list[str]:
    """Return a finding if the model wanted to end its answer and the file made it go on.

    At temperature 0 the next token is the likeliest one. Where that is an end token of the checkpoint and the answer
    goes on nevertheless, the file does not know it as one.
    """
    for sequence, rows in zip(sequences, logits, strict=True):
        likeliest = rows.argmax(axis=1)
        for position in range(max(sequence.answer_at - 1, 0), len(sequence.tokens) - 1):
            if int(likeliest[position]) in ends and sequence.tokens[position + 1] not in ends:
                after = position + 1 - sequence.answer_at
                return [
                    f"tokens: after {after} tokens of its answer to {sequence.source[:60]!r} the model ends, and the "
                    f"file goes on: it does not know the checkpoint's end token"
                ]
    return []


def _check(
    checkpoint: Checkpoint, sequences: Sequence[TokenSequence], logits: Logits, bench: Bench
) -> tuple[ReferenceCheck, list[str]]:
    """Return the comparison with the checkpoint's own computation, and what is wrong."""
    why = why_not(checkpoint)
    if why is not None:
        return ReferenceCheck(why=why), []
    vocab = checkpoint.shape.vocab
    if vocab != logits.vocab:
        return ReferenceCheck(why="the vocabulary has another size"), [
            f"weights: it has {logits.vocab} tokens, the checkpoint {vocab}"
        ]
    chosen = choose([one.tokens for one in sequences])
    expected = forward(checkpoint, [sequences[index].tokens for index in chosen], progress=bench.progress)
    wanted = dict(zip(chosen, expected, strict=True))
    distances, same, count = [], 0, 0
    for index, rows in enumerate(islice(logits, max(chosen) + 1)):
        if index in wanted:
            distances.append(divergence(wanted[index], rows) if np.isfinite(rows).all() else np.full(len(rows), 1e6))
            same += int((wanted[index].argmax(axis=1) == rows.argmax(axis=1)).sum())
            count += len(rows)
    every = np.concatenate(distances)
    check = ReferenceCheck(
        positions=count, kl_mean=float(every.mean()), kl_max=float(every.max()), top1_agreement=same / count
    )
    if check.kl_mean <= KL_MEAN_MAX and check.top1_agreement >= TOP1_MIN:
        return check, []
    return check, [
        f"weights: the f16 file computes something else than the checkpoint: mean KL {check.kl_mean:.4g} nats where "
        f"{KL_MEAN_MAX:g} is allowed, the likeliest token agrees in {check.top1_agreement:.1%} of {count} positions"
    ]

"""Provenance: an in-toto statement with SLSA's predicate, made from the ledger of the build. Pure.

The subjects are the release's variants, by digest. SLSA tells a build as one definition; its steps, with each one's
tool, parameters, inputs and outputs, are internal parameters. The same ledger gives the same bytes. The statement goes
into the package and is named by the manifest; who signs the release signs it too, in a DSSE envelope (`dsse.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from drupelet import __version__
from drupelet.core.errors import BadInput
from drupelet.core.names import Digest
from drupelet.forge.attest.builder import Builder
from drupelet.forge.ledger import Step
from drupelet.wire.manifest import ReleaseManifest, Variant

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:drupelet:forge-build:1"
STATEMENT_BYTES_MAX = 4 << 20
LOCAL_BUILDER = Builder()

Tree = dict[str, Any]


def provenance(draft: ReleaseManifest, steps: Sequence[Step], *, builder: Builder = LOCAL_BUILDER) -> bytes:
    """Return the statement on the variants of a manifest that is not signed yet."""
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [_named(file_of(variant), Digest.parse(variant.digest)) for variant in draft.variants],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "release": draft.release.path,
                    "recipe": Digest.parse(draft.provenance.recipe).text,
                    "variants": {
                        variant.name: f"{variant.file_format} {variant.quantization}" for variant in draft.variants
                    },
                },
                "internalParameters": {"steps": [_step(step) for step in steps]},
                "resolvedDependencies": _dependencies(draft, steps),
            },
            "runDetails": {
                "builder": {"id": builder.id, "version": {"drupelet": __version__}},
                "metadata": {**_times(steps), **({"invocationId": builder.run} if builder.run else {})},
                "byproducts": _byproducts(draft),
            },
        },
    }
    return canonical(statement)


def canonical(value: Tree) -> bytes:
    """Return JSON with sorted keys and an end of line: the same value, the same bytes."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False).encode() + b"\n"


def file_of(variant: Variant) -> str:
    """Return what a variant's file is called in a package."""
    return f"{variant.name}.{variant.file_format}"


def written_ms(moment_ms: int) -> str:
    """Return Unix milliseconds as `2026-01-31T12:00:00.000Z`."""
    moment = datetime.fromtimestamp(moment_ms / 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment_ms % 1000:03d}Z"


def _named(name: str, digest: Digest) -> Tree:
    return {"name": name, "digest": {"sha256": digest.hex}}


def _files(files: Mapping[str, Digest]) -> list[Tree]:
    return [_named(name, files[name]) for name in sorted(files)]


def _step(step: Step) -> Tree:
    tool: Tree = {"name": step.tool}
    if step.tool_digest is not None:
        tool["digest"] = {"sha256": step.tool_digest.hex}
    return {
        "name": step.name,
        "tool": tool,
        "parameters": dict(step.parameters),
        "inputs": _files(step.inputs),
        "outputs": _files(step.outputs),
        "startedOn": written_ms(step.began_at_ms),
        "finishedOn": written_ms(step.ended_at_ms),
    }


def _dependencies(draft: ReleaseManifest, steps: Sequence[Step]) -> list[Tree]:
    """Return everything that came from outside: what steps read and no step made, and the tools that are programs."""
    made = {digest for step in steps for digest in step.outputs.values()}
    found = {
        ("checkpoint", Digest.parse(draft.provenance.checkpoint)),
        ("recipe", Digest.parse(draft.provenance.recipe)),
    }
    found |= {(name, digest) for step in steps for name, digest in step.inputs.items() if digest not in made}
    found |= {(step.tool, step.tool_digest) for step in steps if step.tool_digest is not None}
    return [_named(name, digest) for name, digest in sorted(found)]


def _times(steps: Sequence[Step]) -> Tree:
    if not steps:
        return {}
    return {
        "startedOn": written_ms(min(step.began_at_ms for step in steps)),
        "finishedOn": written_ms(max(step.ended_at_ms for step in steps)),
    }


def _byproducts(draft: ReleaseManifest) -> list[Tree]:
    report = draft.evaluation.report
    return [_named("report.json", Digest.parse(report))] if report is not None else []


def read_statement(data: bytes, *, where: str = "provenance") -> Tree:
    """Return the statement in `data` if it is one of a provenance. Raises `BadInput`."""
    if len(data) > STATEMENT_BYTES_MAX:
        raise BadInput(f"the statement has {len(data)} bytes where {STATEMENT_BYTES_MAX} are allowed", where=where)
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadInput("not JSON, or cut short", where=where) from error
    kinds = (value.get("_type"), value.get("predicateType")) if isinstance(value, dict) else None
    if kinds != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise BadInput("not an in-toto statement of SLSA provenance v1", where=where)
    if not isinstance(value.get("predicate"), dict) or not isinstance(value.get("subject"), list):
        raise BadInput("the statement has no subject or no predicate", where=where)
    return dict(value)


def subjects(statement: Tree) -> dict[str, str]:
    """Return the subjects' names and SHA-256 digests (hex); what is none is left out."""
    return dict(_pairs(statement["subject"]))


def dependencies(statement: Tree) -> dict[str, str]:
    """Return the names and SHA-256 digests (hex) of what went in."""
    definition = statement["predicate"].get("buildDefinition")
    found = definition.get("resolvedDependencies") if isinstance(definition, dict) else None
    return dict(_pairs(found)) if isinstance(found, list) else {}


def _pairs(found: Iterable[Any]) -> Iterable[tuple[str, str]]:
    for one in found:
        digest = one.get("digest") if isinstance(one, dict) else None
        if isinstance(digest, dict) and isinstance(one.get("name"), str) and isinstance(digest.get("sha256"), str):
            yield one["name"], digest["sha256"]


def release_in(statement: Tree) -> str:
    """Return which release the statement says it is about, empty if it does not say."""
    definition = statement["predicate"].get("buildDefinition")
    parameters = definition.get("externalParameters") if isinstance(definition, dict) else None
    release = parameters.get("release") if isinstance(parameters, dict) else None
    return release if isinstance(release, str) else ""


def step_count(statement: Tree) -> int:
    """Return how many steps the statement tells of."""
    definition = statement["predicate"].get("buildDefinition")
    inner = definition.get("internalParameters") if isinstance(definition, dict) else None
    steps = inner.get("steps") if isinstance(inner, dict) else None
    return len(steps) if isinstance(steps, list) else 0

"""A package as `drupelet forge build` writes it, without a model: files of a few bytes and what is said of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from drupelet.core.names import Digest
from drupelet.forge.attest.bom import bill_of_materials
from drupelet.forge.attest.statement import provenance
from drupelet.forge.ledger import Step
from drupelet.forge.recipe import DataSet, ModelCard
from drupelet.forge.report import Report, VariantReport
from drupelet.wire.codec import encode_canonical
from drupelet.wire.manifest import (
    ATTACHMENT_FILES,
    Attachment,
    AttachmentKind,
    Evaluation,
    Quality,
    ReleaseManifest,
)
from tests.fakes.trust_world import a_manifest

CREATED_MS = 1_795_435_200_123
CARD = ModelCard(
    license="Apache-2.0",
    source="https://models.example/kiosk",
    datasets=(DataSet(name="shop questions", url="https://data.example/shop", license="CC-BY-4.0"),),
    uses=("Answers a small shop's questions.",),
    limitations=("Knows one shop.",),
)
QUALITY = Quality(kl_mean=0.0021, kl_p99=0.02, kl_max=0.4, top1_agreement=0.98, tokens=4096)


def digest_of(data: bytes) -> Digest:
    return Digest.of_hex(hashlib.sha256(data).hexdigest())


def steps_of(files: Mapping[str, bytes]) -> tuple[Step, ...]:
    """Return a conversion by a program and an evaluation."""
    outputs = {name: digest_of(data) for name, data in files.items()}
    return (
        Step(
            name="convert",
            tool="llama-quantize b4242",
            tool_digest=digest_of(b"the program"),
            parameters={"q4_0": "q4_0"},
            inputs={"checkpoint": digest_of(b"checkpoint"), "recipe": digest_of(b"recipe")},
            outputs=outputs,
            began_at_ms=CREATED_MS - 9_000,
            ended_at_ms=CREATED_MS - 5_000,
        ),
        Step(
            name="evaluate",
            tool="drupelet 0.1.0",
            parameters={"passed": "true"},
            inputs=outputs,
            began_at_ms=CREATED_MS - 5_000,
            ended_at_ms=CREATED_MS,
        ),
    )


def a_report(manifest: ReleaseManifest, *, passed: bool = True) -> Report:
    variants = [
        VariantReport(
            name=one.name,
            quantization=one.quantization,
            digest=one.digest,
            size_bytes=one.size_bytes,
            convert_ms=1,
            load_ms=1,
            ttft_ms=1.0,
            answer_ms=1.0,
            tokens_per_second=1.0,
            memory_bytes=1,
        )
        for one in manifest.variants
    ]
    return Report(
        reference=digest_of(b"f16").text,
        checkpoint=manifest.provenance.checkpoint,
        sequences=1,
        passed=passed,
        variants=tuple(variants),
    )


def draft_of(version: str, files: Mapping[str, bytes], *, evaluation: Evaluation | None = None) -> ReleaseManifest:
    """Return a manifest without attachments."""
    plain = a_manifest(version)
    variants = [
        replace(
            plain.variants[0],
            name=name.partition(".")[0],
            digest=digest_of(data).text,
            size_bytes=len(data),
            quality=QUALITY,
        )
        for name, data in files.items()
    ]
    sources = replace(plain.provenance, checkpoint=digest_of(b"checkpoint").text, recipe=digest_of(b"recipe").text)
    made = replace(plain, created_at_ms=CREATED_MS, variants=tuple(variants), provenance=sources)
    report = encode_canonical(a_report(made, passed=evaluation is None or evaluation.passed))
    return replace(made, evaluation=replace(evaluation or Evaluation(passed=True), report=digest_of(report).text))


def describe(draft: ReleaseManifest, files: Mapping[str, bytes]) -> dict[AttachmentKind, bytes]:
    """Return provenance and bill of materials."""
    steps = steps_of(files)
    return {
        "provenance": provenance(draft, steps),
        "bom": bill_of_materials(
            draft, steps, card=CARD, architecture="LlamaForCausalLM", packages={"numpy": "2.4.6", "gguf": "0.19.0"}
        ),
    }


def write_package(
    folder: Path,
    version: str = "1.1",
    *,
    evaluation: Evaluation | None = None,
    attachments: Mapping[AttachmentKind, bytes] | None = None,
) -> ReleaseManifest:
    """Write a package with two variants and return its manifest; `attachments` go instead of honest ones."""
    files = {f"{name}.gguf": f"{name} of {version}".encode() for name in ("q4_0", "q8_0")}
    draft = draft_of(version, files, evaluation=evaluation)
    attached = describe(draft, files) if attachments is None else attachments
    named = [
        Attachment(kind=kind, digest=digest_of(attached[kind]).text, size_bytes=len(attached[kind]))
        for kind in sorted(attached)
    ]
    manifest = replace(draft, attachments=tuple(named))
    report = encode_canonical(a_report(draft, passed=draft.evaluation.passed))
    folder.mkdir(parents=True)
    written = {**files, "report.json": report, "manifest.json": encode_canonical(manifest)}
    written |= {ATTACHMENT_FILES[kind]: data for kind, data in attached.items()}
    for name, data in written.items():
        (folder / name).write_bytes(data)
    return manifest

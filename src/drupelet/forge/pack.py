"""From evaluated variants to a package: a folder with the variants' files, `report.json` and `manifest.json`.

Nothing is signed yet. A package is what a person or a CI job looks at before `publish` signs it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from types import MappingProxyType
from typing import cast

from msgspec.structs import replace

from drupelet import __version__
from drupelet.core.names import Digest, ReleaseId
from drupelet.durable.port import Disk
from drupelet.forge.checkpoint import Checkpoint
from drupelet.forge.convert import CONVERTER
from drupelet.forge.errors import RecipeBad
from drupelet.forge.evaluation import require_pass
from drupelet.forge.locks import locks
from drupelet.forge.recipe import Recipe, RecipeVariant
from drupelet.forge.report import Report, VariantReport
from drupelet.forge.shape import ModelShape
from drupelet.wire.codec import encode_canonical
from drupelet.wire.manifest import (
    ATTACHMENT_FILES,
    AdapterOf,
    Attachment,
    AttachmentKind,
    Evaluation,
    FileFormat,
    Lock,
    MemoryAt,
    Provenance,
    ReleaseManifest,
    Variant,
)

MANIFEST_FILE = "manifest.json"
REPORT_FILE = "report.json"
FINDINGS_MAX = 100
_MIB = 1 << 20
_MODE = 0o644
Attachments = Mapping[AttachmentKind, bytes]
NOTHING_ATTACHED: Attachments = MappingProxyType({})
NOTHING_BOUND: Mapping[str, Lock] = MappingProxyType({})
Describe = Callable[[ReleaseManifest], Attachments]


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A finished package."""

    folder: Path
    manifest: ReleaseManifest
    report: Report


def pack(
    release: ReleaseId,
    recipe: Recipe,
    report: Report,
    *,
    recipe_digest: Digest,
    checkpoint: Checkpoint,
    folder: Path,
    disk: Disk,
    created_at_ms: int,
    override: str = "",
    attachments: Attachments = NOTHING_ATTACHED,
    converter: str = CONVERTER,
    describe: Describe = lambda _draft: NOTHING_ATTACHED,
) -> Package:
    """Write the report, the attachments and the manifest beside the variants in `folder`, and return the package.

    Raises `EvaluationRefused` if the report has findings and `override` gives no reason; a reason is in the manifest,
    and so in what is signed. `RecipeBad` if recipe and release name different families. `describe` makes further
    attachments from the manifest as it is without them.
    """
    if recipe.family != release.family:
        raise RecipeBad(f"the recipe is for {recipe.family!r}, not for {release.family!r}")
    report_bytes = encode_canonical(report)
    disk.remove(folder / MANIFEST_FILE)  # an earlier build's must not outlive a refusal of this one
    # The report and its page are written first, even of a refused release: whoever was refused wants to read them.
    disk.replace(folder / REPORT_FILE, report_bytes, mode=_MODE)
    for kind, data in attachments.items():
        disk.replace(folder / ATTACHMENT_FILES[kind], data, mode=_MODE)
    require_pass(report, override=override)
    draft = build_manifest(
        release,
        recipe,
        report,
        report_digest=Digest.of_hex(hashlib.sha256(report_bytes).hexdigest()),
        recipe_digest=recipe_digest,
        shape=checkpoint.shape,
        created_at_ms=created_at_ms,
        override=override.strip() if not report.passed else "",
        converter=converter,
        bound=locks(recipe, {one.name: folder / f"{one.name}.{one.file_format}" for one in recipe.variants}),
    )
    described = describe(draft)
    for kind, data in described.items():
        disk.replace(folder / ATTACHMENT_FILES[kind], data, mode=_MODE)
    attached = {**attachments, **described}
    manifest = replace(draft, attachments=tuple(_attachment(kind, attached[kind]) for kind in sorted(attached)))
    disk.replace(folder / MANIFEST_FILE, encode_canonical(manifest), mode=_MODE)
    return Package(folder=folder, manifest=manifest, report=report)


def build_manifest(
    release: ReleaseId,
    recipe: Recipe,
    report: Report,
    *,
    report_digest: Digest,
    recipe_digest: Digest,
    shape: ModelShape,
    created_at_ms: int,
    override: str,
    converter: str = CONVERTER,
    bound: Mapping[str, Lock] = NOTHING_BOUND,
) -> ReleaseManifest:
    """Return the manifest: what the recipe asks for, with what the report measured; `bound` has variants' locks."""
    variants = []
    for wanted in recipe.variants:
        measured = report.variant(wanted.name)
        if measured is None:
            raise RecipeBad(f"variant {wanted.name!r} was not evaluated")
        memory = (
            memory_at(measured, shape, recipe.context_tokens)
            if wanted.memory_bytes is None
            else (MemoryAt(context_tokens=recipe.context_tokens, memory_bytes=wanted.memory_bytes),)
        )
        variants.append(_variant(wanted, measured, memory=memory, lock=bound.get(wanted.name)))
    return ReleaseManifest(
        family=release.family,
        version=str(release.version),
        model=recipe.model,
        summary=recipe.summary,
        created_at_ms=created_at_ms,
        variants=tuple(variants),
        context_tokens=recipe.context_tokens,
        requires=recipe.requires,
        thermal=recipe.thermal,
        feature_flags=recipe.feature_flags,
        canonical_prompts=recipe.canonical_prompts,
        budgets=recipe.budgets,
        stages=recipe.stages,
        evaluation=Evaluation(
            passed=report.passed,
            overridden=override,
            findings=_findings(report.findings),
            report=report_digest.text,
        ),
        provenance=Provenance(
            checkpoint=report.checkpoint,
            recipe=recipe_digest.text,
            forge_version=__version__,
            converter=f"{converter}, gguf {installed_version('gguf')}, xllamacpp {installed_version('xllamacpp')}"[
                :128
            ],
        ),
    )


def _attachment(kind: AttachmentKind, data: bytes) -> Attachment:
    return Attachment(kind=kind, digest=Digest.of_hex(hashlib.sha256(data).hexdigest()).text, size_bytes=len(data))


def _variant(
    wanted: RecipeVariant, measured: VariantReport, *, memory: tuple[MemoryAt, ...], lock: Lock | None
) -> Variant:
    return Variant(
        name=wanted.name,
        digest=measured.digest,
        size_bytes=measured.size_bytes,
        file_format=cast(FileFormat, wanted.file_format),  # the recipe's reader knows them all
        quantization=wanted.quantization,
        memory=memory,
        npu_required=wanted.npu_required or (lock is not None and bool(lock.accelerators)),
        lock=lock,
        quality=measured.quality,
        adapter=None if wanted.adapter is None else AdapterOf(base=wanted.adapter.base),
    )


def memory_at(measured: VariantReport, shape: ModelShape, context_tokens: int) -> tuple[MemoryAt, ...]:
    """Return the memory at the recipe's context, as measured, and at the model's longest, with the larger cache.

    Rounded up to MiB and one tenth above what was seen: allocators and kernels differ from machine to machine.
    """
    contexts = sorted({context_tokens, max(context_tokens, shape.context)})
    found = []
    for tokens in contexts:
        seen = measured.memory_bytes + shape.cache_bytes(tokens) - shape.cache_bytes(context_tokens)
        found.append(MemoryAt(context_tokens=tokens, memory_bytes=-(-seen * 11 // (10 * _MIB)) * _MIB))
    return tuple(found)


def _findings(findings: Sequence[str]) -> tuple[str, ...]:
    if len(findings) <= FINDINGS_MAX:
        return tuple(findings)
    return (*findings[: FINDINGS_MAX - 1], f"and {len(findings) - FINDINGS_MAX + 1} more, see the report")

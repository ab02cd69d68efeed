"""The validation report, `report.json`: what the evaluation measured, kept beside the release as a blob of its own.

The manifest names it by digest and repeats its verdict; the numbers of each variant that a device needs are in the
manifest itself.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from drupelet.wire.codec import Message
from drupelet.wire.fields import Bytes, Count, DigestText, Milliseconds, NameText, NonNegative, Sentence
from drupelet.wire.manifest import Part, Quality


class CanonicalResult(Part, frozen=True, kw_only=True):
    """Whether a canonical prompt was answered well, and why or why not."""

    id: NameText
    passed: bool
    why: Sentence


class VariantReport(Part, frozen=True, kw_only=True):
    """One variant, measured on the forge's machine: speeds here are no speeds of a device."""

    name: NameText
    quantization: Annotated[str, Meta(max_length=32)]
    digest: DigestText
    size_bytes: Bytes
    convert_ms: Milliseconds
    load_ms: Milliseconds
    ttft_ms: NonNegative
    answer_ms: NonNegative
    tokens_per_second: NonNegative
    """Like the two times before it a median over all questions."""
    memory_bytes: Bytes
    """Most resident memory of the child with one slot of the recipe's context."""
    quality: Quality | None = None
    canonical: Annotated[tuple[CanonicalResult, ...], Meta(max_length=64)] = ()
    findings: Annotated[tuple[Sentence, ...], Meta(max_length=100)] = ()


class Report(Message, frozen=True, kw_only=True):
    """All variants of a release against the f16 reference."""

    FORMAT: ClassVar[str] = "drupelet.report/1"
    BYTES_MAX: ClassVar[int] = 4 << 20

    format: str = "drupelet.report/1"
    reference: DigestText
    checkpoint: DigestText
    sequences: Count
    passed: bool
    findings: tuple[Sentence, ...] = ()
    variants: tuple[VariantReport, ...]

    def variant(self, name: str) -> VariantReport | None:
        """Return the report on one variant, if there is one."""
        return next((one for one in self.variants if one.name == name), None)

"""The validation report, `report.json`: what the evaluation measured, kept beside the release as a blob of its own.

The manifest names it by digest and repeats its verdict; the numbers of each variant that a device needs are in the
manifest itself. `report.html` shows the same (`forge.page`).
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from drupelet.wire.codec import Message
from drupelet.wire.fields import Bytes, Count, DigestText, Milliseconds, NameText, NonNegative, Sentence
from drupelet.wire.manifest import Part, Quality

Share = Annotated[float, Meta(ge=0, le=1)]
Change = Annotated[float, Meta(ge=-1, le=1)]


class CanonicalResult(Part, frozen=True, kw_only=True):
    """Whether a canonical prompt was answered well, and why or why not."""

    id: NameText
    passed: bool
    why: Sentence


class CheckResult(Part, frozen=True, kw_only=True):
    """Whether one prompt of a check was answered well; None where nobody could say."""

    id: NameText
    group: NameText
    prompt: Sentence
    passed: bool | None
    why: Sentence = ""


class Regression(Part, frozen=True, kw_only=True):
    """A group's prompts against the replaced release's answers to them. `low` and `high`: 95% interval of `drop`."""

    before: Share
    after: Share
    drop: Change
    low: Change
    high: Change
    p_value: Share
    lost: Count
    won: Count
    lost_prompts: Annotated[tuple[Sentence, ...], Meta(max_length=10)] = ()


class GroupResult(Part, frozen=True, kw_only=True):
    """How many of a group's prompts were answered well. `low` and `high`: 95% interval of the share of those judged."""

    name: NameText
    passed: Count
    total: Count
    unjudged: Count = 0
    low: Share
    high: Share
    why: Sentence = ""
    """Of the first prompt that failed or could not be judged."""
    regression: Regression | None = None


class CostAt(Part, frozen=True, kw_only=True):
    """What an answer cost whose prompt had so many tokens, on the forge's machine."""

    prompt_tokens: Count
    ttft_ms: NonNegative
    tokens_per_second: NonNegative
    memory_bytes: Bytes
    """Most resident memory up to then."""


class ReferenceCheck(Part, frozen=True, kw_only=True):
    """The f16 reference against a second computation of the checkpoint; `why` says why that was not made."""

    why: Sentence = ""
    positions: Count = 0
    kl_mean: NonNegative = 0.0
    kl_max: NonNegative = 0.0
    top1_agreement: Share = 0.0

    @property
    def judged(self) -> bool:
        """Whether it was made."""
        return self.positions > 0


class VariantReport(Part, frozen=True, kw_only=True):
    """One variant, measured on the forge's machine: speeds here are no speeds of a device."""

    name: NameText
    quantization: Annotated[str, Meta(max_length=32)]
    file_format: Annotated[str, Meta(max_length=32)] = "gguf"
    runner: Annotated[str, Meta(max_length=128)] = ""
    digest: DigestText
    size_bytes: Bytes
    convert_ms: Milliseconds
    load_ms: Milliseconds
    ttft_ms: NonNegative
    answer_ms: NonNegative
    tokens_per_second: NonNegative
    """Like the two times before it a median over all questions."""
    memory_bytes: Bytes
    """Most resident memory of the child with one slot of the recipe's context, filled."""
    costs: Annotated[tuple[CostAt, ...], Meta(max_length=8)] = ()
    quality: Quality | None = None
    kl_quantiles: Annotated[tuple[NonNegative, ...], Meta(max_length=16)] = ()
    """Nats at each of the report's `quantiles`."""
    worst_prompt: Sentence = ""
    worst_kl: NonNegative = 0.0
    """Mean divergence on the worst prompt."""
    perplexity: NonNegative = 0.0
    """Reported, and decides nothing."""
    same_answers: Share | None = None
    """Share of the evaluation's prompts that were answered in the very words of the reference."""
    deterministic: bool | None = None
    """Whether the same prompts got the same answers twice, and again after a restart."""
    canonical: Annotated[tuple[CanonicalResult, ...], Meta(max_length=64)] = ()
    checks: Annotated[tuple[CheckResult, ...], Meta(max_length=500)] = ()
    groups: Annotated[tuple[GroupResult, ...], Meta(max_length=500)] = ()
    findings: Annotated[tuple[Sentence, ...], Meta(max_length=100)] = ()
    notes: Annotated[tuple[Sentence, ...], Meta(max_length=32)] = ()
    """What was not judged, and why."""


class Emulated(Part, frozen=True, kw_only=True):
    """The canonical prompts answered by an emulated processor: correctness only, no speed."""

    variant: NameText
    processor: Annotated[str, Meta(max_length=64)]
    """Such as `qemu-aarch64-static -cpu cortex-a76`."""
    canonical: Annotated[tuple[CanonicalResult, ...], Meta(max_length=64)]
    failed: Sentence = ""
    """Why it could not be asked."""


class Report(Message, frozen=True, kw_only=True):
    """All variants of a release against the f16 reference."""

    FORMAT: ClassVar[str] = "drupelet.report/1"
    BYTES_MAX: ClassVar[int] = 16 << 20

    format: str = "drupelet.report/1"
    reference: DigestText
    reference_check: ReferenceCheck | None = None
    checkpoint: DigestText
    replaces: Annotated[str, Meta(max_length=128)] = ""
    """The release whose answers these are compared with; empty if there was none."""
    sequences: Count
    positions: Count = 0
    quantiles: Annotated[tuple[Share, ...], Meta(max_length=16)] = ()
    passed: bool
    findings: tuple[Sentence, ...] = ()
    notes: tuple[Sentence, ...] = ()
    variants: tuple[VariantReport, ...]
    emulated: Annotated[tuple[Emulated, ...], Meta(max_length=32)] = ()

    def variant(self, name: str) -> VariantReport | None:
        """Return the report on one variant, if there is one."""
        return next((one for one in self.variants if one.name == name), None)

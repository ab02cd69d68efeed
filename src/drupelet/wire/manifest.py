"""The release manifest: the small signed JSON that says what a release is and what a device must be to run it.

It is a target of the image repository under `<family>/<version>/manifest.json`. Blobs are named by digest and lie in
a depot; the manifest never says where.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from drupelet.core.errors import BadInput
from drupelet.core.names import Digest, ReleaseId, VariantName, family, name, variant_name
from drupelet.core.names import Version as ReleaseVersion
from drupelet.wire.codec import Malformed, Message
from drupelet.wire.fields import (
    Bytes,
    Celsius,
    Count,
    DigestText,
    EpochMs,
    Label,
    LabelKey,
    Milliseconds,
    NameText,
    NonNegative,
    Sentence,
    VersionText,
)

PROMPT_CHARACTERS_MAX = 8000
MANIFEST_NAME = "manifest.json"

FileFormat = Literal["gguf", "gguf-lora", "onnx", "litert", "openvino", "hef"]
"""What kind of file a variant is. A device takes only what its gateway can run."""


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A part of a message: no format of its own."""


class MemoryAt(Part, frozen=True, kw_only=True, omit_defaults=True):
    """What running a variant takes at one context length: weights, KV cache and overhead, in bytes."""

    context_tokens: Annotated[int, Meta(ge=1, le=2**20)]
    memory_bytes: Bytes


class Quality(Part, frozen=True, kw_only=True, omit_defaults=True):
    """How far a variant is from the f16 reference, as the forge measured it."""

    kl_mean: NonNegative
    kl_p99: NonNegative
    kl_max: NonNegative
    top1_agreement: Annotated[float, Meta(ge=0, le=1)]
    tokens: Count


class Lock(Part, frozen=True, kw_only=True, omit_defaults=True):
    """What one variant's file is bound to: compiled files run on the chip and with the driver they were made for.

    A device takes the variant only where all that is named here is known to be there.
    """

    compiler: Annotated[str, Meta(max_length=64)] = ""
    """Name and version of what compiled it, such as `hailo-dfc 5.1.0`. Said, not compared."""
    accelerators: Annotated[tuple[NameText, ...], Meta(max_length=8)] = ()
    """One of these must be the device's NPU, such as `hailo10h`. Case and marks do not count."""
    driver: Annotated[str, Meta(max_length=64)] = ""
    """Name and least version of the accelerator's driver, such as `hailo 5.1.0`."""
    driver_series: bool = False
    """The driver's first two numbers must be those of `driver`, not only as large."""
    firmware_min: Annotated[str, Meta(max_length=64)] = ""


class AdapterOf(Part, frozen=True, kw_only=True, omit_defaults=True):
    """What an adapter is applied to: another variant of the same release, by name."""

    base: NameText


class Variant(Part, frozen=True, kw_only=True, omit_defaults=True):
    """One quantisation of the model: one blob and what it takes to run it."""

    name: NameText
    digest: DigestText
    size_bytes: Bytes
    file_format: FileFormat = "gguf"
    quantization: Annotated[str, Meta(max_length=32)]
    memory: Annotated[tuple[MemoryAt, ...], Meta(min_length=1, max_length=16)]
    npu_required: bool = False
    lock: Lock | None = None
    quality: Quality | None = None
    adapter: AdapterOf | None = None
    """Of a `gguf-lora`: this blob is an adapter, and `memory` and `quality` are of both together."""

    def memory_bytes(self, context_tokens: int) -> int:
        """Return the memory at `context_tokens`: of the smallest listed context that is at least as long."""
        fitting = [m for m in self.memory if m.context_tokens >= context_tokens]
        return min(fitting, key=lambda m: m.context_tokens).memory_bytes if fitting else self.memory[-1].memory_bytes


class Requires(Part, frozen=True, kw_only=True, omit_defaults=True):
    """The least a device must have. Empty means anything."""

    runtime_min: VersionText = "0.1"
    firmware_min: Annotated[str, Meta(max_length=64)] = ""
    driver: Annotated[str, Meta(max_length=64)] = ""
    """Name and least version of an accelerator's driver, such as `hailo 5.1.0`."""


class ThermalProfile(Part, frozen=True, kw_only=True, omit_defaults=True):
    """How warm a device may be when the update starts and while the model works, in degrees Celsius."""

    start_celsius_max: Celsius = 75.0
    run_celsius_max: Celsius = 85.0


class Expectation(Part, frozen=True, kw_only=True, omit_defaults=True):
    """What a good answer satisfies. Comparison ignores case and runs of white space, except for `regex`."""

    kind: Literal["contains", "not_contains", "equals", "regex", "tokens_max", "tokens_min"]
    value: Annotated[str, Meta(max_length=1000)]


class CanonicalPrompt(Part, frozen=True, kw_only=True, omit_defaults=True):
    """A question with a known good answer, asked at temperature 0 in the forge, in the trial and by the watchdog."""

    id: NameText
    prompt: Annotated[str, Meta(min_length=1, max_length=PROMPT_CHARACTERS_MAX)]
    tokens_max: Annotated[int, Meta(ge=1, le=4096)] = 64
    expect: Annotated[tuple[Expectation, ...], Meta(min_length=1, max_length=16)]


class Budgets(Part, frozen=True, kw_only=True, omit_defaults=True):
    """Absolute limits a device holds a release to in its trial and its probation. None means no limit."""

    load_ms_max: Milliseconds | None = None
    ttft_ms_max: Milliseconds | None = None
    answer_ms_max: Milliseconds | None = None
    tokens_per_second_min: NonNegative | None = None
    memory_bytes_max: Bytes | None = None
    temperature_celsius_max: Celsius | None = None


class StageAdvice(Part, frozen=True, kw_only=True, omit_defaults=True):
    """A stage the release's author recommends: how many devices (`"1"`, `"25%"`) and for how long at least."""

    devices: Annotated[str, Meta(pattern=r"^([1-9][0-9]{0,6}|[1-9][0-9]?%|100%)$")]
    minutes_min: Count = 0


class Evaluation(Part, frozen=True, kw_only=True, omit_defaults=True):
    """What the forge found. `overridden` holds the words of whoever packed it against the evaluation's verdict."""

    passed: bool
    overridden: Sentence = ""
    findings: Annotated[tuple[Sentence, ...], Meta(max_length=100)] = ()
    report: DigestText | None = None


class Provenance(Part, frozen=True, kw_only=True, omit_defaults=True):
    """What went in."""

    checkpoint: DigestText
    recipe: DigestText
    forge_version: Annotated[str, Meta(max_length=64)]
    converter: Annotated[str, Meta(max_length=128)]


AttachmentKind = Literal["report-page", "provenance", "bom"]

ATTACHMENT_FILES: dict[AttachmentKind, str] = {
    "report-page": "report.html",
    "provenance": "provenance.json",
    "bom": "bom.cdx.json",
}
"""What each attachment is called in a package. In a depot it is a blob, named by its digest."""


ATTACHMENT_BYTES_MAX = 16 << 20
"""A report page takes 5 MB, nearly all of it the chart library."""


class Attachment(Part, frozen=True, kw_only=True, omit_defaults=True):
    """A blob that says something about the release and that no device needs, such as its bill of materials."""

    kind: AttachmentKind
    digest: DigestText
    size_bytes: Bytes


class ReleaseManifest(Message, frozen=True, kw_only=True):
    """A release: what it is, what it needs, what it must do, and how it came to be."""

    FORMAT: ClassVar[str] = "drupelet.manifest/1"
    BYTES_MAX: ClassVar[int] = 256 * 1024

    format: str = "drupelet.manifest/1"
    family: NameText
    version: VersionText
    model: Annotated[str, Meta(min_length=1, max_length=128)]
    """The name a client sends as `model`."""
    summary: Sentence = ""
    created_at_ms: EpochMs
    variants: Annotated[tuple[Variant, ...], Meta(min_length=1, max_length=32)]
    context_tokens: Annotated[int, Meta(ge=16, le=2**20)]
    requires: Requires = Requires()
    thermal: ThermalProfile = ThermalProfile()
    feature_flags: Annotated[dict[LabelKey, Label], Meta(max_length=64)] = {}
    canonical_prompts: Annotated[tuple[CanonicalPrompt, ...], Meta(min_length=1, max_length=64)]
    budgets: Budgets = Budgets()
    stages: Annotated[tuple[StageAdvice, ...], Meta(max_length=16)] = ()
    evaluation: Evaluation
    provenance: Provenance
    attachments: Annotated[tuple[Attachment, ...], Meta(max_length=16)] = ()

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if len(set(names)) != len(names):
            raise ValueError("two variants have one name")
        for variant in self.variants:
            _check_adapter(variant, self.variants)
        ids = [prompt.id for prompt in self.canonical_prompts]
        if len(set(ids)) != len(ids):
            raise ValueError("two canonical prompts have one id")
        kinds = [attachment.kind for attachment in self.attachments]
        if len(set(kinds)) != len(kinds):
            raise ValueError("two attachments are of one kind")

    @property
    def release(self) -> ReleaseId:
        """Family and version."""
        return ReleaseId(family(self.family), ReleaseVersion.parse(self.version))

    @property
    def path(self) -> str:
        """The target's path in the image repository."""
        return manifest_path(self.release)

    def attachment(self, kind: AttachmentKind) -> Attachment | None:
        """Return the attachment of that kind, if there is one."""
        return next((one for one in self.attachments if one.kind == kind), None)

    def variant(self, wanted: str) -> Variant:
        """Return the variant of that name, or raise `BadInput` naming those there are."""
        for variant in self.variants:
            if variant.name == wanted:
                return variant
        there = ", ".join(v.name for v in self.variants)
        raise BadInput(f"{self.release} has no variant {wanted!r}", fix=f"it has {there}")


def _check_adapter(variant: Variant, variants: tuple[Variant, ...]) -> None:
    """Raise `ValueError` for an adapter without a whole model beside it, or a whole model that claims to be one."""
    if (variant.adapter is not None) != (variant.file_format == "gguf-lora"):
        raise ValueError("a variant is an adapter exactly if its file_format is gguf-lora")
    if variant.adapter is not None:
        base = next((one for one in variants if one.name == variant.adapter.base), None)
        if base is None or base.file_format != "gguf":
            raise ValueError("an adapter's base is no GGUF variant of this release")


def manifest_path(release: ReleaseId) -> str:
    """Return the target path of a release's manifest."""
    return f"{release.path}/{MANIFEST_NAME}"


def release_of_path(path: str) -> ReleaseId:
    """Return the release whose manifest has this target path."""
    head, _, tail = path.rpartition("/")
    if tail != MANIFEST_NAME:
        raise Malformed(f"{path[:100]!r} is not <family>/<version>/{MANIFEST_NAME}")
    return ReleaseId.parse(head)


def release_of_target(path: str) -> ReleaseId:
    """Return the release that a target `<family>/<version>/<name>` belongs to; the name must be a safe one."""
    head, _, tail = path.rpartition("/")
    name(tail, what="target")
    return ReleaseId.parse(head)


def digest_of(variant: Variant) -> Digest:
    """Return a variant's blob digest, parsed."""
    return Digest.parse(variant.digest)


def name_of(variant: Variant) -> VariantName:
    """Return a variant's name, parsed."""
    return variant_name(variant.name)

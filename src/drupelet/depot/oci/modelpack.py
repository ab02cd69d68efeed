"""What a release looks like in a registry. Pure: a manifest in, bytes out, the same bytes every time.

    kiosk:1.2-q4_0     a ModelPack artifact (CNCF model-spec): one variant, one layer, the file as it is
    kiosk:1.2          an index of the variants
      <- refers to it  the signed release manifest, the report, provenance, bill of materials

Two layouts, because readers differ in the media types they take: `modelpack` is what kitops, modctl and Kubernetes'
image volumes read; `docker-gguf` is what Docker Model Runner and llama.cpp's own `-dr` pull read, which take a layer
only if its media type says gguf.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import msgspec

from drupelet.core.errors import BadInput
from drupelet.core.names import Digest
from drupelet.depot.oci.registry import INDEX, MANIFEST
from drupelet.wire.manifest import ReleaseManifest, Variant

ARTIFACT = "application/vnd.cncf.model.manifest.v1+json"
CONFIG = "application/vnd.cncf.model.config.v1+json"
WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
DOCKER_CONFIG = "application/vnd.docker.ai.model.config.v0.1+json"
DOCKER_GGUF = "application/vnd.docker.ai.gguf.v3"
EMPTY = "application/vnd.oci.empty.v1+json"
EMPTY_BYTES = b"{}"
RELEASE_MANIFEST = "application/vnd.drupelet.manifest.v1+json"
FILE_TYPES = {
    "manifest.json": RELEASE_MANIFEST,
    "report.json": "application/vnd.drupelet.report.v1+json",
    "report.html": "text/html",
    "provenance.json": "application/vnd.in-toto+json",
    "provenance.dsse.json": "application/vnd.dsse.envelope.v1+json",
    "bom.cdx.json": "application/vnd.cyclonedx+json",
    "model.sig": "application/vnd.dev.sigstore.bundle.v0.3+json",
    "model-signing.pub": "application/x-pem-file",
}
"""Artifact types of what refers to a release, by the file's name in a package."""
OTHER_FILE = "application/octet-stream"

FILEPATH = "org.cncf.model.filepath"
TITLE = "org.opencontainers.image.title"
CREATED = "org.opencontainers.image.created"
VERSION = "org.opencontainers.image.version"
DESCRIPTION = "org.opencontainers.image.description"
RELEASE = "dev.drupelet.release"
VARIANT = "dev.drupelet.variant"


class Layout(Enum):
    """Which media types a variant is written with."""

    MODELPACK = "modelpack"
    DOCKER_GGUF = "docker-gguf"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """How a manifest names a blob or another manifest."""

    media_type: str
    digest: Digest
    size: int
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, data: bytes, media_type: str, *, artifact_type: str = "") -> Descriptor:
        """Describe some bytes."""
        digest = Digest.of_hex(hashlib.sha256(data).hexdigest())
        return cls(media_type, digest, len(data), artifact_type)

    def written(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest.text, "size": self.size}
        if self.artifact_type:
            value["artifactType"] = self.artifact_type
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return value


@dataclass(frozen=True, slots=True)
class Artifact:
    """A manifest to write, and the small config blob it names."""

    manifest: bytes
    config: bytes
    descriptor: Descriptor


def file_name(variant: Variant) -> str:
    """Return what a variant's file is called in a package."""
    return f"{variant.name}.{variant.file_format}"


def variant_tag(manifest: ReleaseManifest, variant: Variant) -> str:
    """Return the tag of one variant."""
    return f"{manifest.version}-{variant.name}"


def variant_artifact(manifest: ReleaseManifest, variant: Variant, layout: Layout) -> Artifact:
    """Return the artifact of one variant. Raises `BadInput` for a format the layout has no media type for."""
    if layout is Layout.DOCKER_GGUF and variant.file_format != "gguf":
        raise BadInput(
            f"the layout docker-gguf holds GGUF files, and {variant.name} is {variant.file_format}",
            fix="use --layout modelpack",
        )
    name = file_name(variant)
    docker = layout is Layout.DOCKER_GGUF
    layer = Descriptor(
        DOCKER_GGUF if docker else WEIGHT,
        Digest.parse(variant.digest),
        variant.size_bytes,
        annotations={FILEPATH: name, TITLE: name},
    )
    config = _json(_docker_config(manifest, variant) if docker else _model_config(manifest, variant))
    about = {
        CREATED: created(manifest),
        VERSION: manifest.version,
        TITLE: f"{manifest.family} {manifest.version} {variant.name}",
        RELEASE: manifest.release.path,
        VARIANT: variant.name,
    }
    data = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            **({} if docker else {"artifactType": ARTIFACT}),
            "config": Descriptor.of(config, DOCKER_CONFIG if docker else CONFIG).written(),
            "layers": [layer.written()],
            "annotations": about | ({DESCRIPTION: manifest.summary} if manifest.summary else {}),
        }
    )
    listed = Descriptor.of(data, MANIFEST, artifact_type="" if docker else ARTIFACT)
    named = Descriptor(
        listed.media_type, listed.digest, listed.size, listed.artifact_type, {VARIANT: variant.name, TITLE: name}
    )
    return Artifact(data, config, named)


def release_index(manifest: ReleaseManifest, variants: tuple[Descriptor, ...]) -> bytes:
    """Return the index that a release's version names."""
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": INDEX,
            "artifactType": RELEASE_MANIFEST,
            "manifests": [variant.written() for variant in variants],
            "annotations": {
                CREATED: created(manifest),
                VERSION: manifest.version,
                TITLE: str(manifest.release),
                RELEASE: manifest.release.path,
            },
        }
    )


def beside(manifest: ReleaseManifest, *, name: str, file: Descriptor, subject: Descriptor) -> Artifact:
    """Return the artifact that attaches a file to a release."""
    kind = FILE_TYPES.get(name, OTHER_FILE)
    about = {CREATED: created(manifest), TITLE: name, RELEASE: manifest.release.path}
    data = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": Descriptor.of(EMPTY_BYTES, EMPTY).written(),
            "layers": [Descriptor(kind, file.digest, file.size, annotations={TITLE: name, FILEPATH: name}).written()],
            "subject": subject.written(),
            "annotations": about,
        }
    )
    listed = Descriptor.of(data, MANIFEST)
    return Artifact(data, EMPTY_BYTES, Descriptor(MANIFEST, listed.digest, listed.size, kind, about))


def created(manifest: ReleaseManifest) -> str:
    """Return when the release was made, as RFC 3339 writes it."""
    return f"{datetime.fromtimestamp(manifest.created_at_ms // 1000, UTC):%Y-%m-%dT%H:%M:%SZ}"


def _model_config(manifest: ReleaseManifest, variant: Variant) -> dict[str, Any]:
    """Return the config of ModelPack's schema; a raw layer's DiffID is its digest."""
    return {
        "descriptor": {
            "createdAt": created(manifest),
            "family": manifest.family,
            "name": manifest.model,
            "version": manifest.version,
            "title": f"{manifest.family} {manifest.version} {variant.name}",
            **({"description": manifest.summary} if manifest.summary else {}),
        },
        "config": {"format": variant.file_format, "quantization": variant.quantization},
        "modelfs": {"type": "layers", "diffIds": [variant.digest]},
    }


def _docker_config(manifest: ReleaseManifest, variant: Variant) -> dict[str, Any]:
    """Return the config of Docker's model-spec 0.1."""
    return {
        "descriptor": {"createdAt": created(manifest)},
        "config": {
            "format": "gguf",
            "format_version": "3",
            "quantization": variant.quantization,
            "size": str(variant.size_bytes),
        },
        "files": [{"diffID": variant.digest, "type": DOCKER_GGUF}],
        "rootfs": {"type": "rootfs", "diff_ids": [variant.digest]},
    }


def _json(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value, order="sorted")

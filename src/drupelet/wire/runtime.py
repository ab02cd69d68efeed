"""The runtime's manifest: the small signed JSON that vouches for an image and says which releases it serves.

It is a target of the image repository under `runtime/<version>/runtime.json`, in a family of its own. Releases and
runtimes name each other's minimum: a release the least runtime (`requires.runtime_min`), a runtime the least release of
a family (`serves.models_min`), so that neither is taken without the other. `served` is that one question, asked when a
release is published, when a rollout is started, and by the device itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

from msgspec import Meta

from drupelet.core.names import Digest, ReleaseId, Version, family
from drupelet.core.states import Reason
from drupelet.wire.codec import Message
from drupelet.wire.fields import Bytes, DigestText, EpochMs, NameText, VersionText
from drupelet.wire.fitness import numbers
from drupelet.wire.manifest import FileFormat, Part, ReleaseManifest

RUNTIME_FAMILY = "runtime"
RUNTIME_NAME = "runtime.json"
PlatformText = Annotated[str, Meta(max_length=64, pattern=r"^linux/(arm64|amd64)$")]


class Serves(Part, frozen=True, kw_only=True, omit_defaults=True):
    """What a runtime can do for models."""

    manifest_formats: Annotated[tuple[str, ...], Meta(min_length=1, max_length=8)] = (ReleaseManifest.FORMAT,)
    file_formats: Annotated[tuple[FileFormat, ...], Meta(min_length=1, max_length=8)] = ("gguf",)
    models_min: Annotated[dict[NameText, VersionText], Meta(max_length=64)] = {}
    """The least release of a family that is served. A family that is not named is served from its first."""


OURS = Serves()
"""What this version serves. A version that drops an older release names its successor here."""


class PlatformImage(Part, frozen=True, kw_only=True, omit_defaults=True):
    """The image of one platform: the digests of its manifest and of its bill of materials, and its packed size."""

    platform: PlatformText
    digest: DigestText
    size_bytes: Bytes
    bom: DigestText


class EngineBuild(Part, frozen=True, kw_only=True, omit_defaults=True):
    """One llama-server inside: which level of CPU it is compiled for."""

    platform: PlatformText
    level: Annotated[str, Meta(min_length=1, max_length=64)]
    digest: DigestText


class Engine(Part, frozen=True, kw_only=True, omit_defaults=True):
    """What the models are run by, and what it was compiled from."""

    name: Annotated[str, Meta(min_length=1, max_length=64)]
    source: Annotated[str, Meta(min_length=1, max_length=128)]
    source_digest: DigestText
    settings: Annotated[tuple[Annotated[str, Meta(max_length=200)], ...], Meta(max_length=64)] = ()
    builds: Annotated[tuple[EngineBuild, ...], Meta(min_length=1, max_length=16)]


class RuntimeManifest(Message, frozen=True, kw_only=True):
    """A runtime: which image it is, what is in it, and which releases it serves."""

    FORMAT: ClassVar[str] = "drupelet.runtime/1"
    BYTES_MAX: ClassVar[int] = 64 * 1024

    format: str = "drupelet.runtime/1"
    name: NameText = "drupelet"
    version: VersionText
    created_at_ms: EpochMs
    index: DigestText
    """The digest of the image's index: what a registry serves under the tag."""
    platforms: Annotated[tuple[PlatformImage, ...], Meta(min_length=1, max_length=8)]
    engine: Engine
    serves: Serves = Serves()

    def __post_init__(self) -> None:
        names = [one.platform for one in self.platforms]
        if len(set(names)) != len(names):
            raise ValueError("two images have one platform")

    @property
    def path(self) -> str:
        """The target's path in the image repository."""
        return runtime_path(Version.parse(self.version))

    def digests(self, platform: str) -> frozenset[Digest]:
        """Return the digests by which a device of `platform` may have pulled this image; empty if there is none."""
        own = {Digest.parse(one.digest) for one in self.platforms if one.platform == platform}
        return frozenset(own | {Digest.parse(self.index)}) if own else frozenset()


def runtime_path(version: Version) -> str:
    """Return the target path of a runtime's manifest."""
    return f"{ReleaseId(family(RUNTIME_FAMILY), version).path}/{RUNTIME_NAME}"


@dataclass(frozen=True, slots=True)
class Unserved:
    """Why a runtime and a release do not go together."""

    reason: Reason
    detail: str


def served(manifest: ReleaseManifest, *, version: str, serves: Serves) -> Unserved | None:
    """Return why a runtime of `version` does not serve the release, or None if both agree. Pure.

    Which of its variants a device can run is another question (`fitness.unfit`).
    """
    needed = manifest.requires.runtime_min
    if numbers(version) < numbers(needed):
        return Unserved(Reason.RUNTIME_TOO_OLD, f"needs drupelet {needed}, this is {version or 'unknown'}")
    if manifest.format not in serves.manifest_formats:
        said = f"its manifest is {manifest.format}, the runtime reads {', '.join(serves.manifest_formats)}"
        return Unserved(Reason.RUNTIME_TOO_OLD, said)
    if (why := too_old(manifest.release, serves.models_min)) is not None:
        return Unserved(Reason.RELEASE_TOO_OLD, f"{why} (runtime {version})")
    return None


def too_old(release: ReleaseId, models_min: Mapping[str, str]) -> str | None:
    """Return why a release is below the least that a runtime serves, or None."""
    least = models_min.get(release.family)
    if least is None or release.version >= Version.parse(least):
        return None
    return f"the runtime serves {release.family} from {least} on, this is {release.version}"


def unserved_by_all(manifest: ReleaseManifest, runtimes: Sequence[RuntimeManifest]) -> Unserved | None:
    """Return why no runtime serves a release, in the last one's words; None if one does or none is known. Pure."""
    answers = [served(manifest, version=one.version, serves=one.serves) for one in runtimes]
    return answers[-1] if answers and all(answers) else None

"""Whether an image is a runtime that the image repository vouches for: asked on the device, before it is used.

An image is known by its digest, and a digest by the signed manifest of a version. What a registry says, and under which
tag it says it, counts for nothing. A version below the highest that was verified here is refused: an old image stays
signed for ever, with all that was wrong with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from drupelet.core.errors import BadInput
from drupelet.core.names import Digest, Version
from drupelet.core.states import Reason
from drupelet.durable import Disk
from drupelet.trust.errors import NotTrusted
from drupelet.trust.images import Images
from drupelet.trust.memory import recall, remember
from drupelet.wire.codec import Message, decode
from drupelet.wire.fields import VersionText
from drupelet.wire.runtime import RuntimeManifest, runtime_path


class RuntimeMemory(Message, frozen=True, kw_only=True):
    """The highest version of the runtime that was verified on this device."""

    FORMAT: ClassVar[str] = "drupelet.runtime-seen/1"
    BYTES_MAX: ClassVar[int] = 4096

    format: str = "drupelet.runtime-seen/1"
    version: VersionText


class Runtimes:
    """The runtimes that `images` vouches for. What was verified last is kept below `folder`."""

    def __init__(self, images: Images, *, disk: Disk, folder: Path) -> None:
        self._images = images
        self._disk = disk
        self._path = folder / "runtime.json"

    @property
    def floor(self) -> Version | None:
        """The version below which nothing is accepted; None before the first."""
        seen = recall(self._disk, self._path, RuntimeMemory)
        return Version.parse(seen.version) if seen is not None else None

    def verify(self, version: Version, digest: Digest, *, platform: str, allow_older: bool = False) -> RuntimeManifest:
        """Return the signed manifest of the runtime whose image for `platform` has this digest.

        Raises `NotTrusted`: UNSIGNED (no such version, or it was revoked), DIGEST_MISMATCH (another image), REPLAYED
        (an older version than before, unless `allow_older`), BAD_METADATA; and what `Images.target` raises. Call
        `accept` when all else that matters was asked too.
        """
        floor = self.floor
        if floor is not None and version < floor and not allow_older:
            raise NotTrusted(
                f"runtime {version} is older than {floor}, which was verified here before",
                reason=Reason.REPLAYED,
                where=str(self._path),
                fix="use a newer one; to go back all the same, say --allow-older",
            )
        path = runtime_path(version)
        target, data = self._images.target(path, bytes_max=RuntimeManifest.BYTES_MAX)
        try:
            manifest = decode(RuntimeManifest, data, where=target.path)
        except BadInput as error:
            raise NotTrusted(
                f"signed, but not a runtime this version understands: {error.what}",
                reason=Reason.BAD_METADATA,
                where=target.path,
                fix=error.fix,
            ) from error
        if manifest.path != path:
            raise NotTrusted(
                f"the manifest of runtime {manifest.version} was signed as {path}",
                reason=Reason.BAD_METADATA,
                where=path,
            )
        _require_image(manifest, digest, platform)
        return manifest

    def accept(self, version: Version) -> None:
        """Remember that this version is about to be used: the new floor."""
        if self.floor != version:
            remember(self._disk, self._path, RuntimeMemory(version=str(version)))


def _require_image(manifest: RuntimeManifest, digest: Digest, platform: str) -> None:
    known = manifest.digests(platform)
    if not known:
        there = ", ".join(one.platform for one in manifest.platforms)
        raise NotTrusted(
            f"runtime {manifest.version} has no image for {platform}, only for {there}",
            reason=Reason.UNSIGNED,
            where=manifest.path,
        )
    if digest not in known:
        raise NotTrusted(
            f"{digest} is not the image of runtime {manifest.version} for {platform}",
            reason=Reason.DIGEST_MISMATCH,
            where=manifest.path,
            fix="pull the image by the digest that is signed: drupelet agent verify-runtime --help",
        )

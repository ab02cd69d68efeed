"""Verifying a signed runtime: the image that its manifest names, layer by layer, and the bills of what is inside."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec

from drupelet.core.errors import BadInput, NotFound, Untrusted
from drupelet.core.names import Digest, ReleaseId
from drupelet.depot.oci.registry import Registry
from drupelet.forge.attest import bom as bills
from drupelet.forge.attest.answer import Answer, Fact, Found, Verdict, answered, require_known
from drupelet.forge.attest.sources import Progress, Signed
from drupelet.forge.attest.verify import facts_of_role, signature_found
from drupelet.trust.clock import written
from drupelet.trust.images import Images
from drupelet.wire.codec import decode
from drupelet.wire.runtime import RUNTIME_NAME, RuntimeManifest

CHECKS = ("signature", "image", "boms")
MANIFEST_BYTES_MAX = 4 << 20
BOM_BYTES_MAX = 16 << 20
BOM_VERSIONS = ("1.5", "1.6")


class ImageSource(Protocol):
    """Where an image lies. What it answers is believed in nothing."""

    where: str

    def manifest(self, digest: Digest) -> bytes:
        """Return an index or a manifest. Raises `NotFound` and the like."""
        ...

    def blob(self, digest: Digest, *, size: int) -> Iterator[bytes]:
        """Yield a layer or a config."""
        ...

    def bom(self, platform: str, *, subject: Digest) -> bytes:
        """Return the bill of materials of a platform's image; raises `NotFound`."""
        ...


class BuiltImage:
    """An image in the folder that `drupelet forge image` wrote."""

    def __init__(self, folder: Path) -> None:
        self.where = str(folder)
        self._folder = folder

    def manifest(self, digest: Digest) -> bytes:
        return b"".join(self.blob(digest, size=MANIFEST_BYTES_MAX))

    def blob(self, digest: Digest, *, size: int) -> Iterator[bytes]:  # noqa: ARG002 (a file ends by itself)
        yield from _read(self._folder / "oci" / "blobs" / "sha256" / digest.hex)

    def bom(self, platform: str, *, subject: Digest) -> bytes:  # noqa: ARG002 (one lies there for each platform)
        return b"".join(_read(self._folder / f"bom-{platform.rpartition('/')[2]}.cdx.json"))


def _read(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while data := file.read(1 << 20):
                yield data
    except OSError as error:
        raise NotFound(f"cannot be read: {error.strerror}", where=str(path)) from error


class PushedImage:
    """An image in a registry."""

    def __init__(self, registry: Registry) -> None:
        self.where = str(registry.repository)
        self._registry = registry

    def manifest(self, digest: Digest) -> bytes:
        return self._registry.manifest(digest.text).data

    def blob(self, digest: Digest, *, size: int) -> Iterator[bytes]:
        return self._registry.open(digest, offset=0, size=size)

    def bom(self, platform: str, *, subject: Digest) -> bytes:
        for one in self._registry.referrers(subject):
            manifest = self._registry.manifest(Digest.parse(str(one.get("digest"))).text).decoded()
            for layer in manifest.get("layers", ()):
                if "cyclonedx" in str(layer.get("mediaType")):
                    digest = Digest.parse(str(layer.get("digest")))
                    return self._registry.read_blob(digest, size=int(layer["size"]), bytes_max=BOM_BYTES_MAX)
        raise NotFound(f"no bill of materials is attached for {platform}", where=self.where)


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the checks look at."""

    manifest: RuntimeManifest
    signed: Signed
    image: ImageSource | None
    now: datetime
    progress: Progress


def verify_runtime(
    release: ReleaseId,
    *,
    images: Images,
    where: str,
    image: ImageSource | None,
    now: datetime,
    accepted: Collection[str] = (),
    progress: Progress = lambda _doing, _done, _total: None,
) -> Answer:
    """Return what holds of a runtime. Raises what reading its manifest raises; see `verify.verify`."""
    require_known(accepted, CHECKS)
    target, data = images.target(f"{release.path}/{RUNTIME_NAME}", bytes_max=RuntimeManifest.BYTES_MAX)
    manifest = decode(RuntimeManifest, data, where=target.path)
    if manifest.path != target.path:
        raise Untrusted(f"the manifest of runtime {manifest.version} was signed as {target.path}", where=where)
    family = release.family
    signed = Signed(target, images.signed_roles(family), images.family_keys(family))
    runtime = Runtime(manifest, signed, image, now, progress)
    checks = {name: partial(check, runtime) for name, check in zip(CHECKS, _CHECKS, strict=True)}
    return answered(
        checks,
        _facts(runtime),
        release=release.path,
        source=f"{where}, image from {image.where}" if image is not None else where,
        now=now,
        accepted=accepted,
    )


def _signature(runtime: Runtime) -> Found:
    return signature_found(runtime.signed, runtime.now)


def _image(runtime: Runtime) -> Found:
    image = runtime.image
    if image is None:
        return Verdict.UNKNOWN, "no image was given to look at (--image)"
    index = _document(image, Digest.parse(runtime.manifest.index))
    listed = {one.get("digest") for one in _list(index, "manifests")}
    named = {one.digest for one in runtime.manifest.platforms}
    if listed != named:
        return Verdict.FAIL, "the image's index lists other images than the manifest"
    layers = 0
    for digest in sorted(named):
        manifest = _document(image, Digest.parse(digest))
        for part in (manifest.get("config"), *_list(manifest, "layers")):
            if not isinstance(part, dict):
                return Verdict.FAIL, f"{digest} has no config"
            size = part.get("size")
            digest_of_part = Digest.parse(str(part.get("digest")))
            _hash_blob(image, digest_of_part, size=size if isinstance(size, int) else 0, progress=runtime.progress)
            layers += 1
    return Verdict.PASS, f"{runtime.manifest.index}: {len(named)} platforms, {layers} blobs hashed"


def _document(image: ImageSource, digest: Digest) -> dict[str, Any]:
    """Return an index or a manifest as a mapping. Raises `Untrusted` if it is another."""
    data = image.manifest(digest)
    found = hashlib.sha256(data).hexdigest()
    if found != digest.hex:
        raise Untrusted(f"sha256:{found} lies where {digest} was signed", where=image.where)
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadInput(f"{digest} is not JSON", where=image.where) from error
    if not isinstance(value, dict):
        raise BadInput(f"{digest} is no manifest", where=image.where)
    return value


def _list(value: dict[str, Any], key: str) -> list[dict[str, Any]]:
    found = value.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _hash_blob(image: ImageSource, digest: Digest, *, size: int, progress: Progress) -> None:
    hashing, done = hashlib.sha256(), 0
    for data in image.blob(digest, size=size):
        hashing.update(data)
        done += len(data)
        progress(digest.hex[:12], done, size)
    if hashing.hexdigest() != digest.hex or done != size:
        raise Untrusted(f"a layer is sha256:{hashing.hexdigest()} where {digest} is named")


def _boms(runtime: Runtime) -> Found:
    if runtime.image is None:
        return Verdict.UNKNOWN, "no image was given to look at (--image)"
    count = 0
    for one in runtime.manifest.platforms:
        data = runtime.image.bom(one.platform, subject=Digest.parse(one.digest))
        found = hashlib.sha256(data).hexdigest()
        if found != Digest.parse(one.bom).hex:
            return Verdict.FAIL, f"{one.platform}: sha256:{found} where {one.bom} was signed"
        document = bills.validate(data, where=one.platform, bytes_max=BOM_BYTES_MAX, versions=BOM_VERSIONS)
        count += len(document.get("components", ()))
    return Verdict.PASS, f"each the one that was signed, valid CycloneDX, {count} components"


_CHECKS = (_signature, _image, _boms)


def _facts(runtime: Runtime) -> list[Fact]:
    manifest = runtime.manifest
    created = datetime.fromtimestamp(manifest.created_at_ms / 1000, UTC)
    return [
        Fact(what="created", value=written(created)),
        Fact(what="image index", value=manifest.index),
        *(Fact(what=f"image {one.platform}", value=one.digest) for one in manifest.platforms),
        *(Fact(what=f"bom {one.platform}", value=one.bom) for one in manifest.platforms),
        Fact(what="engine", value=f"{manifest.engine.name}, {manifest.engine.source}"),
        Fact(what="engine source", value=manifest.engine.source_digest),
        *(Fact(what=f"engine {one.platform} {one.level}", value=one.digest) for one in manifest.engine.builds),
        Fact(what="manifest", value=runtime.signed.target.sha256.text),
        *(fact for role in runtime.signed.roles for fact in facts_of_role(role)),
    ]

"""From a built image to a signed runtime: its manifest, its place in the image repository, its place in a registry."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import drupelet
from drupelet.core.errors import NotFound
from drupelet.core.names import Digest, Version
from drupelet.depot.oci.registry import INDEX, MANIFEST, Registry
from drupelet.durable.port import Disk
from drupelet.forge.errors import PackageBad
from drupelet.forge.runtime.bom import MEDIA_TYPE
from drupelet.forge.runtime.image import Image, read_image
from drupelet.forge.runtime.payload import Payload
from drupelet.forge.toolchain.llamacpp import SOURCE
from drupelet.forge.toolchain.servers import SETTINGS
from drupelet.trust.publisher import ImageRepository
from drupelet.trust.roles import TargetInfo
from drupelet.wire.codec import decode, encode_canonical
from drupelet.wire.runtime import (
    OURS,
    RUNTIME_FAMILY,
    RUNTIME_NAME,
    Engine,
    EngineBuild,
    PlatformImage,
    RuntimeManifest,
)

BOM_BYTES_MAX = 16 << 20
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_EMPTY = b"{}"
Progress = Callable[[str], None]


def describe(image: Image, payloads: Sequence[Payload], boms: dict[str, bytes], *, created_at_ms: int) -> bytes:
    """Return the manifest of an image, ready to be signed. `boms` are the bills of materials by architecture."""
    by_platform = {f"linux/{payload.target.arch}": payload for payload in payloads}
    manifest = RuntimeManifest(
        version=drupelet.__version__,
        created_at_ms=created_at_ms,
        index=image.index.text,
        platforms=tuple(
            PlatformImage(
                platform=one.platform,
                digest=one.digest.text,
                size_bytes=one.size_bytes,
                bom=_digest(boms[by_platform[one.platform].target.arch]).text,
            )
            for one in image.platforms
        ),
        engine=Engine(
            name="llama.cpp",
            source=f"{SOURCE.project} {SOURCE.version}",
            source_digest=f"sha256:{SOURCE.sha256}",
            settings=SETTINGS,
            builds=tuple(
                EngineBuild(platform=platform, level=program.level, digest=program.digest.text)
                for platform, payload in sorted(by_platform.items())
                for program in payload.programs
            ),
        ),
        serves=OURS,
    )
    return encode_canonical(manifest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What `drupelet forge image` left in a folder, checked against its own manifest."""

    folder: Path
    manifest: RuntimeManifest
    image: Image

    def bom(self, platform: str) -> Path:
        """Return the bill of materials of a platform's image."""
        return self.folder / f"bom-{platform.rpartition('/')[2]}.cdx.json"


def open_built(folder: Path, *, disk: Disk) -> Built:
    """Return the image in `folder`. Raises `NotFound`, `BadInput`, or `PackageBad` if image and manifest differ."""
    path = folder / RUNTIME_NAME
    if not disk.exists(path):
        raise NotFound("no runtime was built here", where=str(path), fix="run: drupelet forge image")
    manifest = decode(RuntimeManifest, disk.read(path, bytes_max=RuntimeManifest.BYTES_MAX), where=str(path))
    image = read_image(folder / "oci")
    built = Built(folder=folder, manifest=manifest, image=image)
    named = {one.platform: one for one in manifest.platforms}
    if image.index.text != manifest.index or {one.platform for one in image.platforms} != set(named):
        raise PackageBad("the image is not the one its manifest names", where=str(folder), fix="build it again")
    for one in image.platforms:
        bom = disk.read(built.bom(one.platform), bytes_max=BOM_BYTES_MAX)
        if one.digest.text != named[one.platform].digest or _digest(bom).text != named[one.platform].bom:
            what = f"the image or the bill of materials for {one.platform} is not the one its manifest names"
            raise PackageBad(what, where=str(folder), fix="build it again")
    return built


def sign(built: Built, repository: ImageRepository) -> TargetInfo:
    """Sign the runtime's manifest into the image repository. Doing it twice does nothing; another image under the same
    version is refused (`AlreadyThere`).
    """
    return repository.add_target(built.manifest.path, encode_canonical(built.manifest))


def signed_runtimes(repository: ImageRepository, *, disk: Disk, depot: Path) -> tuple[RuntimeManifest, ...]:
    """Return the runtimes that the repository vouches for, oldest first."""
    found = []
    for target in repository.targets(RUNTIME_FAMILY):
        if target.path.endswith(f"/{RUNTIME_NAME}"):
            data = disk.read(depot / "targets" / target.url_path, bytes_max=RuntimeManifest.BYTES_MAX)
            found.append(decode(RuntimeManifest, data, where=target.path))
    return tuple(sorted(found, key=lambda manifest: Version.parse(manifest.version)))


def push(built: Built, registry: Registry, *, tag: str, progress: Progress = lambda _doing: None) -> Digest:
    """Put the image into a registry under `tag`, its bills of materials attached; return the index's digest.

    What is there already is not sent again. Raises `Taken` if the tag names another image, and what a registry raises.
    """
    layout = built.image.layout / "blobs" / "sha256"
    for one in built.image.platforms:
        progress(f"pushing {one.platform}")
        data = (layout / one.digest.hex).read_bytes()
        parts = msgspec.json.decode(data)
        for part in (parts["config"], *parts["layers"]):
            digest = Digest.parse(part["digest"])
            registry.put_blob(digest, FileSource(layout), size=int(part["size"]))
        registry.put_manifest(data, media_type=MANIFEST)
    index = (layout / built.image.index.hex).read_bytes()
    digest = registry.put_release_tag(index, media_type=INDEX, tag=tag)
    for one in built.image.platforms:
        size = (layout / one.digest.hex).stat().st_size
        _attach_bom(registry, built.bom(one.platform).read_bytes(), subject=one.digest, subject_size=size)
    return digest


class FileSource:
    """The blobs of an OCI layout. Implements `Source`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, digest: Digest, *, offset: int, size: int) -> Any:
        """Yield the blob's bytes from `offset` on."""
        del size
        with (self._folder / digest.hex).open("rb") as file:
            file.seek(offset)
            while data := file.read(1 << 20):
                yield data


def _attach_bom(registry: Registry, bom: bytes, *, subject: Digest, subject_size: int) -> None:
    config, layer = registry.put_bytes(_EMPTY), registry.put_bytes(bom)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": MEDIA_TYPE,
        "config": {"mediaType": _EMPTY_TYPE, "digest": config.text, "size": len(_EMPTY)},
        "layers": [{"mediaType": MEDIA_TYPE, "digest": layer.text, "size": len(bom)}],
        "subject": {"mediaType": MANIFEST, "digest": subject.text, "size": subject_size},
    }
    data = msgspec.json.encode(manifest, order="sorted")
    registry.attach(data, subject=subject, descriptor={"artifactType": MEDIA_TYPE})


def _digest(data: bytes) -> Digest:
    return Digest.of_hex(hashlib.sha256(data).hexdigest())

"""Pushing, pulling and copying a release. Blobs first, then what names them; the version's tag last.

The order makes a release appear whole under its version or not at all, and makes every step repeatable: what is there
is not sent again. A version names one release for ever: another one under the same tag is a conflict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drupelet.core.errors import BadInput, NotFound
from drupelet.core.names import Digest, name
from drupelet.depot.download import Download
from drupelet.depot.errors import BlobRefused, SourceUnreachable
from drupelet.depot.oci.modelpack import (
    EMPTY,
    EMPTY_BYTES,
    FILEPATH,
    TITLE,
    VARIANT,
    Artifact,
    Descriptor,
    Layout,
    beside,
    file_name,
    release_index,
    variant_artifact,
    variant_tag,
)
from drupelet.depot.oci.registry import INDEX, MANIFEST, Manifest, Registry
from drupelet.depot.ports import Source
from drupelet.durable import Disk, hash_file
from drupelet.wire.manifest import ReleaseManifest

LAYERS_MAX = 100
MANIFESTS_MAX = 64
STEP_BYTES = 8 << 20
FILE_MODE = 0o644

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a release is called in the registry, by what can be asked for."""

    index: Digest
    tags: Mapping[str, Digest]
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Beside:
    """A file of a release that no device needs: its name, digest and bytes."""

    name: str
    digest: Digest
    size: int


def push_release(
    registry: Registry,
    manifest: ReleaseManifest,
    source: Source,
    *,
    files: Iterable[Beside],
    layout: Layout,
    progress: Progress,
) -> Pushed:
    """Put a release's variants and the `files` beside it into a registry, all read from `source`.

    Raises `Taken` if the version names something else there, `BlobRefused` if a file is not what the manifest says,
    and what the registry raises.
    """
    files = tuple(files)
    artifacts = [(variant, variant_artifact(manifest, variant, layout)) for variant in manifest.variants]
    total = sum(variant.size_bytes for variant, _ in artifacts) + sum(file.size for file in files)
    done = 0
    blobs = [(file_name(v), Digest.parse(v.digest), v.size_bytes) for v, _ in artifacts]
    for called, digest, size in [*blobs, *((file.name, file.digest, file.size) for file in files)]:
        _put(registry, source, called, digest, size=size, done=done, total=total, progress=progress)
        done += size
    tags = {}
    for variant, artifact in artifacts:
        registry.put_bytes(artifact.config)
        tag = variant_tag(manifest, variant)
        tags[tag] = registry.put_release_tag(artifact.manifest, media_type=MANIFEST, tag=tag)
    index = release_index(manifest, tuple(artifact.descriptor for _, artifact in artifacts))
    subject = Descriptor.of(index, INDEX)
    registry.put_manifest(index, media_type=INDEX)
    if files:
        registry.put_bytes(EMPTY_BYTES)
    for file in files:
        attached = beside(manifest, name=file.name, file=Descriptor(EMPTY, file.digest, file.size), subject=subject)
        _attach(registry, attached, subject)
    tags[manifest.version] = registry.put_release_tag(index, media_type=INDEX, tag=manifest.version)
    return Pushed(subject.digest, tags, tuple(file.name for file in files))


def pull_release(
    registry: Registry, reference: str, folder: Path, *, disk: Disk, variant: str, progress: Progress
) -> tuple[Path, ...]:
    """Fetch what a tag or digest names into `folder`: one artifact's files, or a release's variants and what is beside.

    A file appears whole and with its digest, or not at all; what was cut is taken up where it was cut. With `variant`
    only that one of a release is fetched. Nothing here says who made it: that is what signatures are for.
    """
    top = registry.manifest(reference)
    layers = _files_of(registry, top, variant=variant)
    total = sum(layer.size for _, layer in layers)
    done = 0
    found = []
    for called, layer in layers:
        path = folder / called
        if not _is_there(disk, path, layer):
            part = folder / f"{called}.part"
            _fetch(registry, layer, part, called=called, disk=disk, done=done, total=total, progress=progress)
            disk.publish(part, path, mode=FILE_MODE)
        done += layer.size
        progress(called, done, total)
        found.append(path)
    return tuple(found)


def copy_release(source: Registry, destination: Registry, reference: str, *, tag: str, progress: Progress) -> Digest:
    """Copy what `reference` names, with all that it names and all that refers to it; return its digest.

    Within one registry blobs are mounted: nothing moves. Raises `Taken` if `tag` names something else there.
    """
    top = source.manifest(reference)
    children = [source.manifest(digest.text) for digest in _children(top)] if _is_index(top) else []
    around = [source.manifest(_digest_in(one).text) for one in source.referrers(top.digest)[:MANIFESTS_MAX]]
    every = [*children, *around, *([] if _is_index(top) else [top])]
    blobs = {layer.digest: layer for one in every for layer in _blobs_in(one)}
    total = sum(layer.size for layer in blobs.values())
    done = 0
    same = source.repository.base == destination.repository.base
    for digest, layer in blobs.items():
        if not (same and not destination.has(digest) and destination.mount(digest, source=source.repository.name)):
            _put(
                destination, source, digest.hex[:12], digest, size=layer.size, done=done, total=total, progress=progress
            )
        done += layer.size
        progress(digest.hex[:12], done, total)
    for child in children:
        annotations = next(one for one in _listed(top) if _digest_in(one) == child.digest).get("annotations") or {}
        called = annotations.get(VARIANT, "") if isinstance(annotations, dict) else ""
        destination.put_manifest(
            child.data, media_type=child.media_type or MANIFEST, tag=f"{tag}-{called}" if called and tag else ""
        )
    destination.put_manifest(top.data, media_type=top.media_type or MANIFEST)
    for one, listed in zip(around, source.referrers(top.digest), strict=False):
        kept: dict[str, Any] = {key: listed[key] for key in ("artifactType", "annotations") if key in listed}
        destination.attach(one.data, subject=top.digest, descriptor=kept)
    if tag:
        destination.put_release_tag(top.data, media_type=top.media_type or MANIFEST, tag=tag)
    return top.digest


def _put(
    registry: Registry,
    source: Source,
    called: str,
    digest: Digest,
    *,
    size: int,
    done: int,
    total: int,
    progress: Progress,
) -> None:
    registry.put_blob(digest, source, size=size, progress=lambda count: progress(called, done + count, total))


def _attach(registry: Registry, artifact: Artifact, subject: Descriptor) -> None:
    listed = artifact.descriptor
    descriptor = {"artifactType": listed.artifact_type, "annotations": dict(listed.annotations)}
    registry.attach(artifact.manifest, subject=subject.digest, descriptor=descriptor)


def _files_of(registry: Registry, top: Manifest, *, variant: str) -> list[tuple[str, Descriptor]]:
    """Return the files to fetch, by safe name."""
    if not _is_index(top):
        return _named_layers(top)
    listed = _listed(top)
    variants = [str((one.get("annotations") or {}).get(VARIANT, "")) for one in listed]
    if variant and variant not in variants:
        raise NotFound(
            f"it has no variant {variant!r}",
            where=str(registry.repository),
            fix=f"it has {', '.join(filter(None, variants))}",
        )
    wanted = [one for one, called in zip(listed, variants, strict=True) if not variant or called == variant]
    wanted += registry.referrers(top.digest)[:MANIFESTS_MAX]
    files: dict[str, Descriptor] = {}
    for one in wanted:
        for called, layer in _named_layers(registry.manifest(_digest_in(one).text)):
            if files.setdefault(called, layer).digest != layer.digest:
                raise BadInput(f"two different files are called {called!r}", where=str(registry.repository))
    return list(files.items())


def _named_layers(manifest: Manifest) -> list[tuple[str, Descriptor]]:
    """Return a manifest's layers by the names they want, which may lead nowhere but into one folder."""
    found = []
    for layer in _blobs_in(manifest)[1:]:
        wanted = layer.annotations.get(FILEPATH) or layer.annotations.get(TITLE)
        if wanted is None:
            raise BadInput(
                "a layer has no file name: this is a container image, or not a model",
                where=str(manifest.digest),
                fix="give a ModelPack artifact",
            )
        found.append((name(wanted, what="file name"), layer))
    return found


def _blobs_in(manifest: Manifest) -> list[Descriptor]:
    """Return config and layers of a manifest, the config first."""
    value = manifest.decoded()
    layers = value.get("layers")
    if not isinstance(layers, list) or len(layers) > LAYERS_MAX:
        raise SourceUnreachable("the answer is not an artifact's manifest", where=str(manifest.digest))
    return [_descriptor(one) for one in (value.get("config"), *layers)]


def _descriptor(value: Any) -> Descriptor:
    try:
        annotations = value.get("annotations") or {}
        size = value["size"]
        if not isinstance(size, int) or size < 0:
            raise TypeError
        texts = {str(key): str(text) for key, text in annotations.items()}
        return Descriptor(str(value.get("mediaType", "")), Digest.parse(str(value["digest"])), size, "", texts)
    except (AttributeError, KeyError, TypeError) as error:
        raise SourceUnreachable("the answer is not an artifact's manifest", where=str(value)[:80]) from error


def _digest_in(value: Any) -> Digest:
    return _descriptor(value).digest


def _is_index(manifest: Manifest) -> bool:
    return isinstance(manifest.decoded().get("manifests"), list)


def _listed(manifest: Manifest) -> list[dict[str, Any]]:
    listed = manifest.decoded()["manifests"]
    if len(listed) > MANIFESTS_MAX or not all(isinstance(one, dict) for one in listed):
        raise SourceUnreachable("the answer is not an index of variants", where=str(manifest.digest))
    return list(listed)


def _children(manifest: Manifest) -> list[Digest]:
    return [_digest_in(one) for one in _listed(manifest)]


def _is_there(disk: Disk, path: Path, layer: Descriptor) -> bool:
    return disk.exists(path) and hash_file(disk, path) == (layer.digest, layer.size)


def _fetch(
    registry: Registry,
    layer: Descriptor,
    part: Path,
    *,
    called: str,
    disk: Disk,
    done: int,
    total: int,
    progress: Progress,
) -> None:
    """Fill `part`, going on after cuts as long as each try brings something."""
    with Download(registry, disk, part=part, digest=layer.digest, size=layer.size) as download:
        came = -1
        while True:
            try:
                state = download.step(STEP_BYTES)
            except SourceUnreachable:
                there = disk.size(part) if disk.exists(part) else 0
                if there <= came:
                    raise
                came = there
                continue
            except BlobRefused as error:
                raise BlobRefused(
                    f"{error.what}: not what was named", reason=error.reason, where=f"{registry.repository}: {called}"
                ) from error
            progress(called, done + state.done, total)
            if state.finished:
                return

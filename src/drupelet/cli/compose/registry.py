"""Registries, put together: credentials from the environment, unfinished uploads in the user's cache."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from drupelet.core.errors import NotFound
from drupelet.core.names import Digest, ReleaseId
from drupelet.depot.errors import NoBlob
from drupelet.depot.oci import Registry, Repository
from drupelet.depot.oci.credentials import find_credentials
from drupelet.depot.oci.modelpack import Layout
from drupelet.depot.oci.release import Beside, Progress, Pushed, push_release
from drupelet.depot.oci.session import Session
from drupelet.depot.oci.uploads import UploadsFile
from drupelet.depot.ports import Store, blob_path
from drupelet.durable import PosixDisk
from drupelet.trust.census import TARGET_BYTES_MAX, Vouched
from drupelet.wire.codec import decode
from drupelet.wire.manifest import ATTACHMENT_FILES, ReleaseManifest


def registry_at(repository: Repository, *, environment: Mapping[str, str] = os.environ) -> Registry:
    """Return the registry that holds `repository`, with the user's credentials for it."""
    home = Path(environment.get("HOME") or "/")
    cache = Path(environment.get("XDG_CACHE_HOME") or home / ".cache") / "drupelet" / "uploads.json"
    credentials = find_credentials(repository.host, environment=environment, home=home)
    return Registry(Session(repository, credentials=credentials), uploads=UploadsFile(PosixDisk(), cache))


def push_from_depot(
    store: Store,
    release: ReleaseId,
    registry: Registry,
    *,
    vouched: tuple[Vouched, ...],
    layout: Layout,
    progress: Progress,
) -> Pushed:
    """Put a release that a depot's signatures vouch for into a registry, with all that is signed about it."""
    found = next((one for one in vouched if one.release == release), None)
    if found is None or found.manifest is None:
        there = ", ".join(one.release.path for one in vouched if one.manifest) or "none"
        raise NotFound(f"the depot vouches for no release {release}", where=store.where, fix=f"it vouches for {there}")
    name = f"targets/{found.manifest.url_path}"
    manifest = decode(ReleaseManifest, store.read(name, bytes_max=ReleaseManifest.BYTES_MAX), where=name)
    signed = {target.sha256: f"targets/{target.url_path}" for target in found.targets}
    files = [Beside(target.path.rpartition("/")[2], target.sha256, target.length) for target in found.targets]
    if manifest.evaluation.report is not None:
        files.append(_blob(store, "report.json", manifest.evaluation.report))
    files += [_blob(store, ATTACHMENT_FILES[one.kind], one.digest) for one in manifest.attachments]
    source = _SignedAndBlobs(store, signed)
    return push_release(registry, manifest, source, files=files, layout=layout, progress=progress)


def _blob(store: Store, name: str, digest: str) -> Beside:
    parsed = Digest.parse(digest)
    there = store.entry(blob_path(parsed))
    if there is None:
        raise NoBlob(f"{name} is not in the depot", where=f"{store.where}/{blob_path(parsed)}", fix="publish again")
    return Beside(name, parsed, there.size_bytes)


class _SignedAndBlobs:
    """A depot's blobs, and its small signed files by their digests too. Implements `Source`."""

    def __init__(self, store: Store, signed: Mapping[Digest, str]) -> None:
        self._store = store
        self._signed = signed

    def open(self, digest: Digest, *, offset: int, size: int) -> Iterator[bytes]:
        name = self._signed.get(digest)
        if name is None:
            yield from self._store.open(digest, offset=offset, size=size)
        else:
            yield self._store.read(name, bytes_max=min(size, TARGET_BYTES_MAX))[offset:]

"""Where `drupelet verify` finds a release: in a depot, read as a device reads it, or in a package yet unsigned."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from securesystemslib.signer import Key

from drupelet.core.names import Digest, ReleaseId
from drupelet.depot.ports import Source, Store, blob_path
from drupelet.durable import Disk, hash_file
from drupelet.forge.publish import files_of
from drupelet.trust import Fetch
from drupelet.trust.images import Images, RoleSigned
from drupelet.trust.roles import TargetInfo
from drupelet.wire.codec import decode
from drupelet.wire.manifest import MANIFEST_NAME, ReleaseManifest

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Signed:
    """What the image repository says of a release's manifest, who signed it, and who may sign for its family."""

    target: TargetInfo
    roles: tuple[RoleSigned, ...]
    family_keys: tuple[Key, ...]


class Evidence(Protocol):
    """A release to verify."""

    where: str

    def manifest(self) -> tuple[ReleaseManifest, Signed | None]:
        """Return the manifest, and its signature if it has one. Raises `NotTrusted`, `NotFound` and the like."""
        ...

    def beside(self, name: str, *, bytes_max: int) -> bytes | None:
        """Return a file signed beside the manifest; None if there is none. Raises as `manifest` does."""
        ...

    def hashed(self, digest: Digest, *, size: int, progress: Progress) -> tuple[Digest, int]:
        """Return digest and size of what lies under this digest. Raises `NotFound`, `BlobRefused`."""
        ...

    def small(self, digest: Digest, *, size: int | None, bytes_max: int) -> bytes:
        """Return a blob of few bytes whole, unverified; `size` where it is known. Raises as `hashed`, or `TooLarge`."""
        ...


class InDepot:
    """A release in a depot. `images` keeps what it learns in a fresh folder: it believes the root and nothing else."""

    def __init__(self, release: ReleaseId, *, images: Images, blobs: Source, fetch: Fetch, where: str) -> None:
        self.where = where
        self._release = release
        self._images = images
        self._blobs = blobs
        self._fetch = fetch

    def manifest(self) -> tuple[ReleaseManifest, Signed | None]:
        found = self._images.release(self._release)
        family = self._release.family
        roles, keys = self._images.signed_roles(family), self._images.family_keys(family)
        return found.manifest, Signed(found.target, roles, keys)

    def beside(self, name: str, *, bytes_max: int) -> bytes | None:
        target = self._images.find(f"{self._release.path}/{name}")
        return self._images.download(target, bytes_max=bytes_max) if target is not None else None

    def hashed(self, digest: Digest, *, size: int, progress: Progress) -> tuple[Digest, int]:
        hashing, done = hashlib.sha256(), 0
        for data in self._blobs.open(digest, offset=0, size=size):
            hashing.update(data)
            done += len(data)
            progress(digest.hex[:12], done, size)
        return Digest.of_hex(hashing.hexdigest()), done

    def small(self, digest: Digest, *, size: int | None, bytes_max: int) -> bytes:
        return self._fetch.get(f"{self.where}/{blob_path(digest)}", bytes_max=min(bytes_max, size or bytes_max))


class InPackage:
    """A release in the folder that `drupelet forge build` wrote."""

    def __init__(self, folder: Path, *, disk: Disk) -> None:
        self.where = str(folder)
        self._folder = folder
        self._disk = disk
        path = folder / MANIFEST_NAME
        data = disk.read(path, bytes_max=ReleaseManifest.BYTES_MAX)
        self._manifest = decode(ReleaseManifest, data, where=str(path))
        self._files = {Digest.parse(text): path for text, path in files_of(self._manifest, folder).items()}

    def manifest(self) -> tuple[ReleaseManifest, Signed | None]:
        return self._manifest, None

    def beside(self, name: str, *, bytes_max: int) -> bytes | None:  # noqa: ARG002 (nothing is signed yet)
        return None

    def hashed(self, digest: Digest, *, size: int, progress: Progress) -> tuple[Digest, int]:
        found = hash_file(self._disk, self._files[digest])
        progress(digest.hex[:12], size, size)
        return found

    def small(self, digest: Digest, *, size: int | None, bytes_max: int) -> bytes:
        return self._disk.read(self._files[digest], bytes_max=min(bytes_max, size or bytes_max))


class StoreFetch:
    """Reads a depot's small files from a `Store`, as trust's `Fetch`: its address is the store itself."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, url: str, *, bytes_max: int, token: str = "") -> bytes:  # noqa: ARG002 (a store has no tokens)
        """Return the depot's file of this name below the store's own address."""
        return self._store.read(url.removeprefix(self._store.where).lstrip("/"), bytes_max=bytes_max)

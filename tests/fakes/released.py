"""A publisher's depot with real signatures by the real clock, whose blobs can be aged."""

from __future__ import annotations

import os
import random
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from drupelet.core.names import Digest, ReleaseId
from drupelet.depot import FilesDepot, blob_path
from drupelet.depot.folder import FolderStore
from drupelet.durable import PosixDisk
from drupelet.trust import ImageRepository, KeyRing
from drupelet.wire.manifest import ReleaseManifest, Variant
from tests.fakes.trust_world import PASSPHRASE, a_manifest

DAY_S = 86_400


def real_keys(folder: Path) -> KeyRing:
    """Make a key ring for `kiosk` that is valid now."""
    return KeyRing.create(PosixDisk(), folder, families=["kiosk"], passphrase=lambda: PASSPHRASE, now=datetime.now(UTC))


class Publisher:
    """Whoever publishes into `folder`."""

    def __init__(self, folder: Path, keys: KeyRing, disk: PosixDisk | None = None) -> None:
        self.folder = folder
        self.keys = keys
        self.disk = disk or PosixDisk(folder_mode=0o755)
        self.blobs = FilesDepot(self.disk, folder)
        self.store = FolderStore(self.disk, folder)
        self.images = ImageRepository(self.disk, folder, keys, lambda: datetime.now(UTC))
        if not (folder / "metadata" / "timestamp.json").exists():
            self.images.create()

    def put(self, seed: int, *, size: int = 5000) -> Digest:
        """Put a blob in, signed by nobody."""
        source = self.folder.parent / f"{self.folder.name}-source-{seed}.bin"
        source.write_bytes(random.Random(seed).randbytes(size))
        return self.blobs.put(source)[0]

    def manifest(self, version: str, digests: list[Digest], *, size: int = 5000) -> ReleaseManifest:
        """Return a manifest that names these blobs."""
        plain = a_manifest(version)
        variants = tuple(
            msgspec.structs.replace(plain.variants[0], name=f"v{index}", digest=digest.text, size_bytes=size)
            for index, digest in enumerate(digests)
        )
        assert all(isinstance(variant, Variant) for variant in variants)
        return msgspec.structs.replace(plain, variants=variants)

    def release(self, version: str, *seeds: int, size: int = 5000) -> list[Digest]:
        """Put blobs in and sign a release of them."""
        digests = [self.put(seed, size=size) for seed in seeds]
        self.images.add_release(self.manifest(version, digests, size=size))
        return digests

    def revoke(self, version: str) -> None:
        """Take a release back."""
        self.images.revoke(ReleaseId.parse(f"kiosk/{version}"))

    def age(self, *, days: float) -> None:
        """Make every file look as if it had been written so long ago."""
        then = time.time() - days * DAY_S
        for path in self.folder.rglob("*"):
            if path.is_file():
                os.utime(path, (then, then))

    def has(self, digest: Digest) -> bool:
        """Whether the blob lies there."""
        return (self.folder / blob_path(digest)).is_file()

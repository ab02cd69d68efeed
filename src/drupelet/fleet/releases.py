"""Registering releases and condemning them.

The fleet holds no image key: a release is registered by name, and its manifest is fetched from the depot and verified
against the image root, exactly as a device would.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from drupelet.core.names import Digest, ReleaseId
from drupelet.fleet.changes import Changes
from drupelet.fleet.errors import NoSuch, WrongState
from drupelet.fleet.orders import spread_condemned
from drupelet.fleet.store.audit import clean, record
from drupelet.fleet.store.engine import Store
from drupelet.fleet.store.schema import releases
from drupelet.trust.images import VouchedRelease
from drupelet.wire.manifest import Attachment, AttachmentKind, ReleaseManifest


class Vouches(Protocol):
    """The image repository as the fleet sees it: a name goes in, a verified manifest comes out."""

    def release(self, release: ReleaseId) -> VouchedRelease:
        """Return the manifest that is vouched for; raises `Untrusted`, `NotFound` or `Unavailable`."""
        ...

    def attachment(self, attached: Attachment) -> bytes:
        """Return what a vouched manifest has attached, verified; raises as `release` does."""
        ...


class Releases:
    """The releases an operator may roll out."""

    def __init__(self, store: Store, *, images: Vouches, changes: Changes, clock: Callable[[], int]) -> None:
        self._store = store
        self._images = images
        self._changes = changes
        self._clock = clock

    def add(self, release: ReleaseId, *, by: str) -> None:
        """Fetch, verify and register a release. Doing it again changes nothing, unless the manifest is another."""
        vouched = self._images.release(release)
        manifest, target = vouched.manifest, vouched.target
        now = self._clock()
        with self._store.write() as connection:
            row = connection.execute(select(releases).where(releases.c.id == release.path)).one_or_none()
            if row is not None:
                if row.manifest_digest != target.sha256.text:
                    raise WrongState(
                        f"{release} is registered with another manifest ({row.manifest_digest})",
                        where=target.path, fix="a release is never changed: publish a new version",
                    )  # fmt: skip
                return
            connection.execute(
                insert(releases).values(
                    id=release.path,
                    family=release.family,
                    manifest_digest=target.sha256.text,
                    manifest_length=target.length,
                    manifest_json=msgspec.json.encode(manifest),
                    added_at=now,
                    added_by=by,
                )
            )
            overridden = manifest.evaluation.overridden
            record(
                connection, at=now, actor=by, action="release.added", subject=release.path,
                reason=f"evaluation overridden: {overridden}" if overridden else manifest.summary,
                manifest=target.sha256.text, evaluation_passed=manifest.evaluation.passed,
            )  # fmt: skip
        self._tell(release.path)

    def attached(self, manifest: ReleaseManifest, kind: AttachmentKind) -> tuple[Digest, bytes]:
        """Return an attachment of a registered release from the depot, verified. Raises `NoSuch` if it has none."""
        found = manifest.attachment(kind)
        if found is None:
            raise NoSuch(f"{manifest.release} has no {kind}")
        return Digest.parse(found.digest), self._images.attachment(found)

    def condemn(self, release: ReleaseId, *, by: str, reason: str) -> int:
        """Put a release on the list that every device refuses; return how many orders that renewed."""
        with self._store.write() as connection:
            renewed = condemn(connection, release.path, by=by, reason=reason, now=self._clock())
        self._tell(release.path)
        logging.getLogger(__name__).info("%s condemned by %s: %d orders renewed", release, by, renewed)
        return renewed

    def _tell(self, release: str) -> None:
        self._changes.publish("release", release)
        self._changes.publish("audit")


def condemn(connection: Connection, release: str, *, by: str, reason: str, now: int) -> int:
    """Condemn in the caller's transaction; nothing changes if it is condemned already."""
    row = release_row(connection, release)
    if row.condemned_at is not None:
        return 0
    connection.execute(
        update(releases)
        .where(releases.c.id == release)
        .values(condemned_at=now, condemned_by=clean(by, 64), condemned_reason=clean(reason))
    )
    renewed = spread_condemned(connection)
    record(
        connection, at=now, actor=by, action="release.condemned", subject=release, reason=reason,
        orders_renewed=renewed,
    )  # fmt: skip
    return renewed


def release_row(connection: Connection, release: str) -> Row[*tuple[object, ...]]:
    """Return a registered release or raise `NoSuch`."""
    row = connection.execute(select(releases).where(releases.c.id == release)).one_or_none()
    if row is None:
        raise NoSuch(f"release {release} is not registered", fix=f"run: drupelet release add {release}")
    return row

"""Reading the image repository: which releases exist, and that their manifests are what was signed.

Used by devices (through `Verifier`) and by the fleet server, which holds no image key and believes no depot either.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from securesystemslib.signer import Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from drupelet.core.errors import BadInput
from drupelet.core.errors import NotFound as CoreNotFound
from drupelet.core.names import Digest, ReleaseId
from drupelet.core.states import Reason
from drupelet.durable import Disk
from drupelet.trust.clock import reference_time
from drupelet.trust.errors import NotTrusted, RepositoryMissing
from drupelet.trust.memory import RepositoryMemory, TimeMemory, known_of, recall, remember, texts_of
from drupelet.trust.ports import Fetch
from drupelet.trust.roles import AnyMetadata, TargetInfo, signed_at
from drupelet.trust.staged import Staged
from drupelet.wire.codec import TooLarge, decode
from drupelet.wire.manifest import ATTACHMENT_BYTES_MAX, MANIFEST_NAME, Attachment, ReleaseManifest, manifest_path


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSigned:
    """A verified role, and whose signatures made it so: for those who must account for it."""

    name: str
    version: int
    expires: datetime
    signed_at: datetime | None
    threshold: int
    keyids: tuple[str, ...]
    """Of the keys whose signatures hold."""
    sha256: Digest
    """Of the metadata file."""


@dataclass(frozen=True, slots=True)
class VouchedRelease:
    """A manifest the image repository vouches for, with the target that says so."""

    manifest: ReleaseManifest
    target: TargetInfo


class Images:
    """The image repository at `depot_url`, as far as `root` vouches for it. What it learns it keeps below `folder`."""

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        *,
        root: bytes,
        depot_url: str,
        fetch: Fetch,
        now: Callable[[], datetime],
    ) -> None:
        self._disk = disk
        self._root = root
        self._root_signed_at = _root_signed_at(root)
        self._depot = depot_url.rstrip("/")
        self._fetch = fetch
        self._now = now
        self._state = folder / "images.json"
        self._time = folder / "time.json"
        self._manifests = folder / "manifests"

    def floor(self) -> datetime:
        """Return the latest moment that signatures prove to have passed."""
        seen = recall(self._disk, self._time, TimeMemory)
        if seen is None:
            return self._root_signed_at
        return max(self._root_signed_at, datetime.fromtimestamp(seen.signed_at_s, UTC))

    def time(self) -> datetime:
        """Return the time to judge expiry by (see `trust/clock.py`)."""
        return reference_time(clock=self._now(), floor=self.floor())

    def release(self, release: ReleaseId) -> VouchedRelease:
        """Return the release's manifest, refreshed, fetched and verified.

        Raises `NotTrusted` (its `reason` says how), `RepositoryMissing`, or what the fetch port raises.
        """
        target = self.look_up(manifest_path(release))
        return VouchedRelease(self.manifest(target), target)

    def target(self, path: str, *, bytes_max: int) -> tuple[TargetInfo, bytes]:
        """Return a small file that the repository vouches for, refreshed, fetched and verified; see `release`."""
        target = self.look_up(path)
        return target, self.download(target, bytes_max=bytes_max)

    def signed_roles(self, family: str) -> tuple[RoleSigned, ...]:
        """Return the roles that vouch for a family, as verified by the last look; the root first."""
        memory = recall(self._disk, self._state, RepositoryMemory)
        if memory is None:
            return ()
        roots = {int(name.split(".")[0]): text for name, text in memory.roots.items()}
        newest = roots[max(roots)].encode() if roots else self._root
        root = Metadata[Root].from_bytes(newest).signed
        targets = Metadata[Targets].from_bytes(memory.files["targets.json"].encode()).signed
        found = [_role_signed("root", newest, root)]
        for name in ("targets", family, "snapshot", "timestamp"):
            by = targets if name == family else root
            found.append(_role_signed(name, memory.files[f"{name}.json"].encode(), by))
        return tuple(found)

    def family_keys(self, family: str) -> tuple[Key, ...]:
        """Return the keys that may sign for a family, as verified by the last look."""
        memory = recall(self._disk, self._state, RepositoryMemory)
        if memory is None:
            return ()
        targets = Metadata[Targets].from_bytes(memory.files["targets.json"].encode()).signed
        return tuple(targets.get_key(keyid) for keyid in targets.get_delegated_role(family).keyids)

    def look_up(self, path: str) -> TargetInfo:
        """Return what the repository vouches for under `path`, refreshed; `NotTrusted(UNSIGNED)` if nothing."""
        target = self.find(path)
        if target is None:
            raise NotTrusted(
                f"the image repository does not vouch for {path}",
                reason=Reason.UNSIGNED,
                where=f"{self._depot}/metadata",
                fix="it was never signed, or it was revoked",
            )
        return target

    def find(self, path: str) -> TargetInfo | None:
        """Refresh, and return what the repository vouches for under `path`; None if nothing."""
        known = known_of(recall(self._disk, self._state, RepositoryMemory))
        where = f"{self._depot}/metadata"
        staged = Staged(
            bootstrap=self._root,
            known=known,
            get=self._metadata,
            reference=self.time(),
            where=where,
            if_expired="whoever holds its keys signs it anew: drupelet depot renew",
        )
        with staged:
            staged.refresh()
            target = staged.target(path)
            verified = staged.verified()
            if verified != known:
                roots, files = texts_of(verified)
                remember(self._disk, self._state, RepositoryMemory(roots=roots, files=files))
            self._raise_floor(staged)
        return target

    def manifest(self, target: TargetInfo) -> ReleaseManifest:
        """Return the manifest that a vouched target names, from the cache or the depot."""
        manifest = self.remembered(target.sha256)
        if manifest is None:
            data = self.download(target, bytes_max=ReleaseManifest.BYTES_MAX)
            manifest = _manifest_of(data, target)
            self._disk.replace(self._cached(target.sha256), data)
        if manifest.path != target.path:
            raise NotTrusted(
                f"a manifest of {manifest.release} was signed as {target.path}",
                reason=Reason.BAD_METADATA,
                where=self._depot,
            )
        return manifest

    def remembered(self, digest: Digest) -> ReleaseManifest | None:
        """Return a manifest that was verified before, from the disk alone; None if unknown or damaged."""
        try:
            data = self._disk.read(self._cached(digest), bytes_max=ReleaseManifest.BYTES_MAX)
            if hashlib.sha256(data).hexdigest() != digest.hex:
                return None
            return decode(ReleaseManifest, data)
        except (CoreNotFound, BadInput):
            return None

    def forget_except(self, digests: set[Digest]) -> None:
        """Remove cached manifests but these: those of the slots and of the order. Call it when an update has ended."""
        keep = {self._cached(digest).name for digest in digests}
        for name in self._disk.names(self._manifests):
            if name not in keep:
                self._disk.remove(self._manifests / name)

    def _metadata(self, path: str, bytes_max: int) -> bytes:
        return self._fetch.get(f"{self._depot}/metadata/{path}", bytes_max=bytes_max)

    def download(self, target: TargetInfo, *, bytes_max: int) -> bytes:
        """Return the bytes of a vouched target from the depot; `NotTrusted` unless they are those that were signed."""
        name = target.path.rpartition("/")[2]
        what = "the manifest" if name == MANIFEST_NAME else name
        url = f"{self._depot}/targets/{target.url_path}"
        return self._verified(url, what, length=target.length, sha256=target.sha256, bytes_max=bytes_max)

    def attachment(self, attached: Attachment) -> bytes:
        """Return what a vouched manifest has attached, from the depot; `NotTrusted` unless it is what was signed."""
        digest = Digest.parse(attached.digest)
        url = f"{self._depot}/blobs/sha256/{digest.hex[:2]}/{digest.hex}"
        what = f"the {attached.kind}"
        return self._verified(url, what, length=attached.size_bytes, sha256=digest, bytes_max=ATTACHMENT_BYTES_MAX)

    def _verified(self, url: str, what: str, *, length: int, sha256: Digest, bytes_max: int) -> bytes:
        limit = min(length, bytes_max)
        try:
            data = self._fetch.get(url, bytes_max=limit)
        except TooLarge as error:
            raise NotTrusted(
                f"{what} is larger than the {limit} bytes it may have", reason=Reason.TOO_LARGE, where=url
            ) from error
        except CoreNotFound as error:
            raise RepositoryMissing(
                f"{what} is signed but does not lie in the depot", where=url, fix="publish the release again"
            ) from error
        if len(data) < length:
            raise NotTrusted(
                f"{what} has {len(data)} bytes where {length} were signed",
                reason=Reason.TRUNCATED,
                where=url,
            )
        if hashlib.sha256(data).hexdigest() != sha256.hex:
            raise NotTrusted(f"{what} is not the one signed", reason=Reason.DIGEST_MISMATCH, where=url)
        return data

    def _raise_floor(self, staged: Staged) -> None:
        seen = [moment for role in (staged.root, staged.timestamp) if (moment := signed_at(role)) is not None]
        latest = max(seen, default=self._root_signed_at)
        if latest > self.floor():
            remember(self._disk, self._time, TimeMemory(signed_at_s=int(latest.timestamp())))

    def _cached(self, digest: Digest) -> Path:
        return self._manifests / f"{digest.hex}.json"


def _role_signed(name: str, data: bytes, by: Root | Targets) -> RoleSigned:
    metadata: AnyMetadata = Metadata.from_bytes(data)
    found = by.get_verification_result(name, metadata.signed_bytes, metadata.signatures)
    return RoleSigned(
        name=name,
        version=metadata.signed.version,
        expires=metadata.signed.expires,
        signed_at=signed_at(metadata.signed),
        threshold=found.threshold,
        keyids=tuple(sorted(found.signed)),
        sha256=Digest.of_hex(hashlib.sha256(data).hexdigest()),
    )


def parse_root(root: bytes, *, where: str = "") -> Root:
    """Return a root of trust, unverified: it is where trust begins. Raises `BadInput` if it is none."""
    try:
        return Metadata[Root].from_bytes(root).signed
    except RepositoryError as error:
        raise BadInput(
            "this is not a TUF root", where=where, fix="give the image-root.json or director-root.json of your keys"
        ) from error


def _root_signed_at(root: bytes) -> datetime:
    """Return when the embedded root says it was made; the epoch if it does not say."""
    role = parse_root(root)
    return signed_at(role) or datetime.fromtimestamp(0, UTC)


def _manifest_of(data: bytes, target: TargetInfo) -> ReleaseManifest:
    try:
        return decode(ReleaseManifest, data, where=target.path)
    except BadInput as error:
        raise NotTrusted(
            f"signed, but not a manifest this version understands: {error.what}",
            reason=Reason.BAD_METADATA,
            where=target.path,
            fix=error.fix,
        ) from error

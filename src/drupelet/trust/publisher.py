"""Writing the image repository: into a depot folder that any web server may serve.

    metadata/1.root.json  timestamp.json  4.snapshot.json  1.targets.json  3.kiosk.json
    targets/kiosk/1.2/<sha256>.manifest.json

Files are written in the order in which their names become reachable: manifest, family, snapshot, timestamp. A reader
who comes in between, or a publisher that dies in between, finds the old state, whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from securesystemslib.exceptions import UnverifiedSignatureError
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from drupelet.core.errors import BadInput, NotFound
from drupelet.core.names import ReleaseId
from drupelet.core.states import Reason
from drupelet.durable import Disk
from drupelet.trust.clock import whole_second
from drupelet.trust.errors import AlreadyThere, ClockUnlikely, NotTrusted
from drupelet.trust.keys import KeyRing, family_key
from drupelet.trust.roles import (
    TargetInfo,
    make_snapshot,
    make_targets,
    make_timestamp,
    meta_of,
    our_field,
    sign,
    signed_at,
)
from drupelet.trust.staged import LIMITS
from drupelet.wire.codec import encode_canonical
from drupelet.wire.manifest import MANIFEST_NAME, ReleaseManifest, release_of_path, release_of_target

CLOCK_STEP_MAX = timedelta(days=400)
"""A signer whose clock is this far past its last signature is asked whether it means it."""
PUBLIC = 0o644
NOTHING_BESIDE: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long signatures are good for. The timestamp's bounds how long a device can be kept from news unawares."""

    targets: timedelta = timedelta(days=2 * 365)
    snapshot: timedelta = timedelta(days=180)
    timestamp: timedelta = timedelta(days=30)


R = TypeVar("R", Root, Timestamp, Snapshot, Targets)


class ImageRepository:
    """The image repository in `depot_folder`, written with the keys of `keys`. One process at a time; it locks."""

    def __init__(
        self,
        disk: Disk,
        depot_folder: Path,
        keys: KeyRing,
        now: Callable[[], datetime],
        *,
        lifetimes: Lifetimes | None = None,
    ) -> None:
        self._disk = disk
        self._folder = depot_folder
        self._metadata = depot_folder / "metadata"
        self._keys = keys
        self._now = now
        self._lifetimes = lifetimes or Lifetimes()

    def create(self) -> None:
        """Write an empty repository. Raises `AlreadyThere` if there is one."""
        with self._lock():
            if self._disk.exists(self._metadata / "timestamp.json"):
                raise AlreadyThere(
                    "this depot has an image repository", where=str(self._folder), fix="add releases to it"
                )
            now = self._now()
            root = self._keys.image_root
            self._write(f"{Metadata[Root].from_bytes(root).signed.version}.root.json", root)
            roles = {"targets": self._top_targets(now)}
            for family in self._keys.families:
                roles[family] = make_targets(version=1, now=now, expires=now + self._lifetimes.targets)
            meta: dict[str, MetaFile] = {}
            for name, role in roles.items():
                key = "image-targets" if name == "targets" else family_key(name)
                meta[f"{name}.json"] = self._write_role(name, role, key)
            self._publish(meta, version=1, now=now)

    def add_release(
        self,
        manifest: ReleaseManifest,
        *,
        beside: Mapping[str, bytes] = NOTHING_BESIDE,
        ready: Callable[[], None] = lambda: None,
    ) -> TargetInfo:
        """Sign and publish a manifest; its blobs must be in the depot already. Doing it twice does nothing.

        `beside` are further small files of this release, by target path, that are signed in the same step. `ready` is
        called under the lock under which alone blobs are collected, and raises if one of them is gone.

        Raises `AlreadyThere` if another manifest was signed under this name: releases never change.
        """
        data = encode_canonical(manifest)
        if len(data) > ReleaseManifest.BYTES_MAX:
            raise BadInput(
                f"the manifest has {len(data)} bytes", fix=f"at most {ReleaseManifest.BYTES_MAX} are allowed"
            )
        return self.add_targets({manifest.path: data, **beside}, ready=ready)[0]

    def add_target(self, path: str, data: bytes) -> TargetInfo:
        """Sign and publish a small file as `<family>/<version>/<name>`; see `add_targets`."""
        return self.add_targets({path: data})[0]

    def add_targets(
        self, files: Mapping[str, bytes], *, ready: Callable[[], None] = lambda: None
    ) -> tuple[TargetInfo, ...]:
        """Sign and publish small files of one release, all in one step. Doing it twice does nothing.

        Paths are `<family>/<version>/<name>`. Raises `AlreadyThere` if one of them was signed with other contents:
        what is signed never changes.
        """
        targets = [TargetInfo.of(path, data) for path, data in files.items()]
        releases = {release_of_target(target.path) for target in targets}
        if len(releases) != 1:
            raise BadInput("files of one release are signed together, and of no other", fix="sign each release alone")
        release = releases.pop()
        with self._lock():
            ready()
            role = self._family(release)
            for target in targets:
                there = role.targets.get(target.path)
                if there is not None and TargetInfo.of_target(there) != target:
                    raise AlreadyThere(
                        f"{_called(target.path)} was signed before with other contents",
                        where=str(self._folder),
                        fix="give it a new version",
                    )
                self._disk.replace(self._folder / "targets" / target.url_path, files[target.path], mode=PUBLIC)
            new = [target for target in targets if target.path not in role.targets]
            if new:
                self._replace_family(
                    release.family, role, [*role.targets.values(), *(target.as_target() for target in new)]
                )
        return tuple(targets)

    def revoke(self, release: ReleaseId) -> None:
        """Take a release out of the repository, finally: no device will install it once it has seen this."""
        with self._lock():
            role = self._family(release)
            targets = [target for target in role.targets.values() if not target.path.startswith(f"{release.path}/")]
            if len(targets) == len(role.targets):
                raise NotFound(f"{release} is not in the image repository", where=str(self._folder))
            self._replace_family(release.family, role, targets)

    def target(self, path: str) -> TargetInfo | None:
        """Return what is signed under this path now, if anything is."""
        there = self._family(release_of_target(path)).targets.get(path)
        return TargetInfo.of_target(there) if there is not None else None

    def refresh_timestamp(self) -> None:
        """Sign the timestamp anew, before it expires. Needs the timestamp key only."""
        with self._lock():
            timestamp = self._timestamp()
            now = self._time_to_sign(timestamp)
            self._write_timestamp(timestamp.snapshot_meta, version=timestamp.version + 1, now=now)

    def renew(self) -> None:
        """Sign every role but the root anew, before one of them expires. Needs all image keys but the root's."""
        with self._lock():
            timestamp = self._timestamp()
            snapshot = self._snapshot(timestamp)
            now = self._time_to_sign(timestamp)
            meta = dict(snapshot.meta)
            for name in ("targets", *self._keys.families):
                role = self._role(snapshot, name)
                role.version += 1
                role.expires = whole_second(now + self._lifetimes.targets)
                role.unrecognized_fields |= our_field(now=now)
                key = "image-targets" if name == "targets" else family_key(name)
                meta[f"{name}.json"] = self._write_role(name, role, key)
            self._publish(meta, version=snapshot.version + 1, now=now, timestamp_version=timestamp.version + 1)

    def releases(self) -> tuple[tuple[ReleaseId, TargetInfo], ...]:
        """Return the releases vouched for now, in order."""
        found = []
        for family in self._keys.families:
            role = self._role_of(family)
            for target in role.targets.values():
                info = TargetInfo.of_target(target)
                if info is not None and info.path.endswith(f"/{MANIFEST_NAME}"):
                    found.append((release_of_path(info.path), info))
        return tuple(sorted(found))

    def _lock(self) -> AbstractContextManager[None]:
        return self._disk.lock(self._folder / ".publishing", holder="a publisher of this depot")

    def _top_targets(self, now: datetime) -> Targets:
        role = make_targets(version=1, now=now, expires=now + self._lifetimes.targets)
        delegated: dict[str, DelegatedRole] = {}
        keys = {}
        for family in self._keys.families:
            key = self._keys.public(family_key(family))
            keys[key.keyid] = key
            # Terminating: what is below kiosk/ is for kiosk's key to say, and for nobody after it.
            delegated[family] = DelegatedRole(family, [key.keyid], 1, True, paths=[f"{family}/*/*"])
        role.delegations = Delegations(dict(keys), delegated)
        return role

    def _family(self, release: ReleaseId) -> Targets:
        if release.family not in self._keys.families:
            there = ", ".join(self._keys.families)
            raise NotFound(f"these keys do not sign {release.family}", fix=f"they sign {there}")
        return self._role_of(release.family)

    def _role_of(self, family: str) -> Targets:
        return self._role(self._snapshot(self._timestamp()), family)

    def _role(self, snapshot: Snapshot, name: str) -> Targets:
        meta = snapshot.meta.get(f"{name}.json")
        if meta is None:
            raise NotFound(f"this depot's image repository has no role {name}", where=str(self._folder))
        return self._read(f"{meta.version}.{name}.json", Targets)

    def _replace_family(self, family: str, role: Targets, targets: list[TargetFile]) -> None:
        timestamp = self._timestamp()
        snapshot = self._snapshot(timestamp)
        now = self._time_to_sign(timestamp)
        renewed = make_targets(
            version=role.version + 1, now=now, expires=now + self._lifetimes.targets, targets=targets
        )
        meta = dict(snapshot.meta)
        meta[f"{family}.json"] = self._write_role(family, renewed, family_key(family))
        self._publish(meta, version=snapshot.version + 1, now=now, timestamp_version=timestamp.version + 1)

    def _publish(self, meta: dict[str, MetaFile], *, version: int, now: datetime, timestamp_version: int = 1) -> None:
        snapshot = make_snapshot(meta, version=version, now=now, expires=now + self._lifetimes.snapshot)
        named = self._write_role("snapshot", snapshot, "image-snapshot")
        self._write_timestamp(named, version=timestamp_version, now=now)

    def _write_role(self, name: str, role: Snapshot | Targets, key: str) -> MetaFile:
        data = sign(role, [self._keys.signer(key)])
        limit = LIMITS.snapshot_max_length if isinstance(role, Snapshot) else LIMITS.targets_max_length
        if len(data) > limit:
            raise BadInput(f"{name} would have {len(data)} bytes, devices take {limit}", fix="revoke old releases")
        self._write(f"{role.version}.{name}.json", data)
        return meta_of(data, version=role.version)

    def _write_timestamp(self, snapshot: MetaFile, *, version: int, now: datetime) -> None:
        role = make_timestamp(snapshot, version=version, now=now, expires=now + self._lifetimes.timestamp)
        self._write("timestamp.json", sign(role, [self._keys.signer("image-timestamp")]))

    def _write(self, name: str, data: bytes) -> None:
        self._disk.replace(self._metadata / name, data, mode=PUBLIC)

    def _timestamp(self) -> Timestamp:
        return self._read("timestamp.json", Timestamp)

    def _snapshot(self, timestamp: Timestamp) -> Snapshot:
        return self._read(f"{timestamp.snapshot_meta.version}.snapshot.json", Snapshot)

    def _read(self, name: str, kind: type[R]) -> R:
        """Read one's own metadata and check that its signature is by the key about to sign its successor."""
        path = self._metadata / name
        try:
            metadata: Metadata[Any] = Metadata.from_bytes(self._disk.read(path, bytes_max=LIMITS.targets_max_length))
            signed = metadata.signed
            role = name.split(".")[-2]
            key = family_key(role) if role in self._keys.families else f"image-{role}"
            public = self._keys.public(key)
            public.verify_signature(metadata.signatures[public.keyid], metadata.signed_bytes)
        except NotFound as error:
            raise NotFound(
                "this depot has no complete image repository", where=str(path), fix="make one: drupelet forge publish"
            ) from error
        except (RepositoryError, UnverifiedSignatureError, KeyError) as error:
            raise _altered(path) from error
        if not isinstance(signed, kind):
            raise _altered(path)
        return signed

    def _time_to_sign(self, timestamp: Timestamp) -> datetime:
        """Return now, unless it contradicts the last signature: a wrong time, once signed, is believed everywhere."""
        now = self._now()
        last = signed_at(timestamp)
        if last is not None and not last <= now <= last + CLOCK_STEP_MAX:
            raise ClockUnlikely(
                f"the clock says {now:%Y-%m-%d %H:%M}, the last signature was made {last:%Y-%m-%d %H:%M}",
                where=str(self._folder),
                fix="set the clock of this machine",
            )
        return now


def _called(path: str) -> str:
    """Return what a person calls a target: a release, or a file of one."""
    release = release_of_target(path)
    return str(release) if path.endswith(f"/{MANIFEST_NAME}") else f"{path.rpartition('/')[2]} of {release}"


def _altered(path: Path) -> NotTrusted:
    return NotTrusted(
        "this metadata was not signed by these keys, or was altered since",
        reason=Reason.UNSIGNED,
        where=str(path),
        fix="restore the depot's metadata folder",
    )

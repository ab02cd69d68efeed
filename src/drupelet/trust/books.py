"""The image repository's metadata on the disk: reading what was signed before, writing what is signed now.

    metadata/1.root.json  timestamp.json  4.snapshot.json  1.targets.json  3.kiosk.json

What is read is checked like a device would: the root of the key ring (and every root after it) says who signs the
targets, the targets say who signs a family. So nobody who can merely write into a depot has the owner's next signature
cover his release.

Files are written in the order in which their names become reachable. A reader who comes in between, or a publisher that
dies in between, finds the old state, whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, Targets, Timestamp

from drupelet.core.errors import BadInput, NotFound
from drupelet.core.states import Reason
from drupelet.durable import Disk
from drupelet.trust.errors import ClockUnlikely, NotTrusted, RoleExpired
from drupelet.trust.keys import ROOT_LIFETIME, KeyRing
from drupelet.trust.pending import Authority, Pending
from drupelet.trust.roles import make_snapshot, make_timestamp, meta_of, sign, signed_at
from drupelet.trust.roots import follow
from drupelet.trust.staged import LIMITS

CLOCK_STEP_MAX = timedelta(days=400)
"""A signer whose clock is this far past its last signature is asked whether it means it."""
PUBLIC = 0o644


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long signatures are good for. The timestamp's bounds how long a device can be kept from news unawares."""

    targets: timedelta = timedelta(days=2 * 365)
    snapshot: timedelta = timedelta(days=180)
    timestamp: timedelta = timedelta(days=30)
    root: timedelta = ROOT_LIFETIME


@dataclass(frozen=True, slots=True)
class State:
    """What a repository says now, verified. `roots` oldest first, from the ring's on."""

    roots: tuple[Root, ...]
    timestamp: Timestamp
    snapshot: Snapshot
    targets: Targets

    @property
    def root(self) -> Root:
        """The newest root."""
        return self.roots[-1]


R = TypeVar("R", bound=Signed)


class Books:
    """The metadata folder of one depot, and the ring whose keys sign it."""

    def __init__(
        self, disk: Disk, depot_folder: Path, keys: KeyRing, now: Callable[[], datetime], *, lifetimes: Lifetimes
    ) -> None:
        self.disk = disk
        self.folder = depot_folder
        self.keys = keys
        self.now = now
        self.lifetimes = lifetimes
        self._metadata = depot_folder / "metadata"

    def lock(self) -> AbstractContextManager[None]:
        """Hold the depot: one publisher at a time."""
        return self.disk.lock(self.folder / ".publishing", holder="a publisher of this depot")

    def exists(self) -> bool:
        """Whether there is a repository."""
        return self.disk.exists(self._metadata / "timestamp.json")

    def pending(self) -> Pending:
        """Return what collects signatures for one command."""
        return Pending(self.disk, self.keys, self.now())

    def load(self, *, rotating: bool = False) -> State:
        """Return the repository's state. `rotating` also takes what the root before the newest vouches for."""
        roots = tuple(follow(self.keys.image_root, self._get, where=str(self._metadata)))
        trusted = roots[-2:] if rotating else roots[-1:]
        timestamp = self._read("timestamp.json", Timestamp, [Authority(root, "timestamp") for root in trusted])
        snapshot = self._read(
            f"{timestamp.snapshot_meta.version}.snapshot.json",
            Snapshot,
            [Authority(root, "snapshot") for root in trusted],
        )
        targets = self._read(self._file(snapshot, "targets"), Targets, [Authority(root, "targets") for root in trusted])
        return State(roots, timestamp, snapshot, targets)

    def require_fresh(self, state: State) -> None:
        """Raise `RoleExpired` if no device would take what is signed below the root and the targets."""
        now = self.time_to_sign(state.timestamp)  # a wrong clock is said before it is believed
        for name, role, fix in (
            ("root", state.root, "drupelet keys rotate KEYS --depot DEPOT --renew-roots"),
            ("targets role", state.targets, "drupelet depot renew DEPOT --keys KEYS --everything"),
        ):
            if role.is_expired(now):
                raise RoleExpired(
                    f"the {name} expired on {role.expires:%Y-%m-%d}",
                    where=str(self.folder),
                    fix=f"no device takes anything until it is signed anew: {fix}",
                )

    def family(self, state: State, name: str) -> Targets:
        """Return a family's role."""
        return self._read(self._file(state.snapshot, name), Targets, [Authority(state.targets, name)])

    def _file(self, snapshot: Snapshot, name: str) -> str:
        meta = snapshot.meta.get(f"{name}.json")
        if meta is None:
            raise NotFound(f"this depot's image repository has no role {name}", where=str(self.folder))
        return f"{meta.version}.{name}.json"

    def bounded(self, name: str, role: Snapshot | Targets, data: bytes) -> bytes:
        """Return the file of a role if devices will take it. Raises `BadInput`."""
        limit = LIMITS.snapshot_max_length if isinstance(role, Snapshot) else LIMITS.targets_max_length
        if len(data) > limit:
            raise BadInput(f"{name} would have {len(data)} bytes, devices take {limit}", fix="revoke old releases")
        return data

    def publish(
        self,
        files: Mapping[str, bytes],
        *,
        root: Root,
        state: State | None,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Write signed targets roles by name, then the snapshot and the timestamp that make them reachable.

        `before` is called when everything is signed and nothing is written yet.
        """
        now = self.time_to_sign(state.timestamp) if state is not None else self.now()
        meta: dict[str, MetaFile] = dict(state.snapshot.meta) if state is not None else {}
        for name, data in files.items():
            version = Metadata[Targets].from_bytes(data).signed.version
            meta[f"{name}.json"] = meta_of(data, version=version)
        snapshot = make_snapshot(
            meta,
            version=state.snapshot.version + 1 if state is not None else 1,
            now=now,
            expires=now + self.lifetimes.snapshot,
        )
        snapshot_data = self.bounded("snapshot", snapshot, self._signed(snapshot, root))
        timestamp = make_timestamp(
            meta_of(snapshot_data, version=snapshot.version),
            version=state.timestamp.version + 1 if state is not None else 1,
            now=now,
            expires=now + self.lifetimes.timestamp,
        )
        timestamp_data = self._signed(timestamp, root)
        before()
        for name, data in files.items():
            version = meta[f"{name}.json"].version
            self.write(f"{version}.{name}.json", data)
        self.write(f"{snapshot.version}.snapshot.json", snapshot_data)
        self.write("timestamp.json", timestamp_data)

    def restamp(self, state: State) -> None:
        """Sign the timestamp anew."""
        now = self.time_to_sign(state.timestamp)
        role = make_timestamp(
            state.timestamp.snapshot_meta,
            version=state.timestamp.version + 1,
            now=now,
            expires=now + self.lifetimes.timestamp,
        )
        self.write("timestamp.json", self._signed(role, state.root))

    def _signed(self, role: Snapshot | Timestamp, root: Root) -> bytes:
        """Return a role that one key signs, signed; raises what its signer raises when it is not here."""
        keyids = root.roles[role.type].keyids
        here = next((keyid for keyid in keyids if self.keys.holds(keyid)), keyids[0])
        return sign(role, [self.keys.signer_of(here)])

    def write(self, name: str, data: bytes) -> None:
        """Write a metadata file."""
        self.disk.replace(self._metadata / name, data, mode=PUBLIC)

    def _get(self, name: str) -> bytes:
        return self.disk.read(self._metadata / name, bytes_max=LIMITS.targets_max_length)

    def _read(self, name: str, kind: type[R], authorities: list[Authority]) -> R:
        """Read one's own metadata and check its signatures."""
        path = self._metadata / name
        try:
            metadata: Metadata[Any] = Metadata.from_bytes(self._get(name))
            known = any(not authority.lacks(metadata)[0] for authority in authorities)
        except NotFound as error:
            raise NotFound(
                "this depot has no complete image repository", where=str(path), fix="make one: drupelet forge publish"
            ) from error
        except (RepositoryError, ValueError) as error:
            raise _altered(path) from error
        if not known or not isinstance(metadata.signed, kind):
            raise _altered(path)
        return metadata.signed

    def time_to_sign(self, timestamp: Timestamp) -> datetime:
        """Return now, unless it contradicts the last signature: a wrong time, once signed, is believed everywhere."""
        now = self.now()
        last = signed_at(timestamp)
        if last is not None and not last <= now <= last + CLOCK_STEP_MAX:
            raise ClockUnlikely(
                f"the clock says {now:%Y-%m-%d %H:%M}, the last signature was made {last:%Y-%m-%d %H:%M}",
                where=str(self.folder),
                fix="set the clock of this machine",
            )
        return now


def _altered(path: Path) -> NotTrusted:
    return NotTrusted(
        "this metadata was not signed by these keys, or was altered since",
        reason=Reason.UNSIGNED,
        where=str(path),
        fix="restore the depot's metadata folder",
    )

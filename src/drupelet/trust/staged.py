"""TUF's own client, run in a staging folder.

python-tuf's `Updater` writes each file as soon as its signature holds, without fsync, and takes the time from the
system. For a device that is too early and too little: a director's metadata may be well signed and meant for another
device. So the updater works on a copy in a temporary folder; its caller looks at what came out and commits it, whole,
in one durable step, or drops it. A refused refresh changes nothing.

This is the only module that reaches into `Updater`'s private `_trusted_set`: for the reference time, which it offers
no way to set, and for the verified roles.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType

from tuf.api import exceptions
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from drupelet.core.errors import NotFound
from drupelet.core.states import Reason
from drupelet.trust.errors import NotTrusted, RepositoryMissing, StagingFailed
from drupelet.trust.roles import TargetInfo
from drupelet.wire.codec import TooLarge

LIMITS = UpdaterConfig(
    max_root_rotations=256,
    max_delegations=32,
    root_max_length=64 * 1024,
    timestamp_max_length=8 * 1024,
    snapshot_max_length=256 * 1024,
    targets_max_length=2 * 1024 * 1024,
)
"""Bytes. A family's targets hold some 300 bytes a release; a director's targets an order of at most 512 KiB."""

ROOT_HISTORY = "root_history"


@dataclass(frozen=True, slots=True)
class Known:
    """The metadata files of one repository that were verified before, by name."""

    roots: Mapping[str, bytes] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


class _Fetcher(FetcherInterface):
    """Hands the updater's wishes to a function of path and limit."""

    def __init__(self, get: Callable[[str, int], bytes]) -> None:
        self._get = get

    def _fetch(self, url: str) -> Iterator[bytes]:
        yield self._get(url.lstrip("/"), LIMITS.targets_max_length)

    def download_bytes(self, url: str, max_length: int) -> bytes:
        path = url.lstrip("/")
        try:
            return self._get(path, max_length)
        except NotFound as error:
            raise exceptions.DownloadHTTPError(f"{path} is not there", 404) from error
        except TooLarge as error:
            raise NotTrusted(
                f"{path} is larger than the {max_length} bytes it may have",
                reason=Reason.TOO_LARGE,
                where=error.where,
            ) from error


class Staged:
    """One refresh of one repository, in a folder that is gone afterwards. Use as a context.

    `get(path, bytes_max)` fetches a metadata file and raises `NotFound`, `TooLarge` or `Unavailable`.
    """

    def __init__(
        self,
        *,
        bootstrap: bytes,
        known: Known,
        get: Callable[[str, int], bytes],
        reference: datetime,
        where: str,
        if_expired: str = "",
    ) -> None:
        """`if_expired` is what to do about metadata that have expired."""
        self._where = where
        self._if_expired = if_expired
        with self._said_plainly():
            self._scratch = tempfile.TemporaryDirectory(prefix="drupelet-trust-")
        self._folder = Path(self._scratch.name)
        try:
            self._updater = self._prepared(known, _Fetcher(get), bootstrap)
        except BaseException:
            self._scratch.cleanup()
            raise
        self._trusted = self._updater._trusted_set
        self._trusted.reference_time = reference

    def _prepared(self, known: Known, fetcher: FetcherInterface, bootstrap: bytes) -> Updater:
        """Lay out what is known in the staging folder and return an updater over it."""
        with self._said_plainly():
            (self._folder / ROOT_HISTORY).mkdir()
            for name, data in known.roots.items():
                (self._folder / ROOT_HISTORY / name).write_bytes(data)
            for name, data in known.files.items():
                (self._folder / name).write_bytes(data)
            return Updater(
                metadata_dir=str(self._folder),
                metadata_base_url="",
                fetcher=fetcher,
                config=LIMITS,
                bootstrap=bootstrap,
            )

    def __enter__(self) -> Staged:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._scratch.cleanup()

    def refresh(self) -> None:
        """Run TUF's client workflow, or raise `NotTrusted`, `RepositoryMissing` or what `get` raised."""
        with self._said_plainly():
            self._updater.refresh()

    def target(self, path: str) -> TargetInfo | None:
        """Return what the repository vouches for under this path, following its delegations."""
        with self._said_plainly():
            found = self._updater.get_targetinfo(path)
        return TargetInfo.of_target(found) if found is not None else None

    def every_target(self) -> tuple[TargetInfo, ...]:
        """Return all the repository vouches for: the top level's targets and those of every role delegated to."""
        found: list[TargetInfo] = []
        waiting: list[tuple[str, str]] = [(Targets.type, Root.type)]
        seen: set[str] = set()
        with self._said_plainly():
            while waiting:
                name, parent = waiting.pop(0)
                if name in seen:
                    continue
                seen.add(name)
                if len(seen) > LIMITS.max_delegations + 1:
                    raise NotTrusted("too many delegations", reason=Reason.BAD_METADATA, where=self._where)
                role = self._updater._load_targets(name, parent)
                for target in role.targets.values():
                    info = TargetInfo.of_target(target)
                    if info is None:
                        raise NotTrusted(
                            f"{target.path[:100]!r} is signed without a SHA-256",
                            reason=Reason.BAD_METADATA,
                            where=self._where,
                        )
                    found.append(info)
                if role.delegations is not None and role.delegations.roles is not None:
                    waiting += [(below, name) for below in role.delegations.roles]
        return tuple(found)

    @property
    def root(self) -> Root:
        """The verified root."""
        return self._trusted.root

    @property
    def timestamp(self) -> Timestamp:
        """The verified timestamp."""
        return self._trusted.timestamp

    @property
    def snapshot(self) -> Snapshot:
        """The verified snapshot."""
        return self._trusted.snapshot

    @property
    def targets(self) -> Targets:
        """The verified top-level targets."""
        return self._trusted.targets

    def verified(self) -> Known:
        """Return the files that hold now, to be committed."""
        with self._said_plainly():
            newest = self.root.version
            roots = {
                path.name: path.read_bytes()
                for path in sorted((self._folder / ROOT_HISTORY).iterdir())
                if int(path.name.split(".")[0]) <= newest
            }
            files = {
                path.name: path.read_bytes()
                for path in sorted(self._folder.glob("*.json"))
                if path.name != "root.json" and path.name[: -len(".json")] in self._trusted
            }
        return Known(roots=roots, files=files)

    @contextmanager
    def _said_plainly(self) -> Iterator[None]:
        """Turn python-tuf's errors into this room's."""
        try:
            yield
        except exceptions.DownloadError as error:
            raise RepositoryMissing(
                f"not a complete repository: {error}", where=self._where, fix="check the address and what serves it"
            ) from error
        except exceptions.RepositoryError as error:
            reason = reason_of(error)
            fix = self._if_expired if reason is Reason.EXPIRED else ""
            raise NotTrusted(_sentence(error), reason=reason, where=self._where, fix=fix) from error
        except OSError as error:
            raise StagingFailed(
                f"cannot stage metadata: {error.strerror or error}",
                where=str(error.filename or self._where),
                fix="make room in the folder for temporary files",
            ) from error


_REASONS: tuple[tuple[type[exceptions.RepositoryError], Reason, str], ...] = (
    (exceptions.UnsignedMetadataError, Reason.UNSIGNED, "metadata lacks the signatures its root demands"),
    (exceptions.ExpiredMetadataError, Reason.EXPIRED, "metadata has expired"),
    (exceptions.BadVersionNumberError, Reason.REPLAYED, "metadata goes back to an older version"),
    (exceptions.LengthOrHashMismatchError, Reason.DIGEST_MISMATCH, "a metadata file is not the one that was signed"),
)


def reason_of(error: exceptions.RepositoryError) -> Reason:
    """Return the word for what python-tuf found."""
    return next((reason for kind, reason, _ in _REASONS if isinstance(error, kind)), Reason.BAD_METADATA)


def _sentence(error: exceptions.RepositoryError) -> str:
    head = next((text for kind, _, text in _REASONS if isinstance(error, kind)), "not valid metadata")
    return f"{head} ({str(error)[:300]})"

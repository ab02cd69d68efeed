"""Copying a depot from one store to another, so that a reader of either finds a whole one at every moment.

The source's timestamp is read first: what it leads to was there before it. Then blobs, manifests and numbered metadata
are copied, whatever is missing; then everything is looked for once more; the timestamp is written last, if nobody else
wrote it meanwhile. Whatever stops this in the middle leaves the destination as it was for its readers, and the next
run takes up where this one stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from drupelet.core.errors import BadInput, NotFound
from drupelet.depot.errors import BlobRefused, ChangedMeanwhile, Taken
from drupelet.depot.ports import TIMESTAMP, Entry, Store, blob_of, is_depot_path

SMALL_BYTES_MAX = 4 << 20
"""No metadata file or manifest is larger: trust's limit is 2 MiB."""

Progress = Callable[[str, int, int], None]
"""Called with what is copied now, the bytes done and the bytes in all."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy did: files and bytes written, and files that were there already."""

    files: int
    size_bytes: int
    there: int


def copy_depot(source: Store, destination: Store, *, holder: str, progress: Progress, blobs: bool = True) -> Copied:
    """Make `destination` hold what `source` holds, and nothing less than it did.

    Without `blobs` only what is signed is copied: enough to sign the next release, not to serve devices.

    Raises `NotFound` if `source` is no depot, `ChangedMeanwhile` if `destination` is newer or was written by somebody
    else, `Taken` if a name there means other bytes, and what the stores raise.
    """
    timestamp = _timestamp(source)
    if timestamp is None:
        raise NotFound("this is not a depot: it has no metadata", where=source.where, fix="publish a release into it")
    with destination.exclusive(holder):
        was = destination.entry(TIMESTAMP)
        there = _timestamp(destination) if was is not None else None
        _refuse_older(timestamp, there, source=source, destination=destination)
        copied = _copy_files(source, destination, timestamp, progress, blobs=blobs)
        if there != timestamp:
            destination.replace(TIMESTAMP, timestamp, was=was)
            copied = Copied(copied.files + 1, copied.size_bytes + len(timestamp), copied.there)
    return copied


def _copy_files(source: Store, destination: Store, timestamp: bytes, progress: Progress, *, blobs: bool) -> Copied:
    """Copy all files but the timestamp: blobs first, then manifests, then metadata."""
    reached = _reached(source, timestamp)
    wanted = sorted((e for e in _depot_files(source).values() if _is_reached(e.name, reached)), key=_order)
    if not blobs:
        wanted = [entry for entry in wanted if blob_of(entry.name) is None]
    held = _depot_files(destination)
    missing = [entry for entry in wanted if not _same(entry, held.get(entry.name)) or _is_newest(entry.name, reached)]
    total = sum(entry.size_bytes for entry in missing)
    start = files = size_bytes = 0
    for entry in missing:

        def done(count: int, name: str = entry.name, before: int = start) -> None:
            progress(name, before + count, total)

        if _copy_one(source, destination, entry, done):
            files += 1
            size_bytes += entry.size_bytes
        start += entry.size_bytes
    held = _depot_files(destination)
    gone = [entry.name for entry in wanted if not _same(entry, held.get(entry.name))]
    if gone:
        raise ChangedMeanwhile(
            f"{gone[0]} is not there although it was copied", where=destination.where, fix="run this again"
        )
    return Copied(files, size_bytes, len(wanted) - files)


def _copy_one(source: Store, destination: Store, entry: Entry, progress: Callable[[int], None]) -> bool:
    """Copy a file; False if the same bytes lay there."""
    digest = blob_of(entry.name)
    if digest is not None:
        there = destination.entry(entry.name)
        if there is not None:
            raise Taken(
                f"a blob of {there.size_bytes} bytes lies under the name of one of {entry.size_bytes}",
                where=f"{destination.where}/{entry.name}",
                fix="one of the two is damaged: drupelet depot check",
            )
        try:
            destination.put_blob(digest, source, size=entry.size_bytes, progress=progress)
        except BlobRefused as error:
            raise BlobRefused(
                f"{error.what}: not what its name says",
                reason=error.reason,
                where=f"{source.where}/{entry.name}",
                fix="publish the release again",
            ) from error
        return True
    written = destination.create(entry.name, source.read(entry.name, bytes_max=SMALL_BYTES_MAX))
    progress(entry.size_bytes)
    return written


def _depot_files(store: Store) -> dict[str, Entry]:
    """Return a store's files by name; what has no depot's name is not looked at, wherever it leads."""
    return {entry.name: entry for entry in store.entries() if is_depot_path(entry.name)}


def _reached(source: Store, timestamp: bytes) -> dict[str, int]:
    """Return the newest version of each role that the timestamp leads to.

    A publisher that died may have left a file of the next version, which the next one writes over: it is not copied.
    """
    try:
        newest = int(json.loads(timestamp)["signed"]["meta"]["snapshot.json"]["version"])
        snapshot = json.loads(source.read(f"metadata/{newest}.snapshot.json", bytes_max=SMALL_BYTES_MAX))
        roles = {name.removesuffix(".json"): int(meta["version"]) for name, meta in snapshot["signed"]["meta"].items()}
    except NotFound as error:
        raise NotFound(
            "its metadata are not complete", where=source.where, fix="copy it whole, or publish again"
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadInput("its metadata are not TUF metadata", where=source.where, fix="publish again") from error
    return {**roles, "snapshot": newest}


def _is_newest(name: str, reached: dict[str, int]) -> bool:
    """Whether the timestamp leads to this very file: it is compared by its bytes, for publishers may have diverged."""
    version, role = _numbered(name)
    return version == str(reached.get(role, -1))


def _numbered(name: str) -> tuple[str, str]:
    """Return version and role of a metadata file, both empty for any other name."""
    if not name.startswith("metadata/"):
        return "", ""
    version, _, role = name.removeprefix("metadata/").removesuffix(".json").partition(".")
    return version, role


def _is_reached(name: str, reached: dict[str, int]) -> bool:
    if not name.startswith("metadata/"):
        return True
    version, role = _numbered(name)
    return version.isdigit() and len(version) < 10 and (role == "root" or int(version) <= reached.get(role, -1))


def _order(entry: Entry) -> tuple[int, str]:
    return (("blobs/", "targets/", "metadata/").index(entry.name[: entry.name.index("/") + 1]), entry.name)


def _same(entry: Entry, there: Entry | None) -> bool:
    return there is not None and there.size_bytes == entry.size_bytes


def _timestamp(store: Store) -> bytes | None:
    try:
        return store.read(TIMESTAMP, bytes_max=SMALL_BYTES_MAX)
    except NotFound:
        return None


def _refuse_older(mine: bytes, there: bytes | None, *, source: Store, destination: Store) -> None:
    """Raise `ChangedMeanwhile` if the destination is ahead. Nothing is believed: a device would refuse to go back."""
    if there is None or there == mine:
        return
    ours, theirs = timestamp_version(mine), timestamp_version(there)
    if theirs >= ours:
        raise ChangedMeanwhile(
            f"its metadata are of version {theirs}, those of {source.where} of version {ours}",
            where=destination.where,
            fix="pull it first, then publish into what you pulled",
        )


def timestamp_version(data: bytes) -> int:
    """Return the version a timestamp states, 0 if it is none. For comparing, not for believing."""
    try:
        version = json.loads(data)["signed"]["version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return 0
    return version if isinstance(version, int) else 0

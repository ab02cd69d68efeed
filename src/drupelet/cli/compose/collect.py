"""Garbage collection, put together: trust says what is named, depot says what lies there."""

from __future__ import annotations

from datetime import datetime, timedelta

from tuf.api.metadata import Metadata, Timestamp

from drupelet.core.states import Reason
from drupelet.depot.ports import Entry, Store, blob_path
from drupelet.depot.sweep import Named, garbage
from drupelet.trust.census import Get, Vouched, census, mentioned
from drupelet.trust.errors import NotTrusted
from drupelet.trust.images import parse_root


def vouched_in(store: Store, *, root: bytes, now: datetime) -> tuple[Vouched, ...]:
    """Return the releases the depot's signatures vouch for. Raises what `census` raises."""
    parse_root(root)
    return census(_reader(store), root=root, reference=now, where=store.where)


def collect(
    store: Store, *, root: bytes, now: datetime, keep: timedelta, revoked: bool, dry_run: bool, holder: str
) -> tuple[Entry, ...]:
    """Remove what no manifest names and is older than `keep`; return what was, or would be, removed.

    Raises `NotTrusted` or `RepositoryMissing` before anything is removed if the depot cannot say what it names.
    """
    parse_root(root)
    with store.exclusive(holder):
        found = vouched_in(store, root=root, now=now)
        entries = tuple(store.entries())
        if revoked:
            _refuse_older_view(entries, store)
        named = _named(store, entries, found, revoked=revoked)
        removable = garbage(entries, named, now=now, keep=keep)
        if not dry_run:
            for entry in removable:
                store.remove(entry.name)
    return removable


def _named(store: Store, entries: tuple[Entry, ...], found: tuple[Vouched, ...], *, revoked: bool) -> Named:
    digests = {digest for one in found for digest in one.digests}
    targets = {f"targets/{target.url_path}" for one in found for target in one.targets}
    if not revoked:
        # A revoked release may be one that somebody still has to look into: it stays until asked for.
        targets |= {entry.name for entry in entries if entry.name.startswith("targets/")}
        digests |= mentioned(_reader(store), targets)
    return Named(frozenset(blob_path(digest) for digest in digests), frozenset(targets))


def _refuse_older_view(entries: tuple[Entry, ...], store: Store) -> None:
    """Raise if metadata newer than the timestamp's lie there: an old timestamp put back must not look like revoking."""
    timestamp = store.read("metadata/timestamp.json", bytes_max=1 << 16)
    current = snapshot_version(timestamp)
    for entry in entries:
        version, _, rest = entry.name.removeprefix("metadata/").partition(".")
        if rest == "snapshot.json" and version.isdigit() and int(version) > current:
            raise NotTrusted(
                f"metadata of version {version} lie there and the timestamp names version {current}",
                reason=Reason.REPLAYED,
                where=store.where,
                fix="a publisher died there, or an old timestamp was put back; publish or renew first",
            )


def snapshot_version(timestamp: bytes) -> int:
    """Return the snapshot version that a verified timestamp names."""
    return Metadata[Timestamp].from_bytes(timestamp).signed.snapshot_meta.version


def _reader(store: Store) -> Get:
    return lambda name, bytes_max: store.read(name, bytes_max=bytes_max)

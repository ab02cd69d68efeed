"""Garbage collection: which files of a depot nothing names any more.

A file is garbage when no signed manifest names it *and* it is older than a bound. The bound lets a publisher put blobs
in before it signs what names them; beside it, a publisher looks once more that they are all there while it holds the
lock under which alone anything is removed. What the signed manifests name is found out by trust (`trust/census.py`),
which raises rather than guesses; this module only compares.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from drupelet.depot.ports import Entry, blob_of, is_depot_path

KEEP = timedelta(days=7)
"""How old garbage must be: far longer than any upload takes, far shorter than a disk takes to fill."""


@dataclass(frozen=True, slots=True)
class Named:
    """What must stay: blobs and signed files, by path."""

    blobs: frozenset[str]
    targets: frozenset[str]


def garbage(entries: Iterable[Entry], named: Named, *, now: datetime, keep: timedelta) -> tuple[Entry, ...]:
    """Return what may be removed, in order. Metadata, and files that are no depot's, are never among it."""
    found = []
    for entry in entries:
        if now - entry.modified < keep:
            continue
        if entry.name.startswith("incoming/"):
            found.append(entry)
        elif not is_depot_path(entry.name):
            continue
        elif blob_of(entry.name) is not None:
            if entry.name not in named.blobs:
                found.append(entry)
        elif entry.name.startswith("targets/") and entry.name not in named.targets:
            found.append(entry)
    return tuple(sorted(found))


def size_of(entries: Collection[Entry]) -> int:
    """Return the bytes of some files in all."""
    return sum(entry.size_bytes for entry in entries)

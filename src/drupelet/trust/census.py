"""What an image repository vouches for, all of it: for garbage collection, listing and mirroring.

A device asks for one release; a collector must know every one, and must not go on if it cannot know. So whatever does
not verify, has expired, or is vouched for and missing stops the census.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from drupelet.core.errors import BadInput, NotFound
from drupelet.core.names import Digest, ReleaseId
from drupelet.core.states import Reason
from drupelet.trust.errors import NotTrusted, RepositoryMissing
from drupelet.trust.roles import TargetInfo
from drupelet.trust.staged import Known, Staged
from drupelet.wire.manifest import MANIFEST_NAME, release_of_target

_DIGEST = re.compile(rb"sha256:[0-9a-f]{64}")

TARGET_BYTES_MAX = 4 << 20
"""Signed files are small: manifests, statements, signatures."""

Get = Callable[[str, int], bytes]
"""Return the depot's file of this name, at most so many bytes; raises `NotFound` or `TooLarge`."""


@dataclass(frozen=True, slots=True)
class Vouched:
    """A release the repository vouches for: its signed files, and every digest they mention."""

    release: ReleaseId
    targets: tuple[TargetInfo, ...]
    digests: frozenset[Digest]

    @property
    def manifest(self) -> TargetInfo | None:
        """The release manifest; None if what was signed under this name is something else, such as a runtime."""
        return next((target for target in self.targets if target.path.endswith(f"/{MANIFEST_NAME}")), None)


def census(get: Get, *, root: bytes, reference: datetime, where: str) -> tuple[Vouched, ...]:
    """Return every release vouched for now, in order, its files read and compared with what was signed.

    Raises `NotTrusted` or `RepositoryMissing` if any of it does not hold, and what `get` raises.
    """

    def metadata(path: str, bytes_max: int) -> bytes:
        return get(f"metadata/{path}", bytes_max)

    with Staged(bootstrap=root, known=Known(), get=metadata, reference=reference, where=where) as staged:
        staged.refresh()
        targets = staged.every_target()
    releases: dict[ReleaseId, list[TargetInfo]] = {}
    for target in targets:
        releases.setdefault(_release(target, where), []).append(target)
    return tuple(
        Vouched(
            release,
            tuple(sorted(files, key=lambda target: target.path)),
            frozenset[Digest]().union(*(digests_in(_read(get, target, where)) for target in files)),
        )
        for release, files in sorted(releases.items(), key=lambda item: item[0])
    )


def digests_in(manifest: bytes) -> frozenset[Digest]:
    """Return every digest written anywhere in a file, known field or not: what a newer version names is kept too."""
    # JSON may write any character as an escape: a manifest that does must not hide a digest.
    if b"\\u" in manifest:
        with suppress(ValueError, RecursionError):  # what is not JSON escapes nothing
            manifest = json.dumps(json.loads(manifest), ensure_ascii=False).encode("utf-8", "replace")
    return frozenset(Digest.parse(text.decode()) for text in _DIGEST.findall(manifest))


def mentioned(get: Get, names: Iterable[str]) -> frozenset[Digest]:
    """Return every digest in the files of these names, vouched for or not; what cannot be read names nothing."""
    found: set[Digest] = set()
    for name in names:
        try:
            found |= digests_in(get(name, TARGET_BYTES_MAX))
        except (NotFound, BadInput):
            continue
    return frozenset(found)


def _release(target: TargetInfo, where: str) -> ReleaseId:
    try:
        return release_of_target(target.path)
    except BadInput as error:
        raise NotTrusted(
            f"{target.path[:100]!r} is signed and is no release", reason=Reason.BAD_METADATA, where=where
        ) from error


def _read(get: Get, target: TargetInfo, where: str) -> bytes:
    name = f"targets/{target.url_path}"
    try:
        data = get(name, min(target.length, TARGET_BYTES_MAX))
    except NotFound as error:
        raise RepositoryMissing(
            "this is signed but does not lie in the depot",
            where=f"{where}/{name}",
            fix="publish the release again",
        ) from error
    except BadInput as error:
        raise NotTrusted(error.what, reason=Reason.TOO_LARGE, where=f"{where}/{name}") from error
    if hashlib.sha256(data).hexdigest() != target.sha256.hex:
        raise NotTrusted(
            "these are not the bytes that were signed", reason=Reason.DIGEST_MISMATCH, where=f"{where}/{name}"
        )
    return data

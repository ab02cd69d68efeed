"""Signatures of one metadata file, collected in several sittings.

A role that needs two signatures is rarely signed by two people at one table. Whoever starts signs what is to be
published and finds it kept in the ring's `pending/`, a plain TUF metadata file:

    keys/pending/kiosk.json     drupelet forge publish wrote it, with one signature
                                -> carried to the second signer, who runs: drupelet keys sign kiosk.json --keys ...
                                -> carried back; drupelet forge publish again: enough signatures, published

What is already signed is never signed in another form: the file is taken up as it is, or refused as another change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Signed, Targets

from drupelet.core.errors import BadInput, NotFound
from drupelet.durable import Disk
from drupelet.trust.errors import OtherPending, SignaturesMissing
from drupelet.trust.keys import KeyRing
from drupelet.trust.roles import FIELD, AnyMetadata, add_signature

PENDING_BYTES_MAX = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Authority:
    """Who says whose signatures a role needs: a root or the top-level targets, and the role's name there."""

    by: Root | Targets
    role: str

    def lacks(self, metadata: AnyMetadata) -> tuple[int, tuple[str, ...]]:
        """Return how many signatures are missing, and the ids of the keys that could give them."""
        found = self.by.get_verification_result(self.role, metadata.signed_bytes, metadata.signatures)
        return max(0, found.threshold - len(found.signed)), tuple(found.unsigned)


@dataclass(frozen=True, slots=True)
class Lack:
    """A file below its threshold: how many signatures it has and needs, and whose would do."""

    name: str
    path: Path
    has: int
    needs: int
    candidates: tuple[str, ...]


class Pending:
    """What one command wants signed. `collect` each role, then `require` that nothing is missing."""

    def __init__(self, disk: Disk, keys: KeyRing, now: datetime) -> None:
        self._disk = disk
        self._keys = keys
        self._now = now
        self._lacks: list[Lack] = []
        self._collected: list[str] = []

    def waiting(self, name: str) -> AnyMetadata | None:
        """Return what waits for signatures under this name, unless it has expired meanwhile."""
        try:
            found = read_pending(self._disk, self._path(name))
        except NotFound:
            return None
        return None if found.signed.is_expired(self._now) else found

    def collect(self, name: str, role: Signed, authorities: Sequence[Authority]) -> bytes:
        """Return the role's file with every signature that this ring can add.

        It is not to be written anywhere before `require` has returned. Raises `OtherPending` and what signers raise.
        """
        waiting = self.waiting(name)
        if waiting is not None and not _same(waiting.signed, role):
            raise OtherPending(
                f"another change of {name} waits for signatures",
                where=str(self._path(name)),
                fix="finish that one first, or remove the file to drop it",
            )
        metadata: AnyMetadata = waiting if waiting is not None else Metadata(role)
        for authority in authorities:
            self._sign(metadata, authority)
        data = metadata.to_bytes()
        lacking = [authority.lacks(metadata) for authority in authorities]
        if any(missing for missing, _ in lacking):
            self._keep(name, data)
            missing = max(missing for missing, _ in lacking)
            candidates = dict.fromkeys(self._keys.info.called(keyid) for n, ids in lacking if n for keyid in ids)
            needs = max(authority.by.get_delegated_role(authority.role).threshold for authority in authorities)
            self._lacks.append(Lack(name, self._path(name), needs - missing, needs, tuple(candidates)))
        self._collected.append(name)
        return data

    def require(self) -> None:
        """Return if nothing is missing, or raise `SignaturesMissing` naming who could sign."""
        if not self._lacks:
            return
        said = [
            f"{lack.name} has {lack.has} of {lack.needs} signatures, missing {lack.needs - lack.has} of: "
            f"{', '.join(lack.candidates)}"
            for lack in self._lacks
        ]
        files = " ".join(str(lack.path) for lack in self._lacks)
        raise SignaturesMissing(
            "; ".join(said),
            missing=[name for lack in self._lacks for name in lack.candidates],
            fix=f"nothing is published yet; let them run: drupelet keys sign {files} --keys THEIRS, then repeat this",
        )

    def finish(self) -> None:
        """Forget what was collected: it is published."""
        for name in self._collected:
            self._disk.remove(self._path(name))

    def keep_files(self, files: Mapping[str, bytes]) -> None:
        """Keep files that a waiting role names, by where they lie below a depot's `targets/`.

        They were made once and will not come out the same again: a signature with ECDSA is drawn anew each time.
        """
        for name, data in files.items():
            self._disk.replace(self._file(name), data, mode=0o644)

    def take_file(self, name: str) -> bytes | None:
        """Return a file that `keep_files` kept."""
        try:
            return self._disk.read(self._file(name), bytes_max=PENDING_BYTES_MAX)
        except NotFound:
            return None

    def drop_files(self, names: Iterable[str]) -> None:
        """Forget files that are published now."""
        for name in names:
            self._disk.remove(self._file(name))

    def _file(self, name: str) -> Path:
        return self._keys.folder / "pending" / "targets" / name

    def _sign(self, metadata: AnyMetadata, authority: Authority) -> None:
        for keyid in authority.lacks(metadata)[1]:
            if not authority.lacks(metadata)[0]:
                return
            if self._keys.holds(keyid):
                add_signature(metadata, self._keys.signer_of(keyid))

    def _keep(self, name: str, data: bytes) -> None:
        self._disk.replace(self._path(name), data, mode=0o644)

    def _path(self, name: str) -> Path:
        return self._keys.folder / "pending" / f"{name}.json"


def read_pending(disk: Disk, path: Path) -> AnyMetadata:
    """Return the metadata in a file, whoever signed it. Raises `NotFound` or `BadInput`."""
    data = disk.read(path, bytes_max=PENDING_BYTES_MAX)
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(data)
    except RepositoryError as error:
        raise BadInput(
            "this is not TUF metadata", where=str(path), fix="give a file that publish or rotate left in pending/"
        ) from error
    return metadata


def _same(a: Signed, b: Signed) -> bool:
    """Whether two roles say the same but for when they were made and how long they hold."""
    return a.type == b.type and _said(a) == _said(b)


def _said(role: Signed) -> dict[str, Any]:
    return {key: value for key, value in role.to_dict().items() if key not in ("expires", FIELD)}

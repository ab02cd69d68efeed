"""Metadata of TUF roles, made and signed with the fields Drupelet adds.

Every role carries a signed field of ours, `drupelet`, which other TUF clients ignore: `signed_at` (when), and in a
director's roles `device` (for whom). TUF's own director-less design has neither: its clients share one repository.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, TargetFile, Targets, Timestamp

from drupelet.core.errors import BadInput
from drupelet.core.names import Digest
from drupelet.trust.clock import parsed, whole_second, written

FIELD = "drupelet"
TOP_LEVEL_ROLES = (Root.type, Timestamp.type, Snapshot.type, Targets.type)

AnyMetadata: TypeAlias = Metadata[Any]


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """A signed file: its path in the image repository, its length in bytes and its SHA-256."""

    path: str
    length: int
    sha256: Digest

    @property
    def url_path(self) -> str:
        """Where it lies below `targets/` of a depot: the file's name is prefixed with its hash."""
        folder, _, name = self.path.rpartition("/")
        return f"{folder}/{self.sha256.hex}.{name}"

    @classmethod
    def of(cls, path: str, data: bytes) -> TargetInfo:
        """Describe `data` under this path."""
        return cls(path, len(data), Digest.of_hex(hashlib.sha256(data).hexdigest()))

    @classmethod
    def of_target(cls, target: TargetFile) -> TargetInfo | None:
        """Return what verified metadata says, or None if it names no SHA-256 as we write it."""
        try:
            return cls(target.path, target.length, Digest.of_hex(target.hashes.get("sha256", "")))
        except BadInput:
            return None

    def as_target(self, custom: Mapping[str, Any] | None = None) -> TargetFile:
        """Return it as TUF writes it."""
        fields = {"custom": dict(custom)} if custom is not None else None
        return TargetFile(self.length, {"sha256": self.sha256.hex}, self.path, fields)


def our_field(*, now: datetime, device: str | None = None) -> dict[str, Any]:
    """Return the signed field Drupelet adds to a role."""
    field = {"signed_at": written(now)}
    if device is not None:
        field["device"] = device
    return {FIELD: field}


def signed_at(role: Signed) -> datetime | None:
    """Return when a verified role says it was signed; None if it does not, or says it was after its own expiry."""
    field = role.unrecognized_fields.get(FIELD)
    text = field.get("signed_at") if isinstance(field, dict) else None
    moment = parsed(text) if isinstance(text, str) else None
    return moment if moment is not None and moment <= role.expires else None


def device_of(role: Signed) -> str | None:
    """Return the device a verified role was signed for."""
    field = role.unrecognized_fields.get(FIELD)
    device = field.get("device") if isinstance(field, dict) else None
    return device if isinstance(device, str) else None


def sign(role: Signed, signers: Sequence[Signer]) -> bytes:
    """Return the metadata file of a role, signed by all `signers`."""
    metadata: AnyMetadata = Metadata(role)
    for signer in signers:
        add_signature(metadata, signer)
    return metadata.to_bytes()


def add_signature(metadata: AnyMetadata, signer: Signer) -> None:
    """Sign what the metadata say. What the signer raises comes through: python-tuf would hide it behind its own."""
    signature = signer.sign(metadata.signed_bytes)
    metadata.signatures[signature.keyid] = signature


def meta_of(data: bytes, *, version: int) -> MetaFile:
    """Return how a snapshot or timestamp names a metadata file: by version, length *and* hash.

    The hash is what keeps metadata of one device, or of one moment, from being mixed with another's of equal version.
    """
    return MetaFile(version, len(data), {"sha256": hashlib.sha256(data).hexdigest()})


def make_targets(
    *,
    version: int,
    now: datetime,
    expires: datetime,
    targets: Sequence[TargetFile] = (),
    device: str | None = None,
) -> Targets:
    """Return a targets role, unsigned."""
    return Targets(
        version=version,
        expires=whole_second(expires),
        targets={target.path: target for target in targets},
        unrecognized_fields=our_field(now=now, device=device),
    )


def make_snapshot(
    meta: dict[str, MetaFile], *, version: int, now: datetime, expires: datetime, device: str | None = None
) -> Snapshot:
    """Return a snapshot role, unsigned."""
    return Snapshot(
        version=version,
        expires=whole_second(expires),
        meta=meta,
        unrecognized_fields=our_field(now=now, device=device),
    )


def make_timestamp(
    snapshot: MetaFile, *, version: int, now: datetime, expires: datetime, device: str | None = None
) -> Timestamp:
    """Return a timestamp role, unsigned."""
    return Timestamp(
        version=version,
        expires=whole_second(expires),
        snapshot_meta=snapshot,
        unrecognized_fields=our_field(now=now, device=device),
    )

"""The director: what the fleet signs for one device.

Every device has a TUF repository of its own, of three small files under one online key; the root is shared. Nothing is
kept here: versions and serials are counted by the fleet's store, so that any replica may sign. The device's name is
signed into all three roles, and the chain is tied by hashes, so that no file of one device serves another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
from securesystemslib.signer import Signer
from tuf.api.metadata import Metadata, Root

from drupelet.core.errors import BadInput
from drupelet.trust.errors import BadKeyFile
from drupelet.trust.roles import TargetInfo, make_snapshot, make_targets, make_timestamp, meta_of, sign
from drupelet.wire.manifest import manifest_path, release_of_path
from drupelet.wire.orders import Order


@dataclass(frozen=True, slots=True)
class DirectorMetadata:
    """One device's director repository. `files` by name: `timestamp.json`, `7.snapshot.json`, `7.targets.json`."""

    device: str
    version: int
    expires: datetime
    files: dict[str, bytes]


class Director:
    """Signs orders. Stateless; safe to share between threads."""

    def __init__(self, *, roots: Sequence[bytes], signer: Signer) -> None:
        """Take the director's roots, oldest first, and the online key that the newest of them names."""
        if not roots:
            raise BadInput("a director needs at least one root")
        parsed = [Metadata[Root].from_bytes(root).signed for root in roots]
        for role in ("timestamp", "snapshot", "targets"):
            if signer.public_key.keyid not in parsed[-1].roles[role].keyids:
                raise BadKeyFile(
                    f"the director's root does not name this key for {role}",
                    fix="use the director-online key that was made with this root",
                )
        self._roots = {f"{root.version}.root.json": data for root, data in zip(parsed, roots, strict=True)}
        self._signer = signer

    @property
    def roots(self) -> dict[str, bytes]:
        """The root files by name (`1.root.json`), the same for every device: serve them beside its own files."""
        return dict(self._roots)

    def sign(
        self,
        *,
        device: str,
        order: Order | None,
        target: TargetInfo | None,
        version: int,
        now: datetime,
        expires: datetime,
    ) -> DirectorMetadata:
        """Return `device`'s metadata with this order, or with none.

        `version` must be greater than any signed for the device before; `expires` bounds how long the device can be
        kept from newer orders unawares. Raises `BadInput` if order, target and device do not belong together.
        """
        targets = []
        if (order is None) != (target is None):
            raise BadInput("an order needs its target, and a target its order")
        if order is not None and target is not None:
            _refuse_unrelated(device, order, target)
            targets = [target.as_target(msgspec.to_builtins(order))]
        if expires <= now:
            raise BadInput("director metadata would be expired when signed", where=device)
        role = make_targets(version=version, now=now, expires=expires, targets=targets, device=device)
        targets_data = sign(role, [self._signer])
        meta = {"targets.json": meta_of(targets_data, version=version)}
        snapshot_data = sign(
            make_snapshot(meta, version=version, now=now, expires=expires, device=device), [self._signer]
        )
        snapshot = meta_of(snapshot_data, version=version)
        timestamp = make_timestamp(snapshot, version=version, now=now, expires=expires, device=device)
        files = {
            "timestamp.json": sign(timestamp, [self._signer]),
            f"{version}.snapshot.json": snapshot_data,
            f"{version}.targets.json": targets_data,
        }
        return DirectorMetadata(device=device, version=version, expires=timestamp.expires, files=files)


def _refuse_unrelated(device: str, order: Order, target: TargetInfo) -> None:
    if order.device != device:
        raise BadInput(f"an order for {order.device} cannot be signed for {device}")
    release = release_of_path(target.path)
    if order.release != release.path or target.path != manifest_path(release):
        raise BadInput(f"an order for {order.release} cannot point at {target.path}", where=device)
    if order.manifest != target.sha256.text:
        raise BadInput("the order's manifest digest is not the target's", where=device)

"""What a key ring asks for, as TUF metadata: a repository's root, and the delegations of the image targets. Pure."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Literal

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import DelegatedRole, Delegations, Key, Metadata, Root

from drupelet.core.errors import BadInput, NotFound
from drupelet.core.states import Reason
from drupelet.trust.clock import whole_second
from drupelet.trust.errors import NotTrusted
from drupelet.trust.ring import KeyRingInfo
from drupelet.trust.roles import TOP_LEVEL_ROLES, our_field

ROTATIONS_MAX = 256
"""As many new roots as a device follows in one refresh."""


def root_of(
    ring: KeyRingInfo, repository: Literal["image", "director"], *, version: int, now: datetime, expires: datetime
) -> Root:
    """Return the root that the ring asks for, unsigned."""
    root = Root(
        version=version,
        expires=whole_second(expires),
        consistent_snapshot=True,
        unrecognized_fields=our_field(now=now),
    )
    for role in TOP_LEVEL_ROLES:
        keys = ring.of(f"{repository}/{role}")
        if not keys:
            raise BadInput(f"nobody signs {repository}/{role}", fix=f"give it a key: --add {repository}/{role}")
        for key in keys:
            root.add_key(key.key, role)
        root.roles[role].threshold = ring.threshold(f"{repository}/{role}")
    return root


def same_trust(a: Root, b: Root) -> bool:
    """Whether two roots name the same keys and thresholds for every role."""
    return all(
        set(a.roles[role].keyids) == set(b.roles[role].keyids) and a.roles[role].threshold == b.roles[role].threshold
        for role in TOP_LEVEL_ROLES
    )


def delegations_of(ring: KeyRingInfo) -> Delegations:
    """Return which keys sign for which family, and how many of them must."""
    delegated: dict[str, DelegatedRole] = {}
    keys: dict[str, Key] = {}
    for family in ring.families:
        found = ring.of(f"image/{family}")
        if not found:
            raise BadInput(f"nobody signs for the family {family}", fix=f"give it a key: --add {family}")
        keys |= {key.keyid: key.key for key in found}
        # Terminating: what is below kiosk/ is for kiosk's keys to say, and for nobody after them.
        delegated[family] = DelegatedRole(
            family,
            [key.keyid for key in found],
            ring.threshold(f"image/{family}"),
            True,
            paths=[f"{family}/*/*"],
        )
    return Delegations(keys, delegated)


def same_delegations(a: Delegations | None, b: Delegations) -> bool:
    """Whether the same families are signed by the same keys and thresholds."""
    roles = a.roles if a is not None and a.roles is not None else {}
    return {name: (set(role.keyids), role.threshold) for name, role in roles.items()} == {
        name: (set(role.keyids), role.threshold) for name, role in (b.roles or {}).items()
    }


def follow(root: bytes, get: Callable[[str], bytes], *, where: str) -> list[Root]:
    """Return `root` and every newer one that `get` finds, oldest first, each signed as the one before it asks for.

    `get` takes a name such as `2.root.json` and raises core's `NotFound` when there is none. Raises `NotTrusted`.
    """
    chain = [Metadata[Root].from_bytes(root).signed]
    for _ in range(ROTATIONS_MAX):
        name = f"{chain[-1].version + 1}.root.json"
        try:
            data = get(name)
        except NotFound:
            break
        try:
            metadata = Metadata[Root].from_bytes(data)
            new = metadata.signed
            chain[-1].verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
            new.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
        except RepositoryError as error:
            raise NotTrusted(
                f"{name} was not signed as the root before it asks for",
                reason=Reason.UNSIGNED,
                where=where,
                fix="restore the depot's metadata folder",
            ) from error
        if new.version != chain[-1].version + 1:
            raise NotTrusted(f"{name} has version {new.version}", reason=Reason.BAD_METADATA, where=where)
        chain.append(new)
    return chain

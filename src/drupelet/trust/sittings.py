"""One more signature on a metadata file that waits for several, by somebody who has keys and perhaps no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from securesystemslib.exceptions import UnverifiedSignatureError
from tuf.api.metadata import Metadata, Root, Targets

from drupelet.core.errors import BadInput
from drupelet.core.states import Reason
from drupelet.durable import Disk
from drupelet.trust.errors import NoKey, NotTrusted
from drupelet.trust.keys import KeyRing
from drupelet.trust.pending import Authority, Pending, read_pending
from drupelet.trust.ring import KeyInfo
from drupelet.trust.roles import AnyMetadata, TargetInfo, add_signature
from drupelet.trust.roots import root_of, same_trust
from drupelet.wire.manifest import release_of_target

ROOTS = {"image-root": "image/root", "director-root": "director/root"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sitting:
    """A file that waits for signatures, as a person should see it before he signs."""

    path: Path
    role: str
    """`repository/role`."""
    version: int
    expires: datetime
    says: tuple[str, ...]
    """What would be signed, a line a fact."""
    signed: tuple[str, ...]
    """Keys of the ring that have signed it."""
    may_sign: tuple[KeyInfo, ...]
    """Keys of the ring whose signature it waits for."""
    metadata: AnyMetadata


def look(disk: Disk, path: Path, *, keys: KeyRing, now: datetime, role: str = "") -> Sitting:
    """Read a pending file and say what it is. `role` is needed where its name does not say.

    Raises `BadInput` if it is no pending metadata or of no role of the ring, `NotTrusted` if a signature that it has is
    forged or it has expired.
    """
    metadata = read_pending(disk, path)
    signed = metadata.signed
    name = role or path.stem
    if signed.is_expired(now):
        raise NotTrusted(
            "it has expired: nobody would take it", reason=Reason.EXPIRED, where=str(path), fix="start anew"
        )
    if isinstance(signed, Root):
        found, candidates, says = _root(signed, name, keys, path)
    elif isinstance(signed, Targets):
        found, candidates, says = _targets(signed, name, keys, path)
    else:
        raise BadInput(f"{signed.type} metadata are not signed by hand", where=str(path))
    have = []
    for key in candidates:
        if key.keyid in metadata.signatures:
            _refuse_forged(metadata, key, path)
            have.append(key)
    return Sitting(
        path=path,
        role=found,
        version=signed.version,
        expires=signed.expires,
        says=tuple(says),
        signed=tuple(key.name for key in have),
        may_sign=tuple(key for key in candidates if key not in have),
        metadata=metadata,
    )


def _root(root: Root, name: str, keys: KeyRing, path: Path) -> tuple[str, Sequence[KeyInfo], list[str]]:
    role = ROOTS.get(name)
    if role is None:
        raise BadInput(f"a root called {name!r}", where=str(path), fix="give --role image-root or director-root")
    data = keys.image_root if role == "image/root" else keys.director_root
    before = Metadata[Root].from_bytes(data).signed
    # Both must sign: the keys that the old root trusts, and those that the new one does.
    wanted = {*before.roles["root"].keyids, *root.roles["root"].keyids}
    if not set(root.roles["root"].keyids) & {key.keyid for key in keys.info.keys}:
        raise BadInput("this root names none of this ring's keys", where=str(path), fix="is it of another key ring?")
    says = [f"{role} {root.version}, where {before.version} is the one in force"]
    for what, one in sorted(root.roles.items()):
        names = ", ".join(keys.info.called(keyid) for keyid in one.keyids)
        says.append(f"{what}: {one.threshold} of {names}")
    return role, [key for key in keys.info.keys if key.keyid in wanted], says


def _targets(role: Targets, name: str, keys: KeyRing, path: Path) -> tuple[str, Sequence[KeyInfo], list[str]]:
    if role.delegations is not None:
        says = []
        for family, one in (role.delegations.roles or {}).items():
            names = ", ".join(keys.info.called(keyid) for keyid in one.keyids)
            says.append(f"family {family}: {one.threshold} of {names}")
        return "image/targets", keys.info.of("image/targets"), says
    if name not in keys.families:
        there = ", ".join(keys.families)
        raise BadInput(f"{name!r} is no family of this ring", where=str(path), fix=f"give --role with one of {there}")
    strangers = [target for target in role.targets if release_of_target(target).family != name]
    if strangers:
        raise BadInput(f"{strangers[0]} is not for {name} to sign", where=str(path), fix="do not sign this file")
    infos = [info for target in role.targets.values() if (info := TargetInfo.of_target(target)) is not None]
    says = [f"{info.path}  {info.sha256}" for info in sorted(infos, key=lambda i: (release_of_target(i.path), i.path))]
    return f"image/{name}", keys.info.of(f"image/{name}"), says or ["no release at all"]


def _refuse_forged(metadata: AnyMetadata, key: KeyInfo, path: Path) -> None:
    try:
        key.key.verify_signature(metadata.signatures[key.keyid], metadata.signed_bytes)
    except UnverifiedSignatureError as error:
        raise NotTrusted(
            f"the signature of {key.name} is not one of this file",
            reason=Reason.UNSIGNED,
            where=str(path),
            fix="do not sign it; ask where it comes from",
        ) from error


def countersign(disk: Disk, sitting: Sitting, *, keys: KeyRing, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Add signatures of the ring's keys (those named, else all that are here) and return whose they are.

    Raises `NoKey` if no key that is here may sign, and what signers raise; then the file is as it was.
    """
    chosen = [key for key in sitting.may_sign if (key.name in names if names else keys.holds(key.keyid))]
    unknown = set(names) - {key.name for key in sitting.may_sign} - set(sitting.signed)
    if unknown or not (chosen or names):
        could = ", ".join(key.name for key in sitting.may_sign) or "nobody any more"
        what = f"{sorted(unknown)[0]} does not sign this" if unknown else "no key that signs this is here"
        raise NoKey(what, where=str(sitting.path), fix=f"it waits for: {could}")
    for key in chosen:
        add_signature(sitting.metadata, keys.signer(key.name))
    disk.replace(sitting.path, sitting.metadata.to_bytes(), mode=0o644)
    return tuple(key.name for key in chosen)


def rotate_director(
    disk: Disk, keys: KeyRing, *, now: datetime, lifetime: timedelta, renew: bool = False
) -> int | None:
    """Make the director's root follow the ring; return its new version, or None if it says what the ring says.

    `renew` signs it anew all the same: before it expires, or after.

    Raises `SignaturesMissing` until a threshold of the old root's keys and of the new one's have signed.
    """
    old = Metadata[Root].from_bytes(keys.director_root).signed
    new = root_of(keys.info, "director", version=old.version + 1, now=now, expires=now + lifetime)
    if same_trust(old, new) and not renew:
        return None
    pending = Pending(disk, keys, now)
    data = pending.collect("director-root", new, [Authority(old, "root"), Authority(new, "root")])
    pending.require()
    keys.keep_root("director", data, version=new.version)
    pending.finish()
    return new.version

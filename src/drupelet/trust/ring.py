"""`keyring.json`: the public half of a key ring, and how it may change. Pure: no file is opened here.

A key has a public half, the roles it signs for, and a place where its private half is: `file`, or the address of a
token or a key service. A role is written `repository/role`: `image/root`, `image/kiosk` (a family), `director/root`,
`model/kiosk` (OpenSSF model signatures of that family). A key that signs for no role any more stays listed: its
signature may be needed once more, under the root that takes it out.

The ring says what is wanted. What devices believe is in the repositories; `drupelet keys rotate` makes them follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import Meta
from msgspec.structs import replace
from securesystemslib.signer import KEY_FOR_TYPE_AND_SCHEME, SSlibKey

from drupelet.core.errors import BadInput
from drupelet.core.names import Family, name
from drupelet.core.names import family as family_name
from drupelet.trust.errors import AlreadyThere, NoKey
from drupelet.trust.roles import TOP_LEVEL_ROLES
from drupelet.wire.codec import Message, decode, format_of
from drupelet.wire.fields import NameText

ROLE_KEYS_MAX = 16
FILE = "file"
"""The place of a key that is a file of the ring (or lies in an environment variable of a CI job)."""
ONE_SIGNATURE = ("image/snapshot", "image/timestamp", "director/targets", "director/snapshot", "director/timestamp")
"""Roles that a machine signs by itself, often: several people cannot be asked each time."""

ONLINE = "director/online"
"""The director's one key for all but its root."""

Repository = Literal["image", "director", "model"]
KeyIdText = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
RoleText = Annotated[str, Meta(max_length=80, pattern=r"^(image|director|model)/[a-z0-9][a-z0-9._-]*$")]


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A key's public half, what it is for, and where its private half is."""

    name: NameText
    repository: Repository
    roles: Annotated[tuple[NameText, ...], Meta(max_length=8)]
    keyid: KeyIdText
    keytype: Annotated[str, Meta(max_length=32)] = "ed25519"
    scheme: Annotated[str, Meta(max_length=64)] = "ed25519"
    public: Annotated[str, Meta(max_length=4096)]
    """The raw key in hex for Ed25519, PEM for everything else."""
    place: Annotated[str, Meta(min_length=1, max_length=1024)] = FILE

    @property
    def key(self) -> SSlibKey:
        """The public half as TUF has it."""
        return SSlibKey(self.keyid, self.keytype, self.scheme, {"public": self.public})

    @property
    def pem(self) -> bytes:
        """The public half as every other tool has it."""
        if self.keytype != "ed25519":
            return self.public.encode()
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public))
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def signs(self, role: str) -> bool:
        """Whether it signs for this `repository/role`."""
        return role in {f"{self.repository}/{one}" for one in self.roles}

    def __post_init__(self) -> None:
        if (self.keytype, self.scheme) not in KEY_FOR_TYPE_AND_SCHEME:
            raise ValueError(f"{self.name}: {self.keytype} {self.scheme} is no kind of key")


class KeyInfoV1(msgspec.Struct, frozen=True, kw_only=True):
    """A key of the first format: Ed25519, in a file."""

    name: NameText
    repository: Literal["image", "director"]
    roles: tuple[NameText, ...]
    keyid: KeyIdText
    public: KeyIdText


class KeyRingInfoV1(Message, frozen=True, kw_only=True):
    """`keyring.json` of the first format: read, and never written."""

    FORMAT: ClassVar[str] = "drupelet.keyring/1"
    BYTES_MAX: ClassVar[int] = 64 * 1024

    format: str = "drupelet.keyring/1"
    families: Annotated[tuple[NameText, ...], Meta(min_length=1, max_length=32)]
    root_threshold: Annotated[int, Meta(ge=1, le=ROLE_KEYS_MAX)]
    keys: Annotated[tuple[KeyInfoV1, ...], Meta(max_length=128)]


class KeyRingInfo(Message, frozen=True, kw_only=True):
    """`keyring.json`: everything about a key ring that is public."""

    FORMAT: ClassVar[str] = "drupelet.keyring/2"
    BYTES_MAX: ClassVar[int] = 512 * 1024

    format: str = "drupelet.keyring/2"
    families: Annotated[tuple[NameText, ...], Meta(min_length=1, max_length=32)]
    thresholds: Annotated[dict[RoleText, Annotated[int, Meta(ge=1, le=ROLE_KEYS_MAX)]], Meta(max_length=128)]
    """How many signatures a role needs; 1 where nothing is said."""
    keys: Annotated[tuple[KeyInfo, ...], Meta(max_length=256)]

    def __post_init__(self) -> None:
        names = [key.name for key in self.keys]
        if len(set(names)) != len(names):
            raise ValueError("two keys have one name")
        for role, threshold in self.thresholds.items():
            if threshold > len(self.of(role)):
                raise ValueError(f"{role} needs {threshold} signatures and has {len(self.of(role))} keys")
            if threshold > 1 and role in ONE_SIGNATURE:
                raise ValueError(f"{role} is signed by one key at a time")

    def of(self, role: str) -> tuple[KeyInfo, ...]:
        """Return the keys that sign for a `repository/role`."""
        return tuple(key for key in self.keys if key.signs(role))

    def threshold(self, role: str) -> int:
        """Return how many signatures a `repository/role` needs."""
        return self.thresholds.get(role, 1)

    def named(self, wanted: str) -> KeyInfo:
        """Return the key of that name; raises `NoKey`."""
        for key in self.keys:
            if key.name == wanted:
                return key
        raise NoKey(f"this key ring has no key {wanted!r}", fix=f"it has {', '.join(key.name for key in self.keys)}")

    def called(self, keyid: str) -> str:
        """Return what the ring calls a key, or the start of its id if it does not know it."""
        return next((key.name for key in self.keys if key.keyid == keyid), f"key {keyid[:16]}")

    @property
    def roles(self) -> tuple[str, ...]:
        """Every `repository/role` there is, in order."""
        return tuple(sorted({f"{key.repository}/{role}" for key in self.keys for role in key.roles}))


def read_ring(data: bytes, *, where: str) -> KeyRingInfo:
    """Return a ring from `keyring.json` of either format. Raises the codec's errors."""
    if format_of(data, where=where, bytes_max=KeyRingInfo.BYTES_MAX) != KeyRingInfoV1.FORMAT:
        return decode(KeyRingInfo, data, where=where)
    old = decode(KeyRingInfoV1, data, where=where)
    keys: list[Any] = [{**msgspec.to_builtins(key), "keytype": "ed25519", "scheme": "ed25519"} for key in old.keys]
    roots = {f"{repository}/root": old.root_threshold for repository in ("image", "director")}
    return KeyRingInfo(families=old.families, thresholds=roots, keys=tuple(msgspec.convert(keys, list[KeyInfo])))


def role_family(text: str) -> Family:
    """Parse a family that may name a TUF role."""
    parsed = family_name(text)
    if parsed in TOP_LEVEL_ROLES:
        raise BadInput(f"{parsed!r} is the name of a TUF role", fix="call the family something else")
    return parsed


def families_of(names: Sequence[str]) -> tuple[Family, ...]:
    """Parse the families of a new ring: at least one, each once."""
    parsed = tuple(role_family(one) for one in names)
    if not parsed or len(set(parsed)) != len(parsed):
        raise BadInput("name each family once, and at least one", fix="for example --family kiosk")
    return parsed


def roles_of(repository: str, role: str) -> tuple[str, ...]:
    """Return the roles that a key for this one signs: `director/online` is three of TUF's."""
    return ("targets", "snapshot", "timestamp") if f"{repository}/{role}" == ONLINE else (role,)


def parse_role(ring: KeyRingInfo, text: str) -> str:
    """Return `text` as the ring's `repository/role`; a bare role is the image repository's (`kiosk`: `image/kiosk`)."""
    role = text if "/" in text else f"image/{text}"
    known = {
        ONLINE,
        *ring.roles,
        *(f"image/{one}" for one in ring.families),
        *(f"model/{one}" for one in ring.families),
    }
    if role not in known:
        raise BadInput(f"this key ring has no role {text!r}", fix=f"it has {', '.join(sorted(known))}")
    return role


def with_key(ring: KeyRingInfo, key: KeyInfo) -> KeyRingInfo:
    """Return the ring with one key more."""
    for there in ring.keys:
        if there.name == key.name:
            raise AlreadyThere(f"there is a key {key.name!r}", fix="give another name with --name")
        if there.keyid == key.keyid:
            raise AlreadyThere(f"this is the key {there.name!r} already", fix="one key, one name, one purpose")
    return replace(ring, keys=(*ring.keys, key))


def new_name(ring: KeyRingInfo, role: str) -> str:
    """Return a name for one more key of a role: `image-family-kiosk`, then `image-family-kiosk-2`."""
    stem = stem_of(ring, role)
    taken = {key.name for key in ring.keys}
    if stem not in taken and f"{stem}-1" not in taken:
        return stem
    return next(f"{stem}-{n}" for n in range(2, len(taken) + 3) if f"{stem}-{n}" not in taken)


def stem_of(ring: KeyRingInfo, role: str) -> str:
    """Return how names of a role's keys begin."""
    repository, _, what = role.partition("/")
    if repository == "image" and what in ring.families:
        return f"image-family-{what}"
    return "director-online" if repository == "director" and what != "root" else f"{repository}-{what}"


def without_key(ring: KeyRingInfo, wanted: str) -> KeyRingInfo:
    """Return the ring with a key that signs for nothing any more. Refused if a role could then not be signed."""
    key = ring.named(wanted)
    keys = tuple(replace(one, roles=()) if one is key else one for one in ring.keys)
    for role in (f"{key.repository}/{one}" for one in key.roles):
        left = sum(one.signs(role) for one in keys)
        if left < ring.threshold(role) and role.partition("/")[0] != "model":
            raise BadInput(
                f"without {wanted}, {role} has {left} keys and needs {ring.threshold(role)} signatures",
                fix=f"add another first: --add {role}, or lower --threshold {role}=...",
            )
    return replace(ring, keys=keys)


def with_family(ring: KeyRingInfo, text: str) -> KeyRingInfo:
    """Return the ring with one family more; it needs a key then."""
    family = role_family(text)
    if family in ring.families:
        raise AlreadyThere(f"there is a family {family!r}")
    return replace(ring, families=(*ring.families, family))


def without_family(ring: KeyRingInfo, text: str) -> KeyRingInfo:
    """Return the ring without a family. Its keys sign for nothing any more."""
    family = name(text, what="family")
    if family not in ring.families or len(ring.families) == 1:
        raise BadInput(
            f"{family!r} is not one of several families of this ring", fix=f"it has {', '.join(ring.families)}"
        )
    keys = tuple(
        replace(key, roles=tuple(role for role in key.roles if role != family))
        if key.repository in ("image", "model")
        else key
        for key in ring.keys
    )
    thresholds = {role: n for role, n in ring.thresholds.items() if role.partition("/")[2] != family}
    return replace(ring, families=tuple(f for f in ring.families if f != family), thresholds=thresholds, keys=keys)


def with_threshold(ring: KeyRingInfo, role: str, threshold: int) -> KeyRingInfo:
    """Return the ring with another number of signatures for a role."""
    try:
        return replace(ring, thresholds={**ring.thresholds, role: threshold})
    except ValueError as error:
        raise BadInput(str(error), fix="add keys first, or ask for fewer") from error

"""A key ring: the public halves of all keys in one folder, and as many private halves as belong on this machine.

    FOLDER/
      keyring.json              public: which key is which role's, where it is, thresholds, families
      image-root.json           public: the image repository's root; every device and the fleet server get it
      director-root.json        public: the director's root; every device and the fleet server get it
      pending/                  public: metadata that waits for more signatures
      private/
        image-root-1.pem ...    offline, a threshold of them; carry each away on a medium of its own
        image-targets.pem       offline: delegates to families
        image-family-kiosk.pem  who signs releases of kiosk: an engineer, or CI
        image-snapshot.pem      beside the family key
        image-timestamp.pem     where the timestamp is renewed, never on the fleet server
        model-kiosk.pem         beside the family key: OpenSSF model signatures
        director-root-1.pem ... offline
        director-online.pem     the fleet server's only key

A passphrase is asked for when the first key file is opened, and kept in memory only. No `repr` shows key material.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from securesystemslib.signer import CryptoSigner, Signer, SSlibKey
from tuf.api.metadata import Metadata, Root

from drupelet.core.errors import BadInput, NotFound
from drupelet.core.names import Family
from drupelet.durable import Disk
from drupelet.trust.errors import AlreadyThere, NoKey, WeakPassphrase
from drupelet.trust.ring import (
    ROLE_KEYS_MAX,
    KeyInfo,
    KeyRingInfo,
    Repository,
    families_of,
    new_name,
    read_ring,
    role_family,
    roles_of,
)
from drupelet.trust.roles import sign
from drupelet.trust.roots import root_of
from drupelet.trust.signers import Around, KeyState, kind_of
from drupelet.trust.signers.file import PrivateKey, make_private, read_secret, read_signer, sealed
from drupelet.trust.signers.port import no_pin
from drupelet.wire.codec import encode_canonical

PASSPHRASE_CHARACTERS_MIN = 12
"""The key file's own stretching (PBKDF2) is weak against a stolen file; length is what protects it."""
ROOT_LIFETIME = timedelta(days=5 * 365)
RING_FILE = "keyring.json"
REPOSITORIES: tuple[Literal["image", "director"], ...] = ("image", "director")
MODEL_SCHEME = "ecdsa-sha2-nistp256"
"""What the OpenSSF model signature knows: ECDSA on a NIST curve."""
_NOTHING: Mapping[str, str] = MappingProxyType({})

__all__ = ["KeyRing", "KeyState", "read_secret", "read_signer", "role_family"]


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A key that was just made, with its private half."""

    info: KeyInfo
    private: PrivateKey

    @property
    def signer(self) -> Signer:
        """What signs with it."""
        return CryptoSigner(self.private, self.info.key)

    def __repr__(self) -> str:
        return f"MadeKey({self.info.name})"


class KeyRing:
    """The keys below one folder. Private keys that were carried away are missed only when they are needed."""

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        *,
        passphrase: Callable[[], str],
        pin: Callable[[str], str] = no_pin,
        environment: Mapping[str, str] = _NOTHING,
    ) -> None:
        self._disk = disk
        self._folder = folder
        self._ask = passphrase
        self._passphrase: str | None = None
        self._open: dict[str, Signer] = {}
        self._around = Around(folder / "private", self._remembered, _asked_once(pin), environment)
        self.info = read_ring(self._read(RING_FILE), where=str(folder / RING_FILE))

    def __repr__(self) -> str:
        return f"KeyRing({str(self._folder)!r})"

    @classmethod
    def create(
        cls,
        disk: Disk,
        folder: Path,
        *,
        families: Sequence[str],
        passphrase: Callable[[], str],
        now: datetime,
        root_keys: int = 3,
        threshold: int = 2,
        family_keys: int = 1,
        family_threshold: int = 1,
        root_lifetime: timedelta = ROOT_LIFETIME,
    ) -> KeyRing:
        """Make all keys and both roots. `keyring.json` is written last: without it there is no key ring."""
        names = families_of(families)
        _sensible(threshold, root_keys, "root")
        _sensible(family_threshold, family_keys, "family")
        if disk.names(folder):
            raise AlreadyThere("this folder is not empty", where=str(folder), fix="give a new folder")
        secret = strong(passphrase())
        made = [make_key(*one) for one in wanted_keys(names, root_keys=root_keys, family_keys=family_keys)]
        for key in made:
            disk.replace(folder / "private" / f"{key.info.name}.pem", sealed(key.private, secret), mode=0o600)
        info = KeyRingInfo(
            families=names,
            thresholds=first_thresholds(names, root=threshold, family=family_threshold),
            keys=tuple(key.info for key in made),
        )
        for repository in REPOSITORIES:
            signers = [key.signer for key in made if key.info.signs(f"{repository}/root")]
            root = root_of(info, repository, version=1, now=now, expires=now + root_lifetime)
            disk.replace(folder / f"{repository}-root.json", sign(root, signers), mode=0o644)
        disk.replace(folder / RING_FILE, encode_canonical(info), mode=0o644)
        return cls(disk, folder, passphrase=passphrase)

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self._folder

    @property
    def image_root(self) -> bytes:
        """The image repository's root, public."""
        return self._read("image-root.json")

    @property
    def image_roots(self) -> dict[int, bytes]:
        """Every root of the image repository that this ring has kept, by version."""
        return self._roots("image")

    @property
    def director_roots(self) -> dict[int, bytes]:
        """Every root of the director that this ring has kept, by version: what the fleet server is given."""
        return self._roots("director")

    def _roots(self, repository: Literal["image", "director"]) -> dict[int, bytes]:
        names = self._disk.names(self._folder)
        found = [self._read(name) for name in names if name.startswith(f"{repository}-root") and name.endswith(".json")]
        return {Metadata[Root].from_bytes(data).signed.version: data for data in found}

    @property
    def director_root(self) -> bytes:
        """The director's root, public."""
        return self._read("director-root.json")

    @property
    def families(self) -> tuple[Family, ...]:
        """The families this key ring signs for."""
        return tuple(Family(name) for name in self.info.families)

    def public(self, name: str) -> SSlibKey:
        """Return a key's public half; raises `NoKey`."""
        return self.info.named(name).key

    def _read(self, name: str) -> bytes:
        try:
            return self._disk.read(self._folder / name, bytes_max=KeyRingInfo.BYTES_MAX)
        except NotFound as error:
            raise NoKey(
                "this is not a key ring", where=str(self._folder), fix="make one with: drupelet keys init"
            ) from error

    def state(self, name: str) -> KeyState:
        """Return where the private key is, and whether only its owner may read it."""
        key = self.info.named(name)
        return kind_of(key.place).state(key, self._around)

    def signer(self, name: str) -> Signer:
        """Open a private key. Raises `NoKey`, `KeyFileUnsafe`, `WrongPassphrase`, `BadKeyFile`, `SignerUnavailable`."""
        if name not in self._open:
            key = self.info.named(name)
            self._open[name] = kind_of(key.place).open(key, self._around)
        return self._open[name]

    def holds(self, keyid: str) -> bool:
        """Whether this machine can be expected to sign with the key: it is not a file that was carried away."""
        return any(key.keyid == keyid and self.state(key.name) is not KeyState.AWAY for key in self.info.keys)

    def here(self, role: str) -> KeyInfo:
        """Return the first key of a `repository/role` that this machine can sign with; raises `NoKey`."""
        keys = self.info.of(role)
        for key in keys:
            if self.holds(key.keyid):
                return key
        if not keys:
            raise NoKey(
                f"this key ring has no key for {role}", where=str(self._folder), fix="add one: keys rotate --add"
            )
        raise NoKey(
            f"no private key of {role} is here",
            where=str(self._folder),
            fix=f"bring one of {', '.join(key.name for key in keys)}",
        )

    def signer_of(self, keyid: str) -> Signer:
        """Open the private key of that id; raises as `signer` does."""
        for key in self.info.keys:
            if key.keyid == keyid:
                return self.signer(key.name)
        raise NoKey(f"this key ring has no key {keyid[:16]}", where=str(self._folder))

    def make(self, repository: Repository, role: str, *, name: str = "", scheme: str = "ed25519") -> KeyInfo:
        """Make one more key file for a role and return its public half; the ring lists it once `change` says so."""
        chosen = name or new_name(self.info, f"{repository}/{role}")
        path = self._folder / "private" / f"{chosen}.pem"
        if self._disk.exists(path):
            raise AlreadyThere("a key file of that name lies here", where=str(path), fix="give another name")
        made = make_key(chosen, repository, roles_of(repository, role), scheme)
        self._disk.replace(path, sealed(made.private, strong(self._remembered())), mode=0o600)
        return made.info

    def take(self, repository: Repository, role: str, *, place: str, name: str = "") -> KeyInfo:
        """Return the public half of a key that a token or a key service has; see `make`."""
        key = kind_of(place).public(place, self._around)
        return KeyInfo(
            name=name or new_name(self.info, f"{repository}/{role}"),
            repository=repository,
            roles=roles_of(repository, role),
            keyid=key.keyid,
            keytype=key.keytype,
            scheme=key.scheme,
            public=str(key.keyval["public"]),
            place=place,
        )

    def change(self, info: KeyRingInfo) -> None:
        """Durably make `info` what this ring asks for."""
        self._disk.replace(self._folder / RING_FILE, encode_canonical(info), mode=0o644)
        self.info = info
        self._open.clear()

    def keep_root(self, repository: Literal["image", "director"], data: bytes, *, version: int) -> None:
        """Make a new root the one this ring hands out; the one before stays beside it as `<name>-<version>.json`."""
        path = self._folder / f"{repository}-root.json"
        before = self._folder / f"{repository}-root-{version - 1}.json"
        if not self._disk.exists(before):
            self._disk.replace(before, self._read(path.name), mode=0o644)
        self._disk.replace(path, data, mode=0o644)

    def _remembered(self) -> str:
        if self._passphrase is None:
            self._passphrase = self._ask()
        return self._passphrase


def _asked_once(ask: Callable[[str], str]) -> Callable[[str], str]:
    """Return `ask`, asking for each token's PIN once."""
    known: dict[str, str] = {}

    def pin(token: str) -> str:
        if token not in known:
            known[token] = ask(token)
        return known[token]

    return pin


def strong(passphrase: str) -> str:
    """Return the passphrase if it may protect a key file; raises `WeakPassphrase`."""
    if len(passphrase) < PASSPHRASE_CHARACTERS_MIN:
        raise WeakPassphrase(
            f"the passphrase has {len(passphrase)} characters", fix=f"use at least {PASSPHRASE_CHARACTERS_MIN}"
        )
    return passphrase


def _sensible(threshold: int, keys: int, what: str) -> None:
    if not 1 <= threshold <= keys <= ROLE_KEYS_MAX:
        raise BadInput(
            f"a threshold of {threshold} of {keys} {what} keys makes no sense",
            fix=f"1 <= threshold <= {what} keys <= {ROLE_KEYS_MAX}",
        )


Wanted = tuple[str, Repository, tuple[str, ...], str]


def wanted_keys(families: Sequence[str], *, root_keys: int, family_keys: int) -> list[Wanted]:
    """Return name, repository, roles and scheme of every key of a new ring."""
    wanted: list[Wanted] = []
    for number in range(1, root_keys + 1):
        wanted.append((f"image-root-{number}", "image", ("root",), "ed25519"))
        wanted.append((f"director-root-{number}", "director", ("root",), "ed25519"))
    wanted += [(f"image-{role}", "image", (role,), "ed25519") for role in ("targets", "snapshot", "timestamp")]
    for family in families:
        names = [f"{family_key(family)}-{n}" for n in range(1, family_keys + 1)]
        wanted += [
            (name, "image", (family,), "ed25519") for name in (names if family_keys > 1 else [family_key(family)])
        ]
        wanted.append((f"model-{family}", "model", (family,), MODEL_SCHEME))
    wanted.append(("director-online", "director", ("targets", "snapshot", "timestamp"), "ed25519"))
    return wanted


def first_thresholds(families: Sequence[str], *, root: int, family: int) -> dict[str, int]:
    """Return the thresholds of a new ring."""
    return {"image/root": root, "director/root": root, **{f"image/{name}": family for name in families}}


def family_key(family: str) -> str:
    """Return the name of a family's only key."""
    return f"image-family-{family}"


def make_key(name: str, repository: Repository, roles: tuple[str, ...], scheme: str) -> MadeKey:
    """Make a key pair."""
    private, public = make_private(scheme)
    info = KeyInfo(
        name=name,
        repository=repository,
        roles=roles,
        keyid=public.keyid,
        keytype=public.keytype,
        scheme=public.scheme,
        public=str(public.keyval["public"]),
    )
    return MadeKey(info, private)

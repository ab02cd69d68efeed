"""Signing keys: Ed25519, one encrypted PKCS#8 PEM file each, readable by their owner alone.

    FOLDER/
      keyring.json              public: which key is which role's, thresholds, families
      image-root.json           public: the image repository's root; every device and the fleet server get it
      director-root.json        public: the director's root; every device and the fleet server get it
      private/
        image-root-1.pem ...    offline, a threshold of them; carry each away on a medium of its own
        image-targets.pem       offline: delegates to families
        image-family-kiosk.pem  who signs releases of kiosk: an engineer, or CI
        image-snapshot.pem      beside the family key
        image-timestamp.pem     where the timestamp is renewed, never on the fleet server
        director-root-1.pem ... offline
        director-online.pem     the fleet server's only key

A passphrase is asked for when the first key is opened, and kept in memory only. No `repr` shows key material.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from msgspec import Meta
from securesystemslib.signer import CryptoSigner, Signer, SSlibKey
from tuf.api.metadata import Root

from drupelet.core.errors import BadInput, NotFound
from drupelet.core.names import Family
from drupelet.core.names import family as family_name
from drupelet.durable import Disk
from drupelet.trust.clock import whole_second
from drupelet.trust.errors import AlreadyThere, BadKeyFile, KeyFileUnsafe, NoKey, WeakPassphrase, WrongPassphrase
from drupelet.trust.roles import TOP_LEVEL_ROLES, our_field, sign
from drupelet.wire.codec import Message, decode, encode_canonical
from drupelet.wire.fields import NameText

PASSPHRASE_CHARACTERS_MIN = 12
"""The key file's own stretching (PBKDF2) is weak against a stolen file; length is what protects it."""
KEY_FILE_BYTES_MAX = 16 * 1024
ROOT_KEYS_MAX = 16
ROOT_LIFETIME = timedelta(days=5 * 365)
_ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class KeyState(Enum):
    """Where a private key is, as far as can be told without opening it."""

    HERE = "here"
    AWAY = "away"
    UNSAFE = "unsafe"


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A key's public half and what it is for."""

    name: NameText
    repository: Literal["image", "director"]
    roles: tuple[NameText, ...]
    keyid: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    public: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class KeyRingInfo(Message, frozen=True, kw_only=True):
    """`keyring.json`: everything about a key ring that is public."""

    FORMAT: ClassVar[str] = "drupelet.keyring/1"
    BYTES_MAX: ClassVar[int] = 64 * 1024

    format: str = "drupelet.keyring/1"
    families: Annotated[tuple[NameText, ...], Meta(min_length=1, max_length=32)]
    root_threshold: Annotated[int, Meta(ge=1, le=ROOT_KEYS_MAX)]
    keys: Annotated[tuple[KeyInfo, ...], Meta(max_length=128)]


@dataclass(frozen=True, slots=True)
class _Made:
    info: KeyInfo
    private: Ed25519PrivateKey

    @property
    def signer(self) -> CryptoSigner:
        return CryptoSigner(self.private)

    def __repr__(self) -> str:
        return f"_Made({self.info.name})"


class KeyRing:
    """The keys below one folder. Private keys that were carried away are missed only when they are needed."""

    def __init__(self, disk: Disk, folder: Path, *, passphrase: Callable[[], str]) -> None:
        self._disk = disk
        self._folder = folder
        self._ask = passphrase
        self._passphrase: str | None = None
        self._open: dict[str, Signer] = {}
        self.info = decode(KeyRingInfo, self._read("keyring.json"), where=str(folder / "keyring.json"))

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
        root_lifetime: timedelta = ROOT_LIFETIME,
    ) -> KeyRing:
        """Make all keys and both roots. `keyring.json` is written last: without it there is no key ring."""
        names = tuple(role_family(name) for name in families)
        if not 1 <= threshold <= root_keys <= ROOT_KEYS_MAX:
            raise BadInput(
                f"a threshold of {threshold} of {root_keys} root keys makes no sense",
                fix=f"1 <= threshold <= root keys <= {ROOT_KEYS_MAX}",
            )
        if not names or len(set(names)) != len(names):
            raise BadInput("name each family once, and at least one", fix="for example --family kiosk")
        if disk.names(folder):
            raise AlreadyThere("this folder is not empty", where=str(folder), fix="give a new folder")
        secret = passphrase()
        if len(secret) < PASSPHRASE_CHARACTERS_MIN:
            raise WeakPassphrase(
                f"the passphrase has {len(secret)} characters", fix=f"use at least {PASSPHRASE_CHARACTERS_MIN}"
            )
        made = [_make(*wanted) for wanted in _wanted(names, root_keys)]
        for key in made:
            disk.replace(folder / "private" / f"{key.info.name}.pem", _sealed(key.private, secret), mode=0o600)
        expires = now + root_lifetime
        image = _root([key for key in made if key.info.repository == "image"], threshold, now=now, expires=expires)
        director = _root(
            [key for key in made if key.info.repository == "director"], threshold, now=now, expires=expires
        )
        disk.replace(folder / "image-root.json", image, mode=0o644)
        disk.replace(folder / "director-root.json", director, mode=0o644)
        info = KeyRingInfo(families=names, root_threshold=threshold, keys=tuple(key.info for key in made))
        disk.replace(folder / "keyring.json", encode_canonical(info), mode=0o644)
        return cls(disk, folder, passphrase=passphrase)

    @property
    def image_root(self) -> bytes:
        """The image repository's root, public."""
        return self._read("image-root.json")

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
        for key in self.info.keys:
            if key.name == name:
                return SSlibKey(key.keyid, "ed25519", "ed25519", {"public": key.public})
        there = ", ".join(key.name for key in self.info.keys)
        raise NoKey(f"this key ring has no key {name!r}", where=str(self._folder), fix=f"it has {there}")

    def _read(self, name: str) -> bytes:
        try:
            return self._disk.read(self._folder / name, bytes_max=KeyRingInfo.BYTES_MAX)
        except NotFound as error:
            raise NoKey(
                "this is not a key ring", where=str(self._folder), fix="make one with: drupelet keys init"
            ) from error

    def state(self, name: str) -> KeyState:
        """Return whether the private key lies here, and whether only its owner may read it."""
        try:
            _read_private(self._private(name))
        except NoKey:
            return KeyState.AWAY
        except (KeyFileUnsafe, BadKeyFile):
            return KeyState.UNSAFE
        return KeyState.HERE

    def _private(self, name: str) -> Path:
        return self._folder / "private" / f"{name}.pem"

    def signer(self, name: str) -> Signer:
        """Open a private key. Raises `NoKey`, `KeyFileUnsafe`, `WrongPassphrase` or `BadKeyFile`."""
        if name not in self._open:
            public = self.public(name)
            if self._passphrase is None:
                self._passphrase = self._ask()
            path = self._private(name)
            signer = read_signer(path, passphrase=self._passphrase)
            if signer.public_key.keyid != public.keyid:
                raise BadKeyFile(f"this is not the key that the key ring calls {name}", where=str(path))
            self._open[name] = signer
        return self._open[name]


def role_family(text: str) -> Family:
    """Parse a family that may name a TUF role."""
    name = family_name(text)
    if name in TOP_LEVEL_ROLES:
        raise BadInput(f"{name!r} is the name of a TUF role", fix="call the family something else")
    return name


def read_signer(path: Path, *, passphrase: str) -> Signer:
    """Open one private key file. Raises `NoKey`, `KeyFileUnsafe`, `WrongPassphrase` or `BadKeyFile`."""
    data = _read_private(path)
    if _ENCRYPTED not in data:
        raise BadKeyFile(
            "not an encrypted private key (PKCS#8 PEM)",
            where=str(path),
            fix="encrypt it: openssl pkcs8 -topk8 -v2 aes-256-cbc",
        )
    try:
        key = load_pem_private_key(data, password=_bytes_of(passphrase))
    except (ValueError, TypeError) as error:
        # The cause may quote what it could not parse: leave it out.
        raise WrongPassphrase(
            "the passphrase does not open this key, or the file is damaged",
            where=str(path),
            fix="check DRUPELET_PASSPHRASE or the passphrase file",
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKeyFile("not an Ed25519 key", where=str(path), fix="make keys with: drupelet keys init")
    return CryptoSigner(key)


def read_secret(path: Path) -> str:
    """Return the text of a file that only its owner may read; raises as `read_signer` does."""
    try:
        return _read_private(path).decode()
    except UnicodeDecodeError as error:
        raise BadKeyFile("not UTF-8 text", where=str(path)) from error


def _read_private(path: Path) -> bytes:
    """Return a private file's bytes if nobody but its owner can read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NoKey(
            "the private key is not here", where=str(path), fix="bring the medium it was carried away on"
        ) from error
    except OSError as error:
        raise KeyFileUnsafe(f"cannot read the private key: {os.strerror(error.errno or 0)}", where=str(path)) from error
    with os.fdopen(descriptor, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise BadKeyFile("not a regular file", where=str(path))
        if mode & _OTHERS:
            raise KeyFileUnsafe(
                f"mode {stat.S_IMODE(mode):04o} lets others read this secret",
                where=str(path),
                fix=f"run: chmod 600 {path}",
            )
        data = file.read(KEY_FILE_BYTES_MAX + 1)
    if len(data) > KEY_FILE_BYTES_MAX:
        raise BadKeyFile(f"larger than {KEY_FILE_BYTES_MAX} bytes", where=str(path))
    return data


def _wanted(families: Sequence[str], root_keys: int) -> list[tuple[str, Literal["image", "director"], tuple[str, ...]]]:
    """Return name, repository and roles of every key to make."""
    wanted: list[tuple[str, Literal["image", "director"], tuple[str, ...]]] = []
    for number in range(1, root_keys + 1):
        wanted.append((f"image-root-{number}", "image", ("root",)))
        wanted.append((f"director-root-{number}", "director", ("root",)))
    wanted += [(f"image-{role}", "image", (role,)) for role in ("targets", "snapshot", "timestamp")]
    wanted += [(family_key(name), "image", (name,)) for name in families]
    wanted.append(("director-online", "director", ("targets", "snapshot", "timestamp")))
    return wanted


def family_key(family: str) -> str:
    """Return the name of a family's key."""
    return f"image-family-{family}"


def _make(name: str, repository: Literal["image", "director"], roles: tuple[str, ...]) -> _Made:
    private = Ed25519PrivateKey.generate()
    public = SSlibKey.from_crypto(private.public_key())
    info = KeyInfo(
        name=name, repository=repository, roles=roles, keyid=public.keyid, public=str(public.keyval["public"])
    )
    return _Made(info, private)


def _bytes_of(passphrase: str) -> bytes:
    """Return the passphrase as bytes; one from the environment may hold bytes that are not UTF-8."""
    return passphrase.encode("utf-8", "surrogateescape")


def _sealed(private: Ed25519PrivateKey, passphrase: str) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(_bytes_of(passphrase)))


def _root(keys: Sequence[_Made], threshold: int, *, now: datetime, expires: datetime) -> bytes:
    """Return the first root of a repository, signed by all its root keys."""
    root = Root(
        version=1,
        expires=whole_second(expires),
        consistent_snapshot=True,
        unrecognized_fields=our_field(now=now),
    )
    for key in keys:
        for role in key.info.roles:
            if role in TOP_LEVEL_ROLES:
                root.add_key(key.signer.public_key, role)
    root.roles[Root.type].threshold = threshold
    return sign(root, [key.signer for key in keys if "root" in key.info.roles])

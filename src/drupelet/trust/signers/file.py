"""Keys in files: encrypted PKCS#8 PEM, mode 0600; or, in a CI job, the same text in an environment variable.

keys/private/image-family-kiosk.pem
DRUPELET_KEY_IMAGE_FAMILY_KIOSK="-----BEGIN ENCRYPTED PRIVATE KEY----- ..."
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, Signer, SSlibKey

from drupelet.core.errors import BadInput
from drupelet.trust.errors import BadKeyFile, KeyFileUnsafe, NoKey, WrongPassphrase
from drupelet.trust.ring import FILE, KeyInfo
from drupelet.trust.signers.port import Around, KeyState

KEY_FILE_BYTES_MAX = 16 * 1024
RSA_BITS = 3072
SCHEMES = ("ed25519", "ecdsa-sha2-nistp256", "rsassa-pss-sha256")
"""What we make ourselves. Whatever TUF verifies may be brought along."""
_ENCRYPTED = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey


class KeyFiles:
    """Implements `SignerKind` over `private/` of the ring and the environment."""

    scheme = FILE

    def state(self, key: KeyInfo, around: Around) -> KeyState:
        """Return whether the key lies here, and whether only its owner may read it."""
        if variable(key.name) in around.environment:
            return KeyState.HERE
        try:
            read_private(path_of(key.name, around))
        except NoKey:
            return KeyState.AWAY
        except (KeyFileUnsafe, BadKeyFile):
            return KeyState.UNSAFE
        return KeyState.HERE

    def public(self, place: str, around: Around) -> SSlibKey:
        """Refuse: a file's public half is in the ring since it was made."""
        raise BadInput("a key in a file is made, not looked up", where=place, fix="leave the place away")

    def open(self, key: KeyInfo, around: Around) -> Signer:
        """Open the file. Raises `NoKey`, `KeyFileUnsafe`, `WrongPassphrase` or `BadKeyFile`."""
        name = variable(key.name)
        if name in around.environment:
            where = f"environment variable {name}"
            signer = signer_of(around.environment[name].encode(), passphrase=around.passphrase(), where=where)
        else:
            path = path_of(key.name, around)
            where = str(path)
            signer = read_signer(path, passphrase=around.passphrase())
        if signer.public_key.keyid != key.keyid:
            raise BadKeyFile(f"this is not the key that the key ring calls {key.name}", where=where)
        return signer


def variable(name: str) -> str:
    """Return the environment variable that may hold a key: `DRUPELET_KEY_IMAGE_FAMILY_KIOSK`."""
    return "DRUPELET_KEY_" + "".join(c if c.isalnum() else "_" for c in name).upper()


def path_of(name: str, around: Around) -> Path:
    """Return where a key's file lies."""
    return around.folder / f"{name}.pem"


def make_private(scheme: str) -> tuple[PrivateKey, SSlibKey]:
    """Make a key pair. Raises `BadInput` for a scheme that is none of `SCHEMES`."""
    private: PrivateKey
    if scheme == "ed25519":
        private = Ed25519PrivateKey.generate()
    elif scheme == "ecdsa-sha2-nistp256":
        private = generate_ec(SECP256R1())
    elif scheme == "rsassa-pss-sha256":
        private = generate_rsa(public_exponent=65537, key_size=RSA_BITS)
    else:
        raise BadInput(f"no key of scheme {scheme[:80]!r} is made here", fix=f"one of {', '.join(SCHEMES)}")
    return private, SSlibKey.from_crypto(private.public_key())


def sealed(private: PrivateKey, passphrase: str) -> bytes:
    """Return the key as an encrypted PEM file."""
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(_bytes_of(passphrase)))


def read_signer(path: Path, *, passphrase: str) -> Signer:
    """Open one private key file. Raises `NoKey`, `KeyFileUnsafe`, `WrongPassphrase` or `BadKeyFile`."""
    return signer_of(read_private(path), passphrase=passphrase, where=str(path))


def signer_of(data: bytes, *, passphrase: str, where: str) -> Signer:
    """Open an encrypted private key; see `read_signer`."""
    if _ENCRYPTED not in data or len(data) > KEY_FILE_BYTES_MAX:
        raise BadKeyFile(
            "not an encrypted private key (PKCS#8 PEM)",
            where=where,
            fix="encrypt it: openssl pkcs8 -topk8 -v2 aes-256-cbc",
        )
    try:
        key = load_pem_private_key(data, password=_bytes_of(passphrase))
    except (ValueError, TypeError) as error:
        # The cause may quote what it could not parse: leave it out.
        raise WrongPassphrase(
            "the passphrase does not open this key, or the file is damaged",
            where=where,
            fix="check DRUPELET_PASSPHRASE or the passphrase file",
        ) from error
    if not isinstance(key, PrivateKey):
        raise BadKeyFile("not an Ed25519, ECDSA or RSA key", where=where, fix="make keys with: drupelet keys init")
    return CryptoSigner(key)


def read_private(path: Path) -> bytes:
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


def read_secret(path: Path) -> str:
    """Return the text of a file that only its owner may read; raises as `read_signer` does."""
    try:
        return read_private(path).decode()
    except UnicodeDecodeError as error:
        raise BadKeyFile("not UTF-8 text", where=str(path)) from error


def _bytes_of(passphrase: str) -> bytes:
    """Return the passphrase as bytes; one from the environment may hold bytes that are not UTF-8."""
    return passphrase.encode("utf-8", "surrogateescape")

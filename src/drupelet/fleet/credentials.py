"""What devices and people show at the door.

Devices prove their Ed25519 key over a challenge and get a bearer token that any replica can check without the database:
expiry and name under an HMAC. Whether the device is still approved is asked of the database with every poll.

API tokens are 32 random bytes, shown once and stored as SHA-256: they need no slow hash, for nobody can guess them.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from enum import Enum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from drupelet.fleet.errors import BadToken
from drupelet.wire.device_api import challenge_bytes, enrolment_bytes

CHALLENGE_MS = 60_000
DEVICE_TOKEN_MS = 600_000
CHECKED_TOKENS_MAX = 100_000
"""Tokens whose signature need not be computed again, some 20 MB at most."""
USED_CHALLENGES_MAX = 100_000
SECRET_BYTES = 32
API_TOKEN_PREFIX = "drup_"  # noqa: S105  (what every token begins with, so that scanners find leaked ones)


class Scope(Enum):
    """What an API token may do. Each contains `read`; `admin` contains all."""

    READ = "read"
    OPERATE = "operate"
    """Approve devices, label them, start and steer rollouts."""
    RELEASE = "release"
    """Register and condemn releases."""
    ADMIN = "admin"


class Badges:
    """Makes and checks challenges and device tokens under one secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._used: OrderedDict[str, None] = OrderedDict()
        self._checked: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._lock = threading.Lock()

    def challenge(self, device: str, *, now_ms: int) -> str:
        """Return something to sign, good for a minute and for this device."""
        head = f"{now_ms + CHALLENGE_MS:x}~{secrets.token_hex(12)}"
        return f"{head}~{self._mac('challenge', head, device)}"

    def redeem(self, device: str, challenge: str, *, now_ms: int) -> None:
        """Accept a challenge once, or raise `BadToken`."""
        head, _, mac = challenge.rpartition("~")
        if not hmac.compare_digest(mac, self._mac("challenge", head, device)):
            raise BadToken("the challenge is not one of this server's", fix="ask for a new one")
        if int(head.partition("~")[0], 16) < now_ms:
            raise BadToken("the challenge has expired", fix="ask for a new one")
        with self._lock:
            if mac in self._used:
                raise BadToken("the challenge was used before", fix="ask for a new one")
            self._used[mac] = None
            if len(self._used) > USED_CHALLENGES_MAX:
                self._used.popitem(last=False)

    def token(self, device: str, *, now_ms: int) -> str:
        """Return a bearer token."""
        head = f"{now_ms + DEVICE_TOKEN_MS:x}~{device}"
        return f"{head}~{self._mac('token', head, '')}"

    def device(self, token: str, *, now_ms: int) -> str:
        """Return whose token it is, or raise `BadToken`. A token's signature is checked once; its time, always."""
        device, expires_ms = self._checked.get(token) or self._check(token)
        if expires_ms < now_ms:
            raise BadToken("the device token has expired", fix="prove the key again")
        return device

    def _check(self, token: str) -> tuple[str, int]:
        head, _, mac = token.rpartition("~")
        if not head or not hmac.compare_digest(mac.encode(), self._mac("token", head, "").encode()):
            raise BadToken("the device token is not one of this server's", fix="prove the key again")
        expires, _, device = head.partition("~")
        with self._lock:
            self._checked[token] = found = (device, int(expires, 16))
            if len(self._checked) > CHECKED_TOKENS_MAX:
                self._checked.popitem(last=False)
        return found

    def _mac(self, use: str, head: str, device: str) -> str:
        # Not hmac.digest: it lets go of the interpreter for these few bytes and gets it back milliseconds later.
        return hmac.new(self._secret, f"{use}\n{head}\n{device}".encode(), "sha256").hexdigest()


def proves(public_key: str, signature: str, message: bytes) -> bool:
    """Return whether the signature over `message` is the key's; keys and signatures are hex."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def proves_enrolment(device: str, public_key: str, signature: str) -> bool:
    """Return whether an enrolment was signed with the key it offers."""
    return proves(public_key, signature, enrolment_bytes(device, public_key))


def proves_challenge(device: str, public_key: str, challenge: str, signature: str) -> bool:
    """Return whether the challenge was signed with the device's key."""
    return proves(public_key, signature, challenge_bytes(device, challenge))


def new_api_token() -> str:
    """Return a fresh API token."""
    return API_TOKEN_PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def api_token_hash(token: str) -> str:
    """Return what is stored of an API token."""
    return hashlib.sha256(token.encode()).hexdigest()

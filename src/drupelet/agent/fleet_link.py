"""The way to the fleet server: enrolment with a key that never leaves the device, tokens, heartbeats.

A device proves itself by signing a challenge with the Ed25519 key it made when it was set up; no clock is needed for
that. The token it gets is kept in memory only. A fleet that refuses it is asked once for a new one, then believed.
"""

from __future__ import annotations

import json
import stat
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import urllib3
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from urllib3.exceptions import HTTPError

from drupelet import __version__
from drupelet.agent.config import Device, Fleet
from drupelet.agent.errors import FleetSilent, NotApproved
from drupelet.core.errors import BadInput, NotAllowed, NotFound
from drupelet.durable import Disk
from drupelet.wire.codec import Message, decode, encode
from drupelet.wire.device_api import (
    Challenge,
    ChallengeRequest,
    EnrolReply,
    EnrolRequest,
    Hardware,
    PollReply,
    PollRequest,
    TokenReply,
    TokenRequest,
    challenge_bytes,
    enrolment_bytes,
)

KEY_BYTES_MAX = 4096
PACK_BYTES_MIN = 512
"""A body smaller than this travels as it is: packing it would save nothing."""
RENEW_SHARE = 0.8
"""A token is renewed after this share of its life."""
M = TypeVar("M", bound=Message)


class DeviceKey:
    """The device's own Ed25519 key, in a file only the agent may read."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public_hex = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()

    @classmethod
    def make(cls, disk: Disk, path: Path) -> DeviceKey:
        """Make a new key and keep it; raises `NotAllowed` if there is one already."""
        if disk.exists(path):
            raise NotAllowed("there is a device key already", where=str(path), fix="remove the device first")
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        disk.replace(path, pem, mode=0o600)
        return cls(key)

    @classmethod
    def read(cls, disk: Disk, path: Path) -> DeviceKey:
        """Read the key. Raises `NotFound`, `NotAllowed` for a file that others may read, `BadInput` for no key."""
        try:
            pem = disk.read(path, bytes_max=KEY_BYTES_MAX)
        except NotFound as error:
            raise NotFound("there is no device key", where=str(path), fix="run: drupelet agent init") from error
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise NotAllowed("others may read the device key", where=str(path), fix=f"chmod 600 {path}")
        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise BadInput("this is no device key", where=str(path), fix="run: drupelet agent init") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise BadInput("this is no Ed25519 key", where=str(path), fix="run: drupelet agent init")
        return cls(key)

    def sign(self, data: bytes) -> str:
        """Return the signature in hex."""
        return self._private.sign(data).hex()


class HttpFleetLink:
    """Implements `effects.FleetLink` over HTTP."""

    def __init__(
        self,
        fleet: Fleet,
        device: Device,
        *,
        key: DeviceKey,
        hardware: Hardware,
        pool: urllib3.PoolManager,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base = f"{fleet.url.rstrip('/')}/device/v1"
        self._timeout = urllib3.Timeout(connect=fleet.timeout_ms / 1000, read=fleet.timeout_ms / 1000)
        self._device, self._key, self._hardware, self._pool = device, key, hardware, pool
        self._monotonic = monotonic
        self._token = ""
        self._renew_at = 0.0

    @property
    def director_url(self) -> str:
        """Where this device's signed orders lie."""
        return f"{self._base}/director/{self._device.id}"

    def token(self) -> str:
        """Return a bearer token, enrolling first where the fleet does not know this device."""
        if not self._token or self._monotonic() >= self._renew_at:
            try:
                self._prove()
            except _Status as refused:
                if refused.status not in (401, 403, 404):
                    raise refused.silent() from refused
                self._enrol()
                try:
                    self._prove()
                except _Status as again:
                    raise NotApproved(again.what, where=self._base) from again
        return self._token

    def poll(self, request: PollRequest) -> PollReply:
        """Send a heartbeat."""
        for last in (False, True):
            token = self.token()
            try:
                return self._post("poll", request, PollReply, token=token)
            except _Status as refused:
                if refused.status not in (401, 403):
                    raise refused.silent() from refused
                self._token = ""
                if last:
                    raise NotApproved(refused.what, where=self._base) from refused
        raise AssertionError("the loop ends by return or raise")

    def _prove(self) -> None:
        challenge = self._post("challenge", ChallengeRequest(device=self._device.id), Challenge).challenge
        signature = self._key.sign(challenge_bytes(self._device.id, challenge))
        reply = self._post(
            "token", TokenRequest(device=self._device.id, challenge=challenge, signature=signature), TokenReply
        )
        self._token = reply.token
        self._renew_at = self._monotonic() + reply.expires_in_ms / 1000 * RENEW_SHARE

    def _enrol(self) -> None:
        device, public = self._device.id, self._key.public_hex
        request = EnrolRequest(
            device=device,
            public_key=public,
            hardware=self._hardware,
            labels=self._device.labels,
            signature=self._key.sign(enrolment_bytes(device, public)),
        )
        try:
            reply = self._post("enrol", request, EnrolReply)
        except _Status as refused:
            if refused.status in (401, 403, 404, 409):
                raise NotApproved(f"enrolment is refused: {refused.what}", where=self._base) from refused
            raise refused.silent() from refused
        if reply.state == "approved":
            return
        fix = "an operator approves it: drupelet device approve" if reply.state == "pending" else ""
        raise NotApproved(f"this device is {reply.state}", where=self._base, fix=fix)

    def _post(self, path: str, message: Message, kind: type[M], *, token: str = "") -> M:
        body = encode(message)
        headers = {"Content-Type": "application/json", "User-Agent": f"drupelet/{__version__}"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if len(body) >= PACK_BYTES_MIN:
            body = zlib.compress(body, 6)
            headers["Content-Encoding"] = "deflate"
        url = f"{self._base}/{path}"
        try:
            response = self._pool.request(
                "POST", url, body=body, headers=headers, timeout=self._timeout, retries=False,
                redirect=False, preload_content=False,
            )  # fmt: skip
            data = response.read(kind.BYTES_MAX + 1, decode_content=True)
            if len(data) > kind.BYTES_MAX:
                response.close()
            response.release_conn()
        except (HTTPError, OSError) as error:
            raise FleetSilent(f"no answer: {error}"[:500], where=url) from error
        if response.status != 200:
            raise _Status(response.status, data, url)
        try:
            return decode(kind, data, where=url)
        except BadInput as error:
            raise FleetSilent(f"an answer that is none: {error.what}", where=url) from error


class _Status(Exception):
    """An HTTP answer that is not 200, with the words the server gave."""

    def __init__(self, status: int, body: bytes, url: str) -> None:
        super().__init__(status)
        self.status, self.url = status, url
        self.what = f"HTTP {status}"
        try:
            said = json.loads(body[:16_384])
        except ValueError:
            return
        if isinstance(said, dict) and isinstance(said.get("what"), str):
            self.what = f"{said['what'][:300]} (HTTP {status})"

    def silent(self) -> FleetSilent:
        """As an error to be tried again."""
        return FleetSilent(self.what, where=self.url)

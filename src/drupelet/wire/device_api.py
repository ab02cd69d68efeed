"""What a device and the fleet server say to each other. Every call is made by the device.

POST /device/v1/enrol      EnrolRequest   -> EnrolReply       signed with the device's own key
POST /device/v1/challenge  ChallengeRequest -> Challenge
POST /device/v1/token      TokenRequest   -> TokenReply       proof of the key, no clock needed
POST /device/v1/poll       PollRequest    -> PollReply        bearer token; body may be zlib (Content-Encoding: deflate)
GET  /device/v1/director/<device>/<n>.<role>.json             TUF metadata, bearer token
GET  /repository/...                                          image repository and blobs (depot), no token
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from drupelet.core.names import Slot
from drupelet.core.states import Reason, UpdateState
from drupelet.wire.codec import Message
from drupelet.wire.fields import (
    BootId,
    Bytes,
    Celsius,
    Count,
    DigestText,
    EpochMs,
    Label,
    LabelKey,
    Milliseconds,
    NameText,
    ReleaseText,
    Sentence,
)
from drupelet.wire.telemetry import Window

PublicKeyText = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
"""A raw Ed25519 public key in hex."""
SignatureText = Annotated[str, Meta(pattern=r"^[0-9a-f]{128}$")]
OpaqueText = Annotated[str, Meta(min_length=16, max_length=512, pattern=r"^[A-Za-z0-9._~-]+$")]

POLL_BYTES_MAX = 4 * 1024 * 1024
"""Unpacked. A device with a long backlog sends it over many polls."""


class Hardware(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the device is. `simulated` is shown wherever the device is."""

    board: Annotated[str, Meta(min_length=1, max_length=64)]
    """The stratum: boards of one name are exchangeable, such as `pi5-8gb`."""
    architecture: Annotated[str, Meta(max_length=32)]
    memory_bytes: Bytes
    cores: Annotated[int, Meta(ge=1, le=4096)]
    npu: Annotated[str, Meta(max_length=64)] = ""
    firmware: Annotated[str, Meta(max_length=64)] = ""
    os: Annotated[str, Meta(max_length=128)] = ""
    file_formats: Annotated[tuple[Annotated[str, Meta(max_length=32)], ...], Meta(max_length=16)] = ("gguf",)
    """What its gateway has a back end for. A device that does not say runs GGUF and nothing else."""
    simulated: bool = False


class EnrolRequest(Message, frozen=True, kw_only=True):
    """Ask to be let in. `signature` is over the canonical bytes of the other fields (`enrolment_bytes`)."""

    FORMAT: ClassVar[str] = "drupelet.enrol/1"
    BYTES_MAX: ClassVar[int] = 16 * 1024

    format: str = "drupelet.enrol/1"
    device: NameText
    public_key: PublicKeyText
    hardware: Hardware
    labels: Annotated[dict[LabelKey, Label], Meta(max_length=32)] = {}
    signature: SignatureText


def enrolment_bytes(device: str, public_key: str) -> bytes:
    """Return what an enrolment's signature covers: name and key, domain-separated."""
    return f"drupelet.enrol/1\n{device}\n{public_key}\n".encode()


def challenge_bytes(device: str, challenge: str) -> bytes:
    """Return what a token request's signature covers."""
    return f"drupelet.token/1\n{device}\n{challenge}\n".encode()


class EnrolReply(Message, frozen=True, kw_only=True):
    """Whether the device is in. `pending` until an operator approves."""

    FORMAT: ClassVar[str] = "drupelet.enrolled/1"
    BYTES_MAX: ClassVar[int] = 4 * 1024

    format: str = "drupelet.enrolled/1"
    state: Literal["pending", "approved", "rejected"]
    retry_after_ms: Milliseconds = 5_000


class ChallengeRequest(Message, frozen=True, kw_only=True):
    """Ask for something to sign."""

    FORMAT: ClassVar[str] = "drupelet.challenge/1"
    BYTES_MAX: ClassVar[int] = 4 * 1024

    format: str = "drupelet.challenge/1"
    device: NameText


class Challenge(Message, frozen=True, kw_only=True):
    """Something to sign, good for a short time."""

    FORMAT: ClassVar[str] = "drupelet.challenged/1"
    BYTES_MAX: ClassVar[int] = 4 * 1024

    format: str = "drupelet.challenged/1"
    challenge: OpaqueText


class TokenRequest(Message, frozen=True, kw_only=True):
    """The signed challenge."""

    FORMAT: ClassVar[str] = "drupelet.prove/1"
    BYTES_MAX: ClassVar[int] = 4 * 1024

    format: str = "drupelet.prove/1"
    device: NameText
    challenge: OpaqueText
    signature: SignatureText


class TokenReply(Message, frozen=True, kw_only=True):
    """A bearer token and how long it is good for."""

    FORMAT: ClassVar[str] = "drupelet.token/1"
    BYTES_MAX: ClassVar[int] = 4 * 1024

    format: str = "drupelet.token/1"
    token: OpaqueText
    expires_in_ms: Milliseconds


class SlotStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a slot holds."""

    slot: Slot
    release: ReleaseText
    manifest: DigestText
    variant: NameText
    digest: DigestText


class DeviceStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the device's update stands and why it does not go further."""

    state: UpdateState
    reason: Reason = Reason.NONE
    detail: Sentence = ""
    release: ReleaseText | Literal[""] = ""
    """The release the update is about."""
    order_serial: Count = 0
    """The newest order the device has accepted."""
    progress_bytes: Bytes = 0
    total_bytes: Bytes = 0
    slots: Annotated[tuple[SlotStatus, ...], Meta(max_length=2)] = ()
    serving: Slot | None = None
    committed: Slot | None = None
    pairs_done: Count = 0
    free_bytes: Bytes = 0
    memory_available_bytes: Bytes = 0
    temperature_celsius: Celsius | None = None
    throttled: Annotated[dict[Label, bool], Meta(max_length=8)] = {}
    gateway: Literal["serving", "starting", "down", "unknown"] = "unknown"
    clock_ms: EpochMs = 0
    windows_dropped: Count = 0
    held: bool = False


class DeviceEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One transition of the update machine or one refusal, as journalled. `seq` is the journal's."""

    seq: Annotated[int, Meta(ge=1, le=2**53)]
    at_ms: EpochMs
    event: Annotated[str, Meta(max_length=64)]
    before: UpdateState
    after: UpdateState
    reason: Reason = Reason.NONE
    detail: Sentence = ""
    release: ReleaseText | Literal[""] = ""
    order_serial: Count = 0


class PollRequest(Message, frozen=True, kw_only=True):
    """A heartbeat with what is new since the last acknowledged one."""

    FORMAT: ClassVar[str] = "drupelet.poll/1"
    BYTES_MAX: ClassVar[int] = POLL_BYTES_MAX

    format: str = "drupelet.poll/1"
    device: NameText
    boot: BootId
    agent_version: Annotated[str, Meta(max_length=64)]
    hardware: Hardware
    status: DeviceStatus
    events: Annotated[tuple[DeviceEvent, ...], Meta(max_length=200)] = ()
    windows: Annotated[tuple[Window, ...], Meta(max_length=1000)] = ()


class PollReply(Message, frozen=True, kw_only=True):
    """What the fleet took, and when to come again. Orders do not travel here: they are signed director metadata."""

    FORMAT: ClassVar[str] = "drupelet.polled/1"
    BYTES_MAX: ClassVar[int] = 16 * 1024

    format: str = "drupelet.polled/1"
    poll_after_ms: Annotated[int, Meta(ge=100, le=86_400_000)]
    events_taken: Count
    """Highest journal `seq` stored; the device may forget up to here."""
    windows_taken: Count
    """Highest window `seq` stored."""
    order_serial: Count = 0
    """A hint that a newer order is waiting. Only signed metadata is believed."""

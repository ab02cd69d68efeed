"""What is filed after a ceremony: who was there, which key is whose, what the roots are, signed by the root keys."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, ClassVar

from msgspec import Meta
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError, VerificationError
from securesystemslib.signer import Key

from drupelet.core.errors import BadInput
from drupelet.core.states import Reason
from drupelet.trust.ceremony.plan import Person
from drupelet.trust.errors import NotTrusted
from drupelet.trust.ring import KeyInfo
from drupelet.wire.codec import Message, decode, encode_canonical
from drupelet.wire.fields import DigestText, EpochMs
from drupelet.wire.manifest import Part

PAYLOAD_TYPE = "application/vnd.drupelet.ceremony-record+json"
Text = Annotated[str, Meta(max_length=2000)]


class Done(Part, frozen=True, kw_only=True):
    """A step that was taken, when, and what came of it."""

    step: Text
    at_ms: EpochMs
    says: Text = ""


class RootMade(Part, frozen=True, kw_only=True):
    """A root that the ceremony made."""

    repository: Text
    version: int
    sha256: DigestText
    expires: Text
    signed_by: tuple[Text, ...]


class Record(Message, frozen=True, kw_only=True):
    """A ceremony, after it happened."""

    FORMAT: ClassVar[str] = "drupelet.ceremony-record/1"
    BYTES_MAX: ClassVar[int] = 1 << 20

    format: str = "drupelet.ceremony-record/1"
    title: Text
    rehearsal: bool
    plan: DigestText
    people: tuple[Person, ...]
    keys: tuple[KeyInfo, ...]
    holders: dict[str, str]
    thresholds: dict[str, int]
    roots: tuple[RootMade, ...]
    steps: tuple[Done, ...]
    tools: dict[str, str]


def fingerprint(keyid: str) -> str:
    """Return a key id as it is read aloud: eight groups of four, the first half of it."""
    return " ".join(keyid[at : at + 4] for at in range(0, 32, 4))


def payload(record: Record) -> bytes:
    """Return what is signed."""
    return encode_canonical(record)


def unsigned(data: bytes) -> Envelope:
    """Return the record in an envelope without a signature."""
    return Envelope(data, PAYLOAD_TYPE, {})


def envelope_bytes(envelope: Envelope) -> bytes:
    """Return the envelope's file."""
    return json.dumps(envelope.to_dict(), sort_keys=True, indent=1).encode() + b"\n"


def read_envelope(data: bytes, *, where: str) -> Envelope:
    """Return the envelope in a file. Raises `BadInput`."""
    try:
        if len(data) > 2 * Record.BYTES_MAX:
            raise ValueError
        envelope = Envelope.from_dict(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, FormatError) as error:
        raise BadInput("not a ceremony's signed record, or cut short", where=where) from error
    if envelope.payload_type != PAYLOAD_TYPE:
        raise BadInput("a signed file, but no ceremony's record", where=where)
    return envelope


def verified(envelope: Envelope, keys: Sequence[Key], *, threshold: int, where: str) -> tuple[Record, tuple[str, ...]]:
    """Return the record and the ids of the root keys that signed it. Raises `NotTrusted` below the threshold."""
    signed = []
    for key in keys:
        try:
            envelope.verify([key], 1)
        except (VerificationError, ValueError):
            continue
        signed.append(key.keyid)
    if len(signed) < threshold:
        raise NotTrusted(
            f"{len(signed)} of the root's keys have signed this record, {threshold} must",
            reason=Reason.UNSIGNED,
            where=where,
        )
    return decode(Record, envelope.payload, where=where), tuple(signed)


def as_markdown(record: Record) -> str:
    """Return the record as a page."""

    def when(moment_ms: int) -> str:
        return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

    head = f"# {record.title}\n\n"
    if record.rehearsal:
        head += "**REHEARSAL: these keys were thrown away.**\n\n"
    began, ended = record.steps[0].at_ms, record.steps[-1].at_ms
    lines = [f"From {when(began)} to {when(ended)}, by plan `{record.plan}`.", "", "## Present", ""]
    lines += [f"- {_plain(person.name)}: {_plain(person.does) or 'present'}" for person in record.people]
    lines += [
        "",
        "## Keys",
        "",
        "| key | signs | holder | kind | read aloud | key id |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for key in record.keys:
        roles = ", ".join(f"{key.repository}/{role}" for role in key.roles)
        holder = _plain(record.holders.get(key.name, ""))
        lines.append(f"| {key.name} | {roles} | {holder} | {key.scheme} | {fingerprint(key.keyid)} | `{key.keyid}` |")
    lines += ["", "## Signatures needed", "", "| role | how many |", "| --- | --- |"]
    lines += [f"| {role} | {threshold} |" for role, threshold in sorted(record.thresholds.items())]
    lines += [
        "",
        "## Roots",
        "",
        "| repository | version | expires | signed by | digest |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {root.repository} | {root.version} | {root.expires} | {', '.join(root.signed_by)} | `{root.sha256}` |"
        for root in record.roots
    ]
    lines += ["", "## Steps", "", "| when | step | what came of it |", "| --- | --- | --- |"]
    lines += [f"| {when(done.at_ms)} | {_plain(done.step)} | {_plain(done.says)} |" for done in record.steps]
    lines += ["", "## Tools", ""]
    lines += [f"- {name} {version}" for name, version in sorted(record.tools.items())]
    lines += ["", "Signed: ______________________________", ""]
    return head + "\n".join(lines)


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")

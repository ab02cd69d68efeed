"""A signed statement: a DSSE envelope, as in-toto and SLSA tools read it, by securesystemslib."""

from __future__ import annotations

import json
from collections.abc import Sequence

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError, VerificationError
from securesystemslib.signer import Key, Signer

from drupelet.core.errors import BadInput, Untrusted
from drupelet.forge.attest.statement import STATEMENT_BYTES_MAX

PAYLOAD_TYPE = "application/vnd.in-toto+json"
ENVELOPE_BYTES_MAX = 2 * STATEMENT_BYTES_MAX


def seal(statement: bytes, signers: Sequence[Signer]) -> bytes:
    """Return the statement in an envelope signed by all `signers`."""
    envelope = Envelope(statement, PAYLOAD_TYPE, {})
    for signer in signers:
        envelope.sign(signer)
    return json.dumps(envelope.to_dict(), sort_keys=True).encode() + b"\n"


def unseal(data: bytes, keys: Sequence[Key], *, where: str = "provenance") -> tuple[bytes, tuple[str, ...]]:
    """Return the statement and the ids of those of `keys` that signed it. Raises `BadInput`; `Untrusted` if none did.

    Who signs for a family vouches for its releases by the threshold that the image repository asks for: the envelope is
    a file among those. One of them is enough here.
    """
    if len(data) > ENVELOPE_BYTES_MAX:
        raise BadInput(f"the envelope has {len(data)} bytes where {ENVELOPE_BYTES_MAX} are allowed", where=where)
    try:
        envelope = Envelope.from_dict(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, FormatError) as error:
        raise BadInput("not a DSSE envelope, or cut short", where=where) from error
    if envelope.payload_type != PAYLOAD_TYPE:
        raise BadInput(f"an envelope of {str(envelope.payload_type)[:60]!r}, not of an in-toto statement", where=where)
    signed = []
    for key in keys:
        try:
            envelope.verify([key], 1)
        except (VerificationError, ValueError):
            continue
        signed.append(key.keyid)
    if not signed:
        raise Untrusted("no key of the family has signed this statement", where=where)
    return envelope.payload, tuple(signed)

"""The small manifest: one flat JSON a variant, for systems that want to know a model file and little else.

    {"memory_mb": 1600, "model": "sha256:ab12...", "name": "assistant-gguf-q4", "npu_required": true,
     "quant": "4-bit", "signature": "base64"}

`signature` is the Ed25519 signature by the family's key over the other fields as canonical JSON (RFC 8785: keys sorted,
no white space, UTF-8). It vouches for this file alone; what a device installs is decided by the release manifest.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from drupelet.core.errors import Untrusted
from drupelet.wire.manifest import ReleaseManifest, Variant

FIELDS = ("memory_mb", "model", "name", "npu_required", "quant")
_BITS = re.compile(r"(?:^|[^0-9a-z])(?:i?q|int|uint|bf|fp?|w)(\d{1,2})(?!\d)", re.IGNORECASE)
_MB = 1_000_000


def small_manifest(release: ReleaseManifest, variant: Variant) -> dict[str, Any]:
    """Return the fields of one variant's small manifest, without the signature."""
    return {
        "memory_mb": -(-variant.memory_bytes(release.context_tokens) // _MB),
        "model": variant.digest,
        "name": f"{release.model}-{variant.file_format}-{variant.name}",
        "npu_required": variant.npu_required,
        "quant": quant_in_words(variant.quantization),
    }


def quant_in_words(quantization: str) -> str:
    """Return `4-bit` for q4_0, Q4_K_M, int4 and w4a16, `16-bit` for f16; a name without a width stays as it is."""
    found = _BITS.search(quantization)
    return f"{found[1]}-bit" if found else quantization


def signed_bytes(document: dict[str, Any]) -> bytes:
    """Return what is signed: all fields but the signature, canonical JSON by RFC 8785."""
    bare = {key: value for key, value in document.items() if key != "signature"}
    return json.dumps(bare, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def signed(document: dict[str, Any], sign: Callable[[bytes], bytes]) -> dict[str, Any]:
    """Return the document with its signature."""
    return {**document, "signature": base64.b64encode(sign(signed_bytes(document))).decode()}


def check_signature(document: dict[str, Any], key: Ed25519PublicKey, *, where: str = "") -> None:
    """Raise `Untrusted` unless `key` has signed the document."""
    try:
        key.verify(base64.b64decode(str(document.get("signature", "")), validate=True), signed_bytes(document))
    except (InvalidSignature, binascii.Error) as error:
        raise Untrusted("the signature is not of this key over these fields", where=where) from error

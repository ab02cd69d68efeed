"""OpenSSF model signatures: `model.sig`, as the stock `model_signing verify` reads it.

It covers the variants' files by name and SHA-256. The key is the ring's `model/<family>`, ECDSA on P-256 because that
is what model signing knows; its public half lies beside the signature, vouched for like every file of the release. The
digests are those of the manifest: files are hashed where they are published, not once more here.
"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path, PurePosixPath
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from model_signing import manifest as listing
from model_signing._hashing.hashing import Digest as FileDigest
from model_signing._signing import sign_ec_key, sign_sigstore_pb, signing
from securesystemslib.signer import Signer

from drupelet.core.errors import BadInput, Untrusted
from drupelet.core.names import Digest
from drupelet.forge.attest.statement import file_of
from drupelet.wire.manifest import ReleaseManifest

SIGNATURE_BYTES_MAX = 1 << 20


class _RingKey:
    """What the library takes for a private key, and a ring's signer does the work."""

    def __init__(self, signer: Signer, public: EllipticCurvePublicKey) -> None:
        self._signer = signer
        self._public = public

    def public_key(self) -> EllipticCurvePublicKey:
        return self._public

    def sign(self, data: bytes, _algorithm: object) -> bytes:
        return bytes.fromhex(self._signer.sign(data).signature)


class _RingSigner(sign_ec_key.Signer):
    """The library's signer for elliptic keys, whose key need not be a file."""

    def __init__(self, signer: Signer, public: bytes) -> None:
        self._private_key: Any = _RingKey(signer, _elliptic(public))


def _elliptic(pem: bytes) -> EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(pem)
    except ValueError as error:
        raise BadInput("not a public key (PEM)", where="model-signing.pub") from error
    if not isinstance(key, EllipticCurvePublicKey):
        raise BadInput("model signatures need an ECDSA key", fix="make one: drupelet keys rotate --add model/FAMILY")
    return key


def sign_model(manifest: ReleaseManifest, signer: Signer, *, public: bytes) -> bytes:
    """Return `model.sig` of the release's variants; `public` is the signer's public half in PEM."""
    items = [
        listing.FileManifestItem(
            path=PurePosixPath(file_of(variant)),
            digest=FileDigest("sha256", bytes.fromhex(Digest.parse(variant.digest).hex)),
        )
        for variant in manifest.variants
    ]
    kind = listing._FileSerialization("sha256", allow_symlinks=False)
    payload = signing.Payload(listing.Manifest(str(manifest.release).replace(" ", "-"), items, kind))
    made: Any = _RingSigner(signer, public).sign(payload)
    return str(made.bundle.to_json()).encode()


def signed_files(signature: bytes, *, public: bytes, where: str = "model.sig") -> dict[str, str]:
    """Return the files that `model.sig` vouches for and their SHA-256 (hex). Raises `BadInput` or `Untrusted`."""
    _elliptic(public)
    if len(signature) > SIGNATURE_BYTES_MAX:
        raise BadInput(f"more than {SIGNATURE_BYTES_MAX} bytes", where=where)
    with tempfile.TemporaryDirectory() as folder:
        key, file = Path(folder) / "key.pub", Path(folder) / "model.sig"
        key.write_bytes(public)
        file.write_bytes(signature)
        try:
            parsed: Any = json.loads(signature)
            if not isinstance(parsed, dict):
                raise ValueError("not an object")
            bundle = sign_sigstore_pb.Signature.read(file)
        except Exception as error:
            raise BadInput("not a model signature, or cut short", where=where) from error
        try:
            # It prints what it thinks of old signatures; standard output is for the answer.
            with redirect_stdout(sys.stderr):
                found = sign_ec_key.Verifier(key).verify(bundle)
        except Exception as error:
            raise Untrusted(
                f"the model signature does not hold: {type(error).__name__} {str(error)[:200]}".rstrip(), where=where
            ) from error
    return {one.identifier: one.digest.digest_hex for one in found.resource_descriptors()}

"""What is signed beside a manifest, in the same step: the provenance's envelope and the model signature.

kiosk/1.2/manifest.json         names variants and attachments by digest, provenance.json among them
kiosk/1.2/provenance.dsse.json  that statement in an envelope, signed with the family's key
kiosk/1.2/model.sig             OpenSSF signature of the variants' files
kiosk/1.2/model-signing.pub     the key that made it
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from drupelet.durable.port import Disk
from drupelet.forge.attest.dsse import seal
from drupelet.forge.attest.statement import STATEMENT_BYTES_MAX, read_statement
from drupelet.trust.keys import KeyRing
from drupelet.wire.manifest import ATTACHMENT_FILES, ReleaseManifest

ENVELOPE_NAME = "provenance.dsse.json"
SIGNATURE_NAME = "model.sig"
PUBLIC_KEY_NAME = "model-signing.pub"


def beside(manifest: ReleaseManifest, folder: Path, *, disk: Disk, keys: KeyRing) -> Mapping[str, bytes]:
    """Return the files to sign with the package in `folder`, by target path.

    A package without provenance gets no envelope, a ring without a key for `model/<family>` no model signature. Raises
    `NoKey` if the ring names such a key and it is not here, and what signers raise.
    """
    below = manifest.release.path
    files: dict[str, bytes] = {}
    if manifest.attachment("provenance") is not None:
        path = folder / ATTACHMENT_FILES["provenance"]
        statement = disk.read(path, bytes_max=STATEMENT_BYTES_MAX)
        read_statement(statement, where=str(path))
        signer = keys.signer(keys.here(f"image/{manifest.family}").name)
        files[f"{below}/{ENVELOPE_NAME}"] = seal(statement, [signer])
    if keys.info.of(f"model/{manifest.family}"):
        # It takes half a second to load and a device never needs it.
        from drupelet.forge.attest.openssf import sign_model

        key = keys.here(f"model/{manifest.family}")
        files[f"{below}/{SIGNATURE_NAME}"] = sign_model(manifest, keys.signer(key.name), public=key.pem)
        files[f"{below}/{PUBLIC_KEY_NAME}"] = key.pem
    return files

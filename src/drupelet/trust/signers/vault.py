"""HashiCorp Vault's transit engine: `hv:kiosk-release/1`, a key and its version. Ed25519."""

from __future__ import annotations

from securesystemslib.signer import SSlibKey, VaultSigner

from drupelet.core.errors import BadInput
from drupelet.trust.signers.cloud import CloudKms


class Vault(CloudKms):
    """Signs with hvac; the token needs `read` on the key and `update` on `transit/sign`."""

    def __init__(self) -> None:
        super().__init__(VaultSigner, install="run: pip install hvac", credentials="check VAULT_ADDR and VAULT_TOKEN")

    def look(self, name: str) -> SSlibKey:
        """Return the public half of `KEY/VERSION`; the version must be the newest, or signatures would not fit."""
        key, _, version = name.partition("/")
        uri, found = VaultSigner.import_(key)
        if not version or uri != f"hv:{key}/{version}":
            raise BadInput(f"{name[:80]!r} is not the newest version of this key", fix=f"use {uri}")
        return found

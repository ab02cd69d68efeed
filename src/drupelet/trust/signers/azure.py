"""Azure Key Vault: `azurekms://VAULT.vault.azure.net/keys/KEY/VERSION`. ECDSA P-256, P-384 or P-521."""

from __future__ import annotations

from urllib.parse import urlparse

from securesystemslib.signer import AzureSigner, SSlibKey

from drupelet.core.errors import BadInput
from drupelet.trust.signers.cloud import CloudKms


class AzureKeyVault(CloudKms):
    """Signs with azure-keyvault-keys; the caller needs the role "Key Vault Crypto User"."""

    def __init__(self) -> None:
        super().__init__(
            AzureSigner,
            install="run: pip install azure-identity azure-keyvault-keys",
            credentials="check AZURE_TENANT_ID, AZURE_CLIENT_ID and what else azure-identity reads",
        )

    def look(self, name: str) -> SSlibKey:
        """Return the public half of `//VAULT.vault.azure.net/keys/KEY/VERSION`."""
        address = urlparse(f"https:{name}")
        parts = address.path.strip("/").split("/")
        if not address.hostname or len(parts) < 2 or parts[0] != "keys":
            raise BadInput(f"{name[:80]!r} names no key", fix="for example azurekms://VAULT.vault.azure.net/keys/KEY/1")
        found: SSlibKey = AzureSigner.import_(address.hostname.partition(".")[0], parts[1])[1]
        return found

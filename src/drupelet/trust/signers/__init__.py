"""Where private keys are, one file a kind behind one port: files, tokens (PKCS#11), key services of clouds, Vault."""

from __future__ import annotations

from drupelet.core.errors import BadInput
from drupelet.trust.signers.aws import AwsKms
from drupelet.trust.signers.azure import AzureKeyVault
from drupelet.trust.signers.file import KeyFiles
from drupelet.trust.signers.gcp import GcpKms
from drupelet.trust.signers.pkcs11 import Tokens
from drupelet.trust.signers.port import Around, CheckedSigner, KeyState, SignerKind
from drupelet.trust.signers.vault import Vault

KINDS: dict[str, SignerKind] = {
    kind.scheme: kind for kind in (KeyFiles(), Tokens(), AwsKms(), GcpKms(), AzureKeyVault(), Vault())
}

__all__ = ["KINDS", "Around", "CheckedSigner", "KeyState", "SignerKind", "kind_of"]


def kind_of(place: str) -> SignerKind:
    """Return the kind of a place such as `file` or `awskms:alias/kiosk`. Raises `BadInput`."""
    scheme = place.partition(":")[0]
    if scheme not in KINDS:
        known = ", ".join(f"{name}:..." if name != "file" else name for name in KINDS)
        raise BadInput(f"{place[:80]!r} is no place for a key", fix=f"known places: {known}")
    return KINDS[scheme]

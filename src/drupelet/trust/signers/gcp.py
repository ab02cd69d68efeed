"""Google Cloud KMS: `gcpkms:projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/1`."""

from __future__ import annotations

from securesystemslib.signer import GCPSigner

from drupelet.trust.signers.cloud import CloudKms


class GcpKms(CloudKms):
    """Signs with google-cloud-kms; the caller needs `cloudkms.publicKeyViewer` once and `cloudkms.signer`."""

    def __init__(self) -> None:
        super().__init__(
            GCPSigner,
            install="run: pip install google-cloud-kms",
            credentials="check GOOGLE_APPLICATION_CREDENTIALS",
        )

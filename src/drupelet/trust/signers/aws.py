"""AWS Key Management Service: `awskms:alias/kiosk-release`, or a key's id or ARN. ECDSA P-256 or P-384, or RSA."""

from __future__ import annotations

from securesystemslib.signer import AWSSigner

from drupelet.trust.signers.cloud import CloudKms


class AwsKms(CloudKms):
    """Signs with boto3; the caller needs `kms:GetPublicKey` once and `kms:Sign`."""

    def __init__(self) -> None:
        super().__init__(
            AWSSigner,
            install="run: pip install boto3",
            credentials="check AWS_REGION, AWS_ACCESS_KEY_ID and what else boto3 reads",
        )

"""An image repository that vouches for what the test says, or for nothing."""

from __future__ import annotations

import hashlib

from drupelet.core.names import Digest, ReleaseId
from drupelet.core.states import Reason
from drupelet.trust.errors import NotTrusted, RepositoryMissing
from drupelet.trust.images import VouchedRelease
from drupelet.trust.roles import TargetInfo
from drupelet.wire.codec import encode_canonical
from drupelet.wire.manifest import Attachment, AttachmentKind, ReleaseManifest


class FakeImages:
    """Vouches for the manifests it was given."""

    def __init__(self) -> None:
        self.manifests: dict[str, ReleaseManifest] = {}
        self.blobs: dict[str, bytes] = {}

    def put(self, manifest: ReleaseManifest) -> str:
        """Vouch for a manifest and return its digest."""
        self.manifests[manifest.release.path] = manifest
        return self.target(manifest).sha256.text

    def target(self, manifest: ReleaseManifest) -> TargetInfo:
        data = encode_canonical(manifest)
        return TargetInfo(manifest.path, len(data), Digest.of_hex(hashlib.sha256(data).hexdigest()))

    def attach(self, data: bytes, kind: AttachmentKind = "report-page") -> Attachment:
        """Keep a blob and return how a manifest names it."""
        digest = Digest.of_hex(hashlib.sha256(data).hexdigest()).text
        self.blobs[digest] = data
        return Attachment(kind=kind, digest=digest, size_bytes=len(data))

    def attachment(self, attached: Attachment) -> bytes:
        data = self.blobs.get(attached.digest)
        if data is None:
            raise RepositoryMissing(f"the {attached.kind} is signed but does not lie in the depot", where="images")
        return data

    def release(self, release: ReleaseId) -> VouchedRelease:
        manifest = self.manifests.get(release.path)
        if manifest is None:
            raise NotTrusted(f"nobody vouches for {release}", reason=Reason.UNSIGNED, where="images")
        return VouchedRelease(manifest, self.target(manifest))

"""Keys, the two TUF repositories, and what a device believes: bytes in, orders and manifests out."""

from drupelet.trust.director import Director, DirectorMetadata
from drupelet.trust.errors import NotTrusted
from drupelet.trust.images import Images, VouchedRelease
from drupelet.trust.keys import KeyRing, read_signer
from drupelet.trust.passphrase import passphrase_from
from drupelet.trust.ports import Fetch
from drupelet.trust.publisher import ImageRepository, Lifetimes
from drupelet.trust.roles import TargetInfo
from drupelet.trust.verifier import Verifier

__all__ = [
    "Director",
    "DirectorMetadata",
    "Fetch",
    "ImageRepository",
    "Images",
    "KeyRing",
    "Lifetimes",
    "NotTrusted",
    "TargetInfo",
    "Verifier",
    "VouchedRelease",
    "passphrase_from",
    "read_signer",
]

"""Where blobs lie, and how they come to a device: files and HTTP behind one port, resumable, hashed on the way."""

from drupelet.depot.download import Download, Progress
from drupelet.depot.errors import BlobRefused, NoBlob, SourceUnreachable, TokenRefused
from drupelet.depot.files import FilesDepot
from drupelet.depot.http import HttpFetch, HttpSource, make_pool
from drupelet.depot.ports import Source, blob_path

__all__ = [
    "BlobRefused",
    "Download",
    "FilesDepot",
    "HttpFetch",
    "HttpSource",
    "NoBlob",
    "Progress",
    "Source",
    "SourceUnreachable",
    "TokenRefused",
    "blob_path",
    "make_pool",
]

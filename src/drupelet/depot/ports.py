"""What a download asks of wherever blobs lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from drupelet.core.names import Digest


class Source(Protocol):
    """Somewhere blobs lie. What it yields is believed in nothing; `Download` hashes."""

    def open(self, digest: Digest, *, offset: int, size: int) -> Iterator[bytes]:
        """Yield the blob's bytes from `offset` on; a source that knows the blob's size compares it with `size`.

        Raises `NoBlob`, `BlobRefused` (TOO_LARGE, TRUNCATED) or `SourceUnreachable`, while it is iterated.
        """
        ...


def blob_path(digest: Digest) -> str:
    """Return where a blob lies below a depot."""
    return f"blobs/sha256/{digest.hex[:2]}/{digest.hex}"

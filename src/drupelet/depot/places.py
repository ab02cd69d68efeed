"""Where a depot may be kept, as a person writes it: a folder, or a bucket's address."""

from __future__ import annotations

from pathlib import Path

from drupelet.core.errors import DrupeletError
from drupelet.depot.errors import BadAddress
from drupelet.depot.folder import FolderStore
from drupelet.depot.ports import Store
from drupelet.durable import PosixDisk

BUCKETS = ("s3://", "gs://", "az://")


def is_bucket(text: str) -> bool:
    """Whether this is written like an object store's address."""
    return text.startswith(BUCKETS)


def open_store(text: str) -> Store:
    """Return the store at `text`. A folder need not be there yet: `FolderStore.require` asks for one that is."""
    if is_bucket(text):
        try:
            from drupelet.depot.objects import open_bucket
        except ModuleNotFoundError as error:
            raise DrupeletError(
                f"object stores need {error.name}, which is not installed here",
                fix="install the extra 'objectstore': pip install '.[objectstore]' in a clone of Drupelet",
            ) from error
        return open_bucket(text)
    return FolderStore(PosixDisk(folder_mode=0o755), folder_at(text))


def folder_at(text: str) -> Path:
    """Return the folder a person named, plainly or as `file://`; raises `BadAddress` for another kind of address."""
    scheme, _, rest = text.partition("://")
    if rest and scheme != "file":
        raise BadAddress(
            f"{text[:200]!r} is neither a folder nor an object store's address",
            fix="give a folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix",
        )
    return Path(rest or text).absolute()

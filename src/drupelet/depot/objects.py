"""A depot in a bucket: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage, by `obstore`.

What a bucket promises, and what is made of it:

- An object appears whole or not at all. A large one is sent in parts; if its digest turns out wrong on the way, the
  upload is given up and nothing appears.
- `If-None-Match: *` refuses to write over an object. Every name but the timestamp is written that way, or, where an
  object is too large for one request, is a digest: whoever writes it again writes the same bytes.
- `If-Match` refuses to write over what somebody else wrote since. The timestamp is written that way.
- There is no lock. `.publishing` is an object that says who writes; whoever dies leaves it behind, and
  `drupelet depot unlock` removes it.

Credentials come from the environment, as obstore reads it (docs/storage.md); they are in no message of this module.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Protocol

import obstore
from obstore import exceptions

from drupelet.core.errors import DrupeletError, NotFound
from drupelet.core.names import Digest
from drupelet.core.states import Reason
from drupelet.depot.errors import (
    BadAddress,
    BlobRefused,
    ChangedMeanwhile,
    InUse,
    NoBlob,
    NoStore,
    SourceUnreachable,
    StoreRefused,
    Taken,
)
from drupelet.depot.ports import Entry, Source, blob_path, cache_control
from drupelet.wire.codec import TooLarge

PART_BYTES = 16 << 20
"""Parts of a multipart upload, and the largest object sent in one request. S3 takes 10,000 parts: 160 GB."""
PARTS_AT_ONCE = 4
CHUNK_BYTES = 1 << 20
RETRIES_MAX = 4
RETRY_TIMEOUT = timedelta(seconds=60)
REQUEST_TIMEOUT_S = 600
"""For one part of an upload: 16 MiB on a line of 0.25 Mbit/s."""
CONNECT_TIMEOUT_S = 10
LEASE = ".publishing"
LEASE_BYTES_MAX = 1000
LINK_LIFETIME_MAX = timedelta(days=7)
"""S3's own limit."""

_CODE = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
_STATUS = re.compile(r"status code: ([0-9]{3})")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_CLOUDS_OWN = ("/latest/api/token", "/latest/meta-data", "metadata.google", "169.254.169.254", "/metadata/identity")
"""Where a machine in a cloud asks for credentials: obstore's last resort where the environment holds none."""
_REFUSED_CODES = {
    "ExpiredToken": "the credentials have expired",
    "TokenRefreshRequired": "the credentials have expired",
    "InvalidAccessKeyId": "the access key is not known",
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
    "AuthenticationFailed": "the credentials are not accepted",
    "AccessDenied": "the credentials do not allow this",
}


class _Obstore(Protocol):
    """What is common to obstore's stores; its own types are unions that a checker cannot follow."""


class ObjectStore:
    """A bucket, below a prefix. Implements `Store`; make one with `places.open_store`."""

    def __init__(self, store: _Obstore, *, where: str, attributes: bool = True) -> None:
        """`attributes`: whether this kind of store keeps headers to serve files with."""
        self._store: Any = store
        self._where = where
        self._attributes = attributes

    @property
    def where(self) -> str:
        return self._where

    def entry(self, name: str) -> Entry | None:
        try:
            with self._said(name):
                return _entry(obstore.head(self._store, name))
        except NotFound as error:
            if isinstance(error, NoStore):
                raise
            return None

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        with self._said(prefix):
            for some in obstore.list(self._store, prefix or None):
                for meta in some:
                    yield _entry(meta)

    def read(self, name: str, *, bytes_max: int) -> bytes:
        data = bytearray()
        for chunk in self.stream(name):
            data += chunk
            if len(data) > bytes_max:
                raise TooLarge(f"larger than the {bytes_max} bytes allowed", where=self._at(name))
        return bytes(data)

    def stream(self, name: str, *, offset: int = 0) -> Iterator[bytes]:
        with self._said(name):
            options: Any = {"range": {"offset": offset}} if offset else None
            for chunk in obstore.get(self._store, name, options=options).stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    def open(self, digest: Digest, *, offset: int, size: int) -> Iterator[bytes]:
        """Yield a blob's bytes from `offset` on; see `Source.open`."""
        name = blob_path(digest)
        there = self.entry(name)
        if there is None:
            raise NoBlob(f"{digest} is not in this depot", where=self._where, fix="publish the release again")
        if there.size_bytes != size:
            reason = Reason.TOO_LARGE if there.size_bytes > size else Reason.TRUNCATED
            raise BlobRefused(
                f"{digest} has {there.size_bytes} bytes where {size} were signed", reason=reason, where=self._at(name)
            )
        if offset < size:
            yield from self.stream(name, offset=offset)

    def create(self, name: str, data: bytes) -> bool:
        try:
            with self._said(name):
                self._put(name, data, mode="create", use_multipart=False)
            return True
        except _AlreadyThere:
            if self.read(name, bytes_max=max(len(data), 1 << 20)) == data:
                return False
            raise Taken(
                "other bytes lie under this name", where=self._at(name), fix="give the release a new version"
            ) from None

    def put_blob(self, digest: Digest, source: Source, *, size: int, progress: Callable[[int], None]) -> None:
        name = blob_path(digest)
        chunks = _checked(source.open(digest, offset=0, size=size), digest=digest, size=size, progress=progress)
        if size <= PART_BYTES:
            self.create(name, b"".join(chunks))
            return
        with self._said(name):
            self._put(name, chunks, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)

    def replace(self, name: str, data: bytes, *, was: Entry | None) -> None:
        mode: Any = "create"
        if was is not None:
            etag, _, version = was.tag.partition(" ")
            mode = {"e_tag": etag, **({"version": version} if version else {})}
        try:
            with self._said(name):
                self._put(name, data, mode=mode, use_multipart=False)
        except (_AlreadyThere, _Precondition):
            raise ChangedMeanwhile(
                "somebody else wrote it meanwhile", where=self._at(name), fix="look at what is there, and try again"
            ) from None

    def remove(self, name: str) -> None:
        try:
            with self._said(name):
                obstore.delete(self._store, name)
        except NotFound as error:
            if isinstance(error, NoStore):
                raise

    @contextmanager
    def exclusive(self, holder: str) -> Iterator[None]:
        try:
            with self._said(LEASE):
                obstore.put(self._store, LEASE, holder.encode(), mode="create", use_multipart=False)
        except _AlreadyThere:
            raise InUse(
                f"held by {self._holder()}",
                where=self._at(LEASE),
                fix=f"wait for it; if it died: drupelet depot unlock {self._where}",
            ) from None
        try:
            yield
        finally:
            self.remove(LEASE)

    def unlock(self) -> bool:
        """Remove what a publisher that died left behind; False if nothing was there."""
        there = self.entry(LEASE) is not None
        self.remove(LEASE)
        return there

    def link(self, name: str, *, lifetime: timedelta) -> str:
        """Return an address that lets its bearer read one file for a while (a presigned URL). It is a secret."""
        if self.entry(name) is None:
            raise NotFound("there is no such file", where=self._at(name))
        with self._said(name):
            try:
                return obstore.sign(self._store, "GET", name, lifetime)
            except (TypeError, ValueError) as error:
                raise StoreRefused("this kind of store cannot sign addresses", where=self._where) from error

    def _put(self, name: str, data: Any, **how: Any) -> None:
        """Write, with the headers that a CDN or a browser is to be told."""
        if self._attributes:
            kind = "application/json" if name.endswith(".json") else "application/octet-stream"
            how["attributes"] = {"Cache-Control": cache_control(name), "Content-Type": kind}
        obstore.put(self._store, name, data, **how)

    def _holder(self) -> str:
        try:
            return self.read(LEASE, bytes_max=LEASE_BYTES_MAX).decode("utf-8", "replace")
        except (NotFound, TooLarge):
            return "another process"

    def _at(self, name: str) -> str:
        return f"{self._where}/{name}" if name else self._where

    @contextmanager
    def _said(self, name: str) -> Iterator[None]:
        """Turn obstore's errors into this room's. Its words hold addresses and whole answers: only codes are taken."""
        try:
            yield
        except exceptions.AlreadyExistsError as error:
            raise _AlreadyThere from error
        except exceptions.PreconditionError as error:
            raise _Precondition from error
        except FileNotFoundError as error:
            raise self._not_found(name, str(error)) from error
        except exceptions.BaseError as error:
            raise self._plainly(name, error) from error

    def _not_found(self, name: str, words: str) -> NotFound:
        if any(code in words for code in _NO_BUCKET):
            return NoStore("there is no such bucket", where=self._where, fix="make it, or correct the address")
        return NotFound("there is no such file", where=self._at(name))

    def _plainly(self, name: str, error: exceptions.BaseError) -> DrupeletError:
        words = str(error)
        found = _CODE.search(words)
        code = found.group(1) if found else ""
        status = found.group(1) if (found := _STATUS.search(words)) else ""
        if code in _NO_BUCKET:
            return self._not_found(name, words)
        if any(place in words for place in _CLOUDS_OWN):
            return StoreRefused(
                "there are no credentials for it", where=self._where, fix="set them in the environment: docs/storage.md"
            )
        refused = isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError)
        if code in _REFUSED_CODES or refused or status in ("401", "403"):
            said = _REFUSED_CODES.get(code, f"the server answers {code or status or 'that this is not allowed'}")
            return StoreRefused(said, where=self._where, fix="renew the credentials in the environment")
        if status:
            return SourceUnreachable(f"the server answers {status} {code}".strip(), where=self._at(name))
        return SourceUnreachable(
            "cannot be reached, or the connection was cut", where=self._where, fix="check the network and the address"
        )


class _AlreadyThere(Exception):
    """Something lies under this name."""


class _Precondition(Exception):
    """What lies under this name is not what was expected."""


def _entry(meta: Any) -> Entry:
    tag = f"{meta['e_tag'] or ''} {meta['version'] or ''}".strip()
    return Entry(str(meta["path"]), int(meta["size"]), meta["last_modified"], tag)


def _checked(chunks: Iterator[bytes], *, digest: Digest, size: int, progress: Callable[[int], None]) -> Iterator[bytes]:
    """Yield `chunks`; raise `BlobRefused` in place of the last one if they are not what was named."""
    hashing = hashlib.sha256()
    done = 0
    kept = b""
    for chunk in chunks:
        hashing.update(chunk)
        done += len(chunk)
        if done > size:
            raise BlobRefused(f"more than {size} bytes", reason=Reason.TOO_LARGE, where=str(digest))
        if kept:
            yield kept
        kept = chunk
        progress(done)
    if done < size:
        raise BlobRefused(f"ends after {done} of {size} bytes", reason=Reason.TRUNCATED, where=str(digest))
    if hashing.hexdigest() != digest.hex:
        raise BlobRefused(
            f"the bytes are sha256:{hashing.hexdigest()}", reason=Reason.DIGEST_MISMATCH, where=str(digest)
        )
    yield kept


def open_bucket(url: str) -> ObjectStore:
    """Return the bucket at `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`."""
    options: Any = {
        "timeout": f"{REQUEST_TIMEOUT_S}s",
        "connect_timeout": f"{CONNECT_TIMEOUT_S}s",
        "allow_http": _on_loopback(),
    }
    retry: Any = {"max_retries": RETRIES_MAX, "retry_timeout": RETRY_TIMEOUT}
    try:
        store = obstore.store.from_url(url, client_options=options, retry_config=retry)
    except (exceptions.BaseError, ValueError) as error:
        if url.startswith("az://") and "AZURE_STORAGE_ACCOUNT_NAME" not in os.environ:
            raise BadAddress(
                "it is not said whose container this is", where=url, fix="set AZURE_STORAGE_ACCOUNT_NAME"
            ) from error
        raise BadAddress(
            f"{url[:200]!r} is not an object store's address", fix="for example s3://bucket/depot"
        ) from error
    return ObjectStore(store, where=url.rstrip("/"))


def _on_loopback() -> bool:
    """Whether the environment names a store on this machine: only there is plain HTTP taken unasked."""
    given = next((v for k in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT") if (v := os.environ.get(k))), "")
    return re.match(r"http://(127\.0\.0\.1|localhost|\[::1\])[:/]", given + "/") is not None

"""A registry's blobs and manifests: the OCI distribution API, versions 1.0 and 1.1, as far as releases need it.

An upload is a conversation: `POST` opens it, `PATCH` adds a piece, `PUT` ends it with the digest, which the registry
checks. Each answer says where it goes on (`Location`) and how far it came (`Range`). When a piece is cut off, `GET`
asks how far it came, and the rest follows; the address is remembered outside, so that another process can go on too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from drupelet.core.errors import NotFound
from drupelet.core.names import Digest
from drupelet.core.states import Reason
from drupelet.depot.errors import BlobRefused, NoBlob, NoStore, SourceUnreachable, Taken
from drupelet.depot.http import read_blob
from drupelet.depot.oci.session import Session, read_whole
from drupelet.depot.ports import Source

PIECE_BYTES = 16 << 20
"""What is sent in one request, and at most sent again after a cut."""
CUTS_MAX = 5
"""Cuts in a row without a byte gained before an upload is given up, to be resumed by the next run."""
MANIFEST_BYTES_MAX = 4 << 20
"""The distribution spec's own recommendation."""
TAGS_MAX = 10_000
PAGES_MAX = 100

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_ACCEPTED = ", ".join(
    (
        MANIFEST,
        INDEX,
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
    )
)
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})\Z")
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as the registry has it."""

    data: bytes
    media_type: str
    digest: Digest

    def decoded(self) -> dict[str, Any]:
        """Return it as a mapping, or raise `SourceUnreachable`: whatever this is, it is no manifest."""
        try:
            value = msgspec.json.decode(self.data)
        except (msgspec.DecodeError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise SourceUnreachable("the answer is not a manifest", where=str(self.digest), fix="check the address")
        return value


class Uploads(Protocol):
    """Remembers where an upload goes on, for the next process."""

    def recall(self, key: str, /) -> str:
        """Return an upload's address, empty if there is none."""
        ...

    def remember(self, key: str, address: str, /) -> None:
        """Keep an address; empty forgets it."""
        ...


class Forgetful:
    """Remembers nothing. Implements `Uploads`."""

    def recall(self, _key: str, /) -> str:
        return ""

    def remember(self, _key: str, _address: str, /) -> None:
        """Nothing is kept."""


class Registry:
    """A repository in a registry. Implements `Source`: a device can fetch a blob by its digest from it."""

    def __init__(self, session: Session, *, uploads: Uploads | None = None, piece_bytes: int = PIECE_BYTES) -> None:
        self._session = session
        self._uploads = uploads or Forgetful()
        self._piece_bytes = piece_bytes
        self.repository = session.repository

    def has(self, digest: Digest) -> bool:
        """Whether the blob is in this repository."""
        try:
            with self._session.ask("HEAD", f"blobs/{digest}", wanted=(200,)):
                return True
        except NotFound:
            return False

    def open(self, digest: Digest, *, offset: int, size: int) -> Iterator[bytes]:
        """Yield the blob's bytes from `offset` on; see `Source.open`."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            with self._session.ask("GET", f"blobs/{digest}", wanted=(200, 206, 416), headers=headers) as response:
                yield from read_blob(response, f"{self.repository}@{digest}", offset=offset, size=size)
        except NotFound as error:
            if isinstance(error, NoBlob):
                raise
            raise NoBlob(
                f"{digest} is not in this repository", where=str(self.repository), fix="publish the release again"
            ) from error

    def read_blob(self, digest: Digest, *, size: int, bytes_max: int = MANIFEST_BYTES_MAX) -> bytes:
        """Return a small blob whole, compared with its digest."""
        if size > bytes_max:
            raise BlobRefused(
                f"{size} bytes where at most {bytes_max} are taken", reason=Reason.TOO_LARGE, where=str(digest)
            )
        data = b"".join(self.open(digest, offset=0, size=size))
        _refuse_other(data, digest, where=f"{self.repository}@{digest}")
        return data

    def mount(self, digest: Digest, *, source: str) -> bool:
        """Take a blob over from another repository of this registry without moving it; False if it does not."""
        address = f"blobs/uploads/?mount={digest}&from={source}"
        with self._session.ask(
            "POST",
            address,
            wanted=(201, 202),
            actions="pull,push",
            body=b"",
            fields=f"repository:{source}:pull",
        ) as response:
            if response.status == 201:
                return True
            self._uploads.remember(self._key(digest), response.headers.get("Location", ""))
            return False

    def put_blob(self, digest: Digest, source: Source, *, size: int, progress: Progress = lambda _: None) -> bool:
        """Send a blob; False if it was there. Raises `BlobRefused` if `source` yields something else.

        A cut connection is continued where it was cut; what stops this process is continued by the next call.
        """
        if self.has(digest):
            progress(size)
            return False
        key = self._key(digest)
        address, sent = self._taken_up(self._uploads.recall(key))
        if not address:
            address, sent = self._opened(), 0
        self._uploads.remember(key, address)
        hashing = hashlib.sha256()
        start = 0
        for piece in _pieces(source.open(digest, offset=0, size=size), self._piece_bytes):
            hashing.update(piece)
            end = start + len(piece)
            if end > sent:
                address = self._send_piece(address, piece, start=start, sent=max(start, sent), key=key)
                sent = end
            progress(end)
            start = end
        if start != size or hashing.hexdigest() != digest.hex:
            self._uploads.remember(key, "")
            reason = Reason.DIGEST_MISMATCH if start == size else Reason.TRUNCATED
            raise BlobRefused(f"{start} bytes of sha256:{hashing.hexdigest()}", reason=reason, where=str(digest))
        self._finish(address, digest)
        self._uploads.remember(key, "")
        return True

    def put_bytes(self, data: bytes) -> Digest:
        """Send a small blob."""
        digest = Digest.of_hex(hashlib.sha256(data).hexdigest())
        self.put_blob(digest, _Held({digest: data}), size=len(data))
        return digest

    def manifest(self, name: str) -> Manifest:
        """Return the manifest of a tag or digest; raises `NotFound`, and `BlobRefused` for another digest."""
        where = f"{self.repository}:{name}"
        try:
            with self._session.ask(
                "GET", f"manifests/{name}", wanted=(200,), headers={"Accept": _ACCEPTED}
            ) as response:
                data = read_whole(response, where, bytes_max=MANIFEST_BYTES_MAX)
                kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
        except NotFound as error:
            raise NotFound(
                "there is no such version in this repository, or no such repository", where=where, fix="check the name"
            ) from error
        digest = Digest.of_hex(hashlib.sha256(data).hexdigest())
        if name.startswith("sha256:") and name != digest.text:
            _refuse_other(data, Digest.parse(name), where=where)
        return Manifest(data, kind, digest)

    def put_manifest(self, data: bytes, *, media_type: str, tag: str = "") -> Digest:
        """Write a manifest under its digest, and under `tag`. Raises `BlobRefused` if another digest is confirmed."""
        digest = Digest.of_hex(hashlib.sha256(data).hexdigest())
        self._put_manifest(data, media_type=media_type, name=tag or digest.text, digest=digest)
        return digest

    def put_release_tag(self, data: bytes, *, media_type: str, tag: str) -> Digest:
        """Write a manifest under a tag that never changes. Raises `Taken` if it names something else."""
        digest = Digest.of_hex(hashlib.sha256(data).hexdigest())
        try:
            there = self.manifest(tag)
        except NotFound:
            there = None
        if there is not None and there.digest != digest:
            raise Taken(
                f"this version is there already, as {there.digest}",
                where=f"{self.repository}:{tag}",
                fix="give the release a new version",
            )
        if there is None:
            self._put_manifest(data, media_type=media_type, name=tag, digest=digest)
        return digest

    def attach(self, data: bytes, *, subject: Digest, descriptor: dict[str, Any]) -> None:
        """Write a manifest that refers to `subject`, findable by the referrers API or by the tag in its stead."""
        digest = Digest.of_hex(hashlib.sha256(data).hexdigest())
        handled = self._put_manifest(data, media_type=MANIFEST, name=digest.text, digest=digest)
        if handled:
            return
        # Distribution spec 1.1, "Referrers Tag Schema": the client keeps the list, two at once may lose an entry.
        tag = f"sha256-{subject.hex}"
        try:
            listed = self.manifest(tag).decoded().get("manifests", [])
        except NotFound:
            listed = []
        entry = {**descriptor, "mediaType": MANIFEST, "digest": digest.text, "size": len(data)}
        others = [one for one in listed if isinstance(one, dict) and one.get("digest") != digest.text]
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [*others, entry]}
        self.put_manifest(msgspec.json.encode(index, order="sorted"), media_type=INDEX, tag=tag)

    def referrers(self, subject: Digest) -> tuple[dict[str, Any], ...]:
        """Return the descriptors of what refers to `subject`."""
        where = f"{self.repository}@{subject}"
        try:
            with self._session.ask("GET", f"referrers/{subject}", wanted=(200,), headers={"Accept": INDEX}) as response:
                data = read_whole(response, where, bytes_max=MANIFEST_BYTES_MAX)
                found = Manifest(data, INDEX, subject)
        except NotFound:
            try:
                found = self.manifest(f"sha256-{subject.hex}")
            except NotFound:
                return ()
        listed = found.decoded().get("manifests", [])
        return tuple(one for one in listed if isinstance(one, dict)) if isinstance(listed, list) else ()

    def tags(self) -> tuple[str, ...]:
        """Return the repository's tags, in order, but for those that stand for referrers. Raises `NoStore`."""
        found: list[str] = []
        address = "tags/list?n=1000"
        for _ in range(PAGES_MAX):
            try:
                with self._session.ask("GET", address, wanted=(200,)) as response:
                    data = read_whole(response, str(self.repository), bytes_max=MANIFEST_BYTES_MAX)
                    more = _NEXT.search(response.headers.get("Link", ""))
            except NotFound as error:
                raise NoStore(
                    "there is no such repository", where=str(self.repository), fix="publish into it first"
                ) from error
            value = Manifest(data, "", Digest.of_hex("0" * 64)).decoded().get("tags") or []
            found += [tag for tag in value if isinstance(tag, str) and not tag.startswith("sha256-")]
            if more is None or len(found) > TAGS_MAX:
                break
            address = more.group(1)
        return tuple(sorted(found))

    def _key(self, digest: Digest) -> str:
        return f"{self.repository}@{digest}"

    def _opened(self) -> str:
        with self._session.ask("POST", "blobs/uploads/", wanted=(202,), actions="pull,push", body=b"") as response:
            return self._location(response.headers.get("Location", ""))

    def _location(self, text: str) -> str:
        if not text:
            raise SourceUnreachable("the registry does not say where the upload goes", where=str(self.repository))
        return self._session.url(text)

    def _taken_up(self, address: str) -> tuple[str, int]:
        """Return where an upload goes on and how many bytes it has; an empty address if it is not known any more."""
        if not address:
            return "", 0
        try:
            with self._session.ask("GET", self._location(address), wanted=(204,), actions="pull,push") as response:
                said = _RANGE.match(response.headers.get("Range", ""))
                count = int(said.group(1)) + 1 if said else 0
                # A registry says 0-0 for one byte and for none: begin with the first, which costs one byte.
                return self._location(response.headers.get("Location", "") or address), count if count > 1 else 0
        except (NotFound, SourceUnreachable):
            return "", 0

    def _send_piece(self, address: str, piece: bytes, *, start: int, sent: int, key: str) -> str:
        """Send what is missing of a piece that begins at `start`; return where the upload goes on."""
        end = start + len(piece)
        cuts = 0
        while sent < end:
            body = piece[sent - start :]
            headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{sent}-{end - 1}"}
            try:
                with self._session.ask(
                    "PATCH", address, wanted=(202,), actions="pull,push", headers=headers, body=body, again=False
                ) as response:
                    address = self._location(response.headers.get("Location", "") or address)
                    sent = end
            except SourceUnreachable:
                address, came = self._taken_up(address)
                cuts = 0 if came > sent else cuts + 1
                if not address or came < start or cuts >= CUTS_MAX:
                    raise
                sent = came
            self._uploads.remember(key, address)
        return address

    def _finish(self, address: str, digest: Digest) -> None:
        joined = f"{address}{'&' if '?' in address else '?'}digest={digest}"
        try:
            with self._session.ask(
                "PUT", joined, wanted=(201,), actions="pull,push", body=b"", again=False
            ) as response:
                said = response.headers.get("Docker-Content-Digest", digest.text)
        except (SourceUnreachable, NotFound):
            if not self.has(digest):  # it may be that only the answer was lost
                raise
            return
        if said != digest.text:
            raise BlobRefused(
                f"the registry confirms {said[:80]!r}",
                reason=Reason.DIGEST_MISMATCH,
                where=f"{self.repository}@{digest}",
            )

    def _put_manifest(self, data: bytes, *, media_type: str, name: str, digest: Digest) -> bool:
        """Write a manifest; return whether the registry says that it minds the subject."""
        with self._session.ask(
            "PUT",
            f"manifests/{name}",
            wanted=(201,),
            actions="pull,push",
            headers={"Content-Type": media_type},
            body=data,
        ) as response:
            said = response.headers.get("Docker-Content-Digest", digest.text)
            minded = "OCI-Subject" in response.headers
        if said != digest.text:
            raise BlobRefused(
                f"the registry confirms {said[:80]!r}", reason=Reason.DIGEST_MISMATCH, where=f"{self.repository}:{name}"
            )
        return minded


class _Held:
    """A source of blobs in memory."""

    def __init__(self, blobs: dict[Digest, bytes]) -> None:
        self._blobs = blobs

    def open(self, digest: Digest, *, offset: int, size: int) -> Iterator[bytes]:
        yield self._blobs[digest][offset:size]


def _pieces(chunks: Iterator[bytes], piece_bytes: int) -> Iterator[bytes]:
    """Yield `chunks` in pieces of `piece_bytes`, the last one shorter."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        while len(held) >= piece_bytes:
            yield bytes(held[:piece_bytes])
            del held[:piece_bytes]
    if held:
        yield bytes(held)


def _refuse_other(data: bytes, digest: Digest, *, where: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != digest.hex:
        raise BlobRefused(f"the bytes received are sha256:{found}", reason=Reason.DIGEST_MISMATCH, where=where)

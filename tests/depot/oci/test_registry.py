"""The client against Debian's docker-registry: uploads cut and continued, manifests, mounts, referrers."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from drupelet.core.errors import NotFound
from drupelet.core.names import Digest
from drupelet.core.states import Reason
from drupelet.depot import BlobRefused, Download, NoBlob
from drupelet.depot.errors import NoStore, Taken
from drupelet.depot.oci.registry import INDEX, MANIFEST, Registry
from drupelet.depot.oci.uploads import UploadsFile
from drupelet.durable import PosixDisk
from tests.depot.oci.conftest import registry
from tests.depot.test_stores import Bytes

DATA = random.Random(5).randbytes((1 << 20) * 3 + 77)
NAME = Digest.of_hex(hashlib.sha256(DATA).hexdigest())


def test_a_blob_goes_in_and_comes_out_from_any_byte(repository: str, tmp_path: Path) -> None:
    there = registry(repository)
    assert not there.has(NAME)
    with pytest.raises(NoBlob):
        next(there.open(NAME, offset=0, size=len(DATA)))
    seen: list[int] = []
    assert there.put_blob(NAME, Bytes(DATA), size=len(DATA), progress=seen.append)
    assert seen == [1 << 20, 2 << 20, 3 << 20, len(DATA)]
    assert not there.put_blob(NAME, Bytes(b""), size=len(DATA))
    part = tmp_path / "a.part"
    part.write_bytes(DATA[:200_000])
    with Download(there, PosixDisk(), part=part, digest=NAME, size=len(DATA), sync_bytes=65536) as download:
        while not download.step(1 << 20).finished:
            pass
    assert part.read_bytes() == DATA


@pytest.mark.parametrize(("size", "reason"), [(len(DATA) - 1, Reason.TOO_LARGE), (len(DATA) + 1, Reason.TRUNCATED)])
def test_a_blob_of_another_size_is_refused(repository: str, size: int, reason: Reason) -> None:
    there = registry(repository)
    there.put_blob(NAME, Bytes(DATA), size=len(DATA))
    with pytest.raises(BlobRefused) as caught:
        list(there.open(NAME, offset=10, size=size))
    assert caught.value.reason is reason


def test_wrong_bytes_never_appear_under_a_digest(repository: str) -> None:
    there = registry(repository)
    with pytest.raises(BlobRefused):
        there.put_blob(NAME, Bytes(DATA[:-1] + b"x"), size=len(DATA))
    assert not there.has(NAME)


class Died(Exception):
    """The process was killed."""


class Dies:
    """A source whose reader is killed after some bytes; counts what is read past `sent`."""

    def __init__(self, after: int) -> None:
        self.after = after

    def open(self, digest: Digest, *, offset: int, size: int) -> Iterator[bytes]:
        yield DATA[offset : self.after]
        raise Died


def test_an_upload_that_died_is_continued_by_the_next_process(repository: str, tmp_path: Path) -> None:
    uploads = UploadsFile(PosixDisk(), tmp_path / "cache" / "uploads.json")
    session = registry(repository)._session
    with pytest.raises(Died):
        Registry(session, uploads=uploads, piece_bytes=1 << 20).put_blob(NAME, Dies((2 << 20) + 5), size=len(DATA))
    assert (tmp_path / "cache" / "uploads.json").stat().st_mode & 0o077 == 0
    sent: list[int] = []
    ask = session.ask

    def counting(method: str, address: str, **more: object) -> object:
        if method == "PATCH":
            body = more["body"]
            assert isinstance(body, bytes)
            sent.append(len(body))
        return ask(method, address, **more)  # type: ignore[arg-type]

    session.ask = counting  # type: ignore[method-assign, assignment]
    assert Registry(session, uploads=uploads, piece_bytes=1 << 20).put_blob(NAME, Bytes(DATA), size=len(DATA))
    assert sent == [1 << 20, 77]  # what the first had sent is not sent again
    assert uploads.recall(f"{session.repository}@{NAME}") == ""


def test_an_upload_the_registry_forgot_begins_anew(repository: str, tmp_path: Path) -> None:
    uploads = UploadsFile(PosixDisk(), tmp_path / "uploads.json")
    there = Registry(registry(repository)._session, uploads=uploads, piece_bytes=1 << 20)
    base = f"http://{there.repository.host}/v2/{there.repository.name}"
    uploads.remember(
        f"{there.repository}@{NAME}", f"{base}/blobs/uploads/0b6f1f0e-0000-4000-8000-000000000000?_state=x"
    )
    assert there.put_blob(NAME, Bytes(DATA), size=len(DATA))


def test_a_damaged_memory_of_uploads_costs_bytes_only(repository: str, tmp_path: Path) -> None:
    path = tmp_path / "uploads.json"
    path.write_bytes(b"{")
    there = Registry(registry(repository)._session, uploads=UploadsFile(PosixDisk(), path))
    assert there.put_blob(NAME, Bytes(DATA), size=len(DATA))


def test_a_blob_is_mounted_from_another_repository(repository: str) -> None:
    here, there = registry(repository), registry(f"{repository}/prod")
    here.put_blob(NAME, Bytes(DATA), size=len(DATA))
    assert there.mount(NAME, source=here.repository.name)
    assert there.has(NAME)
    absent = Digest.of_hex("0" * 64)
    assert not there.mount(absent, source=here.repository.name)


def a_manifest(there: Registry, note: str) -> bytes:
    config = there.put_bytes(b"{}")
    return (
        b'{"schemaVersion":2,"mediaType":"%s","artifactType":"application/x-test","config":{"mediaType":'
        b'"application/vnd.oci.empty.v1+json","digest":"%s","size":2},"layers":[],"annotations":{"note":"%s"}}'
    ) % (MANIFEST.encode(), config.text.encode(), note.encode())


def test_a_manifest_by_tag_and_by_digest(repository: str) -> None:
    there = registry(repository)
    data = a_manifest(there, "first")
    digest = there.put_release_tag(data, media_type=MANIFEST, tag="1.0")
    assert there.manifest("1.0").data == data
    assert there.manifest(digest.text).media_type == MANIFEST
    assert there.put_release_tag(data, media_type=MANIFEST, tag="1.0") == digest
    with pytest.raises(Taken, match="give the release a new version"):
        there.put_release_tag(a_manifest(there, "second"), media_type=MANIFEST, tag="1.0")
    assert there.manifest("1.0").data == data
    with pytest.raises(NotFound, match="no such version"):
        there.manifest("1.1")
    assert there.tags() == ("1.0",)


def test_a_repository_that_is_not_there_has_no_tags(repository: str) -> None:
    with pytest.raises(NoStore, match="publish into it first"):
        registry(repository).tags()


def test_what_refers_is_found_by_the_tag_in_the_apis_stead(repository: str) -> None:
    there = registry(repository)
    subject = there.put_manifest(a_manifest(there, "subject"), media_type=MANIFEST, tag="1.0")
    assert there.referrers(subject) == ()
    for note in ("first", "second", "first"):
        there.attach(a_manifest(there, note), subject=subject, descriptor={"artifactType": f"application/x-{note}"})
    assert sorted(one["artifactType"] for one in there.referrers(subject)) == [
        "application/x-first",
        "application/x-second",
    ]
    assert there.manifest(f"sha256-{subject.hex}").media_type == INDEX
    assert there.tags() == ("1.0",)

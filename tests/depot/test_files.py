"""A depot that is a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from drupelet.core.errors import NotFound
from drupelet.core.names import Digest
from drupelet.core.states import Reason
from drupelet.depot import BlobRefused, FilesDepot, NoBlob
from drupelet.durable import PosixDisk
from tests.depot.conftest import BLOB, DIGEST

ABSENT = Digest.parse("sha256:" + "0" * 64)


def test_a_blob_lies_under_its_digest(depot: FilesDepot, tmp_path: Path) -> None:
    assert depot.has(DIGEST)
    assert depot.path(DIGEST) == tmp_path / "depot" / "blobs" / "sha256" / DIGEST.hex[:2] / DIGEST.hex
    assert depot.path(DIGEST).read_bytes() == BLOB
    assert depot.check(DIGEST) == len(BLOB)
    assert list(depot.digests()) == [DIGEST]
    assert not depot.has(ABSENT)


def test_putting_it_again_changes_nothing(depot: FilesDepot, tmp_path: Path) -> None:
    inode = depot.path(DIGEST).stat().st_ino
    assert depot.put(tmp_path / "model.gguf") == (DIGEST, len(BLOB))
    assert depot.path(DIGEST).stat().st_ino == inode
    assert list((tmp_path / "depot" / "incoming").iterdir()) == []


def test_a_blob_that_is_expected_and_there_is_not_copied_again(
    depot: FilesDepot, disk: PosixDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.gguf"
    other.write_bytes(BLOB[1:])
    found, size = depot.put(other, expected=DIGEST)
    assert found != DIGEST
    assert depot.has(found)
    assert size == len(BLOB) - 1
    monkeypatch.setattr(disk, "part", lambda path: pytest.fail(f"{path} is written"))
    assert depot.put(tmp_path / "model.gguf", expected=DIGEST) == (DIGEST, len(BLOB))


def test_what_was_left_by_a_publisher_that_died_is_not_taken_up(tmp_path: Path, disk: PosixDisk) -> None:
    source = tmp_path / "model.gguf"
    source.write_bytes(BLOB)
    depot = FilesDepot(disk, tmp_path / "depot")
    part = disk.part

    def dirty(path: Path) -> object:
        with part(path) as file:
            file.write(b"left over")
        return part(path)

    disk.part = dirty  # type: ignore[method-assign, assignment]
    assert depot.put(source) == (DIGEST, len(BLOB))
    assert depot.check(DIGEST) == len(BLOB)


def test_reading_from_the_middle(depot: FilesDepot) -> None:
    assert b"".join(depot.open(DIGEST, offset=1000, size=len(BLOB))) == BLOB[1000:]


@pytest.mark.parametrize(("size", "reason"), [(len(BLOB) - 1, Reason.TOO_LARGE), (len(BLOB) + 1, Reason.TRUNCATED)])
def test_a_blob_of_another_size_is_refused(depot: FilesDepot, size: int, reason: Reason) -> None:
    with pytest.raises(BlobRefused) as caught:
        next(depot.open(DIGEST, offset=0, size=size))
    assert caught.value.reason is reason


def test_a_damaged_blob_is_found(depot: FilesDepot) -> None:
    depot.path(DIGEST).chmod(0o644)
    depot.path(DIGEST).write_bytes(b"x" + BLOB[1:])
    with pytest.raises(BlobRefused) as caught:
        depot.check(DIGEST)
    assert caught.value.reason is Reason.DIGEST_MISMATCH


def test_what_is_not_there_is_said(depot: FilesDepot, tmp_path: Path) -> None:
    with pytest.raises(NoBlob):
        depot.check(ABSENT)
    with pytest.raises(NoBlob):
        next(depot.open(ABSENT, offset=0, size=1))
    with pytest.raises(NotFound):
        depot.put(tmp_path / "no such file")

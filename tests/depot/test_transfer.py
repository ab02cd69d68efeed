"""Whole depots from here to there, interrupted, contradicted and damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import obstore.store
import pytest

from drupelet.core.errors import BadInput, NotFound
from drupelet.core.names import Digest
from drupelet.depot import BlobRefused, blob_path
from drupelet.depot.errors import ChangedMeanwhile, InUse, Taken
from drupelet.depot.folder import FolderStore
from drupelet.depot.objects import ObjectStore
from drupelet.depot.places import open_store
from drupelet.depot.ports import TIMESTAMP, Entry, Source, Store
from drupelet.depot.transfer import Copied, copy_depot
from drupelet.durable import PosixDisk
from drupelet.trust import KeyRing
from tests.depot.test_stores import AZURE
from tests.fakes.released import Publisher


@pytest.fixture
def publisher(tmp_path: Path, real_ring: KeyRing) -> Publisher:
    found = Publisher(tmp_path / "depot", real_ring)
    found.release("1.0", 1, 2)
    return found


@pytest.fixture(params=["folder", "s3", *AZURE, "obstore memory"])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    match request.param:
        case "folder":
            return FolderStore(PosixDisk(), tmp_path / "there")
        case "s3":
            return open_store(request.getfixturevalue("bucket"))
        case "azure":
            return open_store(request.getfixturevalue("container"))
        case _:
            return ObjectStore(obstore.store.MemoryStore(), where="memory://")


def copy(source: Store, destination: Store) -> Copied:
    return copy_depot(source, destination, holder="a test", progress=lambda *_: None)


def content(store: Store) -> dict[str, bytes]:
    names = [e.name for e in store.entries() if not e.name.startswith((".", "incoming"))]
    return {name: store.read(name, bytes_max=1 << 24) for name in names}


def test_what_arrives_is_what_was_sent_and_comes_back_the_same(
    publisher: Publisher, there: Store, tmp_path: Path
) -> None:
    first = copy(publisher.store, there)
    assert content(there) == content(publisher.store)
    again = copy(publisher.store, there)
    assert (again.files, again.there) == (0, first.files - 1)
    publisher.release("1.1", 3)
    assert copy(publisher.store, there).files == 1 + 1 + 3  # blob, manifest, family, snapshot, timestamp
    back = FolderStore(PosixDisk(), tmp_path / "back")
    copy(there, back)
    assert content(back) == content(publisher.store)


class Stops:
    """A store that stops after some writes, as a process that was killed."""

    def __init__(self, store: Store, *, after: int) -> None:
        self.store = store
        self.left = after

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)

    def _spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt

    def create(self, name: str, data: bytes) -> bool:
        self._spend()
        return self.store.create(name, data)

    def put_blob(self, digest: Digest, source: Source, *, size: int, progress: Callable[[int], None]) -> None:
        self._spend()
        self.store.put_blob(digest, source, size=size, progress=progress)

    def replace(self, name: str, data: bytes, *, was: Entry | None) -> None:
        self._spend()
        self.store.replace(name, data, was=was)

    def remove(self, name: str) -> None:
        self._spend()
        self.store.remove(name)


def test_wherever_it_stops_a_reader_finds_a_whole_depot_and_the_next_run_goes_on(
    publisher: Publisher, there: Store
) -> None:
    copy(publisher.store, there)
    before = there.read(TIMESTAMP, bytes_max=10_000)
    publisher.release("1.1", 3, 4)
    for after in range(10):
        try:
            copied = copy(publisher.store, Stops(there, after=after))  # type: ignore[arg-type]
        except KeyboardInterrupt:
            assert there.read(TIMESTAMP, bytes_max=10_000) == before
            continue
        assert copied.files <= after
        break
    assert content(there) == content(publisher.store)


def test_a_depot_that_is_ahead_is_not_taken_back(publisher: Publisher, there: Store, tmp_path: Path) -> None:
    copy(publisher.store, there)
    old = FolderStore(PosixDisk(), tmp_path / "old")
    copy(publisher.store, old)
    publisher.release("1.1", 3)
    copy(publisher.store, there)
    now = content(there)
    with pytest.raises(ChangedMeanwhile, match="pull it first"):
        copy(old, there)
    assert content(there) == now


def test_two_publishers_of_one_depot_do_not_overwrite_each_other(
    publisher: Publisher, there: Store, tmp_path: Path
) -> None:
    copy(publisher.store, there)
    copy(there, FolderStore(PosixDisk(), tmp_path / "other"))
    other = Publisher(tmp_path / "other", publisher.keys)
    publisher.release("1.1", 3)
    other.release("1.1", 4)
    other.images.refresh_timestamp()
    copy(publisher.store, there)
    now = content(there)
    with pytest.raises(Taken, match="other bytes"):
        copy(other.store, there)
    assert content(there)[TIMESTAMP] == now[TIMESTAMP]


def test_a_damaged_blob_does_not_travel(publisher: Publisher, there: Store) -> None:
    digest = publisher.put(7)
    path = publisher.folder / blob_path(digest)
    path.chmod(0o644)
    path.write_bytes(bytes(5000))
    with pytest.raises(BlobRefused, match="not what its name says"):
        copy(publisher.store, there)
    assert there.entry(blob_path(digest)) is None
    assert there.entry(TIMESTAMP) is None


def test_a_blob_of_another_size_there_is_said(publisher: Publisher, there: Store) -> None:
    digest = publisher.put(1)
    there.create(blob_path(digest), b"short")
    with pytest.raises(Taken, match="drupelet depot check"):
        copy(publisher.store, there)


def test_what_a_publisher_that_died_left_is_not_copied(publisher: Publisher, there: Store) -> None:
    """The next publisher writes another file under that name, which could then not be sent."""
    left = publisher.folder / "metadata" / "9.kiosk.json"
    left.write_bytes(b"of a publisher that died")
    (publisher.folder / "incoming").mkdir(exist_ok=True)
    (publisher.folder / "incoming" / "1.part").write_bytes(b"x")
    (publisher.folder / "private.txt").write_bytes(b"x")
    (publisher.folder / "metadata" / "link.json").symlink_to(publisher.folder / "private.txt")
    copy(publisher.store, there)
    names = {e.name for e in there.entries() if not e.name.startswith(".")}
    assert names.isdisjoint({"metadata/9.kiosk.json", "incoming/1.part", "private.txt", "metadata/link.json"})


def test_a_publisher_that_died_is_named_until_the_depot_is_unlocked(publisher: Publisher, bucket: str) -> None:
    there = open_store(bucket)
    assert isinstance(there, ObjectStore)
    there.create(".publishing", b"drupelet depot push, pid 7 on ci")
    with pytest.raises(InUse, match=r"pid 7 on ci.*drupelet depot unlock s3://"):
        copy(publisher.store, there)
    assert there.unlock()
    assert not there.unlock()
    copy(publisher.store, there)


def test_a_folder_that_is_no_depot_is_said(tmp_path: Path, there: Store) -> None:
    empty = FolderStore(PosixDisk(), tmp_path / "empty")
    with pytest.raises(NotFound, match="not a depot"):
        copy(empty, there)
    empty.create(TIMESTAMP, b"{}")
    with pytest.raises(BadInput, match="not TUF metadata"):
        copy(empty, there)
    assert there.entry(TIMESTAMP) is None

"""Garbage collection: what a signed manifest names is never removed, whatever happens."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import obstore.store
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drupelet.cli.compose.collect import collect, vouched_in
from drupelet.core.errors import BadInput
from drupelet.core.names import Digest
from drupelet.core.states import Reason
from drupelet.depot.errors import InUse, NoBlob
from drupelet.depot.objects import ObjectStore
from drupelet.depot.places import open_store
from drupelet.depot.ports import TIMESTAMP, Entry, Store, blob_path
from drupelet.depot.transfer import copy_depot
from drupelet.durable import Locked, PosixDisk
from drupelet.trust import KeyRing, NotTrusted
from drupelet.trust.errors import AlreadyThere, RepositoryMissing
from tests.depot.test_transfer import Stops
from tests.fakes.released import Publisher

WEEK = timedelta(days=7)


@pytest.fixture
def publisher(tmp_path: Path, real_ring: KeyRing) -> Publisher:
    return Publisher(tmp_path / "depot", real_ring)


def gc(
    publisher: Publisher,
    *,
    store: Store | None = None,
    keep: timedelta = WEEK,
    revoked: bool = False,
    dry_run: bool = False,
    now: datetime | None = None,
) -> tuple[Entry, ...]:
    return collect(
        store or publisher.store,
        root=publisher.keys.image_root,
        now=now or datetime.now(UTC),
        keep=keep,
        revoked=revoked,
        dry_run=dry_run,
        holder="a test",
    )


def test_garbage_goes_and_what_is_named_stays(publisher: Publisher) -> None:
    named = publisher.release("1.0", 1, 2)
    stray = publisher.put(3)
    (publisher.folder / "incoming").mkdir(exist_ok=True)
    (publisher.folder / "incoming" / "99-1.part").write_bytes(b"half")
    assert gc(publisher) == ()  # too young
    publisher.age(days=8)
    assert len(gc(publisher, dry_run=True)) == 2
    assert publisher.has(stray)
    assert [entry.name[-64:] for entry in gc(publisher)] == [stray.hex, "incoming/99-1.part"]
    assert not publisher.has(stray)
    assert all(publisher.has(digest) for digest in named)
    assert gc(publisher, keep=timedelta()) == ()


def test_a_revoked_release_stays_until_it_is_asked_for(publisher: Publisher) -> None:
    kept, shared = publisher.release("1.0", 1, 2)
    gone, _ = publisher.release("1.1", 3, 2)
    publisher.revoke("1.1")
    publisher.age(days=8)
    assert gc(publisher) == ()
    removed = [entry.name for entry in gc(publisher, revoked=True)]
    assert len(removed) == 2
    assert [publisher.has(digest) for digest in (kept, shared, gone)] == [True, True, False]
    assert not list((publisher.folder / "targets" / "kiosk" / "1.1").iterdir())


def test_a_digest_in_any_field_of_a_signed_file_counts(publisher: Publisher) -> None:
    """A newer version may name blobs in fields this one does not know, and JSON may write them as escapes."""
    plain, escaped, stray = publisher.put(1), publisher.put(2), publisher.put(3)
    hidden = "".join(f"\\u{ord(letter):04x}" for letter in escaped.text)
    text = f'{{"new": {{"field": ["{plain.text}", "{hidden}"]}}}}'
    assert json.loads(text)["new"]["field"][1] == escaped.text
    publisher.images.add_target("kiosk/2.0/statement.json", text.encode())
    publisher.age(days=8)
    gc(publisher, revoked=True)
    assert [publisher.has(digest) for digest in (plain, escaped, stray)] == [True, True, False]


def damage_timestamp(publisher: Publisher) -> None:
    path = publisher.folder / "metadata" / "timestamp.json"
    signed = json.loads(path.read_text())
    signed["signed"]["version"] += 1
    path.write_text(json.dumps(signed))


def remove_snapshot(publisher: Publisher) -> None:
    (publisher.folder / "metadata" / "2.snapshot.json").unlink()


def remove_manifest(publisher: Publisher) -> None:
    next((publisher.folder / "targets").rglob("*.manifest.json")).unlink()


def change_manifest(publisher: Publisher) -> None:
    path = next((publisher.folder / "targets").rglob("*.manifest.json"))
    path.write_bytes(path.read_bytes().replace(b"kiosk", b"k0isk"))


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (damage_timestamp, NotTrusted),
        (remove_snapshot, RepositoryMissing),
        (remove_manifest, RepositoryMissing),
        (change_manifest, NotTrusted),
    ],
)
def test_a_depot_that_cannot_say_what_it_names_is_left_alone(
    publisher: Publisher, damage: object, error: type[Exception]
) -> None:
    publisher.release("1.0", 1)
    stray = publisher.put(3)
    assert callable(damage)
    damage(publisher)
    publisher.age(days=8)
    for revoked in (False, True):
        with pytest.raises(error):
            gc(publisher, revoked=revoked)
    assert publisher.has(stray)


def test_signatures_of_somebody_else_or_expired_ones_are_none(publisher: Publisher, tmp_path: Path) -> None:
    publisher.release("1.0", 1)
    stray = publisher.put(3)
    publisher.age(days=8)
    other = KeyRing.create(
        publisher.disk, tmp_path / "other", families=["kiosk"], passphrase=lambda: "x" * 20, now=datetime.now(UTC)
    )
    with pytest.raises(NotTrusted) as caught:
        collect(
            publisher.store,
            root=other.image_root,
            now=datetime.now(UTC),
            keep=WEEK,
            revoked=False,
            dry_run=False,
            holder="a test",
        )
    assert caught.value.reason is Reason.UNSIGNED
    with pytest.raises(NotTrusted) as caught:
        gc(publisher, now=datetime.now(UTC) + timedelta(days=40))
    assert caught.value.reason is Reason.EXPIRED
    with pytest.raises(BadInput, match="not a TUF root"):
        vouched_in(publisher.store, root=b"{}", now=datetime.now(UTC))
    assert publisher.has(stray)


def test_an_old_timestamp_put_back_does_not_look_like_a_revocation(publisher: Publisher) -> None:
    publisher.release("1.0", 1)
    path = publisher.folder / "metadata" / "timestamp.json"
    old = path.read_bytes()
    newest = publisher.release("1.1", 2)
    path.write_bytes(old)
    publisher.age(days=8)
    with pytest.raises(NotTrusted, match="old timestamp") as caught:
        gc(publisher, revoked=True)
    assert caught.value.reason is Reason.REPLAYED
    assert gc(publisher) == ()
    assert publisher.has(newest[0])


def test_a_publisher_and_a_collector_keep_each_other_out(publisher: Publisher) -> None:
    publisher.release("1.0", 1)
    with publisher.store.exclusive("a publisher"), pytest.raises(Locked, match="a publisher"):
        gc(publisher)


def test_a_bucket_is_collected_by_the_same_rule(publisher: Publisher, bucket: str) -> None:
    named = publisher.release("1.0", 1)
    gone = publisher.release("1.1", 2)
    stray = publisher.put(3)
    publisher.revoke("1.1")
    store = open_store(bucket)
    copy_depot(publisher.store, store, holder="a test", progress=lambda *_: None)
    assert gc(publisher, store=store) == ()
    assert [e.name[-64:] for e in gc(publisher, store=store, keep=timedelta())] == [stray.hex]
    assert gone[0].hex in {e.name[-64:] for e in gc(publisher, store=store, keep=timedelta(), revoked=True)}
    assert {e.name[-64:] for e in store.entries("blobs")} == {named[0].hex}
    assert hashlib.sha256(b"".join(store.open(named[0], offset=0, size=5000))).hexdigest() == named[0].hex
    with store.exclusive("a push"), pytest.raises(InUse, match="a push"):
        gc(publisher, store=store)


class Crash(Exception):
    """The power goes."""


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["publish", "revoke", "gc", "gc --revoked", "put", "age", "collected in between"]),
        st.integers(0, 5),  # which release
        st.integers(0, 12),  # after how many durable writes the power goes; 12 is never here
    ),
    min_size=3,
    max_size=14,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_no_history_of_publishing_revoking_collecting_and_crashing_loses_a_named_blob(
    tmp_path_factory: pytest.TempPathFactory, real_ring: KeyRing, actions: list[tuple[str, int, int]]
) -> None:
    disk = CrashingDisk(folder_mode=0o755)
    publisher = Publisher(tmp_path_factory.mktemp("gc") / "depot", real_ring, disk)
    for action, which, power in actions:
        disk.left = power if power < 12 else 1_000_000
        try:
            act(publisher, action, which)
        except (Crash, AlreadyThere):
            pass
        except NotTrusted:
            # Refusing loses nothing; after a crash between snapshot and timestamp it is what --revoked does.
            assert action == "gc --revoked"
        disk.left = 1_000_000
        for one in vouched_in(publisher.store, root=real_ring.image_root, now=datetime.now(UTC)):
            text = publisher.store.read(f"targets/{one.targets[0].url_path}", bytes_max=1 << 20)
            for variant in json.loads(text)["variants"]:
                assert publisher.has(Digest.parse(variant["digest"])), (one.release, actions)


def act(publisher: Publisher, action: str, which: int) -> None:
    """Do one thing; two releases share the blob between them, as variants that did not change do."""
    match action:
        case "publish":
            digests = [publisher.put(which), publisher.put(which + 1)]
            publisher.images.add_release(
                publisher.manifest(f"1.{which}", digests), ready=lambda: require(publisher, digests)
            )
        case "revoke":
            signed = [release.path for release, _ in publisher.images.releases()]
            if f"kiosk/1.{which}" in signed:
                publisher.revoke(f"1.{which}")
        case "put":
            publisher.put(which)
        case "collected in between":
            digests = [publisher.put(which)]
            gc(publisher, keep=timedelta())
            with suppress(NoBlob):
                publisher.images.add_release(
                    publisher.manifest(f"2.{which}", digests), ready=lambda: require(publisher, digests)
                )
        case "age":
            publisher.age(days=30)
        case _:
            gc(publisher, revoked=action.endswith("--revoked"))


def require(publisher: Publisher, digests: list[Digest]) -> None:
    for digest in digests:
        if not publisher.has(digest):
            raise NoBlob("collected")


class CrashingDisk(PosixDisk):
    """A disk under a machine whose power goes before the next durable write, once `left` are done."""

    left = 1_000_000

    def _spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Crash

    def replace(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        self._spend()
        super().replace(path, data, mode=mode)

    def publish(self, part: Path, final: Path, *, mode: int = 0o444) -> None:
        self._spend()
        super().publish(part, final, mode=mode)

    def remove(self, path: Path) -> None:
        self._spend()
        super().remove(path)


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["publish", "revoke", "push", "push", "gc", "gc --revoked"]),
        st.integers(0, 4),  # which release
        st.integers(0, 14),  # after how many writes to the bucket the process is killed; 14 is never here
    ),
    min_size=3,
    max_size=12,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=MOVES)
def test_no_history_of_pushing_being_killed_and_collecting_loses_a_named_blob_of_a_bucket(
    tmp_path_factory: pytest.TempPathFactory, real_ring: KeyRing, moves: list[tuple[str, int, int]]
) -> None:
    """Nothing is too young to be collected here: the lock and the order of writing alone must do."""
    publisher = Publisher(tmp_path_factory.mktemp("gc") / "depot", real_ring)
    bucket = ObjectStore(obstore.store.MemoryStore(), where="memory://")
    for move, which, power in moves:
        stopping = cast(Store, Stops(bucket, after=power if power < 14 else 1_000_000))
        try:
            match move:
                case "publish":
                    publisher.release(f"1.{which}", which, which + 1)
                case "revoke":
                    if f"kiosk/1.{which}" in [release.path for release, _ in publisher.images.releases()]:
                        publisher.revoke(f"1.{which}")
                case "push":
                    copy_depot(publisher.store, stopping, holder="a push", progress=lambda *_: None)
                case _ if bucket.entry(TIMESTAMP) is not None:
                    gc(publisher, store=stopping, keep=timedelta(), revoked=move.endswith("--revoked"))
        except (KeyboardInterrupt, NotTrusted):
            bucket.unlock()
        if bucket.entry(TIMESTAMP) is None:
            continue
        for one in vouched_in(bucket, root=real_ring.image_root, now=datetime.now(UTC)):
            text = bucket.read(f"targets/{one.targets[0].url_path}", bytes_max=1 << 20)
            for variant in json.loads(text)["variants"]:
                assert bucket.entry(blob_path(Digest.parse(variant["digest"]))) is not None, (one.release, moves)

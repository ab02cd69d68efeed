"""Keys and families come and go: devices follow a root that the old keys signed, and forget what revoked keys say."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tuf.api.metadata import Metadata, Root

from drupelet.core.errors import BadInput
from drupelet.core.names import ReleaseId
from drupelet.core.states import Reason
from drupelet.durable import PosixDisk
from drupelet.trust import Director, ImageRepository, KeyRing, NotTrusted
from drupelet.trust.errors import AlreadyThere, NoKey, RoleExpired, SignaturesMissing
from drupelet.trust.keys import ROOT_LIFETIME
from drupelet.trust.ring import (
    parse_role,
    read_ring,
    with_family,
    with_key,
    with_threshold,
    without_family,
    without_key,
)
from drupelet.trust.roles import make_snapshot, make_targets, make_timestamp, meta_of, sign
from drupelet.trust.sittings import countersign, look, rotate_director
from tests.fakes.trust_world import NOON, PASSPHRASE, TrustWorld, a_manifest

OLD_RING = Path(__file__).parent / "fixtures" / "ring-1"
RELEASE = ReleaseId.parse("kiosk/1.1")


@pytest.fixture
def world(tmp_path: Path, shared_keys: KeyRing) -> TrustWorld:
    """A world whose ring may be changed, with a release on it."""
    shutil.copytree(shared_keys.folder, tmp_path / "keys")
    world = TrustWorld(tmp_path, ring(tmp_path))
    world.release("1.1")
    return world


def ring(tmp_path: Path, name: str = "keys") -> KeyRing:
    return KeyRing(PosixDisk(), tmp_path / name, passphrase=lambda: PASSPHRASE)


def replace_key(keys: KeyRing, role: str, old: str) -> None:
    repository, _, what = role.partition("/")
    made = keys.make(repository, what)  # type: ignore[arg-type]
    keys.change(without_key(with_key(keys.info, made), old))


def root(keys: KeyRing) -> Root:
    return Metadata[Root].from_bytes(keys.image_root).signed


def test_a_ring_and_a_repository_that_agree_need_nothing(world: TrustWorld) -> None:
    assert world.images.rotate() == ()


def test_a_familys_key_is_replaced_and_the_old_one_is_nobody(world: TrustWorld) -> None:
    device = world.device()
    device.images.release(RELEASE)
    stolen = world.keys.signer("image-family-kiosk")
    replace_key(world.keys, "image/kiosk", "image-family-kiosk")
    assert world.images.rotate() == ("targets", "kiosk")
    assert device.images.release(RELEASE).manifest == a_manifest("1.1")
    world.release("1.2")
    assert device.images.release(ReleaseId.parse("kiosk/1.2")).manifest == a_manifest("1.2")

    # The thief signs on with the revoked key, and even has the snapshot and timestamp keys.
    metadata = world.network.depot / "metadata"
    evil = make_targets(version=9, now=NOON, expires=NOON + timedelta(days=9), targets=[])
    data = sign(evil, [stolen])
    (metadata / "9.kiosk.json").write_bytes(data)
    meta = {
        "targets.json": meta_of((metadata / "2.targets.json").read_bytes(), version=2),
        "sign.json": meta_of((metadata / "1.sign.json").read_bytes(), version=1),
        "kiosk.json": meta_of(data, version=9),
    }
    snapshot = make_snapshot(meta, version=9, now=NOON, expires=NOON + timedelta(days=9))
    signed = sign(snapshot, [world.keys.signer("image-snapshot")])
    (metadata / "9.snapshot.json").write_bytes(signed)
    timestamp = make_timestamp(meta_of(signed, version=9), version=9, now=NOON, expires=NOON + timedelta(days=9))
    (metadata / "timestamp.json").write_bytes(sign(timestamp, [world.keys.signer("image-timestamp")]))
    with pytest.raises(NotTrusted) as caught:
        device.images.release(RELEASE)
    assert caught.value.reason is Reason.UNSIGNED
    with pytest.raises(NotTrusted, match="not signed by these keys"):
        world.release("1.3")


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_a_top_level_key_is_replaced_through_a_new_root(world: TrustWorld, role: str) -> None:
    device = world.device()
    device.images.release(RELEASE)
    replace_key(world.keys, f"image/{role}", f"image-{role}")
    done = world.images.rotate()
    assert done[0] == "root 2"
    assert root(world.keys).version == 2
    assert device.images.release(RELEASE).manifest == a_manifest("1.1")
    world.release("1.2")
    assert device.images.release(ReleaseId.parse("kiosk/1.2")).manifest == a_manifest("1.2")
    late = world.device("late")
    assert late.images.release(RELEASE).manifest == a_manifest("1.1"), "a device that knows the first root follows too"
    assert world.images.rotate() == ()


def test_an_expired_root_is_signed_anew_and_devices_go_on(world: TrustWorld) -> None:
    device = world.device()
    for _ in range(6):
        device.images.release(RELEASE)
        world.clock += timedelta(days=330)
        world.images.renew()
    with pytest.raises(NotTrusted) as caught:
        device.images.release(RELEASE)
    assert caught.value.reason is Reason.EXPIRED
    assert "drupelet depot renew" in caught.value.fix
    with pytest.raises(RoleExpired, match=r"the root expired on 2031-11-22; .*--renew-roots"):
        world.release("1.2")
    assert world.images.rotate(renew_root=True) == ("root 2", "targets")
    assert device.images.release(RELEASE).manifest == a_manifest("1.1")
    assert rotate_director(PosixDisk(), world.keys, now=world.clock, lifetime=ROOT_LIFETIME, renew=True) == 2


def test_nothing_is_published_below_targets_that_have_expired(world: TrustWorld) -> None:
    world.clock += timedelta(days=380)
    world.images.refresh_timestamp()
    world.clock += timedelta(days=380)
    with pytest.raises(RoleExpired, match=r"the targets role expired .*renew DEPOT --keys KEYS --everything") as caught:
        world.release("1.2")
    assert caught.value.exit_code == 5
    world.images.renew()
    world.release("1.2")


def test_a_root_key_is_replaced_by_two_of_the_old_three(world: TrustWorld, tmp_path: Path) -> None:
    device = world.device()
    device.images.release(RELEASE)
    (tmp_path / "keys" / "private" / "image-root-3.pem").unlink()
    keys = ring(tmp_path)
    replace_key(keys, "image/root", "image-root-3")
    images = ImageRepository(world.disk, world.network.depot, keys, world.now)
    assert images.rotate()[0] == "root 2"
    assert {keys.info.called(keyid) for keyid in root(keys).roles["root"].keyids} == {
        "image-root-1",
        "image-root-2",
        "image-root-4",
    }
    assert device.images.release(RELEASE).manifest == a_manifest("1.1")
    assert sorted(keys.image_roots) == [1, 2]


def test_a_new_root_is_signed_in_several_sittings(world: TrustWorld, tmp_path: Path) -> None:
    safe = tmp_path / "safe"
    safe.mkdir()
    for number in (2, 3):
        name = f"image-root-{number}.pem"
        (tmp_path / "keys" / "private" / name).rename(safe / name)
    keys = ring(tmp_path)
    replace_key(keys, "image/snapshot", "image-snapshot")
    images = ImageRepository(world.disk, world.network.depot, keys, world.now)
    with pytest.raises(SignaturesMissing, match="image-root has 1 of 2 signatures") as caught:
        images.rotate()
    assert set(caught.value.missing) == {"image-root-2", "image-root-3"}
    assert not (world.network.depot / "metadata" / "2.root.json").exists()
    assert root(keys).version == 1

    shutil.copytree(tmp_path / "keys", tmp_path / "second", ignore=shutil.ignore_patterns("private"))
    (tmp_path / "second" / "private").mkdir(mode=0o700)
    (safe / "image-root-2.pem").rename(tmp_path / "second" / "private" / "image-root-2.pem")
    second = ring(tmp_path, "second")
    path = tmp_path / "second" / "pending" / "image-root.json"
    sitting = look(PosixDisk(), path, keys=second, now=world.clock)
    assert sitting.role == "image/root"
    assert "root: 2 of image-root-1, image-root-2, image-root-3" in sitting.says
    assert countersign(PosixDisk(), sitting, keys=second) == ("image-root-2",)
    shutil.copy(path, tmp_path / "keys" / "pending" / "image-root.json")
    assert images.rotate()[0] == "root 2"
    assert world.device().images.release(RELEASE).manifest == a_manifest("1.1")


def test_a_threshold_is_raised_and_holds(world: TrustWorld, tmp_path: Path) -> None:
    keys = world.keys
    keys.change(with_key(keys.info, keys.make("image", "kiosk")))
    keys.change(with_threshold(keys.info, "image/kiosk", 2))
    assert world.images.rotate() == ("targets", "kiosk")
    assert world.device().images.release(RELEASE).manifest == a_manifest("1.1")
    (tmp_path / "keys" / "private" / "image-family-kiosk.pem").unlink()
    images = ImageRepository(world.disk, world.network.depot, ring(tmp_path), world.now)
    with pytest.raises(SignaturesMissing, match="kiosk has 1 of 2"):
        images.add_release(a_manifest("1.2"))


def test_families_come_and_go(world: TrustWorld) -> None:
    keys = world.keys
    keys.change(with_family(keys.info, "runtime"))
    with pytest.raises(BadInput, match="nobody signs for the family runtime"):
        world.images.rotate()
    keys.change(with_key(keys.info, keys.make("image", "runtime", name="image-family-runtime")))
    assert world.images.rotate() == ("targets", "runtime")
    world.images.add_target("runtime/0.2/runtime.json", b"{}")
    device = world.device()
    assert device.images.target("runtime/0.2/runtime.json", bytes_max=9)[1] == b"{}"
    keys.change(without_family(keys.info, "runtime"))
    assert world.images.rotate() == ("targets",)
    with pytest.raises(NotTrusted):
        device.images.look_up("runtime/0.2/runtime.json")
    assert device.images.release(RELEASE).manifest == a_manifest("1.1")
    keys.change(with_key(with_family(keys.info, "runtime"), keys.make("image", "runtime", name="image-runtime-2")))
    world.images.rotate()
    with pytest.raises(NotTrusted):
        device.images.look_up("runtime/0.2/runtime.json")


def test_the_directors_online_key_is_replaced_and_devices_follow(world: TrustWorld) -> None:
    target = world.release("1.2")
    world.command(target, serial=1)
    device = world.device()
    device.refresh_director()
    replace_key(world.keys, "director/online", "director-online")
    assert rotate_director(PosixDisk(), world.keys, now=world.clock, lifetime=ROOT_LIFETIME) == 2
    assert rotate_director(PosixDisk(), world.keys, now=world.clock, lifetime=ROOT_LIFETIME) is None
    roots = [data for _, data in sorted(world.keys.director_roots.items())]
    (online,) = world.keys.info.of("director/timestamp")
    world.director = Director(roots=roots, signer=world.keys.signer(online.name))
    order = world.command(target, serial=2)
    assert device.refresh_director() == order
    assert world.device("fresh").order is None


def test_a_lost_threshold_cannot_be_signed_away(world: TrustWorld, tmp_path: Path) -> None:
    """One root key of three is not enough to bring in keys of one's own."""
    for number in (2, 3):
        (tmp_path / "keys" / "private" / f"image-root-{number}.pem").unlink()
    keys = ring(tmp_path)
    for _ in range(3):
        keys.change(with_key(keys.info, keys.make("image", "root")))
    keys.change(with_threshold(keys.info, "image/root", 1))
    images = ImageRepository(world.disk, world.network.depot, keys, world.now)
    with pytest.raises(SignaturesMissing) as caught:
        images.rotate()
    assert set(caught.value.missing) == {"image-root-2", "image-root-3"}


def test_a_ring_of_the_first_format_signs_on_and_is_brought_up_to_date(tmp_path: Path) -> None:
    shutil.copytree(OLD_RING, tmp_path / "keys")
    (tmp_path / "keys" / "private").chmod(0o700)
    for path in (tmp_path / "keys" / "private").iterdir():
        path.chmod(0o600)
    keys = ring(tmp_path)
    images = ImageRepository(PosixDisk(), tmp_path / "depot", keys, lambda: NOON)
    images.create()
    images.add_release(a_manifest("1.1"))
    assert keys.info.threshold("image/root") == 2
    replace_key(keys, "image/kiosk", "image-family-kiosk")
    assert images.rotate() == ("targets", "kiosk")
    assert ring(tmp_path).info.format == "drupelet.keyring/2"


def test_wishes_that_leave_a_role_unsigned_are_refused(world: TrustWorld) -> None:
    info = world.keys.info
    with pytest.raises(BadInput, match="without image-root-1, image/root has 2"):
        without_key(with_threshold(info, "image/root", 3), "image-root-1")
    with pytest.raises(BadInput, match="needs 4 signatures and has 3 keys"):
        with_threshold(info, "image/root", 4)
    with pytest.raises(BadInput, match="one key at a time"):
        with_threshold(with_key(info, world.keys.make("image", "snapshot")), "image/snapshot", 2)
    with pytest.raises(BadInput, match="no role"):
        parse_role(info, "robot")
    with pytest.raises(BadInput, match="not one of several"):
        without_family(info, "robot")
    with pytest.raises(NoKey, match="no key 'robot'"):
        without_key(info, "robot")
    with pytest.raises(AlreadyThere):
        with_family(info, "kiosk")
    with pytest.raises(AlreadyThere, match="one purpose"):
        with_key(info, replace(info.keys[0], name="b"))


@given(data=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_are_a_ring_or_bad_input(data: bytes) -> None:
    for text in (
        data,
        b'{"format": "drupelet.keyring/2", "families": ["k"], "thresholds": {}, "keys": [' + data + b"]}",
    ):
        with suppress(BadInput):
            read_ring(text, where="keyring.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"thresholds": {"image/kiosk": 2}}, "needs 2 signatures and has 1"),
        ({"thresholds": {"image/../x": 1}}, "thresholds"),
        ({"families": []}, "families"),
        ({"format": "drupelet.keyring/3"}, "format"),
    ],
)
def test_a_ring_that_contradicts_itself_is_refused(shared_keys: KeyRing, change: dict[str, object], words: str) -> None:
    value = {**json.loads((shared_keys.folder / "keyring.json").read_text()), **change}
    with pytest.raises(BadInput, match=words):
        read_ring(json.dumps(value).encode(), where="keyring.json")


def test_a_key_of_no_kind_is_refused(shared_keys: KeyRing) -> None:
    text = (shared_keys.folder / "keyring.json").read_text().replace('"ecdsa-sha2-nistp256"', '"rot13"')
    with pytest.raises(BadInput, match="no kind of key"):
        read_ring(text.encode(), where="keyring.json")

"""A role that needs several signatures: nothing is published until they are there, whoever gives them and wherever."""

from __future__ import annotations

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from drupelet.core.errors import BadInput, NotFound
from drupelet.core.names import ReleaseId
from drupelet.core.states import Reason
from drupelet.durable import PosixDisk
from drupelet.trust import ImageRepository, KeyRing, NotTrusted, TargetInfo
from drupelet.trust.errors import AlreadyThere, NoKey, OtherPending, SignaturesMissing
from drupelet.trust.roles import add_signature, make_snapshot, make_targets, make_timestamp, meta_of, sign
from drupelet.trust.sittings import countersign, look
from tests.fakes.trust_world import NOON, PASSPHRASE, TrustWorld, a_manifest
from tests.trust.test_attacks import a_stranger

RELEASE = ReleaseId.parse("kiosk/1.1")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ring whose families need two of three signatures, with all private keys."""
    folder = tmp_path_factory.mktemp("three") / "keys"
    KeyRing.create(
        PosixDisk(),
        folder,
        families=["kiosk", "sign"],
        passphrase=lambda: PASSPHRASE,
        now=NOON,
        family_keys=3,
        family_threshold=2,
    )
    return folder


def holder(three: Path, folder: Path, *names: str) -> KeyRing:
    """Return the ring of somebody who holds these private keys only."""
    shutil.copytree(three, folder, ignore=shutil.ignore_patterns("private"))
    (folder / "private").mkdir(mode=0o700)
    for name in names:
        shutil.copy(three / "private" / f"{name}.pem", folder / "private")
    return KeyRing(PosixDisk(), folder, passphrase=lambda: PASSPHRASE)


def opened(folder: Path) -> KeyRing:
    return KeyRing(PosixDisk(), folder, passphrase=lambda: PASSPHRASE)


@pytest.fixture
def world(three: Path, tmp_path: Path) -> TrustWorld:
    """A depot made with all keys, to which somebody with one of three keys of kiosk adds releases."""
    world = TrustWorld(tmp_path, opened(three))
    ci = holder(three, tmp_path / "ci", "image-family-kiosk-1", "image-snapshot", "image-timestamp")
    world.images = ImageRepository(world.disk, world.network.depot, ci, world.now)
    return world


def pending(tmp_path: Path) -> Path:
    return tmp_path / "ci" / "pending" / "kiosk.json"


def test_nothing_is_published_below_the_threshold_and_it_says_who_is_missing(world: TrustWorld, tmp_path: Path) -> None:
    before = sorted(path.name for path in (world.network.depot / "metadata").iterdir())
    with pytest.raises(SignaturesMissing, match="kiosk has 1 of 2 signatures, missing 1 of") as caught:
        world.release("1.1")
    assert caught.value.missing == ("image-family-kiosk-2", "image-family-kiosk-3")
    assert caught.value.exit_code == 3
    assert str(pending(tmp_path)) in caught.value.line()
    assert sorted(path.name for path in (world.network.depot / "metadata").iterdir()) == before
    with pytest.raises(NotTrusted) as refused:
        world.device().images.release(RELEASE)
    assert refused.value.reason is Reason.UNSIGNED


def test_a_second_signature_without_depot_or_network_publishes_it(
    world: TrustWorld, three: Path, tmp_path: Path
) -> None:
    calls = []

    def beside() -> dict[str, bytes]:
        calls.append(1)
        return {"kiosk/1.1/note.json": b"never the same twice: %d" % len(calls)}

    def publish() -> None:
        world.images.add_release(a_manifest("1.1"), beside=beside)

    with pytest.raises(SignaturesMissing):
        publish()
    with pytest.raises(SignaturesMissing):
        publish()
    offline = holder(three, tmp_path / "offline", "image-family-kiosk-3")
    stick = shutil.copy(pending(tmp_path), tmp_path / "kiosk.json")
    sitting = look(world.disk, Path(stick), keys=offline, now=world.clock)
    assert sitting.role == "image/kiosk"
    assert sitting.signed == ("image-family-kiosk-1",)
    assert any(line.startswith("kiosk/1.1/manifest.json  sha256:") for line in sitting.says)
    assert countersign(world.disk, sitting, keys=offline) == ("image-family-kiosk-3",)
    shutil.copy(stick, pending(tmp_path))
    shutil.rmtree(world.network.depot / "targets")
    publish()
    assert calls == [1], "what is signed already is not made again"
    assert not [path for path in pending(tmp_path).parent.rglob("*") if path.is_file()]
    images = world.device().images
    assert images.release(RELEASE).manifest == a_manifest("1.1")
    assert images.target("kiosk/1.1/note.json", bytes_max=100)[1] == b"never the same twice: 1"
    publish()


def test_a_waiting_release_whose_files_are_gone_is_begun_anew(world: TrustWorld, tmp_path: Path) -> None:
    def publish() -> None:
        world.images.add_release(a_manifest("1.1"), beside=lambda: {"kiosk/1.1/note.json": b"x"})

    with pytest.raises(SignaturesMissing):
        publish()
    shutil.rmtree(pending(tmp_path).parent / "targets")
    with pytest.raises(NotFound, match=r"remove pending/kiosk\.json there and begin anew"):
        publish()


def test_a_device_refuses_a_family_below_its_threshold(world: TrustWorld, three: Path) -> None:
    """Whoever stole one key of two, and the snapshot's and timestamp's too, and owns the depot."""
    keys = opened(three)
    metadata = world.network.depot / "metadata"
    target = TargetInfo.of("kiosk/6.6/manifest.json", b"evil")
    expires = NOON + timedelta(days=9)
    role = make_targets(version=2, now=NOON, expires=expires, targets=[target.as_target()])
    data = sign(role, [keys.signer("image-family-kiosk-1")])
    (metadata / "2.kiosk.json").write_bytes(data)
    meta = {
        f"{name}.json": meta_of((metadata / f"1.{name}.json").read_bytes(), version=1) for name in ("targets", "sign")
    } | {"kiosk.json": meta_of(data, version=2)}
    snapshot = sign(make_snapshot(meta, version=2, now=NOON, expires=expires), [keys.signer("image-snapshot")])
    (metadata / "2.snapshot.json").write_bytes(snapshot)
    timestamp = make_timestamp(meta_of(snapshot, version=2), version=2, now=NOON, expires=expires)
    (metadata / "timestamp.json").write_bytes(sign(timestamp, [keys.signer("image-timestamp")]))
    order = world.command(target, serial=1)
    device = world.device()
    device.refresh_director()
    with pytest.raises(NotTrusted) as caught:
        device.vouch(order)
    assert caught.value.reason is Reason.UNSIGNED
    (metadata / "2.kiosk.json").write_bytes(sign(role, [keys.signer("image-family-kiosk-1")] * 2))
    with pytest.raises(NotTrusted):
        world.device("b").images.look_up(target.path)


def test_another_release_does_not_slip_under_a_signature_that_waits(world: TrustWorld) -> None:
    with pytest.raises(SignaturesMissing):
        world.release("1.1")
    with pytest.raises(OtherPending, match="finish that one first"):
        world.release("1.2")
    with pytest.raises((OtherPending, AlreadyThere)):
        world.release("1.1", summary="changed")


def test_signatures_that_wait_too_long_are_given_anew(world: TrustWorld, tmp_path: Path) -> None:
    with pytest.raises(SignaturesMissing):
        world.release("1.1")
    world.clock += timedelta(days=3 * 365)
    with pytest.raises(NotTrusted, match="expired"):
        look(world.disk, pending(tmp_path), keys=opened(tmp_path / "ci"), now=world.clock)


def test_one_key_signing_twice_is_one_signature(world: TrustWorld, tmp_path: Path) -> None:
    with pytest.raises(SignaturesMissing):
        world.release("1.1")
    text = json.loads(pending(tmp_path).read_text())
    text["signatures"].append({**text["signatures"][0], "keyid": "0" * 64})
    pending(tmp_path).write_text(json.dumps(text))
    with pytest.raises(SignaturesMissing, match="1 of 2"):
        world.release("1.1")


def test_a_strangers_signature_does_not_count(world: TrustWorld, tmp_path: Path) -> None:
    with pytest.raises(SignaturesMissing):
        world.release("1.1")
    sitting = look(world.disk, pending(tmp_path), keys=opened(tmp_path / "ci"), now=world.clock)
    add_signature(sitting.metadata, a_stranger())
    pending(tmp_path).write_bytes(sitting.metadata.to_bytes())
    with pytest.raises(SignaturesMissing, match="1 of 2"):
        world.release("1.1")


def test_a_key_of_another_family_may_not_sign(world: TrustWorld, three: Path, tmp_path: Path) -> None:
    with pytest.raises(SignaturesMissing):
        world.release("1.1")
    other = holder(three, tmp_path / "other", "image-family-sign-1", "image-family-sign-2")
    sitting = look(world.disk, pending(tmp_path), keys=other, now=world.clock)
    with pytest.raises(NoKey, match="no key that signs this is here"):
        countersign(world.disk, sitting, keys=other)
    with pytest.raises(NoKey, match="image-family-sign-1 does not sign this"):
        countersign(world.disk, sitting, keys=other, names=["image-family-sign-1"])


def test_what_is_signed_is_what_was_shown(world: TrustWorld, three: Path, tmp_path: Path) -> None:
    """A file that says one family by its name and holds another's releases is refused, as is one with a forged mark."""
    with pytest.raises(SignaturesMissing):
        world.release("1.1")
    keys = holder(three, tmp_path / "second", "image-family-sign-1", "image-family-kiosk-2")
    renamed = shutil.copy(pending(tmp_path), tmp_path / "sign.json")
    with pytest.raises(BadInput, match="not for sign to sign"):
        look(world.disk, Path(renamed), keys=keys, now=world.clock)
    text = pending(tmp_path).read_text().replace("kiosk/1.1/", "kiosk/6.6/")
    pending(tmp_path).write_text(text)
    with pytest.raises(NotTrusted, match="do not sign it"):
        look(world.disk, pending(tmp_path), keys=keys, now=world.clock)


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"signed": {"_type": "targets"}}', b"\xff"])
def test_what_is_no_pending_file_is_said(world: TrustWorld, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "kiosk.json"
    path.write_bytes(data)
    with pytest.raises(BadInput, match="not TUF metadata"):
        look(world.disk, path, keys=world.keys, now=world.clock)


def test_revoking_needs_the_threshold_too(three: Path, world: TrustWorld, tmp_path: Path) -> None:
    everybody = ImageRepository(world.disk, world.network.depot, opened(three), world.now)
    everybody.add_release(a_manifest("1.1"))
    with pytest.raises(SignaturesMissing):
        world.images.revoke(RELEASE)
    assert world.device().images.release(RELEASE).manifest == a_manifest("1.1")
    everybody.revoke(RELEASE)
    with pytest.raises(NotTrusted):
        world.device().images.release(RELEASE)


def test_a_depot_may_be_begun_below_the_threshold(three: Path, tmp_path: Path) -> None:
    one = holder(three, tmp_path / "one", "image-family-kiosk-1", "image-family-sign-1", "image-targets")
    images = ImageRepository(PosixDisk(), tmp_path / "depot", one, lambda: NOON)
    with pytest.raises(SignaturesMissing, match=r"kiosk has 1 of 2 .*sign has 1 of 2"):
        images.create()
    assert not (tmp_path / "depot" / "metadata").exists()

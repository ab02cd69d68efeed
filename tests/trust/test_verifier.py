"""What a device believes when nobody attacks."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root

from drupelet.core.errors import BadInput, NotFound, Unavailable
from drupelet.core.names import Digest, ReleaseId
from drupelet.core.states import Reason
from drupelet.durable import DiskFull
from drupelet.trust import Director, Images, NotTrusted
from drupelet.trust.errors import StagingFailed
from drupelet.trust.verifier import ROOT_CHECK_EVERY_S
from drupelet.wire.orders import Condemned
from tests.fakes.trust_world import NOON, TrustWorld, a_manifest


def test_an_order_for_a_signed_release_is_vouched_for(world: TrustWorld) -> None:
    target = world.release("1.1")
    order = world.command(target, serial=1)
    device = world.device()
    assert device.refresh_director() == order
    assert device.vouch(order) == a_manifest("1.1")
    assert device.remembered(target.sha256) == a_manifest("1.1")


def test_no_order_is_an_answer_too(world: TrustWorld) -> None:
    world.serve(world.sign(None, None))
    assert world.device().refresh_director() is None


def test_an_idle_refresh_is_one_request(world: TrustWorld) -> None:
    order = world.command(world.release("1.1"), serial=1)
    device = world.device()
    device.refresh_director()
    world.network.asked.clear()
    assert device.refresh_director() == order
    assert world.network.asked == ["director/a/timestamp.json"]


def test_a_newer_root_is_asked_for_now_and_then(world: TrustWorld) -> None:
    world.command(world.release("1.1"), serial=1)
    device = world.device()
    device.refresh_director()
    world.network.asked.clear()
    world.clock += timedelta(seconds=ROOT_CHECK_EVERY_S)
    device.refresh_director()
    assert "director/a/2.root.json" in world.network.asked


def test_orders_survive_a_restart_without_a_network(world: TrustWorld) -> None:
    target = world.release("1.1")
    order = world.command(target, serial=1)
    world.device().refresh_director()
    world.device().vouch(order)
    world.network.down = True
    again = world.device()
    assert again.order == order
    assert again.remembered(target.sha256) == a_manifest("1.1")
    with pytest.raises(Unavailable):
        again.refresh_director()
    assert again.order == order


def test_newer_orders_replace_older_ones(world: TrustWorld) -> None:
    device = world.device()
    for serial, version in enumerate(("1.1", "1.2", "1.3"), start=1):
        target = world.release(version)
        order = world.command(target, serial=serial)
        assert device.refresh_director() == order
        assert device.vouch(order).version == version


def test_signing_the_same_order_again_only_extends_it(world: TrustWorld) -> None:
    target = world.release("1.1")
    order = world.command(target, serial=1)
    device = world.device()
    device.refresh_director()
    world.clock += timedelta(days=6)
    world.serve(world.sign(order, target))
    world.clock += timedelta(days=6)
    assert device.refresh_director() == order


def test_an_old_order_is_not_vouched_for(world: TrustWorld) -> None:
    first = world.command(world.release("1.1"), serial=1)
    device = world.device()
    device.refresh_director()
    world.command(world.release("1.2"), serial=2)
    device.refresh_director()
    with pytest.raises(NotTrusted) as caught:
        device.vouch(first)
    assert caught.value.reason is Reason.SUPERSEDED


def test_condemned_releases_arrive_with_the_order(world: TrustWorld) -> None:
    target = world.release("1.1")
    condemned = (Condemned(release="kiosk/1.4", manifest="sha256:" + "4" * 64, reason="slow"),)
    order = world.order(target, serial=1, condemned=condemned)
    world.serve(world.sign(order, target))
    received = world.device().refresh_director()
    assert received is not None
    assert received.condemned == condemned


def test_a_manifest_that_does_not_lie_in_the_depot_is_a_passing_trouble(world: TrustWorld) -> None:
    target = world.release("1.1")
    order = world.command(target, serial=1)
    (world.network.depot / "targets" / target.url_path).unlink()
    device = world.device()
    device.refresh_director()
    with pytest.raises(Unavailable, match="publish"):
        device.vouch(order)


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "flipped": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
    "truncated": lambda data: data[: len(data) // 2],
    "emptied": lambda _: b"",
    "doubled": lambda data: data + data,
    "deleted": lambda _: None,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_memory_counts_as_absent(world: TrustWorld, damage: str) -> None:
    order = world.command(world.release("1.1"), serial=1)
    world.device().refresh_director()
    world.device().vouch(order)
    for path in (world.folder / "devices" / "a").rglob("*.json"):
        damaged = DAMAGES[damage](path.read_bytes())
        path.unlink()
        if damaged is not None:
            path.write_bytes(damaged)
    device = world.device()
    assert device.order is None
    assert device.remembered(Digest.parse(order.manifest)) is None
    assert device.refresh_director() == order
    assert device.vouch(order).version == "1.1"


def test_no_room_for_staging_is_said_and_changes_nothing(
    world: TrustWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world.command(world.release("1.1"), serial=1)
    device = world.device()
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        with pytest.raises(StagingFailed, match="temporary files"):
            device.refresh_director()
    assert device.order is None
    assert device.refresh_director() is not None


def test_staging_folders_are_gone_afterwards(
    world: TrustWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    order = world.command(world.release("1.1"), serial=1)
    device = world.device()
    device.refresh_director()
    device.vouch(order)
    world.network.overlay["depot/metadata/timestamp.json"] = b"nonsense"
    with pytest.raises(NotTrusted):
        device.vouch(order)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_manifests_no_longer_needed_are_forgotten(world: TrustWorld) -> None:
    device = world.device()
    targets = [world.release("1.1"), world.release("1.2")]
    for serial, target in enumerate(targets, start=1):
        order = world.command(target, serial=serial)
        device.refresh_director()
        device.vouch(order)
    device.images.forget_except({targets[1].sha256})
    assert device.remembered(targets[0].sha256) is None
    assert device.remembered(targets[1].sha256) is not None


def test_the_fleet_reads_releases_without_any_key(world: TrustWorld) -> None:
    world.release("1.1")
    images = Images(
        world.disk,
        world.folder / "fleet",
        root=world.keys.image_root,
        depot_url="depot",
        fetch=world.network,
        now=lambda: NOON,
    )
    vouched = images.release(ReleaseId.parse("kiosk/1.1"))
    assert vouched.manifest == a_manifest("1.1")
    assert vouched.target.path == "kiosk/1.1/manifest.json"
    with pytest.raises(NotTrusted) as caught:
        images.release(ReleaseId.parse("kiosk/9.9"))
    assert caught.value.reason is Reason.UNSIGNED


def test_a_depot_without_metadata_is_said_to_be_none(world: TrustWorld) -> None:
    world.command(world.release("1.1"), serial=1)
    device = world.device()
    order = device.refresh_director()
    assert order is not None
    (world.network.depot / "metadata" / "timestamp.json").unlink()
    with pytest.raises(Unavailable, match="not a complete repository"):
        device.vouch(order)


def test_a_fleet_that_knows_no_director_for_the_device_says_not_found(world: TrustWorld) -> None:
    with pytest.raises(NotFound):
        world.device("nobody").refresh_director()


def rotated(world: TrustWorld, root: bytes, *, repository: str, fresh: CryptoSigner) -> bytes:
    """Return the repository's second root, in which `fresh` stands for the online roles."""
    metadata = Metadata[Root].from_bytes(root)
    metadata.signed.version = 2
    for role in ("timestamp", "snapshot", "targets"):
        for keyid in list(metadata.signed.roles[role].keyids):
            metadata.signed.revoke_key(keyid, role)
        metadata.signed.add_key(fresh.public_key, role)
    metadata.signatures.clear()
    for number in (1, 2):
        metadata.sign(world.keys.signer(f"{repository}-root-{number}"), append=True)
    return metadata.to_bytes()


def test_a_new_director_root_ends_a_stolen_online_key(world: TrustWorld) -> None:
    """The thief signed a version and a serial too high to follow; the owner's new root starts both again."""
    target = world.release("1.1")
    huge = world.order(target, serial=2**50)
    world.serve(world.sign(huge, target, version=2**40))
    device = world.device()
    device.refresh_director()
    fresh = CryptoSigner(Ed25519PrivateKey.generate())
    roots = [
        world.keys.director_root,
        rotated(world, world.keys.director_root, repository="director", fresh=fresh),
    ]
    world.director = Director(roots=roots, signer=fresh)
    order = world.order(target, serial=1)
    world.serve(world.sign(order, target, version=1))
    assert device.refresh_director() == order
    assert device.vouch(order).version == "1.1"
    world.network.asked.clear()
    assert world.device().refresh_director() == order
    assert "director/a/2.root.json" not in world.network.asked
    world.director = Director(roots=roots[:1], signer=world.keys.signer("director-online"))
    world.serve(world.sign(world.order(target, serial=2), target, version=2**41))
    with pytest.raises(NotTrusted) as caught:
        device.refresh_director()
    assert caught.value.reason is Reason.UNSIGNED


def test_state_of_another_device_is_not_taken_for_ones_own(world: TrustWorld) -> None:
    """A card copied from device a into device b: b starts from its roots and asks for its own orders."""
    target = world.release("1.1")
    world.command(target, serial=7)
    world.device("a").refresh_director()
    shutil.copytree(world.folder / "devices" / "a", world.folder / "devices" / "b")
    mine = world.command(target, serial=1, device="b")
    device = world.device("b")
    assert device.order is None
    assert device.refresh_director() == mine


def test_a_root_that_is_none_is_refused_at_the_start(world: TrustWorld) -> None:
    with pytest.raises(BadInput, match="not a TUF root"):
        Images(world.disk, world.folder, root=b"{}", depot_url="depot", fetch=world.network, now=world.now)


def test_a_refresh_when_the_disk_is_full_changes_nothing(world: TrustWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    device = world.device()
    first = world.command(world.release("1.1"), serial=1)
    device.refresh_director()
    world.command(world.release("1.2"), serial=2)

    def full(path: Path, data: bytes, *, mode: int = 0o600) -> None:
        raise DiskFull("no space", where=str(path))

    with monkeypatch.context() as patched:
        patched.setattr(world.disk, "replace", full)
        with pytest.raises(DiskFull):
            device.refresh_director()
    assert device.order == first
    second = device.refresh_director()
    assert second is not None
    assert second.serial == 2

"""An attacker who owns the network, the depot or the fleet server gets a refusal with its reason, and no further."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner

from drupelet.core.states import Reason
from drupelet.durable import PosixDisk
from drupelet.trust import ImageRepository, NotTrusted, TargetInfo, Verifier
from drupelet.trust.roles import make_snapshot, make_targets, make_timestamp, meta_of, sign
from drupelet.wire.orders import Order
from tests.fakes.trust_world import NOON, TrustWorld, a_manifest


def settled(world: TrustWorld) -> tuple[Verifier, Order, TargetInfo]:
    """Return a device that has accepted and vouched for order 1."""
    target = world.release("1.1")
    order = world.command(target, serial=1)
    device = world.device()
    device.refresh_director()
    device.vouch(order)
    return device, order, target


def refused(action: Callable[[], object]) -> Reason:
    with pytest.raises(NotTrusted) as caught:
        action()
    return caught.value.reason


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def a_stranger() -> CryptoSigner:
    return CryptoSigner(Ed25519PrivateKey.generate())


def flipped(data: bytes) -> bytes:
    """Flip one bit inside the first signature."""
    position = data.index(b'"sig":') + 20
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "flipped": flipped,
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "not UTF-8": lambda data: b"\xff\xfe" + data,
    "a web page": lambda _: b"<html>log in</html>",
    "nested deeply": lambda _: b'{"signed":' + b"[" * 7000,
    "not an object": lambda _: b"[1,2,3]",
    "no signatures": lambda data: json.dumps({**json.loads(data), "signatures": []}).encode(),
}


DAMAGED = {Reason.UNSIGNED, Reason.BAD_METADATA, Reason.DIGEST_MISMATCH, Reason.TOO_LARGE}
"""Longer than the timestamp or snapshot says is too large, without a look inside."""


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["timestamp.json", "2.snapshot.json", "2.targets.json"])
def test_damaged_director_metadata_is_refused_and_changes_nothing(world: TrustWorld, name: str, damage: str) -> None:
    device, order, _ = settled(world)
    world.command(world.release("1.2"), serial=2)
    before = folder_bytes(world.folder / "devices")
    world.network.overlay[f"director/a/{name}"] = DAMAGES[damage](world.network.director[f"director/a/{name}"])
    assert refused(device.refresh_director) in DAMAGED
    assert folder_bytes(world.folder / "devices") == before
    assert device.order == order
    world.network.overlay.clear()
    accepted = device.refresh_director()
    assert accepted is not None
    assert accepted.serial == 2


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["timestamp.json", "3.snapshot.json", "3.kiosk.json"])
def test_damaged_image_metadata_is_refused(world: TrustWorld, name: str, damage: str) -> None:
    device, _, _ = settled(world)
    order = world.command(world.release("1.2"), serial=2)
    device.refresh_director()
    path = f"depot/metadata/{name}"
    world.network.overlay[path] = DAMAGES[damage]((world.folder / path).read_bytes())
    assert refused(lambda: device.vouch(order)) in DAMAGED
    world.network.overlay.clear()
    assert device.vouch(order).version == "1.2"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[:-1] + b"!", Reason.DIGEST_MISMATCH),
        (lambda data: data[:-9], Reason.TRUNCATED),
        (lambda data: data + b" " * 10, Reason.TOO_LARGE),
    ],
)
def test_a_damaged_manifest_is_refused(world: TrustWorld, damage: Callable[[bytes], bytes], reason: Reason) -> None:
    target = world.release("1.1")
    order = world.command(target, serial=1)
    device = world.device()
    device.refresh_director()
    path = f"depot/targets/{target.url_path}"
    world.network.overlay[path] = damage((world.folder / path).read_bytes())
    assert refused(lambda: device.vouch(order)) is reason
    assert device.remembered(target.sha256) is None


@pytest.mark.parametrize(
    "url",
    ["director/a/timestamp.json", "director/a/2.root.json", "director/a/2.snapshot.json", "director/a/2.targets.json"],
)
def test_endless_director_metadata_is_refused(world: TrustWorld, url: str) -> None:
    device, order, _ = settled(world)
    world.command(world.release("1.2"), serial=2)
    world.network.overlay[url] = b" " * (4 << 20)
    assert refused(device.refresh_director) is Reason.TOO_LARGE
    assert device.order == order


@pytest.mark.parametrize("name", ["timestamp.json", "2.root.json", "3.snapshot.json", "3.kiosk.json"])
def test_endless_image_metadata_is_refused(world: TrustWorld, name: str) -> None:
    device, _, _ = settled(world)
    order = world.command(world.release("1.2"), serial=2)
    device.refresh_director()
    world.network.overlay[f"depot/metadata/{name}"] = b" " * (4 << 20)
    assert refused(lambda: device.vouch(order)) is Reason.TOO_LARGE


def test_old_director_metadata_is_a_replay(world: TrustWorld) -> None:
    device, _, _ = settled(world)
    old = dict(world.network.director)
    world.command(world.release("1.2"), serial=2)
    device.refresh_director()
    world.network.overlay |= old
    assert refused(device.refresh_director) is Reason.REPLAYED


def test_an_old_serial_under_a_new_version_is_a_replay(world: TrustWorld) -> None:
    device, old, target = settled(world)
    world.command(world.release("1.2"), serial=2)
    device.refresh_director()
    world.serve(world.sign(old, target))
    assert refused(device.refresh_director) is Reason.REPLAYED
    world.serve(world.sign(None, None))
    assert device.refresh_director() is None
    world.serve(world.sign(old, target))
    assert refused(device.refresh_director) is Reason.REPLAYED


def test_another_order_under_the_same_serial_is_a_replay(world: TrustWorld) -> None:
    device, _, _ = settled(world)
    world.command(world.release("1.2"), serial=1)
    assert refused(device.refresh_director) is Reason.REPLAYED


def test_an_old_image_repository_is_a_replay(world: TrustWorld, tmp_path: Path) -> None:
    device, _, target = settled(world)
    shutil.copytree(world.network.depot / "metadata", tmp_path / "old")
    order = world.command(world.release("1.2"), serial=2)
    device.refresh_director()
    device.vouch(order)
    world.network.overlay["depot/metadata/timestamp.json"] = (tmp_path / "old" / "timestamp.json").read_bytes()
    again = world.command(target, serial=3)
    device.refresh_director()
    assert refused(lambda: device.vouch(again)) is Reason.REPLAYED


def test_frozen_director_metadata_expires(world: TrustWorld) -> None:
    device, order, _ = settled(world)
    world.clock += timedelta(days=8)
    assert refused(device.refresh_director) is Reason.EXPIRED
    assert device.order == order


def test_a_frozen_image_repository_expires(world: TrustWorld) -> None:
    device, order, target = settled(world)
    world.clock += timedelta(days=31)
    world.serve(world.sign(order, target))
    device.refresh_director()
    assert refused(lambda: device.vouch(order)) is Reason.EXPIRED
    world.images.refresh_timestamp()
    assert device.vouch(order).version == "1.1"


def test_a_manifest_signed_by_the_wrong_key_is_refused(world: TrustWorld, tmp_path: Path) -> None:
    """Somebody with keys of his own publishes a complete, consistent repository in the depot's place."""
    evil = TrustWorld(tmp_path / "evil")
    target = evil.release("1.1", summary="evil")
    order = world.command(target, serial=1)
    device = world.device()
    device.refresh_director()
    world.network.depot = evil.network.depot
    world.network.overlay = {
        f"depot/metadata/{path.name}": path.read_bytes() for path in (evil.network.depot / "metadata").iterdir()
    }
    assert refused(lambda: device.vouch(order)) is Reason.UNSIGNED


def test_a_family_key_cannot_sign_for_another_family(world: TrustWorld) -> None:
    """The key of `sign` vouches for a kiosk release: the delegation's paths do not lead there."""
    target = TargetInfo.of("kiosk/6.6/manifest.json", msgspec.json.encode(a_manifest("6.6")))
    signer = world.keys.signer("image-family-sign")
    role = make_targets(version=2, now=NOON, expires=NOON + timedelta(days=9), targets=[target.as_target()])
    metadata = world.network.depot / "metadata"
    data = sign(role, [signer])
    (metadata / "2.sign.json").write_bytes(data)
    meta = {
        f"{name}.json": meta_of((metadata / f"1.{name}.json").read_bytes(), version=1) for name in ("targets", "kiosk")
    } | {"sign.json": meta_of(data, version=2)}
    snapshot = sign(
        make_snapshot(meta, version=2, now=NOON, expires=NOON + timedelta(days=9)),
        [world.keys.signer("image-snapshot")],
    )
    (metadata / "2.snapshot.json").write_bytes(snapshot)
    timestamp = make_timestamp(meta_of(snapshot, version=2), version=2, now=NOON, expires=NOON + timedelta(days=9))
    (metadata / "timestamp.json").write_bytes(sign(timestamp, [world.keys.signer("image-timestamp")]))
    order = world.command(target, serial=1)
    device = world.device()
    device.refresh_director()
    assert refused(lambda: device.vouch(order)) is Reason.UNSIGNED


def test_a_director_cannot_order_what_was_never_signed(world: TrustWorld) -> None:
    world.release("1.1")
    order = world.command(TargetInfo.of("kiosk/6.6/manifest.json", b"evil"), serial=1)
    device = world.device()
    assert device.refresh_director() == order
    assert refused(lambda: device.vouch(order)) is Reason.UNSIGNED


def test_a_director_cannot_put_another_file_under_a_signed_name(world: TrustWorld) -> None:
    world.release("1.1")
    order = world.command(TargetInfo.of("kiosk/1.1/manifest.json", b"evil"), serial=1)
    device = world.device()
    device.refresh_director()
    assert refused(lambda: device.vouch(order)) is Reason.UNSIGNED


def test_a_revoked_release_is_no_longer_vouched_for(world: TrustWorld) -> None:
    device, order, _ = settled(world)
    world.images.revoke(a_manifest("1.1").release)
    assert refused(lambda: device.vouch(order)) is Reason.UNSIGNED


def test_a_director_signed_by_a_stranger_is_refused(world: TrustWorld) -> None:
    device, order, target = settled(world)
    role = make_targets(version=2, now=NOON, expires=NOON + timedelta(days=7), targets=[target.as_target()], device="a")
    stranger = a_stranger()
    targets = sign(role, [stranger])
    snapshot = sign(
        make_snapshot(
            {"targets.json": meta_of(targets, version=2)},
            version=2,
            now=NOON,
            expires=NOON + timedelta(days=7),
            device="a",
        ),
        [stranger],
    )
    timestamp = make_timestamp(
        meta_of(snapshot, version=2), version=2, now=NOON, expires=NOON + timedelta(days=7), device="a"
    )
    world.network.overlay |= {
        "director/a/timestamp.json": sign(timestamp, [stranger]),
        "director/a/2.snapshot.json": snapshot,
        "director/a/2.targets.json": targets,
    }
    assert refused(device.refresh_director) is Reason.UNSIGNED
    assert device.order == order


@pytest.mark.parametrize("with_order", [True, False])
def test_orders_of_another_device_are_refused_and_do_no_harm(world: TrustWorld, with_order: bool) -> None:
    """B's metadata is well signed and newer. Once accepted, it would lock A out of its own."""
    device, order, target = settled(world)
    others = world.order(target, serial=9, device="b") if with_order else None
    world.network.overlay = {}
    world.serve(world.sign(others, target if with_order else None, device="b", version=50), to="a")
    assert refused(device.refresh_director) is Reason.WRONG_DEVICE
    assert device.order == order
    mine = world.command(world.release("1.2"), serial=2)
    assert device.refresh_director() == mine


@pytest.mark.parametrize("taken", [{"timestamp"}, {"timestamp", "snapshot"}, {"targets"}, {"snapshot"}])
def test_metadata_of_two_devices_cannot_be_mixed(world: TrustWorld, taken: set[str]) -> None:
    """The same version for A and B, and some roles swapped: the hashes do not fit, or the device does not."""
    device, order, target = settled(world)
    world.command(world.release("1.2"), serial=2)
    world.serve(world.sign(world.order(target, serial=2, device="b"), target, device="b", version=2))
    for role in taken:
        name = "timestamp.json" if role == "timestamp" else f"2.{role}.json"
        world.network.overlay[f"director/a/{name}"] = world.network.director[f"director/b/{name}"]
    assert refused(device.refresh_director) in {Reason.WRONG_DEVICE, Reason.DIGEST_MISMATCH, Reason.REPLAYED}
    assert device.order == order


def test_image_metadata_of_two_moments_cannot_be_mixed(world: TrustWorld) -> None:
    device, _, _ = settled(world)
    order = world.command(world.release("1.2"), serial=2)
    device.refresh_director()
    metadata = world.network.depot / "metadata"
    world.network.overlay["depot/metadata/3.kiosk.json"] = (metadata / "2.kiosk.json").read_bytes()
    assert refused(lambda: device.vouch(order)) is Reason.DIGEST_MISMATCH


def test_a_root_not_signed_by_the_old_one_is_refused(world: TrustWorld, tmp_path: Path) -> None:
    device, _, _ = settled(world)
    evil = TrustWorld(tmp_path / "evil")
    root = json.loads(evil.keys.director_root)
    root["signed"]["version"] = 2
    world.network.overlay["director/a/2.root.json"] = json.dumps(root).encode()
    world.command(world.release("1.2"), serial=2)
    assert refused(device.refresh_director) is Reason.UNSIGNED


def test_an_altered_repository_is_not_signed_onward(world: TrustWorld) -> None:
    """Whoever can write into the depot cannot have the owner's next signature cover his release."""
    world.release("1.1")
    path = world.network.depot / "metadata" / "2.kiosk.json"
    text = json.loads(path.read_bytes())
    text["signed"]["targets"]["kiosk/6.6/manifest.json"] = {"length": 1, "hashes": {"sha256": "0" * 64}}
    path.write_text(json.dumps(text))
    with pytest.raises(NotTrusted) as caught:
        ImageRepository(PosixDisk(), world.network.depot, world.keys, world.now).add_release(a_manifest("1.2"))
    assert caught.value.reason is Reason.UNSIGNED

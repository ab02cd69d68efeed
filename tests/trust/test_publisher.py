"""The owner's side: releases never change, and a publisher that dies leaves the old state, whole."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from drupelet.core.errors import BadInput, NotFound
from drupelet.core.names import ReleaseId
from drupelet.core.states import Reason
from drupelet.durable import DiskFull, Locked, PosixDisk
from drupelet.trust import Director, ImageRepository, Images, KeyRing, NotTrusted, TargetInfo
from drupelet.trust.errors import AlreadyThere, BadKeyFile
from tests.fakes.trust_world import NOON, PASSPHRASE, TrustWorld, a_manifest


def test_releases_are_listed_in_order(world: TrustWorld) -> None:
    for version in ("1.10", "1.2", "1.1"):
        world.release(version)
    assert [str(release.version) for release, _ in world.images.releases()] == ["1.1", "1.2", "1.10"]


def test_publishing_the_same_release_twice_does_nothing(world: TrustWorld) -> None:
    target = world.release("1.1")
    before = sorted(path.name for path in (world.network.depot / "metadata").iterdir())
    assert world.release("1.1") == target
    assert sorted(path.name for path in (world.network.depot / "metadata").iterdir()) == before


def test_a_release_never_changes(world: TrustWorld) -> None:
    world.release("1.1")
    with pytest.raises(AlreadyThere, match="new version"):
        world.release("1.1", summary="changed")


def test_unknown_families_and_releases_are_said(world: TrustWorld) -> None:
    with pytest.raises(NotFound, match="kiosk, sign"):
        world.images.add_release(a_manifest("1.1", family="robot"))
    with pytest.raises(NotFound):
        world.images.revoke(ReleaseId.parse("kiosk/9.9"))


def test_a_depot_holds_one_repository(world: TrustWorld, tmp_path: Path) -> None:
    with pytest.raises(AlreadyThere):
        world.images.create()
    with pytest.raises(NotFound, match="no complete image repository"):
        ImageRepository(world.disk, tmp_path / "empty", world.keys, world.now).add_release(a_manifest("1.1"))


def test_one_publisher_at_a_time(world: TrustWorld) -> None:
    with (
        world.disk.lock(world.network.depot / ".publishing", holder="the other one"),
        pytest.raises(Locked, match="the other one"),
    ):
        world.release("1.1")


def test_the_timestamp_key_alone_renews_the_timestamp(world: TrustWorld, tmp_path: Path, shared_keys: KeyRing) -> None:
    world.release("1.1")
    folder = tmp_path / "some-keys"
    (folder / "private").mkdir(parents=True)
    source = shared_keys._folder
    for name in ("keyring.json", "image-root.json", "director-root.json", "private/image-timestamp.pem"):
        shutil.copy(source / name, folder / name)
    ring = KeyRing(world.disk, folder, passphrase=lambda: PASSPHRASE)
    world.clock += timedelta(days=29)
    ImageRepository(world.disk, world.network.depot, ring, world.now).refresh_timestamp()
    world.clock += timedelta(days=29)
    assert world.device().images.release(ReleaseId.parse("kiosk/1.1")).manifest == a_manifest("1.1")


class DyingDisk(PosixDisk):
    """Fails at its n-th durable write."""

    def __init__(self, writes: int) -> None:
        super().__init__()
        self.left = writes

    def replace(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        if self.left == 0:
            raise DiskFull("no space", where=str(path))
        self.left -= 1
        super().replace(path, data, mode=mode)


@pytest.mark.parametrize("writes", range(4))
def test_a_publisher_that_dies_leaves_the_old_state_whole(world: TrustWorld, writes: int) -> None:
    world.release("1.1")
    dying = ImageRepository(DyingDisk(writes), world.network.depot, world.keys, world.now)
    with pytest.raises(DiskFull):
        dying.add_release(a_manifest("1.2"))
    images = Images(
        world.disk,
        world.folder / "fleet",
        root=world.keys.image_root,
        depot_url="depot",
        fetch=world.network,
        now=world.now,
    )
    assert images.release(ReleaseId.parse("kiosk/1.1")).manifest.version == "1.1"
    world.release("1.2")
    assert images.release(ReleaseId.parse("kiosk/1.2")).manifest.version == "1.2"


def test_depot_files_may_be_served_by_another_user(world: TrustWorld) -> None:
    world.release("1.1")
    files = [path for path in world.network.depot.rglob("*.json") if path.is_file()]
    assert files
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in files)


def test_a_director_signs_only_what_belongs_together(world: TrustWorld) -> None:
    target, other = world.release("1.1"), world.release("1.2")
    order = world.order(target, serial=1)
    for bad_order, bad_target, device in [
        (order, None, "a"),
        (None, target, "a"),
        (order, other, "a"),
        (order, target, "b"),
        (order, TargetInfo(target.path, target.length, other.sha256), "a"),
    ]:
        with pytest.raises(BadInput):
            world.sign(bad_order, bad_target, device=device)
    with pytest.raises(BadInput, match="expired"):
        world.sign(order, target, lifetime=timedelta(0))


def test_a_director_needs_the_key_its_root_names(world: TrustWorld) -> None:
    with pytest.raises(BadKeyFile, match="director-online"):
        Director(roots=[world.keys.director_root], signer=world.keys.signer("image-timestamp"))


def test_an_expired_signature_time_is_not_believed(world: TrustWorld) -> None:
    from drupelet.trust.roles import make_targets, signed_at

    assert signed_at(make_targets(version=1, now=NOON, expires=NOON + timedelta(days=1))) == NOON
    assert signed_at(make_targets(version=1, now=NOON, expires=NOON - timedelta(days=1))) is None


def test_renewing_everything_keeps_releases_installable_for_years(world: TrustWorld) -> None:
    target = world.release("1.1")
    for _ in range(3):
        world.clock += timedelta(days=360)
        with pytest.raises(NotTrusted) as caught:
            world.device().images.look_up(target.path)
        assert caught.value.reason is Reason.EXPIRED
        world.images.renew()
        assert world.device().images.look_up(target.path) == target
    world.release("1.2")
    assert len(world.images.releases()) == 2

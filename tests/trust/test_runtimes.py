"""Whoever owns the registry cannot make a device run an image that was not signed, or another one, or an old one."""

from __future__ import annotations

from pathlib import Path

import pytest

from drupelet.core.names import Digest, ReleaseId, Version
from drupelet.core.states import Reason
from drupelet.durable import PosixDisk
from drupelet.trust import KeyRing, NotTrusted
from drupelet.trust.runtimes import Runtimes
from drupelet.wire.codec import encode_canonical
from tests.fakes.trust_world import NOON, PASSPHRASE, TrustWorld
from tests.wire.test_runtime import DIGEST, a_runtime

ARM = "linux/arm64"
V2, V3 = Version.parse("0.2"), Version.parse("0.3")


@pytest.fixture(scope="module")
def runtime_keys(tmp_path_factory: pytest.TempPathFactory) -> KeyRing:
    """A key ring with a family for runtimes."""
    folder = tmp_path_factory.mktemp("keys") / "keys"
    return KeyRing.create(PosixDisk(), folder, families=["runtime"], passphrase=lambda: PASSPHRASE, now=NOON)


@pytest.fixture
def world(tmp_path: Path, runtime_keys: KeyRing) -> TrustWorld:
    """A fleet whose depot has runtimes."""
    return TrustWorld(tmp_path, runtime_keys)


@pytest.fixture
def runtimes(world: TrustWorld) -> Runtimes:
    """A device that knows the image root of a repository with runtimes 0.2 and 0.3."""
    for runtime in (a_runtime("0.2"), a_runtime("0.3", index=DIGEST[3])):
        world.images.add_target(runtime.path, encode_canonical(runtime))
    return Runtimes(world.device().images, disk=PosixDisk(), folder=world.network.depot.parent / "runtime")


def _refused(runtimes: Runtimes, version: Version, digest: str, *, platform: str = ARM) -> NotTrusted:
    with pytest.raises(NotTrusted) as caught:
        runtimes.verify(version, Digest.parse(digest), platform=platform)
    return caught.value


@pytest.mark.parametrize("digest", [DIGEST[0], DIGEST[2]])
def test_the_signed_image_is_taken_by_its_index_and_by_its_platform(runtimes: Runtimes, digest: str) -> None:
    assert runtimes.verify(V2, Digest.parse(digest), platform=ARM).version == "0.2"


def test_an_image_that_was_never_signed_is_refused(runtimes: Runtimes) -> None:
    error = _refused(runtimes, V2, "sha256:" + "9" * 64)
    assert error.reason is Reason.DIGEST_MISMATCH
    assert "is not the image of runtime 0.2 for linux/arm64" in error.what
    assert _refused(runtimes, Version.parse("0.4"), DIGEST[0]).reason is Reason.UNSIGNED


def test_the_image_of_another_platform_or_of_another_version_is_refused(runtimes: Runtimes) -> None:
    assert _refused(runtimes, V2, DIGEST[1]).reason is Reason.DIGEST_MISMATCH
    assert _refused(runtimes, V3, DIGEST[0]).reason is Reason.DIGEST_MISMATCH
    assert _refused(runtimes, V2, DIGEST[0], platform="linux/riscv64").reason is Reason.UNSIGNED


def test_an_older_version_than_the_one_accepted_last_is_refused(runtimes: Runtimes) -> None:
    runtimes.verify(V3, Digest.parse(DIGEST[3]), platform=ARM)
    runtimes.verify(V2, Digest.parse(DIGEST[0]), platform=ARM)  # only accepting makes a floor
    runtimes.accept(V3)
    error = _refused(runtimes, V2, DIGEST[0])
    assert error.reason is Reason.REPLAYED
    assert "--allow-older" in error.fix
    runtimes.verify(V2, Digest.parse(DIGEST[0]), platform=ARM, allow_older=True)
    runtimes.accept(V2)
    assert runtimes.floor == V2


def test_a_revoked_runtime_is_refused(world: TrustWorld, runtimes: Runtimes) -> None:
    world.images.revoke(ReleaseId.parse("runtime/0.2"))
    assert _refused(runtimes, V2, DIGEST[0]).reason is Reason.UNSIGNED


def test_a_manifest_signed_under_another_version_is_refused(world: TrustWorld, runtimes: Runtimes) -> None:
    world.images.add_target("runtime/0.9/runtime.json", encode_canonical(a_runtime("0.2")))
    assert _refused(runtimes, Version.parse("0.9"), DIGEST[0]).reason is Reason.BAD_METADATA


def test_a_manifest_changed_in_the_depot_is_refused(world: TrustWorld, runtimes: Runtimes) -> None:
    (path,) = (world.network.depot / "targets" / "runtime" / "0.2").iterdir()
    data = path.read_bytes()
    path.write_bytes(data.replace(DIGEST[2].encode(), ("sha256:" + "9" * 64).encode()))
    assert _refused(runtimes, V2, "sha256:" + "9" * 64).reason is Reason.DIGEST_MISMATCH

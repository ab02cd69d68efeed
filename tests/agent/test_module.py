"""Mender's calls as a table over the machine's states, and releases that came as a folder of files."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from drupelet.agent import module
from drupelet.agent.bundle import BASE, FILES_MAX, Bundle, BundleDepot, BundleTrust, blob_name
from drupelet.agent.model import DeviceState
from drupelet.agent.slots import Layout
from drupelet.core.errors import BadInput, NotFound, Refused
from drupelet.core.names import Digest, ReleaseId
from drupelet.core.states import Mode, Reason, UpdateState
from drupelet.depot.errors import BlobRefused, NoBlob
from drupelet.depot.files import FilesDepot
from drupelet.drivers.mender_artifact import Contents, collect, write
from drupelet.durable import PosixDisk
from drupelet.trust.errors import NotTrusted
from drupelet.trust.images import Images
from drupelet.wire.codec import TooLarge
from tests.agent.states import both, in_flight, order, resting
from tests.fakes.trust_world import TrustWorld, a_manifest

U = UpdateState
FAILED = {"state": U.FAILED, "reason": Reason.CANONICAL_FAILED, "detail": "why"}


@pytest.mark.parametrize(
    ("state", "ended", "succeeded"),
    [
        (in_flight(U.PREFLIGHT), False, False),
        (in_flight(U.TRIAL), False, False),
        (in_flight(U.PROBATION), True, True),
        (in_flight(U.REVERTING), False, False),
        (both(), True, True),
        (resting(), True, False),
        (resting(**FAILED), True, False),
    ],
)
def test_an_installation_ends_on_probation(state: DeviceState, ended: bool, succeeded: bool) -> None:
    outcome = module.installed(state, order(Mode.INSTALL))
    assert (outcome.ended, outcome.succeeded) == (ended, succeeded)


def test_another_release_on_probation_is_not_this_installation() -> None:
    assert module.installed(in_flight(U.PROBATION), order(Mode.INSTALL, version="1.3")) == module.WORKING


def test_a_commit_is_ordered_for_what_is_on_probation_only() -> None:
    made = module.commit_order(in_flight(U.PROBATION), device="d")
    assert made is not None
    assert (made.mode, made.serial, made.release, made.probation_ms) == (Mode.COMMIT, 3, "kiosk/1.2", 0)
    for state in (resting(), in_flight(U.TRIAL), resting(**FAILED)):
        assert module.commit_order(state, device="d") is None
    assert module.committed(in_flight(U.COMMITTING), made) == module.WORKING
    assert module.committed(both(), made).succeeded
    assert not module.committed(resting(**FAILED), made).succeeded


def test_a_commit_of_nothing_succeeds_only_where_nothing_failed() -> None:
    assert module.nothing_to_commit(resting()).succeeded
    assert not module.nothing_to_commit(DeviceState()).succeeded
    refused = module.nothing_to_commit(resting(**FAILED))
    assert not refused.succeeded
    assert "canonical_failed: why" in refused.why


def test_the_way_back_ends_at_rest() -> None:
    assert module.rolled_back(in_flight(U.REVERTING)) == module.WORKING
    assert module.rolled_back(resting(**FAILED)).why == "kiosk/1.1 serves"
    assert module.rolled_back(DeviceState()).succeeded


class Vendor:
    """Whoever publishes kiosk/1.2, and a device's memory of what it believed."""

    def __init__(self, folder: Path) -> None:
        self.world, self.folder, self.disk = TrustWorld(folder / "vendor"), folder, PosixDisk()
        (folder / "model").write_bytes(b"abc")
        self.blob, size = FilesDepot(self.disk, self.depot).put(folder / "model")
        manifest = a_manifest("1.2")
        variant = msgspec.structs.replace(manifest.variants[0], digest=self.blob.text, size_bytes=size)
        self.world.images.add_release(msgspec.structs.replace(manifest, variants=(variant,)))

    @property
    def depot(self) -> Path:
        return self.folder / "vendor" / "depot"

    def collect(self, variants: tuple[str, ...] = ()) -> Contents:
        root, now = self.world.keys.image_root, self.world.now()
        release = ReleaseId.parse("kiosk/1.2")
        return collect(release, depot=self.depot, root=root, variants=variants, disk=self.disk, now=now)

    def bundle(self) -> Bundle:
        """As Mender lays the files out on the device."""
        files = self.folder / "files"
        files.mkdir()
        for name, path in self.collect().files.items():
            shutil.copy(path, files / name)
        return Bundle(self.disk, files)

    def trust(self, bundle: Bundle) -> BundleTrust:
        images = Images(
            self.disk, self.folder / "device", root=self.world.keys.image_root, depot_url=BASE, fetch=bundle,
            now=self.world.now,
        )  # fmt: skip
        return BundleTrust(images, bundle)


@pytest.fixture
def vendor(tmp_path: Path) -> Vendor:
    return Vendor(tmp_path)


def test_a_bundle_is_all_that_a_device_needs_to_believe_it(vendor: Vendor) -> None:
    bundle = vendor.bundle()
    trust = vendor.trust(bundle)
    given = trust.give(device="d", serial=5, probation_ms=1, reason="asked")
    assert (given.release, given.variants, given.serial) == ("kiosk/1.2", ("q4_0",), 5)
    assert trust.refresh_director() == trust.order == given
    manifest = trust.vouch(given)
    assert trust.remembered(Digest.parse(given.manifest)) == manifest
    layout = Layout(vendor.folder / "state")
    with BundleDepot(bundle, vendor.disk, layout).fetching(vendor.blob, 3) as download:
        assert download.step(100).finished
    assert layout.part(vendor.blob).read_bytes() == b"abc"


def test_a_bundle_of_another_vendor_is_not_believed(vendor: Vendor, tmp_path: Path) -> None:
    stranger = Vendor(tmp_path / "stranger")
    bundle = stranger.bundle()
    with pytest.raises(NotTrusted) as caught:
        vendor.trust(bundle).give(device="d", serial=1, probation_ms=1, reason="")
    assert caught.value.reason is Reason.UNSIGNED


def test_an_older_bundle_than_the_device_has_seen_is_a_replay(vendor: Vendor, tmp_path: Path) -> None:
    old = vendor.bundle()
    vendor.world.release("1.3")
    newer = tmp_path / "newer"
    newer.mkdir()
    for name, path in vendor.collect().files.items():
        shutil.copy(path, newer / name)
    vendor.trust(Bundle(vendor.disk, newer)).give(device="d", serial=1, probation_ms=1, reason="")
    with pytest.raises(NotTrusted) as caught:
        vendor.trust(old).give(device="d", serial=2, probation_ms=1, reason="")
    assert caught.value.reason is Reason.REPLAYED


def test_damaged_bundles_are_refused(vendor: Vendor, tmp_path: Path) -> None:
    bundle = vendor.bundle()
    with pytest.raises(BlobRefused) as caught:
        list(bundle.open(vendor.blob, offset=0, size=2))
    assert caught.value.reason is Reason.TOO_LARGE
    with pytest.raises(NoBlob):
        list(bundle.open(Digest.of_hex("0" * 64), offset=0, size=3))
    with pytest.raises(TooLarge):
        bundle.get(f"{BASE}/metadata/timestamp.json", bytes_max=10)
    for name in ("metadata/../../x", "/etc/passwd", "metadata/9.root.json"):
        with pytest.raises(NotFound):
            bundle.get(f"{BASE}/{name}", bytes_max=1000)
    (bundle.folder / blob_name(vendor.blob)).unlink()
    with pytest.raises(BadInput, match="no variant"):
        vendor.trust(Bundle(vendor.disk, bundle.folder)).give(device="d", serial=1, probation_ms=1, reason="")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(BadInput, match="0 release manifests"):
        Bundle(vendor.disk, empty)
    for number in range(FILES_MAX + 1):
        (empty / str(number)).touch()
    with pytest.raises(BadInput, match="129 files"):
        Bundle(vendor.disk, empty)


def test_an_artifact_is_made_of_what_is_there_only(vendor: Vendor, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="no variant 'q9'"):
        vendor.collect(("q9",))
    contents = vendor.collect(("q4_0",))
    assert contents.artifact_name == "kiosk-1.2"
    with pytest.raises(BadInput, match="no device type"):
        write(contents, vendor.folder / "x.mender", device_types=())
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotFound, match="mender-artifact"):
        write(contents, vendor.folder / "x.mender", device_types=("pi",))
    monkeypatch.setenv("PATH", str(vendor.folder))
    tool = vendor.folder / "mender-artifact"
    tool.write_text("#!/bin/sh\necho no space left >&2\nexit 1\n")
    tool.chmod(0o755)
    with pytest.raises(Refused, match="no space left"):
        write(contents, vendor.folder / "x.mender", device_types=("pi",))
    assert not (vendor.folder / "x.mender").exists()
    FilesDepot(vendor.disk, vendor.depot).path(vendor.blob).unlink()
    with pytest.raises(NoBlob):
        vendor.collect()

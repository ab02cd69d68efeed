"""Small signed files beside a manifest: all of one release in one step, read back only as they were signed."""

from __future__ import annotations

import hashlib

import pytest

from drupelet.core.errors import BadInput, NotFound
from drupelet.core.names import ReleaseId
from drupelet.core.states import Reason
from drupelet.trust import NotTrusted
from drupelet.trust.errors import AlreadyThere, RepositoryMissing
from drupelet.wire.manifest import Attachment
from tests.fakes.trust_world import TrustWorld, a_manifest

NOTE = "kiosk/1.1/note.json"


def test_a_file_beside_a_manifest_is_vouched_for_with_it(world: TrustWorld) -> None:
    world.images.add_release(a_manifest("1.1"), beside=lambda: {NOTE: b"a note"})
    images = world.device().images
    assert images.target(NOTE, bytes_max=100)[1] == b"a note"
    assert images.release(ReleaseId.parse("kiosk/1.1")).manifest == a_manifest("1.1")
    assert [str(release) for release, _ in world.images.releases()] == ["kiosk 1.1"]
    metadata = {path.name for path in (world.network.depot / "metadata").iterdir()}
    assert "2.kiosk.json" in metadata
    assert "3.kiosk.json" not in metadata, "one step for all files of a release"


def test_a_family_may_hold_no_manifest_at_all(world: TrustWorld) -> None:
    world.images.add_target("sign/0.2/runtime.json", b"{}")
    assert world.device().images.target("sign/0.2/runtime.json", bytes_max=100)[1] == b"{}"
    assert world.images.releases() == ()


def test_revoking_a_release_takes_its_files_along(world: TrustWorld) -> None:
    world.images.add_release(a_manifest("1.1"), beside=lambda: {NOTE: b"a note"})
    world.images.add_target("kiosk/1.10/note.json", b"of another release")
    world.images.revoke(ReleaseId.parse("kiosk/1.1"))
    images = world.device().images
    with pytest.raises(NotTrusted) as caught:
        images.target(NOTE, bytes_max=100)
    assert caught.value.reason is Reason.UNSIGNED
    assert images.target("kiosk/1.10/note.json", bytes_max=100)[1] == b"of another release"


def test_what_is_signed_never_changes(world: TrustWorld) -> None:
    world.images.add_target(NOTE, b"a note")
    assert world.images.add_target(NOTE, b"a note") == world.images.target(NOTE)
    with pytest.raises(AlreadyThere, match=r"note\.json of kiosk 1\.1"):
        world.images.add_target(NOTE, b"another")


@pytest.mark.parametrize("path", ["note.json", "kiosk/note.json", "kiosk/1.1/../note.json", "kiosk/1.1/", "kiosk/x/a"])
def test_paths_that_are_none_are_refused(world: TrustWorld, path: str) -> None:
    with pytest.raises(BadInput):
        world.images.add_target(path, b"")


def test_files_of_two_releases_are_not_signed_together(world: TrustWorld) -> None:
    with pytest.raises(BadInput, match="of one release"):
        world.images.add_release(a_manifest("1.1"), beside=lambda: {"kiosk/1.2/note.json": b""})
    with pytest.raises(NotFound, match="do not sign robot"):
        world.images.add_target("robot/1.1/note.json", b"")


@pytest.mark.parametrize(
    ("served", "reason"),
    [(b"A note", Reason.DIGEST_MISMATCH), (b"a n", Reason.TRUNCATED), (b"a note, longer", Reason.TOO_LARGE)],
)
def test_a_file_that_is_not_the_one_signed_is_refused(world: TrustWorld, served: bytes, reason: Reason) -> None:
    target = world.images.add_target(NOTE, b"a note")
    world.network.overlay[f"depot/targets/{target.url_path}"] = served
    with pytest.raises(NotTrusted, match=r"note\.json") as caught:
        world.device().images.target(NOTE, bytes_max=100)
    assert caught.value.reason is reason


def test_a_signed_file_that_is_not_there_is_said(world: TrustWorld) -> None:
    target = world.images.add_target(NOTE, b"a note")
    (world.network.depot / "targets" / target.url_path).unlink()
    with pytest.raises(RepositoryMissing, match="publish"):
        world.device().images.target(NOTE, bytes_max=100)


def test_an_attachment_is_only_what_was_signed(world: TrustWorld) -> None:
    page = b"<!doctype html>"
    hexdigits = hashlib.sha256(page).hexdigest()
    attached = Attachment(kind="report-page", digest=f"sha256:{hexdigits}", size_bytes=len(page))
    images = world.device().images
    with pytest.raises(RepositoryMissing, match="the report-page is signed but does not lie in the depot"):
        images.attachment(attached)
    blob = world.network.depot / "blobs" / "sha256" / hexdigits[:2] / hexdigits
    blob.parent.mkdir(parents=True)
    blob.write_bytes(page)
    assert images.attachment(attached) == page
    for bad, reason in (
        (b"<!doctype HTML>", Reason.DIGEST_MISMATCH),
        (page[:-1], Reason.TRUNCATED),
        (page + b" ", Reason.TOO_LARGE),
    ):
        blob.write_bytes(bad)
        with pytest.raises(NotTrusted) as caught:
            images.attachment(attached)
        assert caught.value.reason is reason

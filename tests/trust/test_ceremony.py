"""A ceremony by scripted people: what it makes works, it goes on where it stopped, and its record can be verified."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from tuf.api.metadata import Metadata, Root

from drupelet.core.errors import BadInput, Conflict
from drupelet.core.names import Digest, ReleaseId
from drupelet.durable import Disk, DiskFull, PosixDisk
from drupelet.trust import ImageRepository, Images, KeyRing, NotTrusted
from drupelet.trust.ceremony.plan import Plan, load_plan, parse_plan, plan_text, rehearsed
from drupelet.trust.ceremony.record import as_markdown, fingerprint, read_envelope, verified
from drupelet.trust.ceremony.run import Ceremony, Stopped
from drupelet.trust.ceremony.steps import Act, steps_of
from drupelet.trust.errors import AlreadyThere, WeakPassphrase
from drupelet.trust.ring import with_key, without_key
from drupelet.trust.sittings import countersign, look
from drupelet.wire.codec import encode_canonical
from tests.fakes.soft_token import PIN, SoftToken
from tests.fakes.trust_world import NOON, FakeNetwork, a_manifest
from tests.trust.test_publisher import DyingDisk

HOLDERS = ("Ada", "Grace", "Edsger")


def passphrase_of(holder: str) -> str:
    return f"{holder} has a long passphrase"


class Scripted:
    """People who say yes until they say no. Implements `People`."""

    def __init__(self, *, yes: int | None = None, passphrases: str = "") -> None:
        self.left = yes
        self.heard: list[str] = []
        self.asked: list[str] = []
        self.weak = passphrases

    def say(self, text: str) -> None:
        self.heard.append(text)

    def confirm(self, question: str) -> bool:
        self.asked.append(question)
        if self.left == 0:
            return False
        self.left = None if self.left is None else self.left - 1
        return True

    def passphrase(self, holder: str, *, new: bool) -> str:
        return self.weak or passphrase_of(holder)

    def pin(self, token: str) -> str:
        return PIN


def media(folder: Path) -> dict[str, str]:
    return {name: str(folder / "media" / name) for name in HOLDERS}


def a_plan(folder: Path) -> Plan:
    text = plan_text(
        title="Keys of the shops", families=["kiosk"], holders=media(folder), threshold=2, operator="Linus"
    )
    return parse_plan(text.encode())


class Clock:
    """A minute passes at each look."""

    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> datetime:
        self.time += timedelta(minutes=1)
        return self.time


def a_ceremony(
    folder: Path,
    people: Scripted,
    *,
    plan: Plan | None = None,
    disk: Disk | None = None,
    networks: Sequence[str] = (),
    digest: str = "1",
) -> Ceremony:
    return Ceremony(
        plan=plan or a_plan(folder),
        plan_digest=Digest.of_hex(digest * 64),
        disk=disk or PosixDisk(),
        out=folder / "keys",
        people=people,
        now=Clock(),
        networks=lambda: tuple(networks),
        tools={"drupelet": "0.1.0"},
        environment=os.environ,
    )


def opened(folder: Path, holder: str) -> KeyRing:
    return KeyRing(PosixDisk(), folder, passphrase=lambda: passphrase_of(holder))


def works(folder: Path) -> None:
    """Publish with the ring as a device sees it, and let two holders change a key through a new root."""
    ring = opened(folder / "keys", "Linus")
    clock = NOON + timedelta(days=1)
    images = ImageRepository(PosixDisk(), folder / "depot", ring, lambda: clock)
    images.create()
    images.add_release(a_manifest("1.1"))
    first = ring.image_root
    ring.change(without_key(with_key(ring.info, ring.make("image", "timestamp")), "image-timestamp"))
    for holder in ("Ada", "Edsger"):
        with pytest.raises(Exception, match="image-root has"):
            images.rotate()
        theirs = opened(Path(media(folder)[holder]), holder)
        pending = folder / "keys" / "pending" / "image-root.json"
        sitting = look(PosixDisk(), pending, keys=theirs, now=clock)
        assert len(countersign(PosixDisk(), sitting, keys=theirs)) == 1
    assert images.rotate()[0] == "root 2"
    device = Images(
        PosixDisk(),
        folder / "device",
        root=first,
        depot_url="depot",
        fetch=FakeNetwork(folder / "depot"),
        now=lambda: clock,
    )
    assert device.release(ReleaseId.parse("kiosk/1.1")).manifest == a_manifest("1.1")


def test_a_ceremony_makes_a_ring_that_works_and_every_key_where_it_belongs(tmp_path: Path) -> None:
    people = Scripted()
    record = a_ceremony(tmp_path, people, networks=["eth0"]).run()
    assert {path.name for path in (tmp_path / "keys").iterdir()} == {
        "keyring.json",
        "image-root.json",
        "director-root.json",
        "private",
        "ceremony",
        "pending",
    }
    assert sorted(path.name for path in (tmp_path / "media" / "Ada" / "private").iterdir()) == [
        "director-root-1.pem",
        "image-root-1.pem",
    ]
    assert not list((tmp_path / "keys" / "private").glob("*root*"))
    for name in ("image-root.json", "director-root.json"):
        metadata = Metadata[Root].from_bytes((tmp_path / "keys" / name).read_bytes())
        assert len(metadata.signatures) == 3
        assert metadata.signed.roles["root"].threshold == 2
    assert any("not offline: networks are up: eth0" in line for line in people.heard)
    read_aloud = [line for line in people.heard if "Read aloud" in line]
    assert len(read_aloud) == len(record.keys) == 12
    works(tmp_path)


def test_a_medium_is_asked_for_once_while_it_is_in(tmp_path: Path) -> None:
    people = Scripted()
    a_ceremony(tmp_path, people).run()
    ada = [question for question in people.asked if "medium of Ada" in question]
    assert len(ada) == 4, "for its keys, for the roots, for the record, to carry the ring away"


def test_the_record_says_who_when_what_and_is_signed_by_the_root_keys(tmp_path: Path) -> None:
    record = a_ceremony(tmp_path, Scripted()).run()
    folder = tmp_path / "keys" / "ceremony"
    root = Metadata[Root].from_bytes((tmp_path / "keys" / "image-root.json").read_bytes()).signed
    keys = [root.keys[keyid] for keyid in root.roles["root"].keyids]
    envelope = read_envelope((folder / "record.dsse.json").read_bytes(), where="record")
    found, signed = verified(envelope, keys, threshold=3, where="record")
    assert found == record
    assert len(signed) == 3
    assert found.holders["image-root-2"] == "Grace"
    page = (folder / "record.md").read_text()
    assert page == as_markdown(record)
    for key in record.keys:
        assert key.keyid in page
        assert fingerprint(key.keyid) in page
    assert record.roots[0].sha256.removeprefix("sha256:") in page
    assert "2026-11-23 12:" in page
    assert "REHEARSAL" not in page

    altered = json.loads((folder / "record.dsse.json").read_text())
    other = replace(record, title="Keys of somebody else")
    altered["payload"] = base64.b64encode(encode_canonical(other)).decode()
    envelope = read_envelope(json.dumps(altered).encode(), where="record")
    with pytest.raises(NotTrusted, match="0 of the root's keys have signed"):
        verified(envelope, keys, threshold=2, where="record")


@pytest.mark.parametrize("yes", [0, 3, 4, 5, 11, 14, 20, 23, 24, 25, 27])
def test_whoever_says_no_stops_it_and_it_goes_on_from_there(tmp_path: Path, yes: int) -> None:
    with pytest.raises(Stopped, match="run the same command"):
        a_ceremony(tmp_path, Scripted(yes=yes)).run()
    before = sorted(path.read_bytes() for path in tmp_path.rglob("*.pem"))
    people = Scripted()
    record = a_ceremony(tmp_path, people).run()
    assert set(before) <= {path.read_bytes() for path in tmp_path.rglob("*.pem")}, "no key is made twice"
    assert len(record.keys) == 12
    assert not (tmp_path / "keys" / "ceremony.json").exists()
    if yes == 25:
        works(tmp_path)


@pytest.mark.parametrize("writes", [0, 1, 5, 6, 7, 12, 24, 30, 36, 41, 44, 50, 60, 70, 75])
def test_a_disk_that_fails_anywhere_loses_no_key(tmp_path: Path, writes: int) -> None:
    try:
        a_ceremony(tmp_path, Scripted(), disk=DyingDisk(writes)).run()
    except DiskFull:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*.pem")}
        a_ceremony(tmp_path, Scripted()).run()
        assert all(path.read_bytes() == data for path, data in before.items())
    ring = opened(tmp_path / "keys", "Linus")
    ring.signer("image-family-kiosk").sign(b"bytes")
    opened(tmp_path / "media" / "Grace", "Grace").signer("image-root-2").sign(b"bytes")


def test_another_plan_does_not_go_on_with_this_one(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        a_ceremony(tmp_path, Scripted(yes=8)).run()
    with pytest.raises(Conflict, match="another plan"):
        a_ceremony(tmp_path, Scripted(), digest="2").run()


def test_a_finished_ceremony_is_not_held_again_over_its_keys(tmp_path: Path) -> None:
    a_ceremony(tmp_path, Scripted()).run()
    with pytest.raises(AlreadyThere, match="a key ring lies here"):
        a_ceremony(tmp_path, Scripted()).run()


def test_a_weak_passphrase_makes_no_key(tmp_path: Path) -> None:
    with pytest.raises(WeakPassphrase):
        a_ceremony(tmp_path, Scripted(passphrases="short")).run()
    assert not list(tmp_path.rglob("*.pem"))


def test_a_root_key_may_be_on_a_token(tmp_path: Path, token: SoftToken) -> None:
    plan = a_plan(tmp_path)
    keys = tuple(
        replace(key, medium="", place=token.place(2 if key.role == "image/root" else 7)) if key.holder == "Ada" else key
        for key in plan.keys
    )
    record = a_ceremony(tmp_path, Scripted(), plan=replace(plan, keys=keys)).run()
    ada = next(key for key in record.keys if key.name == "image-root-1")
    assert (ada.scheme, ada.place) == ("ecdsa-sha2-nistp256", token.place(2))
    assert "image-root-1" in record.roots[0].signed_by


def test_a_rehearsal_has_the_same_steps_and_touches_nothing(tmp_path: Path, token: SoftToken) -> None:
    plan = a_plan(tmp_path)
    keys = tuple(replace(key, medium="", place=token.place()) if key.holder == "Ada" else key for key in plan.keys)
    plan = replace(plan, keys=keys)
    rehearsal = rehearsed(plan, tmp_path / "scratch")
    acts = [step.act for step in steps_of(rehearsal) if step.act is not Act.CARRY]
    assert acts == [step.act for step in steps_of(plan) if step.act is not Act.CARRY]
    a_ceremony(tmp_path / "scratch", Scripted(), plan=rehearsal).run()
    assert {path.name for path in tmp_path.iterdir()} == {"scratch"}


TEXT = plan_text(
    title="Keys",
    families=["kiosk"],
    holders={name: f"/media/{name}" for name in HOLDERS},
    threshold=2,
    operator="Linus",
)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('format = "drupelet.ceremony/1"', 'format = "drupelet.ceremony/9"', "plan:1: format: .*ceremony/9"),
        ('title = "Keys"', "", "title"),
        ('holder = "Ada"', 'holdr = "Ada"', "did you mean 'holder'"),
        ('holder = "Grace"', 'holder = "Grcae"', "'Grcae' is not among the people"),
        ('role = "image/root"', 'role = "image/rot"', "no role 'image/rot'"),
        ('name = "image-root-2"', 'name = "image-root-1"', "two keys are called 'image-root-1'"),
        ('medium = "/media/Grace"', 'medium = "/media/Ada"', "would lie on one medium"),
        ('"image/root" = 2', '"image/root" = 4', "would need 4 signatures and has 3 keys"),
        ('"image/root" = 2', '"image/snapshot" = 1\n"director/online" = 2', "director/online would need 2"),
        ('role = "image/snapshot"', 'role = "image/timestamp"', "nobody holds a key for image/snapshot"),
        ('families = ["kiosk"]', 'families = ["targets"]', "TUF role"),
        ('role = "model/kiosk"', 'role = "model/kiosk"\nscheme = "ed25519"', "need ecdsa"),
        ('role = "image/targets"', 'role = "image/targets"\nplace = "usb:1"', "known places"),
        ('medium = "/media/Ada"', 'medium = "/media/Ada"\nplace = "pkcs11:token=a;id=%02"', "is on a token"),
        ('medium = "/media/Ada"', 'medium = "media/Ada"', "not a whole path"),
        ("[thresholds]", "[thresholds", "not TOML"),
    ],
)
def test_a_plan_is_checked_before_anybody_is_called_in(old: str, new: str, words: str) -> None:
    assert old in TEXT
    with pytest.raises(BadInput, match=words):
        parse_plan(TEXT.replace(old, new).encode())


def test_one_person_does_not_hold_two_keys_of_one_root() -> None:
    with pytest.raises(BadInput, match="Ada would hold both image-root-2 and image-root-1"):
        parse_plan(TEXT.replace('holder = "Grace"', 'holder = "Ada"').encode())


@pytest.mark.parametrize("data", [b"\xff", b"x" * 300_000])
def test_what_is_no_plan(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        parse_plan(data)
    with pytest.raises(BadInput, match="cannot be read"):
        load_plan(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "damage", [b"", b"{}", b"[1]", b"\xff", b'{"payload": "", "payloadType": "x", "signatures": []}']
)
def test_what_is_no_record(damage: bytes) -> None:
    with pytest.raises(BadInput):
        read_envelope(damage, where="record")

"""Keys lie encrypted, are readable by their owner alone, and show themselves nowhere."""

from __future__ import annotations

import json
import logging
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from tuf.api.metadata import Metadata, Root

from drupelet.core.errors import BadInput, DrupeletError
from drupelet.durable import PosixDisk
from drupelet.trust import KeyRing, passphrase_from, read_signer
from drupelet.trust.errors import AlreadyThere, BadKeyFile, KeyFileUnsafe, NoKey, WeakPassphrase, WrongPassphrase
from drupelet.trust.keys import KeyState
from tests.fakes.trust_world import NOON, PASSPHRASE, make_keys


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return make_keys(tmp_path / "keys")


def private(tmp_path: Path, name: str = "image-timestamp") -> Path:
    return tmp_path / "keys" / "private" / f"{name}.pem"


def test_private_keys_are_encrypted_and_their_owners_alone(ring: KeyRing, tmp_path: Path) -> None:
    files = sorted((tmp_path / "keys" / "private").iterdir())
    assert {path.stem for path in files} == {key.name for key in ring.info.keys}
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    assert all(b"ENCRYPTED PRIVATE KEY" in path.read_bytes() for path in files)
    assert stat.S_IMODE(files[0].parent.stat().st_mode) == 0o700


def test_both_roots_are_signed_by_all_root_keys_with_a_threshold(ring: KeyRing) -> None:
    for data in (ring.image_root, ring.director_root):
        metadata = Metadata[Root].from_bytes(data)
        root = metadata.signed
        result = root.get_root_verification_result(None, metadata.signed_bytes, metadata.signatures)
        assert result.verified
        assert len(result.signed) == 3
        assert root.roles["root"].threshold == 2
        assert root.consistent_snapshot


def test_repositories_and_roles_share_no_key_but_the_directors_online_one(ring: KeyRing) -> None:
    image = Metadata[Root].from_bytes(ring.image_root).signed.roles
    director = Metadata[Root].from_bytes(ring.director_root).signed.roles
    keys = [key for role in image.values() for key in role.keyids]
    assert len(keys) == len(set(keys)) == 6
    assert not set(keys) & {key for role in director.values() for key in role.keyids}
    online = {tuple(director[role].keyids) for role in ("targets", "snapshot", "timestamp")}
    assert len(online) == 1
    assert not set(next(iter(online))) & set(director["root"].keyids)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_key_that_others_may_read_is_refused(ring: KeyRing, tmp_path: Path, mode: int) -> None:
    private(tmp_path).chmod(mode)
    with pytest.raises(KeyFileUnsafe, match="chmod 600"):
        ring.signer("image-timestamp")
    assert ring.state("image-timestamp") is KeyState.UNSAFE


def test_a_wrong_passphrase_is_said_in_words(ring: KeyRing, tmp_path: Path) -> None:
    with pytest.raises(WrongPassphrase, match="passphrase does not open this key") as caught:
        read_signer(private(tmp_path), passphrase="wrong horse battery")
    assert "wrong horse" not in caught.value.line()
    assert caught.value.exit_code == 3


def test_a_key_that_was_carried_away_is_missed_when_it_is_needed(ring: KeyRing, tmp_path: Path) -> None:
    private(tmp_path, "image-root-1").unlink()
    again = KeyRing(PosixDisk(), tmp_path / "keys", passphrase=lambda: PASSPHRASE)
    assert again.state("image-root-1") is KeyState.AWAY
    again.signer("image-timestamp")
    with pytest.raises(NoKey, match="carried away"):
        again.signer("image-root-1")
    with pytest.raises(NoKey, match="it has image-root-1"):
        again.signer("no-such")


def pem(key: object, passphrase: bytes | None) -> bytes:
    sealing = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealing)  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (pem(Ed25519PrivateKey.generate(), None), BadKeyFile),
        (pem(generate_private_key(SECP256R1()), PASSPHRASE.encode()), BadKeyFile),
        (pem(Ed25519PrivateKey.generate(), PASSPHRASE.encode()), BadKeyFile),
        (b"", BadKeyFile),
        (b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", WrongPassphrase),
        (b"x" * 20_000, BadKeyFile),
    ],
    ids=["unencrypted", "another kind", "another key", "empty", "damaged", "huge"],
)
def test_other_files_are_not_taken_for_the_key(
    ring: KeyRing, tmp_path: Path, data: bytes, error: type[DrupeletError]
) -> None:
    private(tmp_path).write_bytes(data)
    with pytest.raises(error):
        KeyRing(PosixDisk(), tmp_path / "keys", passphrase=lambda: PASSPHRASE).signer("image-timestamp")


def test_no_key_material_shows_in_logs_or_repr(
    ring: KeyRing, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    signer = ring.signer("image-timestamp")
    signer.sign(b"something")
    with pytest.raises(WrongPassphrase) as caught:
        read_signer(private(tmp_path), passphrase="wrong horse battery")
    shown = [repr(ring), repr(signer), str(signer), repr(ring.info), caplog.text, *capfd.readouterr()]
    shown += [str(caught.value), repr(caught.value), repr(caught.value.__cause__)]
    key = load_pem_private_key(private(tmp_path).read_bytes(), PASSPHRASE.encode())
    assert isinstance(key, Ed25519PrivateKey)
    raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    for text in shown:
        assert PASSPHRASE not in text
        assert "wrong horse" not in text
        assert raw.hex() not in text
        assert repr(raw)[2:-1] not in text


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"families": []}, BadInput, "family"),
        ({"families": ["kiosk", "kiosk"]}, BadInput, "once"),
        ({"families": ["../etc"]}, BadInput, "not a safe name"),
        ({"families": ["targets"]}, BadInput, "TUF role"),
        ({"threshold": 4}, BadInput, "no sense"),
        ({"threshold": 0}, BadInput, "no sense"),
        ({"root_keys": 1000}, BadInput, "no sense"),
        ({"passphrase": lambda: "short"}, WeakPassphrase, "12"),
    ],
)
def test_bad_wishes_make_no_keys(
    tmp_path: Path, changes: dict[str, object], error: type[DrupeletError], words: str
) -> None:
    arguments: dict[str, object] = {"families": ["kiosk"], "passphrase": lambda: PASSPHRASE, "now": NOON, **changes}
    with pytest.raises(error, match=words):
        KeyRing.create(PosixDisk(), tmp_path / "keys", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "keys").exists()


def test_keys_are_never_written_over(ring: KeyRing, tmp_path: Path) -> None:
    before = private(tmp_path).read_bytes()
    with pytest.raises(AlreadyThere):
        make_keys(tmp_path / "keys")
    assert private(tmp_path).read_bytes() == before


def test_a_damaged_key_ring_is_said_to_be_damaged(ring: KeyRing, tmp_path: Path) -> None:
    path = tmp_path / "keys" / "keyring.json"
    path.write_text(json.dumps({"format": "drupelet.keyring/9"}))
    with pytest.raises(BadInput, match="format"):
        KeyRing(PosixDisk(), tmp_path / "keys", passphrase=lambda: PASSPHRASE)
    path.unlink()
    with pytest.raises(NoKey, match="drupelet keys init"):
        KeyRing(PosixDisk(), tmp_path / "keys", passphrase=lambda: PASSPHRASE)


def test_where_a_passphrase_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.write_text("from the file\n")
    file.chmod(0o600)
    environment = {"DRUPELET_PASSPHRASE": "from the environment"}
    assert passphrase_from(file=file, environment=environment, ask=None)() == "from the file"
    assert passphrase_from(file=None, environment=environment, ask=None)() == "from the environment"
    assert passphrase_from(file=None, environment={}, ask=lambda: "typed")() == "typed"
    with pytest.raises(WrongPassphrase, match="DRUPELET_PASSPHRASE"):
        passphrase_from(file=None, environment={}, ask=None)()
    file.chmod(0o644)
    with pytest.raises(KeyFileUnsafe):
        passphrase_from(file=file, environment=environment, ask=None)()

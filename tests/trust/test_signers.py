"""One contract for every place a private key may be in: files, tokens (SoftHSM2), AWS KMS (moto's server)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from drupelet.core.errors import BadInput, DrupeletError, NotAllowed
from drupelet.core.names import ReleaseId
from drupelet.durable import PosixDisk
from drupelet.trust import ImageRepository, Images, KeyRing
from drupelet.trust.errors import BadKeyFile, NoKey, SignerUnavailable, WrongPin
from drupelet.trust.ring import with_key, without_key
from drupelet.trust.signers import KINDS, KeyState, kind_of
from drupelet.trust.signers.pkcs11 import parse_place
from tests.fakes.soft_token import LABEL, PIN, SoftToken
from tests.fakes.trust_world import NOON, PASSPHRASE, FakeNetwork, TrustWorld, a_manifest, make_keys


def sign_digests(patch: pytest.MonkeyPatch) -> None:
    """Teach moto what AWS does and it does not: with MessageType DIGEST the message is hashed already."""
    from cryptography.hazmat.primitives.asymmetric import ec, padding
    from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
    from cryptography.hazmat.primitives.hashes import SHA256
    from moto.kms import utils

    def ecdsa(self: utils.ECDSAPrivateKey, message: bytes, signing_algorithm: str) -> bytes:
        assert signing_algorithm == "ECDSA_SHA_256"
        return self.private_key.sign(message, ec.ECDSA(Prehashed(SHA256())))

    def rsa(self: utils.RSAPrivateKey, message: bytes, signing_algorithm: str) -> bytes:
        assert signing_algorithm == "RSASSA_PSS_SHA_256"
        pss = padding.PSS(mgf=padding.MGF1(SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)
        return self.private_key.sign(message, pss, Prehashed(SHA256()))

    patch.setattr(utils.ECDSAPrivateKey, "sign", ecdsa)
    patch.setattr(utils.RSAPrivateKey, "sign", rsa)


@pytest.fixture(scope="session")
def kms() -> Iterator[Callable[[str], str]]:
    """Return what makes a key in moto's KMS and returns its place."""
    pytest.importorskip("moto.server", reason="needs moto")
    boto3 = pytest.importorskip("boto3", reason="needs boto3")
    from moto.server import ThreadedMotoServer

    patch = pytest.MonkeyPatch()
    sign_digests(patch)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    before = dict(os.environ)
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }

    def make(spec: str = "ECC_NIST_P256") -> str:
        made = boto3.client("kms").create_key(KeyUsage="SIGN_VERIFY", KeySpec=spec)
        return f"awskms:{made['KeyMetadata']['KeyId']}"

    yield make
    server.stop()
    patch.undo()
    os.environ.clear()
    os.environ |= before


@dataclass(frozen=True)
class Place:
    """A kind of place, with an address of a key, of another key, and of none."""

    one: str
    another: str
    none: str


@pytest.fixture(params=["file", "pkcs11", "awskms"])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "pkcs11":
        token: SoftToken = request.getfixturevalue("token")
        return Place(token.place(2), token.place(7), token.place(99))
    if request.param == "awskms":
        make: Callable[[str], str] = request.getfixturevalue("kms")
        return Place(make("ECC_NIST_P256"), make("ECC_NIST_P256"), "awskms:4b5d3f0e-0000-0000-0000-000000000000")
    return Place("file", "file", "file")


def a_ring(folder: Path) -> KeyRing:
    make_keys(folder)
    return opened(folder)


def opened(folder: Path, *, pin: str = PIN) -> KeyRing:
    return KeyRing(PosixDisk(), folder, passphrase=lambda: PASSPHRASE, pin=lambda _token: pin, environment=os.environ)


def with_kiosk_key_at(ring: KeyRing, place: str) -> KeyRing:
    """Let kiosk be signed by a key at this place, and by no other."""
    made = ring.make("image", "kiosk") if place == "file" else ring.take("image", "kiosk", place=place)
    ring.change(without_key(with_key(ring.info, made), "image-family-kiosk"))
    return ring


def test_a_release_signed_there_is_believed_by_a_device(tmp_path: Path, place: Place) -> None:
    ring = with_kiosk_key_at(a_ring(tmp_path / "keys"), place.one)
    (key,) = ring.info.of("image/kiosk")
    assert key.place == place.one
    assert ring.state(key.name) is (KeyState.HERE if place.one == "file" else KeyState.ELSEWHERE)
    images = ImageRepository(PosixDisk(), tmp_path / "depot", opened(tmp_path / "keys"), lambda: NOON)
    images.create()
    images.add_release(a_manifest("1.1"))
    device = Images(
        PosixDisk(),
        tmp_path / "device",
        root=ring.image_root,
        depot_url="depot",
        fetch=FakeNetwork(tmp_path / "depot"),
        now=lambda: NOON,
    )
    assert device.release(ReleaseId.parse("kiosk/1.1")).manifest == a_manifest("1.1")


def test_what_signs_shows_no_secret(tmp_path: Path, place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    ring = with_kiosk_key_at(a_ring(tmp_path / "keys"), place.one)
    signer = ring.signer(ring.info.of("image/kiosk")[0].name)
    signature = signer.sign(b"bytes")
    signer.public_key.verify_signature(signature, b"bytes")
    shown = f"{signer!r} {ring!r} {ring.info!r} {caplog.text}"
    assert PIN not in shown
    assert PASSPHRASE not in shown


def test_another_key_at_the_address_is_found_out(tmp_path: Path, place: Place) -> None:
    """Tokens are swapped and addresses in a cloud are pointed elsewhere; the ring knows which key it was."""
    folder = tmp_path / "keys"
    ring = with_kiosk_key_at(a_ring(folder), place.one)
    (key,) = ring.info.of("image/kiosk")
    if place.one == "file":
        other = folder / "private" / "image-family-sign.pem"
        (folder / "private" / f"{key.name}.pem").write_bytes(other.read_bytes())
    else:
        text = (folder / "keyring.json").read_text()
        (folder / "keyring.json").write_text(text.replace(place.one, place.another))
    with pytest.raises(BadKeyFile, match=r"not the key that the key ring calls image-family-kiosk-2") as caught:
        opened(folder).signer(key.name).sign(b"bytes")
    assert caught.value.exit_code == 2


def test_a_key_that_is_not_there_is_missed(tmp_path: Path, place: Place) -> None:
    ring = a_ring(tmp_path / "keys")
    if place.one == "file":
        (tmp_path / "keys" / "private" / "image-family-kiosk.pem").unlink()
        with pytest.raises(NoKey, match="carried away"):
            ring.signer("image-family-kiosk")
    else:
        with pytest.raises(NoKey, match="no such"):
            ring.take("image", "kiosk", place=place.none)


def test_a_wrong_pin_signs_nothing(tmp_path: Path, token: SoftToken) -> None:
    ring = with_kiosk_key_at(a_ring(tmp_path / "keys"), token.place())
    (key,) = ring.info.of("image/kiosk")
    with pytest.raises(WrongPin, match="does not take this PIN") as caught:
        opened(tmp_path / "keys", pin="11112222").signer(key.name).sign(b"bytes")
    assert caught.value.exit_code == 3
    assert "11112222" not in caught.value.line()


def test_without_anybody_to_ask_a_pin_is_asked_for_in_words(tmp_path: Path, token: SoftToken) -> None:
    with_kiosk_key_at(a_ring(tmp_path / "keys"), token.place())
    ring = KeyRing(PosixDisk(), tmp_path / "keys", passphrase=lambda: PASSPHRASE, environment=os.environ)
    with pytest.raises(WrongPin, match="DRUPELET_PIN"):
        ring.signer(ring.info.of("image/kiosk")[0].name).sign(b"bytes")


def test_a_pin_may_come_from_a_private_file(tmp_path: Path, token: SoftToken) -> None:
    pin = tmp_path / "pin"
    pin.write_text(f"{PIN}\n")
    pin.chmod(0o600)
    ring = with_kiosk_key_at(a_ring(tmp_path / "keys"), f"{token.place()}?pin-source=file:{pin}")
    again = opened(tmp_path / "keys", pin="not asked for")
    again.signer(ring.info.of("image/kiosk")[0].name).sign(b"bytes")
    pin.chmod(0o644)
    with pytest.raises(NotAllowed, match="chmod 600"):
        opened(tmp_path / "keys").signer(ring.info.of("image/kiosk")[0].name).sign(b"bytes")


def test_a_token_that_is_not_plugged_in_is_said(tmp_path: Path, token: SoftToken) -> None:
    ring = a_ring(tmp_path / "keys")
    with pytest.raises(SignerUnavailable, match="plug it in") as caught:
        ring.take("image", "kiosk", place="pkcs11:token=somebody-elses;id=%02")
    assert caught.value.exit_code == 6


def test_a_key_service_that_does_not_answer_is_said(
    tmp_path: Path, kms: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = kms("ECC_NIST_P256")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(SignerUnavailable, match="cannot be used"):
        a_ring(tmp_path / "keys").take("image", "kiosk", place=place)


def test_rsa_in_a_key_service_signs_too(tmp_path: Path, kms: Callable[[str], str]) -> None:
    ring = with_kiosk_key_at(a_ring(tmp_path / "keys"), kms("RSA_2048"))
    (key,) = ring.info.of("image/kiosk")
    assert key.scheme == "rsassa-pss-sha256"
    ring.signer(key.name).sign(b"bytes")


@pytest.mark.parametrize(
    ("place", "install"),
    [
        ("gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1", "google-cloud-kms"),
        ("azurekms://vault.vault.azure.net/keys/kiosk/1", "azure-keyvault-keys"),
        ("hv:kiosk/1", "hvac"),
    ],
)
def test_a_library_that_is_missing_is_named(tmp_path: Path, place: str, install: str) -> None:
    """No such service runs here: securesystemslib's own signers do the work where their library is."""
    with pytest.raises(SignerUnavailable, match=install):
        a_ring(tmp_path / "keys").take("image", "kiosk", place=place)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("usb:stick", "known places: file, pkcs11:"),
        ("azurekms:nonsense", "names no key"),
        ("pkcs11:object=kiosk", "names no key of a token"),
        ("pkcs11:token=a;id=%02?pin-value=1234", "a PIN has no place"),
        ("file", "made, not looked up"),
    ],
)
def test_addresses_that_are_none_are_refused(tmp_path: Path, place: str, words: str) -> None:
    with pytest.raises(BadInput, match=words) as caught:
        a_ring(tmp_path / "keys").take("image", "kiosk", place=place)
    assert "1234" not in caught.value.line()


def test_an_address_is_parsed_as_the_rfc_writes_it() -> None:
    parsed = parse_place("pkcs11:token=release%20one;id=%01%02?module-path=/lib/x.so&pin-source=file:/run/pin")
    assert (parsed.token, parsed.id, parsed.module) == ("release one", 258, "/lib/x.so")
    assert parsed.pin_file == Path("/run/pin")
    assert parse_place(f"pkcs11:token={LABEL};id=%02", module="/m.so").module == "/m.so"


def test_a_ci_job_may_hold_its_key_in_the_environment(tmp_path: Path) -> None:
    ring = a_ring(tmp_path / "keys")
    path = tmp_path / "keys" / "private" / "image-family-kiosk.pem"
    variable = {"DRUPELET_KEY_IMAGE_FAMILY_KIOSK": path.read_text()}
    path.unlink()
    job = KeyRing(PosixDisk(), tmp_path / "keys", passphrase=lambda: PASSPHRASE, environment=variable)
    assert job.state("image-family-kiosk") is KeyState.HERE
    job.signer("image-family-kiosk").sign(b"bytes")
    for text, error in (("", "encrypted private key"), (ring.image_root.decode(), "encrypted private key")):
        variable["DRUPELET_KEY_IMAGE_FAMILY_KIOSK"] = text
        job = KeyRing(PosixDisk(), tmp_path / "keys", passphrase=lambda: PASSPHRASE, environment=variable)
        with pytest.raises(BadKeyFile, match=error):
            job.signer("image-family-kiosk")


def test_every_kind_answers_for_its_own_scheme(world: TrustWorld) -> None:
    assert set(KINDS) == {"file", "pkcs11", "awskms", "gcpkms", "azurekms", "hv"}
    assert all(kind_of(f"{scheme}:x").scheme == scheme for scheme in KINDS)
    with pytest.raises(DrupeletError):
        kind_of("")

"""`drupelet verify`: an honest release passes whole; whoever swaps, cuts or contradicts one part is found by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner

from drupelet.core.errors import BadInput
from drupelet.core.names import ReleaseId
from drupelet.depot import FilesDepot, SourceUnreachable
from drupelet.depot.folder import FolderStore
from drupelet.durable import PosixDisk
from drupelet.forge.attest.answer import Answer, Check, Verdict, as_markdown, overall
from drupelet.forge.attest.beside import beside
from drupelet.forge.attest.dsse import seal
from drupelet.forge.attest.openssf import sign_model
from drupelet.forge.attest.sources import InDepot, InPackage, StoreFetch
from drupelet.forge.attest.verify import CHECKS, verify
from drupelet.forge.publish import files_of, publish
from drupelet.trust import ImageRepository, Images, KeyRing, NotTrusted
from drupelet.wire.codec import encode_canonical
from drupelet.wire.manifest import Evaluation, ReleaseManifest
from tests.fakes.packages import describe, digest_of, draft_of, write_package
from tests.fakes.trust_world import NOON

RELEASE = ReleaseId.parse("kiosk/1.1")
Files = dict[str, bytes]


@dataclass
class Desk:
    """A publisher, and a security officer who trusts the root and nothing else."""

    folder: Path
    keys: KeyRing
    clock: datetime = NOON

    def __post_init__(self) -> None:
        self.disk = PosixDisk()
        self.depot = self.folder / "depot"
        self.package = self.folder / "package"
        self.images = ImageRepository(self.disk, self.depot, self.keys, lambda: self.clock)
        self.images.create()

    def publish(self, **made: object) -> ReleaseManifest:
        manifest = write_package(self.package, **made)  # type: ignore[arg-type]
        publish(
            self.package,
            disk=self.disk,
            depot=FilesDepot(self.disk, self.depot),
            repository=self.images,
            keys=self.keys,
        )
        return manifest

    def publish_with(self, change: Callable[[ReleaseManifest, Files], None]) -> None:
        """Publish as somebody who holds all keys and signs what he should not."""
        manifest = write_package(self.package)
        depot = FilesDepot(self.disk, self.depot)
        for path in files_of(manifest, self.package).values():
            depot.put(path)
        files = dict(beside(manifest, self.package, disk=self.disk, keys=self.keys))
        change(manifest, files)
        self.images.add_release(manifest, beside=lambda: files)

    def verify(self, **options: object) -> Answer:
        store = FolderStore(self.disk, self.depot)
        fetch = StoreFetch(store)
        memory = self.folder / "memory"
        shutil.rmtree(memory, ignore_errors=True)
        images = Images(
            self.disk, memory, root=self.keys.image_root, depot_url=store.where, fetch=fetch, now=lambda: self.clock
        )
        found = InDepot(RELEASE, images=images, blobs=store, fetch=fetch, where=store.where)
        return verify(found, now=self.clock, **options)  # type: ignore[arg-type]

    def blob(self, digest: str) -> Path:
        name = digest.removeprefix("sha256:")
        path = self.depot / "blobs" / "sha256" / name[:2] / name
        path.chmod(0o644)
        return path


@pytest.fixture
def desk(tmp_path: Path, shared_keys: KeyRing) -> Desk:
    return Desk(tmp_path, shared_keys)


def failed(answer: Answer) -> dict[str, str]:
    return {check.name: check.evidence for check in answer.checks if check.verdict is Verdict.FAIL}


def test_an_honest_release_passes_whole(desk: Desk) -> None:
    manifest = desk.publish()
    answer = desk.verify()
    assert {check.name: check.verdict for check in answer.checks} == dict.fromkeys(CHECKS, Verdict.PASS)
    assert answer.verdict is Verdict.PASS
    facts = {(fact.what, fact.value) for fact in answer.facts}
    assert ("variant q4_0", manifest.variants[0].digest) in facts
    assert ("manifest", digest_of(encode_canonical(manifest)).text) in facts
    keyid = desk.keys.public("image-family-kiosk").keyid
    assert ("kiosk signed by key", keyid) in facts
    page = as_markdown(answer)
    assert "**VERIFIED**" in page
    assert keyid in page


def test_publishing_twice_signs_once_though_signatures_differ(desk: Desk) -> None:
    desk.publish()
    before = sorted(path.name for path in desk.depot.rglob("*") if path.is_file())
    publish(
        desk.package,
        disk=desk.disk,
        depot=FilesDepot(desk.disk, desk.depot),
        repository=desk.images,
        keys=desk.keys,
    )
    assert sorted(path.name for path in desk.depot.rglob("*") if path.is_file()) == before


def test_an_override_is_no_pass_until_somebody_accepts_it(desk: Desk) -> None:
    desk.publish(evaluation=Evaluation(passed=False, overridden="a drill | really", findings=("KL too high",)))
    answer = desk.verify()
    assert answer.verdict is Verdict.UNKNOWN
    evaluation = next(check for check in answer.checks if check.name == "evaluation")
    assert "a drill | really (KL too high)" in evaluation.evidence
    assert "a drill \\| really" in as_markdown(answer)
    accepted = desk.verify(accepted=["evaluation"])
    assert accepted.verdict is Verdict.PASS
    assert "accepts no answer for: evaluation" in as_markdown(accepted)
    with pytest.raises(BadInput, match="there are signature, evaluation"):
        desk.verify(accepted=["everything"])


def test_a_package_is_said_to_be_unsigned(desk: Desk) -> None:
    write_package(desk.package)
    answer = verify(InPackage(desk.package, disk=desk.disk), now=NOON)
    assert answer.verdict is Verdict.UNKNOWN
    unknown = {check.name for check in answer.checks if check.verdict is Verdict.UNKNOWN}
    assert unknown == {"signature", "provenance", "model-signature"}
    assert verify(InPackage(desk.package, disk=desk.disk), now=NOON, accepted=list(unknown)).verdict is Verdict.PASS
    (desk.package / "q4_0.gguf").write_bytes(b"another")
    assert set(failed(verify(InPackage(desk.package, disk=desk.disk), now=NOON))) == {"variants"}


def test_a_release_without_any_of_it_is_unknown_not_good(desk: Desk) -> None:
    desk.publish_with(lambda _manifest, files: files.clear())
    answer = desk.verify()
    assert answer.verdict is Verdict.UNKNOWN
    assert not failed(answer)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(bytes(data))


DAMAGES: dict[str, tuple[Callable[[Desk, ReleaseManifest], None], set[str]]] = {
    "a variant's byte flipped": (lambda d, m: flip(d.blob(m.variants[0].digest)), {"variants"}),
    "a variant cut short": (lambda d, m: d.blob(m.variants[0].digest).write_bytes(b"q4"), {"variants"}),
    "a variant gone": (lambda d, m: d.blob(m.variants[1].digest).unlink(), {"variants"}),
    "the report altered": (lambda d, m: flip(d.blob(str(m.evaluation.report))), {"report"}),
    "the report gone": (lambda d, m: d.blob(str(m.evaluation.report)).unlink(), {"report"}),
    "the bill altered": (lambda d, m: flip(d.blob(m.attachments[0].digest)), {"attachments", "bom"}),
    "provenance cut short": (
        lambda d, m: d.blob(m.attachments[1].digest).write_bytes(d.blob(m.attachments[1].digest).read_bytes()[:-9]),
        {"attachments", "provenance"},
    ),
    "bill and provenance swapped": (
        lambda d, m: _swap(d.blob(m.attachments[0].digest), d.blob(m.attachments[1].digest)),
        {"attachments", "provenance", "bom"},
    ),
    "the envelope altered": (lambda d, _m: flip(next(d.depot.rglob("*.dsse.json"))), {"provenance"}),
    "the envelope gone": (lambda d, _m: next(d.depot.rglob("*.dsse.json")).unlink(), {"provenance"}),
    "the model signature altered": (lambda d, _m: flip(next(d.depot.rglob("*.model.sig"))), {"model-signature"}),
    "another public key": (lambda d, _m: flip(next(d.depot.rglob("*.pub"))), {"model-signature"}),
}


def _swap(a: Path, b: Path) -> None:
    one, other = a.read_bytes(), b.read_bytes()
    a.write_bytes(other)
    b.write_bytes(one)


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_lies_damaged_in_the_depot_is_found(desk: Desk, damage: str) -> None:
    manifest = desk.publish()
    act, expected = DAMAGES[damage]
    act(desk, manifest)
    answer = desk.verify()
    assert answer.verdict is Verdict.FAIL
    assert set(failed(answer)) == expected


def test_what_cannot_be_read_now_is_no_answer_and_no_failure(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.publish()

    def down(*_words: object, **_more: object) -> Iterator[bytes]:
        raise SourceUnreachable("the line is dead", where="depot")

    monkeypatch.setattr(FolderStore, "open", down)
    answer = desk.verify()
    assert answer.verdict is Verdict.UNKNOWN
    variants = next(check for check in answer.checks if check.name == "variants")
    assert (variants.verdict, variants.evidence) == (
        Verdict.UNKNOWN,
        "could not be read now: depot: the line is dead",
    )


def of_another_release(manifest: ReleaseManifest) -> Mapping[str, bytes]:
    files = {"q4_0.gguf": b"another", "q8_0.gguf": b"release"}
    return {str(kind): data for kind, data in describe(draft_of("1.2", files), files).items()}


ENVELOPE, SIGNATURE, PUBLIC = (
    f"kiosk/1.1/{name}" for name in ("provenance.dsse.json", "model.sig", "model-signing.pub")
)


def test_an_envelope_of_another_release_is_found(desk: Desk) -> None:
    """The family's own key signed both; only the right one may stand beside this manifest."""

    def swap(manifest: ReleaseManifest, files: Files) -> None:
        files[ENVELOPE] = seal(of_another_release(manifest)["provenance"], [desk.keys.signer("image-family-kiosk")])

    desk.publish_with(swap)
    assert "not the one attached" in failed(desk.verify())["provenance"]


@pytest.mark.parametrize("by", ["a stranger", "another family's key", "a key of no family"])
def test_an_envelope_by_the_wrong_key_is_found(desk: Desk, by: str) -> None:
    signers = {
        "a stranger": CryptoSigner.generate_ed25519(),
        "another family's key": desk.keys.signer("image-family-sign"),
        "a key of no family": desk.keys.signer("image-timestamp"),
    }

    def swap(_manifest: ReleaseManifest, files: Files) -> None:
        statement = (desk.package / "provenance.json").read_bytes()
        files[ENVELOPE] = seal(statement, [signers[by]])

    desk.publish_with(swap)
    assert "no key of the family" in failed(desk.verify())["provenance"]


def test_a_truncated_envelope_that_was_signed_so_is_found(desk: Desk) -> None:
    desk.publish_with(lambda _manifest, files: files.update({ENVELOPE: files[ENVELOPE][:-30]}))
    assert "cut short" in failed(desk.verify())["provenance"]


def test_a_model_signature_of_other_files_is_found(desk: Desk) -> None:
    def swap(_manifest: ReleaseManifest, files: Files) -> None:
        other = draft_of("1.2", {"q4_0.gguf": b"another", "q8_0.gguf": b"release"})
        signer = desk.keys.signer("model-kiosk")
        files[SIGNATURE] = sign_model(other, signer, public=files[PUBLIC])

    desk.publish_with(swap)
    assert "other files" in failed(desk.verify())["model-signature"]


@pytest.mark.parametrize("kind", ["provenance", "bom"])
def test_an_attachment_of_another_release_is_found(desk: Desk, kind: str) -> None:
    """Named by the manifest's digest and signed with it, and about something else."""
    files = {f"{name}.gguf": f"{name} of 1.1".encode() for name in ("q4_0", "q8_0")}
    honest = describe(draft_of("1.1", files), files)
    others = describe(draft_of("1.2", files), files)
    desk.publish(attachments={**honest, kind: others[kind]})  # type: ignore[index]
    assert "about kiosk/1.2" in failed(desk.verify())[kind]


@pytest.mark.parametrize("kind", ["provenance", "bom"])
def test_an_attachment_with_other_hashes_is_found(desk: Desk, kind: str) -> None:
    files = {f"{name}.gguf": f"{name} of 1.1".encode() for name in ("q4_0", "q8_0")}
    honest = describe(draft_of("1.1", files), files)
    wrong = honest[kind].replace(digest_of(files["q4_0.gguf"]).hex.encode(), b"0" * 64)  # type: ignore[index]
    desk.publish(attachments={**honest, kind: wrong})
    assert "the manifest's" in failed(desk.verify())[kind]


def test_provenance_from_another_checkpoint_is_found(desk: Desk) -> None:
    files = {f"{name}.gguf": f"{name} of 1.1".encode() for name in ("q4_0", "q8_0")}
    honest = describe(draft_of("1.1", files), files)
    wrong = honest["provenance"].replace(digest_of(b"checkpoint").hex.encode(), b"0" * 64)
    desk.publish(attachments={**honest, "provenance": wrong})
    assert "another checkpoint" in failed(desk.verify())["provenance"]


def test_a_report_that_says_otherwise_is_found(desk: Desk) -> None:
    """The manifest says it passed, and names a report that says it did not."""
    manifest = write_package(desk.package)
    text = json.loads((desk.package / "report.json").read_text())
    text["passed"] = False
    report = json.dumps(text).encode()
    (desk.package / "report.json").write_bytes(report)
    value = json.loads((desk.package / "manifest.json").read_text())
    value["evaluation"]["report"] = digest_of(report).text
    (desk.package / "manifest.json").write_text(json.dumps(value))
    answer = verify(InPackage(desk.package, disk=desk.disk), now=NOON)
    assert "verdict is not the manifest's" in failed(answer)["report"]
    assert manifest.evaluation.passed


def test_what_the_repository_does_not_vouch_for_is_no_release(desk: Desk) -> None:
    desk.publish()
    desk.images.revoke(RELEASE)
    with pytest.raises(NotTrusted, match="does not vouch"):
        desk.verify()
    desk.clock += timedelta(days=40)
    with pytest.raises(NotTrusted, match="expired"):
        desk.verify()


@pytest.mark.parametrize(
    ("verdicts", "accepted", "expected"),
    [
        ("PPP", (), Verdict.PASS),
        ("PUP", (), Verdict.UNKNOWN),
        ("PUP", ("1",), Verdict.PASS),
        ("PUP", ("0",), Verdict.UNKNOWN),
        ("PFP", ("1",), Verdict.FAIL),
        ("UFU", (), Verdict.FAIL),
    ],
)
def test_unknown_is_not_pass(verdicts: str, accepted: tuple[str, ...], expected: Verdict) -> None:
    letters = {"P": Verdict.PASS, "U": Verdict.UNKNOWN, "F": Verdict.FAIL}
    checks = [Check(name=str(n), verdict=letters[c], evidence="") for n, c in enumerate(verdicts)]
    assert overall(checks, accepted) is expected

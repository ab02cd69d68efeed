"""Releases in files: compared, shown, checked, handed on."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from drupelet.ci.article import check_signature, quant_in_words, signed_bytes
from drupelet.ci.compare import by_how_much, compare
from drupelet.cli.main import main
from drupelet.core.errors import Untrusted
from drupelet.wire.codec import encode_canonical
from drupelet.wire.manifest import Budgets, CanonicalPrompt, Expectation, Quality, ReleaseManifest, Requires, Variant
from tests.fakes.trust_world import PASSPHRASE, make_keys
from tests.wire.examples import DIGEST, manifest

OTHER = "sha256:" + "cd" * 32


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["release", *(str(word) for word in words)])
    said = capsys.readouterr()
    return int(ended.value.code or 0), said.out, said.err


def variant(**changes: Any) -> Variant:
    return msgspec.structs.replace(manifest().variants[0], **changes)


def changed() -> ReleaseManifest:
    """A release that differs from `manifest()` in one thing of each kind."""
    prompt = manifest().canonical_prompts[0]
    more = CanonicalPrompt(id="milk", prompt="Where is the milk?", expect=(Expectation(kind="contains", value="2"),))
    quality = Quality(kl_mean=0.002, kl_p99=0.01, kl_max=0.1, top1_agreement=0.97, tokens=4096)
    return manifest(
        version="1.3",
        variants=(
            variant(digest=OTHER, size_bytes=3_300_000, quality=quality),
            variant(name="q4_0", npu_required=True),
        ),
        canonical_prompts=(msgspec.structs.replace(prompt, tokens_max=32), more),
        budgets=Budgets(load_ms_max=9000),
        requires=Requires(firmware_min="2026-05-08"),
    )


def package(folder: Path, made: ReleaseManifest, blobs: dict[str, bytes]) -> Path:
    """Write a package whose variants are these bytes."""
    folder.mkdir()
    for name, data in blobs.items():
        (folder / f"{name}.gguf").write_bytes(data)
    (folder / "manifest.json").write_bytes(encode_canonical(made))
    return folder


def whole(folder: Path) -> Path:
    digest = "sha256:" + hashlib.sha256(b"weights").hexdigest()
    return package(folder, manifest(variants=(variant(digest=digest, size_bytes=7),)), {"q8_0": b"weights"})


# --- diff ------------------------------------------------------------------------------------------------------------


def test_nothing_changes_from_a_release_to_itself() -> None:
    assert compare(manifest(), manifest()) == ()


def test_every_kind_of_change_is_named_once() -> None:
    changes = {change.name: (change.before, change.after) for change in compare(manifest(), changed())}
    assert changes == {
        "version": ("1.2", "1.3"),
        "variants q8_0 digest": (DIGEST, OTHER),
        "variants q8_0 size_bytes": (2_200_000, 3_300_000),
        "variants q8_0 quality kl_mean": (None, 0.002),
        "variants q8_0 quality kl_p99": (None, 0.01),
        "variants q8_0 quality kl_max": (None, 0.1),
        "variants q8_0 quality top1_agreement": (None, 0.97),
        "variants q8_0 quality tokens": (None, 4096),
        "variants q4_0": (None, "Q8_0, 2.1 MiB"),
        "requires firmware_min": (None, "2026-05-08"),
        "budgets load_ms_max": (None, 9000),
        "canonical_prompts hours tokens_max": (None, 32),
        "canonical_prompts milk": (None, "Where is the milk?"),
    }
    back = {change.name: (change.after, change.before) for change in compare(changed(), manifest())}
    assert back == changes


def test_by_how_much() -> None:
    said = {change.name: by_how_much(change) for change in compare(manifest(), changed())}
    assert said["variants q8_0 size_bytes"] == "+50.0%"
    assert said["variants q4_0"] == "added"
    assert said["version"] == ""


def test_diff_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    a, b = package(tmp_path / "1.2", manifest(), {}), tmp_path / "b.json"
    b.write_bytes(encode_canonical(changed()))
    code, out, _ = run(capsys, "diff", a, b)
    assert code == 0
    assert "kiosk 1.2" in out
    assert "+50.0%" in out
    value = json.loads(run(capsys, "diff", a, b, "-o", "json")[1])
    assert (value["a"], value["b"], value["same"], len(value["changes"])) == ("kiosk/1.2", "kiosk/1.3", False, 13)
    assert run(capsys, "diff", a, a) == (0, "", "kiosk 1.2 and kiosk 1.2 say the same\n")


@pytest.mark.parametrize(
    ("name", "text", "code", "says"),
    [
        ("nothing", None, 2, "there is no such package or manifest"),
        ("kiosk/1.2", None, 2, "no fleet server is named"),
        ("b.json", "{", 2, "not a valid drupelet.manifest/1"),
        ("b.json", '{"format": "drupelet.order/1"}', 2, "format is 'drupelet.order/1'"),
        ("empty", "", 4, "no manifest.json in this folder"),
    ],
)
def test_what_is_no_release(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, text: str | None,
    code: int, says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DRUPELET_SERVER", raising=False)
    if text is not None:
        Path(name).write_text(text) if text else Path(name).mkdir()
    for verb in (("show",), ("diff", name)):
        found, _, err = run(capsys, *verb, name)
        assert (found, err.count("\n")) == (code, 1)
    assert says in err or "not JSON" in err


def test_show_of_a_package(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    folder = package(tmp_path / "p", changed(), {})
    code, out, _ = run(capsys, "show", folder)
    assert code == 0
    assert "gguf Q8_0, 3.1 MiB, 57 MiB of memory, KL 0.00200, top-1 97.0%, sha256:cdcd" in out
    assert "needs an NPU" in out
    assert json.loads(run(capsys, "show", folder, "-o", "json")[1])["version"] == "1.3"


# --- lint ------------------------------------------------------------------------------------------------------------


def test_a_whole_package_has_no_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "lint", whole(tmp_path / "p")) == (0, "", "1 file checked, nothing is wrong\n")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda folder: (folder / "q8_0.gguf").unlink(), "q8_0.gguf is not in the package"),
        (
            lambda folder: (folder / "q8_0.gguf").write_bytes(b"weight"),
            "q8_0.gguf has 6 bytes where the manifest says 7",
        ),
        (lambda folder: (folder / "q8_0.gguf").write_bytes(b"weightz"), "q8_0.gguf is sha256:"),
    ],
)
def test_a_package_that_is_not_what_it_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], harm: Any, says: str
) -> None:
    folder = whole(tmp_path / "p")
    harm(folder)
    code, out, err = run(capsys, "lint", folder)
    assert (code, err) == (2, "drupelet: 1 mistake in 1 file\n")
    assert says in out
    line = int(out.removeprefix(f"{folder}/manifest.json:").partition(":")[0])
    assert '"digest"' in (folder / "manifest.json").read_text().splitlines()[line - 1]


def test_a_package_that_failed_its_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = whole(tmp_path / "p")
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"passed": true', '"passed": false'))
    code, out, _ = run(capsys, "lint", folder)
    assert (code, "nobody took the responsibility" in out) == (2, True)


# --- the small manifest ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantization", "words"),
    [("q4_0", "4-bit"), ("Q4_K_M", "4-bit"), ("iq2_xs", "2-bit"), ("f16", "16-bit"), ("bf16", "16-bit"),
     ("int8", "8-bit"), ("w4a16", "4-bit"), ("dynamic_int8", "8-bit"), ("hailo", "hailo")],
)  # fmt: skip
def test_a_width_in_words(quantization: str, words: str) -> None:
    assert quant_in_words(quantization) == words


def test_export_signs_what_anybody_can_verify(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_keys(tmp_path / "keys")
    monkeypatch.setenv("DRUPELET_PASSPHRASE", PASSPHRASE)
    out = tmp_path / "small"
    args = ("export", whole(tmp_path / "p"), "--format", "article", "--out", out, "--keys", tmp_path / "keys")
    code, said, err = run(capsys, *args)
    assert code == 0, err
    assert PASSPHRASE not in said + err
    first = (out / "q8_0.json").read_bytes()
    document = json.loads(first)
    assert list(document) == ["memory_mb", "model", "name", "npu_required", "quant", "signature"]
    assert document | {"signature": ""} == {
        "model": "sha256:" + hashlib.sha256(b"weights").hexdigest(), "name": "kiosk-gguf-q8_0", "memory_mb": 60,
        "npu_required": False, "quant": "8-bit", "signature": "",
    }  # fmt: skip
    key: Any = load_pem_public_key((out / "kiosk.pub.pem").read_bytes())
    check_signature(document, key)
    for field, value in (("memory_mb", 59), ("signature", document["signature"][:-8] + "AAAAAA=="), ("signature", "%")):
        with pytest.raises(Untrusted):
            check_signature({**document, field: value}, key)
    run(capsys, *args)
    assert (out / "q8_0.json").read_bytes() == first, "the same release gives the same bytes"
    (tmp_path / "bytes").write_bytes(signed_bytes(document))
    verified = _openssl(document, tmp_path)
    assert verified == "Signature Verified Successfully"


def _openssl(document: dict[str, Any], folder: Path) -> str:
    """Verify as docs/formats/small-manifest.md says it is done without Drupelet."""
    import base64

    (folder / "sig").write_bytes(base64.b64decode(document["signature"]))
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "small/kiosk.pub.pem", "-rawin"]
    done = subprocess.run(
        [*command, "-in", "bytes", "-sigfile", "sig"], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or done.stderr


def test_export_without_the_familys_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRUPELET_PASSPHRASE", PASSPHRASE)
    code, _, err = run(capsys, "export", whole(tmp_path / "p"), "--out", tmp_path / "o", "--keys", tmp_path / "none")
    assert (code, err.count("\n"), "not a key ring" in err) == (4, 1, True), err
    assert not (tmp_path / "o").exists()

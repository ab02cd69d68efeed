"""`drupelet verify runtime/...`: the image behind a signed runtime, in a folder and in a real registry."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drupelet.cli.main import main
from drupelet.durable import PosixDisk
from drupelet.trust import KeyRing
from tests.fakes.registry_server import registry_server
from tests.fakes.trust_world import NOON, PASSPHRASE
from tests.forge.test_runtime import a_built_image

# The runtime's version is the program's own: 0.1.0 is written 0.1 in a target's path.
RELEASE = "runtime/0.1"


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ring") / "keys"
    KeyRing.create(PosixDisk(), folder, families=["runtime"], passphrase=lambda: PASSPHRASE, now=NOON)
    return folder


@pytest.fixture
def published(
    tmp_path: Path, ring: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    monkeypatch.setenv("DRUPELET_PASSPHRASE", PASSPHRASE)
    built = a_built_image(tmp_path / "image")
    depot = str(tmp_path / "depot")
    assert run("forge", "runtime", "publish", str(built), "--depot", depot, "--keys", str(ring)) == 0
    capsys.readouterr()
    return ["verify", RELEASE, "--depot", depot, "--root", str(ring / "image-root.json"), "-o", "json"]


def answers(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    found = json.loads(capsys.readouterr().out)
    return {check["name"]: check["verdict"] for check in found["checks"]}


def test_an_image_in_a_folder_is_verified_layer_by_layer(
    published: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*published, "--image", str(tmp_path / "image")) == 0
    assert answers(capsys) == {"signature": "pass", "image": "pass", "boms": "pass"}


def test_without_an_image_there_is_no_answer(published: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*published) == 7
    assert answers(capsys) == {"signature": "pass", "image": "unknown", "boms": "unknown"}
    assert run(*published, "--accept-unknown", "image", "--accept-unknown", "boms") == 0
    assert run(*published, "--image", "/nonexistent") == 4
    assert run(*published, "--accept-unknown", "variants") == 2


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        (lambda folder: _append(_layer(folder)), "image"),
        (lambda folder: _layer(folder).unlink(), "image"),
        (lambda folder: _append(_index(folder)), "image"),
        (lambda folder: _append(folder / "bom-arm64.cdx.json"), "boms"),
        (lambda folder: (folder / "bom-amd64.cdx.json").unlink(), "boms"),
    ],
    ids=["a layer altered", "a layer gone", "another index", "a bill altered", "a bill gone"],
)
def test_what_is_not_the_image_that_was_signed_is_found(
    published: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: object, check: str
) -> None:
    damage(tmp_path / "image")  # type: ignore[operator]
    assert run(*published, "--image", str(tmp_path / "image")) == 7
    assert [name for name, verdict in answers(capsys).items() if verdict == "fail"] == [check]


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def _blobs(folder: Path) -> Path:
    return folder / "oci" / "blobs" / "sha256"


def _layer(folder: Path) -> Path:
    return next(path for path in _blobs(folder).iterdir() if path.read_bytes() == b"layer of arm64")


def _index(folder: Path) -> Path:
    index = json.loads((folder / "oci" / "index.json").read_text())
    return _blobs(folder) / str(index["manifests"][0]["digest"]).removeprefix("sha256:")


def test_an_image_in_a_registry_is_verified_too(
    published: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with registry_server(tmp_path / "registry") as server:
        to = f"oci+http://{server.host}/drupelet"
        assert run("forge", "runtime", "push", str(tmp_path / "image"), to) == 0
        capsys.readouterr()
        assert run(*published, "--image", to) == 0
        assert answers(capsys) == {"signature": "pass", "image": "pass", "boms": "pass"}
        assert run(*published, "--image", f"oci+http://{server.host}/another") == 7
        assert answers(capsys)["image"] == "fail"

"""`drupelet forge publish` into a bucket and a registry, as typed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from drupelet.cli.main import main
from drupelet.depot.places import open_store
from drupelet.durable import PosixDisk
from drupelet.trust import KeyRing
from drupelet.wire.codec import encode_canonical
from tests.depot.oci.conftest import registry
from tests.fakes.released import Publisher
from tests.fakes.trust_world import PASSPHRASE


def run(*arguments: str) -> int:
    """Run a command and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


def a_package(folder: Path, version: str, real_ring: KeyRing) -> Path:
    """Write a package as `forge build` does, of one small variant."""
    data = f"weights of {version}".encode() * 100
    folder.mkdir(parents=True)
    (folder / "v0.gguf").write_bytes(data)
    scratch = Publisher(folder.parent / "scratch", real_ring)
    source = folder.parent / "source.bin"
    source.write_bytes(data)
    digest, size = scratch.blobs.put(source)
    PosixDisk().replace(folder / "manifest.json", encode_canonical(scratch.manifest(version, [digest], size=size)))
    return folder


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DRUPELET_PASSPHRASE", PASSPHRASE)
    assert run("keys", "init", str(tmp_path / "keys"), "--family", "kiosk") == 0
    return str(tmp_path / "keys")


def test_a_bucket_is_published_into_without_a_local_copy_of_it(
    tmp_path: Path, bucket: str, keys: str, real_ring: KeyRing, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tmp_path / "keys" / "image-root.json")
    for version in ("1.0", "1.1"):
        package = a_package(tmp_path / version, version, real_ring)
        assert run("forge", "publish", str(package), "--depot", bucket, "--keys", keys) == 0
        assert sorted(path.name for path in package.iterdir()) == ["manifest.json", "v0.gguf"]
    capsys.readouterr()
    assert run("depot", "ls", bucket, "--root", root) == 0
    said = capsys.readouterr().out
    assert "kiosk 1.0" in said
    assert "kiosk 1.1" in said
    assert len(list(open_store(bucket).entries("blobs"))) == 2
    assert run("depot", "check", bucket) == 0
    assert run("forge", "publish", str(tmp_path / "1.1"), "--depot", bucket, "--keys", keys) == 0  # again: nothing


def test_a_folder_and_a_registry_in_one_go(
    tmp_path: Path, repository: str, keys: str, real_ring: KeyRing, capsys: pytest.CaptureFixture[str]
) -> None:
    package = a_package(tmp_path / "1.0", "1.0", real_ring)
    depot = str(tmp_path / "depot")
    command = ("forge", "publish", str(package), "--depot", depot, "--keys", keys)
    assert run(*command, "--oci", repository) == 0
    assert registry(repository).tags() == ("1.0", "1.0-v0")
    assert run("depot", "pull", f"{repository}:1.0", str(tmp_path / "back")) == 0
    for name in ("manifest.json", "v0.gguf"):
        assert hashlib.sha256((tmp_path / "back" / name).read_bytes()).digest() == (
            hashlib.sha256((package / name).read_bytes()).digest()
        )
    capsys.readouterr()
    assert run(*command, "--oci", f"{repository}:1.0") == 2
    assert run("forge", "publish", str(package), "--depot", "ftp://host/depot", "--keys", keys) == 2
    assert "neither a folder nor" in capsys.readouterr().err

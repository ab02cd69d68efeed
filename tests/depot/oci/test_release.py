"""Releases in a real registry: pushed, read by skopeo, pulled, promoted; and as typed."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from drupelet.agent import config
from drupelet.agent.errors import BadConfig
from drupelet.cli.compose.agent import blob_source
from drupelet.cli.main import main
from drupelet.core.errors import BadInput, NotAllowed, NotFound, Unavailable
from drupelet.core.names import Digest
from drupelet.core.states import Reason
from drupelet.depot import Download, make_pool
from drupelet.depot.oci.modelpack import (
    ARTIFACT,
    CONFIG,
    DOCKER_CONFIG,
    DOCKER_GGUF,
    RELEASE_MANIFEST,
    WEIGHT,
    Layout,
    variant_artifact,
)
from drupelet.depot.oci.registry import INDEX, MANIFEST
from drupelet.durable import DiskFull, PosixDisk
from drupelet.durable.posix import PosixPartFile
from drupelet.trust import KeyRing
from drupelet.wire.codec import encode_canonical
from tests.depot.oci.conftest import registry
from tests.fakes.registry_server import HTPASSWD, PASSWORD, USER, registry_server
from tests.fakes.released import Publisher
from tests.fakes.scripted_server import Answer, scripted_server
from tests.fakes.trust_world import a_manifest

SIZE = 40_000


def run(*arguments: str) -> int:
    """Run a command and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


@pytest.fixture
def publisher(tmp_path: Path, real_ring: KeyRing) -> Publisher:
    """A depot with release 1.2 of two variants."""
    found = Publisher(tmp_path / "depot", real_ring)
    found.release("1.2", 1, 2, size=SIZE)
    found.images.add_target("kiosk/1.2/provenance.json", b'{"_type": "https://in-toto.io/Statement/v1"}')
    return found


@pytest.fixture
def root(tmp_path: Path, real_ring: KeyRing) -> str:
    path = tmp_path / "image-root.json"
    path.write_bytes(real_ring.image_root)
    return str(path)


def push(publisher: Publisher, repository: str, root: str, *more: str) -> int:
    return run("depot", "push", str(publisher.folder), repository, "--release", "kiosk/1.2", "--root", root, *more)


def skopeo(*arguments: str) -> str:
    program = shutil.which("skopeo")
    if program is None:
        pytest.skip("Debian's package skopeo is not installed")
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_release_is_pushed_seen_by_skopeo_and_pulled_as_the_package_it_was(
    publisher: Publisher, repository: str, root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(publisher, repository, root, "-o", "json") == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said["tags"]) == {"1.2", "1.2-v0", "1.2-v1"}
    assert sorted(said["beside"]) == ["manifest.json", "provenance.json"]

    image = repository.replace("oci://", "docker://")
    raw = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"{image}:1.2-v0"))
    assert raw["artifactType"] == ARTIFACT
    assert raw["config"]["mediaType"] == CONFIG
    (layer,) = raw["layers"]
    assert (layer["mediaType"], layer["size"]) == (WEIGHT, SIZE)
    assert layer["annotations"]["org.cncf.model.filepath"] == "v0.gguf"
    config = registry(repository).read_blob(Digest.parse(raw["config"]["digest"]), size=raw["config"]["size"])
    assert json.loads(config)["modelfs"] == {"type": "layers", "diffIds": [layer["digest"]]}
    index = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"{image}:1.2"))
    assert [one["artifactType"] for one in index["manifests"]] == [ARTIFACT, ARTIFACT]
    copied = tmp_path / "copied"
    skopeo("copy", "-q", "--all", "--src-tls-verify=false", f"{image}:1.2", f"dir:{copied}")
    assert hashlib.sha256((copied / layer["digest"][7:]).read_bytes()).hexdigest() == layer["digest"][7:]

    package = tmp_path / "package"
    assert run("depot", "pull", f"{repository}:1.2", str(package), "-o", "json") == 0
    files = {one["file"]: one["bytes"] for one in json.loads(capsys.readouterr().out)}
    assert set(files) == {"v0.gguf", "v1.gguf", "manifest.json", "provenance.json"}
    manifest = publisher.manifest("1.2", [publisher.put(1, size=SIZE), publisher.put(2, size=SIZE)], size=SIZE)
    assert (package / "manifest.json").read_bytes() == encode_canonical(manifest)
    for variant in manifest.variants:
        assert hashlib.sha256((package / f"{variant.name}.gguf").read_bytes()).hexdigest() == variant.digest[7:]
    assert run("depot", "ls", repository, "-o", "json") == 0
    assert [one["version"] for one in json.loads(capsys.readouterr().out)] == ["1.2", "1.2-v0", "1.2-v1"]


def test_pushing_again_changes_nothing_and_another_release_of_that_name_is_refused(
    publisher: Publisher, repository: str, root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(publisher, repository, root) == 0
    there = registry(repository)
    before = there.manifest("1.2")
    assert push(publisher, repository, root) == 0
    assert len(there.referrers(before.digest)) == 2
    other = Publisher(tmp_path / "other", publisher.keys)
    other.release("1.2", 8, 9, size=SIZE)
    capsys.readouterr()
    assert push(other, repository, root) == 5
    assert "give the release a new version" in capsys.readouterr().err
    assert there.manifest("1.2") == before


def test_one_variant_is_pulled_alone_and_a_cut_pull_goes_on(
    publisher: Publisher, repository: str, root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(publisher, repository, root) == 0
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "v1.gguf.part").write_bytes(b"left by a power cut")
    assert run("depot", "pull", f"{repository}:1.2", str(folder), "--variant", "v1") == 0
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "provenance.json", "v1.gguf"]
    assert run("depot", "pull", f"{repository}:1.2-v1", str(tmp_path / "two")) == 0
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["v1.gguf"]
    capsys.readouterr()
    assert run("depot", "pull", f"{repository}:1.2", str(folder), "--variant", "v7") == 4
    assert "it has v0, v1" in capsys.readouterr().err
    assert run("depot", "pull", f"{repository}:9.9", str(folder)) == 4
    assert run("depot", "pull", repository, str(folder)) == 2


def test_a_release_is_promoted_within_a_registry_without_moving_a_byte(
    publisher: Publisher, repository: str, root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(publisher, repository, root) == 0
    assert run("depot", "copy", f"{repository}:1.2", f"{repository}/prod") == 0
    here, there = registry(repository), registry(f"{repository}/prod")
    assert there.manifest("1.2") == here.manifest("1.2")
    assert there.tags() == here.tags()
    assert {one["digest"] for one in there.referrers(there.manifest("1.2").digest)} == {
        one["digest"] for one in here.referrers(here.manifest("1.2").digest)
    }
    assert run("depot", "pull", f"{repository}/prod:1.2", str(tmp_path / "pulled")) == 0
    assert (tmp_path / "pulled" / "v0.gguf").stat().st_size == SIZE


def test_a_layer_that_wants_out_of_the_folder_is_refused(
    repository: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = registry(repository)
    blob = there.put_bytes(b"#!/bin/sh")
    config = there.put_bytes(b"{}")
    for wanted in ("../../etc/cron.d/x", "/etc/passwd", "a/b", ".bashrc", ""):
        layer = {
            "mediaType": WEIGHT,
            "digest": blob.text,
            "size": 9,
            "annotations": {"org.cncf.model.filepath": wanted},
        }
        value = {"schemaVersion": 2, "mediaType": MANIFEST, "config": {"digest": config.text, "size": 2}}
        there.put_manifest(
            json.dumps({**value, "layers": [layer]})
            .replace('"config": {', f'"config": {{"mediaType": "{CONFIG}",')
            .encode(),
            media_type=MANIFEST,
            tag="evil",
        )
        assert run("depot", "pull", f"{repository}:evil", str(tmp_path / "into")) == 2
    assert not (tmp_path / "into").exists()
    assert "Traceback" not in capsys.readouterr().err


def test_what_is_signed_by_nobody_is_not_pushed(
    publisher: Publisher, repository: str, root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    publisher.revoke("1.2")
    assert push(publisher, repository, root) == 4
    assert "vouches for no release kiosk 1.2" in capsys.readouterr().err
    assert run("depot", "push", str(publisher.folder), repository) == 2
    assert run("depot", "push", str(publisher.folder), repository, "--release", "kiosk/1.2") == 2
    assert run("depot", "push", str(publisher.folder), f"{repository}:1.2", "--release", "kiosk/1.2") == 2


def test_a_registry_that_wants_a_password_gets_the_one_in_the_environment(
    publisher: Publisher,
    root: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    htpasswd = tmp_path / "htpasswd"
    htpasswd.write_text(f"{HTPASSWD}\n")
    auth = f"auth: {{htpasswd: {{realm: tests, path: {htpasswd}}}}}\n"
    with registry_server(tmp_path / "registry", auth=auth) as server:
        repository = f"oci://{server.host}/models/kiosk"
        assert push(publisher, repository, root) == 3
        monkeypatch.setenv("DRUPELET_OCI_USERNAME", USER)
        monkeypatch.setenv("DRUPELET_OCI_PASSWORD", "not it")
        assert push(publisher, repository, root) == 3
        assert "docker login, or set DRUPELET_OCI_USERNAME" in capsys.readouterr().err
        monkeypatch.setenv("DRUPELET_OCI_PASSWORD", PASSWORD)
        assert push(publisher, repository, root) == 0
    said = capsys.readouterr()
    assert PASSWORD not in said.out + said.err
    assert all(PASSWORD not in path.read_text() for path in (tmp_path / ".cache").rglob("*") if path.is_file())


def test_the_layout_that_llama_cpp_takes_says_gguf_and_holds_nothing_else() -> None:
    """llama.cpp's `-dr` takes the first layer whose media type holds the word gguf."""
    manifest = a_manifest("1.2")
    artifact = variant_artifact(manifest, manifest.variants[0], Layout.DOCKER_GGUF)
    value = json.loads(artifact.manifest)
    assert value["config"]["mediaType"] == DOCKER_CONFIG
    assert [layer["mediaType"] for layer in value["layers"]] == [DOCKER_GGUF]
    assert "gguf" in DOCKER_GGUF
    assert json.loads(artifact.config)["config"]["format"] == "gguf"
    onnx = msgspec.structs.replace(manifest.variants[0], file_format="onnx")
    with pytest.raises(BadInput, match="--layout modelpack"):
        variant_artifact(manifest, onnx, Layout.DOCKER_GGUF)


def test_the_same_release_is_the_same_bytes_and_that_layout_goes_to_a_registry_too(
    publisher: Publisher, repository: str, root: str
) -> None:
    assert push(publisher, repository, root) == 0
    assert push(publisher, f"{repository}/again", root) == 0
    assert push(publisher, f"{repository}/docker", root, "--layout", "docker-gguf") == 0
    first, again, docker = (
        registry(name).manifest("1.2") for name in (repository, f"{repository}/again", f"{repository}/docker")
    )
    assert first == again
    assert docker.digest != first.digest
    assert (first.media_type, json.loads(first.data)["artifactType"]) == (INDEX, RELEASE_MANIFEST)


def test_a_device_fetches_blobs_from_a_registry_and_everything_else_from_its_depot(
    publisher: Publisher, repository: str, root: str, tmp_path: Path
) -> None:
    assert push(publisher, repository, root) == 0
    text = f'[device]\nid = "lab-1"\n[fleet]\nurl = "http://f"\n[depot]\nurl = "http://d"\nblobs = "{repository}"\n'
    settings = config.parse(text.encode(), where="agent.toml")
    source = blob_source(settings, make_pool())
    digest = publisher.put(1, size=SIZE)
    part = tmp_path / "a.part"
    with Download(source, PosixDisk(), part=part, digest=digest, size=SIZE) as download:
        while not download.step(10_000).finished:
            pass
    assert hashlib.sha256(part.read_bytes()).hexdigest() == digest.hex
    with pytest.raises(BadConfig, match="blobs"):
        config.parse(text.replace("oci://", "ftp://").encode(), where="agent.toml")


@pytest.mark.parametrize("answer", [Answer(401), Answer(403), Answer(404), Answer(429), Answer(500)])
def test_a_device_does_not_wait_inside_a_step(answer: Answer) -> None:
    """The agent has its own patience; whatever a registry answers comes back at once, with a reason."""
    with scripted_server(lambda _: answer) as server:
        text = f'[device]\nid = "a"\n[fleet]\nurl = "http://f"\n[depot]\nurl = "http://d"\nblobs = "oci://{server.host}/k"\n'
        source = blob_source(config.parse(text.encode(), where="agent.toml"), make_pool())
        with pytest.raises((Unavailable, NotAllowed, NotFound)) as caught:
            next(source.open(Digest.of_hex("0" * 64), offset=0, size=1))
        assert len(server.asked) == 1
    assert caught.value.reason is Reason.SERVER_UNREACHABLE  # type: ignore[union-attr]


def test_a_disk_that_fills_up_while_pulling_keeps_what_fits(
    publisher: Publisher,
    repository: str,
    root: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert push(publisher, repository, root) == 0
    write, room = PosixPartFile.write, [SIZE + 5000]

    def full(self: PosixPartFile, data: bytes) -> None:
        if len(data) > room[0]:
            raise DiskFull("cannot write: No space left on device", where="pulled", fix="free space on this disk")
        room[0] -= len(data)
        write(self, data)

    monkeypatch.setattr(PosixPartFile, "write", full)
    capsys.readouterr()
    assert run("depot", "pull", f"{repository}:1.2", str(tmp_path / "pulled")) == 6
    assert "free space on this disk" in capsys.readouterr().err
    assert [path.name for path in sorted((tmp_path / "pulled").iterdir())] == ["v0.gguf", "v1.gguf.part"]
    room[0] = 10 * SIZE
    assert run("depot", "pull", f"{repository}:1.2", str(tmp_path / "pulled")) == 0
    assert (tmp_path / "pulled" / "v1.gguf").stat().st_size == SIZE

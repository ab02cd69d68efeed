"""`drupelet depot` with buckets and folders, as typed."""

from __future__ import annotations

import json
import re
import urllib.request
from datetime import timedelta
from pathlib import Path

import pytest

from drupelet.cli.main import main
from drupelet.depot import blob_path
from drupelet.depot.objects import ObjectStore
from drupelet.depot.places import open_store
from drupelet.trust import KeyRing
from tests.fakes.released import Publisher
from tests.fakes.s3_server import KEY, SECRET
from tests.fakes.scripted_server import Answer, scripted_server


def run(*arguments: str) -> int:
    """Run a command and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return int(caught.value.code or 0)


@pytest.fixture
def publisher(tmp_path: Path, real_ring: KeyRing) -> Publisher:
    found = Publisher(tmp_path / "depot", real_ring)
    found.release("1.0", 1)
    return found


@pytest.fixture
def root(tmp_path: Path, real_ring: KeyRing) -> str:
    path = tmp_path / "image-root.json"
    path.write_bytes(real_ring.image_root)
    return str(path)


def test_a_depot_is_pushed_listed_checked_collected_and_pulled(
    publisher: Publisher, bucket: str, root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stray = publisher.put(9)
    assert run("depot", "push", str(publisher.folder), bucket, "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["files"] == 10
    assert run("depot", "push", str(publisher.folder), bucket, "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["files"] == 0
    assert run("depot", "ls", bucket, "--root", root, "-o", "json") == 0
    assert [one["release"] for one in json.loads(capsys.readouterr().out)] == ["kiosk/1.0"]
    collect = ("depot", "gc", bucket, "--root", root, "--keep-days", "0", "-o", "json")
    assert run(*collect, "--dry-run") == 0
    assert [one["removed"] for one in json.loads(capsys.readouterr().out)] == [False]
    assert run(*collect) == 0
    assert [one["file"] for one in json.loads(capsys.readouterr().out)] == [blob_path(stray)]
    assert run("depot", "check", bucket, "-o", "json") == 0
    assert [one["state"] for one in json.loads(capsys.readouterr().out)] == ["good"]
    assert run("depot", "pull", bucket, str(tmp_path / "back")) == 0
    assert run("depot", "copy", bucket, str(tmp_path / "again")) == 0
    assert run("depot", "check", str(tmp_path / "back")) == 0
    assert run("depot", "ls", str(tmp_path / "again"), "--root", root) == 0
    assert run("depot", "unlock", bucket) == 0
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    assert KEY not in said.out + said.err


def test_a_damaged_object_is_found(publisher: Publisher, bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    digest = publisher.put(1)
    assert run("depot", "push", str(publisher.folder), bucket) == 0
    store = open_store(bucket)
    store.remove(blob_path(digest))
    store.create(blob_path(digest), b"not it")
    assert run("depot", "check", bucket) == 7


def test_a_presigned_address_serves_ranges_to_whoever_has_it(
    publisher: Publisher, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = publisher.put(1)
    assert run("depot", "push", str(publisher.folder), bucket) == 0
    capsys.readouterr()
    assert run("depot", "link", bucket, digest.text, "--hours", "1") == 0
    address = capsys.readouterr().out.strip()
    assert SECRET not in address
    asking = urllib.request.Request(address, headers={"Range": "bytes=4990-"})  # noqa: S310 (loopback)
    with urllib.request.urlopen(asking, timeout=10) as answer:  # noqa: S310
        assert answer.status == 206
        assert answer.headers["Content-Range"] == "bytes 4990-4999/5000"
        assert answer.read() == publisher.blobs.path(digest).read_bytes()[4990:]


def test_caches_are_told_what_changes(publisher: Publisher, bucket: str) -> None:
    """A CDN that kept the timestamp would keep devices from news."""
    assert run("depot", "push", str(publisher.folder), bucket) == 0
    store = open_store(bucket)
    assert isinstance(store, ObjectStore)
    for name, said in (("metadata/timestamp.json", "no-cache"), ("metadata/1.root.json", "immutable")):
        address = store.link(name, lifetime=timedelta(minutes=5))
        with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310 (loopback)
            assert said in answer.headers["Cache-Control"]
            assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "says"),
    [
        (400, "ExpiredToken", 3, "the credentials have expired"),
        (403, "InvalidAccessKeyId", 3, "the access key is not known"),
        (403, "SignatureDoesNotMatch", 3, "the secret key does not belong to the access key"),
        (403, "AccessDenied", 3, "the credentials do not allow this"),
        (404, "NoSuchBucket", 4, "there is no such bucket"),
        (500, "InternalError", 6, "the server answers 500 InternalError"),
        (503, "SlowDown", 6, "the server answers 503 SlowDown"),
    ],
)
def test_what_a_bucket_refuses_is_one_line_without_a_secret(
    publisher: Publisher,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    status: int,
    code: str,
    exit_code: int,
    says: str,
) -> None:
    body = f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>".encode()
    monkeypatch.setattr("drupelet.depot.objects.RETRIES_MAX", 0)
    with scripted_server(lambda _: Answer(status, body, {"Content-Type": "application/xml"})) as server:
        for name, value in {
            "AWS_ENDPOINT_URL": server.address,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        assert run("depot", "push", str(publisher.folder), "s3://models/depot") == exit_code
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not re.search(f"{SECRET}|{KEY}|Traceback", said)


def test_a_bucket_that_is_not_there(publisher: Publisher, bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("depot", "push", str(publisher.folder), "s3://nobody-made-it/depot") == 4
    assert "there is no such bucket; make it, or correct the address" in capsys.readouterr().err


def test_a_store_that_does_not_answer(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("drupelet.depot.objects.RETRIES_MAX", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert run("depot", "push", str(publisher.folder), "s3://models/depot") == 6
    assert "check the network and the address" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("push", "DEPOT", "ftp://host/depot"), 2, "neither a folder nor an object store's address"),
        (("push", "nowhere", "s3://models/depot"), 4, "there is no such folder"),
        (("pull", "DEPOT", "s3://models/depot"), 2, "is not a local folder"),
        (("unlock", "DEPOT"), 2, "a folder's lock goes with the process"),
        (("link", "DEPOT", "sha256:" + "0" * 64), 2, "a folder has no such addresses"),
        (("ls", "DEPOT", "--root", "nowhere.json"), 4, "give your keys' image-root.json"),
    ],
)
def test_what_was_typed_wrong_is_one_line(
    publisher: Publisher, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, says: str
) -> None:
    assert run("depot", *(str(publisher.folder) if word == "DEPOT" else word for word in arguments)) == code
    assert says in capsys.readouterr().err


def test_expired_signatures_collect_nothing(
    publisher: Publisher, root: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (publisher.folder / "metadata" / "timestamp.json").write_text("{}")
    stray = publisher.put(9)
    assert run("depot", "gc", str(publisher.folder), "--root", root, "--keep-days", "0") == 7
    assert publisher.has(stray)


def test_without_credentials_it_says_so(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The cloud's own address for credentials answers here as it does outside a cloud: not at all."""
    with scripted_server(lambda _: Answer(404)) as server:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", server.address)
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
        monkeypatch.setattr("drupelet.depot.objects.RETRIES_MAX", 0)
        assert run("depot", "push", str(publisher.folder), "s3://models/depot") == 3
    assert "there are no credentials" in capsys.readouterr().err


def test_a_container_without_an_account_is_said(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_USE_EMULATOR"):
        monkeypatch.delenv(name, raising=False)
    assert run("depot", "push", str(publisher.folder), "az://models/depot") == 2
    assert "AZURE_STORAGE_ACCOUNT_NAME" in capsys.readouterr().err


def test_google_s_store_is_opened_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same code through the same library; what the service answers is not seen here: there is no emulator."""
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    store = open_store("gs://models/depot")
    assert isinstance(store, ObjectStore)
    assert store.where == "gs://models/depot"

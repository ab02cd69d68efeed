"""The depot's server: ranges, caching, and no way out of the folder."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from drupelet.depot import FilesDepot, blob_path
from drupelet.depot.serve import is_depot_path
from tests.depot.conftest import BLOB, DIGEST, serving

MANIFEST = f"targets/kiosk/1.2/{'a' * 64}.manifest.json"


@pytest.fixture
def connection(depot: FilesDepot, tmp_path: Path) -> Iterator[http.client.HTTPConnection]:
    folder = tmp_path / "depot"
    for name in ("metadata/timestamp.json", "metadata/3.kiosk.json", MANIFEST, "secret.json", ".publishing"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    (tmp_path / "outside.json").write_text("outside")
    (folder / "metadata" / "9.link.json").symlink_to(tmp_path / "outside.json")
    outside = tmp_path / "outside"
    (outside / "1.2").mkdir(parents=True)
    (outside / "1.2" / f"{'a' * 64}.manifest.json").write_text("outside")
    (folder / "targets" / "linked").symlink_to(outside)
    with serving(folder) as address:
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=10)
        yield connection
        connection.close()


def get(
    connection: http.client.HTTPConnection, path: str, *, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Ask for a path exactly as written: no client library tidies it up."""
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def test_blobs_are_served_whole_and_for_ever(connection: http.client.HTTPConnection) -> None:
    status, headers, body = get(connection, f"/{blob_path(DIGEST)}")
    assert (status, body) == (200, BLOB)
    assert headers["content-length"] == str(len(BLOB))
    assert headers["content-type"] == "application/octet-stream"
    assert "immutable" in headers["cache-control"]
    status, headers, body = get(connection, f"/{blob_path(DIGEST)}", method="HEAD")
    assert (status, body, headers["content-length"]) == (200, b"", str(len(BLOB)))


@pytest.mark.parametrize(
    ("path", "unchanging"),
    [("metadata/timestamp.json", False), ("metadata/3.kiosk.json", True), (MANIFEST, True)],
)
def test_only_the_timestamp_may_change(connection: http.client.HTTPConnection, path: str, unchanging: bool) -> None:
    status, headers, _ = get(connection, f"/{path}")
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert ("immutable" in headers["cache-control"]) is unchanging


def test_ranges(connection: http.client.HTTPConnection) -> None:
    path = f"/{blob_path(DIGEST)}"
    status, headers, body = get(connection, path, Range="bytes=1000-")
    assert (status, body) == (206, BLOB[1000:])
    assert headers["content-range"] == f"bytes 1000-{len(BLOB) - 1}/{len(BLOB)}"
    assert get(connection, path, Range="bytes=0-9")[2] == BLOB[:10]
    assert get(connection, path, Range=f"bytes={len(BLOB)}-")[0] == 416
    status, _, body = get(connection, path, Range="bytes=0-1,5-6,9-12")
    assert (status, body) == (200, BLOB)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/metadata/",
        "/blobs/sha256/",
        "/secret.json",
        "/.publishing",
        "/metadata/../secret.json",
        "/metadata/..%2fsecret.json",
        "/metadata/%2e%2e/secret.json",
        "/metadata/%2e%2e%2fsecret.json",
        "/metadata/..%5csecret.json",
        "/metadata/%252e%252e%252fsecret.json",
        "/../outside.json",
        "/%2e%2e/outside.json",
        "//etc/passwd",
        "/metadata//timestamp.json",
        "/metadata/timestamp.json%00.json",
        "/metadata/timestamp.json%0a",
        "/metadata/TIMESTAMP.json",
        "/metadata/9.link.json",
        f"/targets/linked/1.2/{'a' * 64}.manifest.json",
        f"/targets/../targets/kiosk/{'a' * 64}.manifest.json",
        f"/blobs/sha256/00/{DIGEST.hex}",
        f"/blobs/sha256/{DIGEST.hex[:2]}/{'0' * 64}",
        "/metadata/" + "a" * 600 + ".json",
    ],
)
def test_nothing_else_is_found(connection: http.client.HTTPConnection, path: str) -> None:
    status, _, body = get(connection, path)
    assert (status, body) == (404, b"not found\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(connection: http.client.HTTPConnection, method: str) -> None:
    assert get(connection, "/metadata/timestamp.json", method=method)[0] == 405


def test_names_a_depot_can_have() -> None:
    assert is_depot_path(blob_path(DIGEST))
    assert is_depot_path(MANIFEST)
    assert not is_depot_path("metadata/..json")

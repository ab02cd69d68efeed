"""Downloads against a server that misbehaves, across restarts, and onto a disk that does."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import urllib3

from drupelet.core.errors import DrupeletError, NotFound
from drupelet.core.names import Digest
from drupelet.core.states import Reason
from drupelet.depot import BlobRefused, Download, FilesDepot, HttpSource, NoBlob, Progress, Source, SourceUnreachable
from drupelet.durable import DiskFull, PosixDisk, ReadOnlyDisk
from tests.depot.conftest import BLOB, DIGEST, serving
from tests.fakes.rude_server import rude_server

SYNC = 64 * 1024
STEP = 100_000


def a_download(source: Source, part: Path, *, digest: Digest = DIGEST, size: int = len(BLOB)) -> Download:
    return Download(source, PosixDisk(), part=part, digest=digest, size=size, sync_bytes=SYNC)


def finish(download: Download) -> Progress:
    """Step until it is finished; bounded, so that one that never ends fails."""
    for _ in range(100):
        progress = download.step(STEP)
        if progress.finished:
            return progress
    raise AssertionError("not finished after 100 steps")


def test_a_blob_comes_whole_over_http_and_is_published(tmp_path: Path, disk: PosixDisk, depot: FilesDepot) -> None:
    part, final = tmp_path / "a.part", tmp_path / "store" / DIGEST.hex
    with serving(tmp_path / "depot") as address, a_download(HttpSource(address), part) as download:
        assert download.step(STEP) == Progress(STEP, len(BLOB), False)
        assert finish(download) == Progress(len(BLOB), len(BLOB), True)
        assert download.step(STEP).finished
    disk.publish(part, final)
    assert final.read_bytes() == BLOB
    assert not part.exists()


@pytest.mark.parametrize("manner", ["good", "ignores range"])
def test_a_restart_keeps_what_was_synced(tmp_path: Path, manner: str) -> None:
    part = tmp_path / "a.part"
    with rude_server(BLOB, manner) as server:
        with a_download(HttpSource(server.address), part) as download:
            download.step(STEP)
            download.step(STEP)
        with a_download(HttpSource(server.address), part) as download:
            first = download.step(SYNC)
            assert first == Progress(SYNC, len(BLOB), False)
            finish(download)
        assert server.ranges == ["", f"bytes={3 * SYNC}-"]
    assert part.read_bytes() == BLOB


def test_garbage_past_the_last_sync_does_not_survive_a_power_cut(tmp_path: Path) -> None:
    """The file system had grown the file and not written it."""
    part = tmp_path / "a.part"
    part.write_bytes(BLOB[: 2 * SYNC] + bytes(1000))
    with rude_server(BLOB) as server, a_download(HttpSource(server.address), part) as download:
        finish(download)
    assert part.read_bytes() == BLOB


def test_a_corrupted_part_is_dropped_and_fetched_anew(tmp_path: Path) -> None:
    part = tmp_path / "a.part"
    with rude_server(BLOB) as server:
        with a_download(HttpSource(server.address), part) as download:
            download.step(200_000)
        data = bytearray(part.read_bytes())
        data[10] ^= 1
        part.write_bytes(data)
        with a_download(HttpSource(server.address), part) as download:
            with pytest.raises(BlobRefused) as caught:
                finish(download)
            assert caught.value.reason is Reason.DIGEST_MISMATCH
            assert not part.exists()
            finish(download)
    assert part.read_bytes() == BLOB


@pytest.mark.parametrize("size", [len(BLOB), len(BLOB) + 1, 10 * len(BLOB)])
def test_a_part_as_large_as_the_blob_or_larger_is_not_trusted(tmp_path: Path, size: int) -> None:
    part = tmp_path / "a.part"
    part.write_bytes(bytes(size))
    with rude_server(BLOB) as server, a_download(HttpSource(server.address), part) as download:
        if size == len(BLOB):
            with pytest.raises(BlobRefused):
                finish(download)
        finish(download)
    assert part.read_bytes() == BLOB


@pytest.mark.parametrize(
    ("manner", "error", "reason"),
    [
        ("flipped", BlobRefused, Reason.DIGEST_MISMATCH),
        ("truncated", BlobRefused, Reason.TRUNCATED),
        ("ends early chunked", BlobRefused, Reason.TRUNCATED),
        ("longer", BlobRefused, Reason.TOO_LARGE),
        ("endless", BlobRefused, Reason.TOO_LARGE),
        ("endless chunked", BlobRefused, Reason.TOO_LARGE),
        ("portal", SourceUnreachable, Reason.SERVER_UNREACHABLE),
        ("redirect", SourceUnreachable, Reason.SERVER_UNREACHABLE),
        ("encoded", SourceUnreachable, Reason.SERVER_UNREACHABLE),
        ("busy", SourceUnreachable, Reason.SERVER_UNREACHABLE),
        ("gone", NoBlob, Reason.SERVER_UNREACHABLE),
    ],
)
def test_what_a_bad_server_sends_is_refused(
    tmp_path: Path, manner: str, error: type[DrupeletError], reason: Reason
) -> None:
    part = tmp_path / "a.part"
    with rude_server(BLOB, manner) as server, a_download(HttpSource(server.address), part) as download:
        with pytest.raises(error) as caught:
            finish(download)
        assert caught.value.reason is reason  # type: ignore[attr-defined]
        assert not part.exists() or part.stat().st_size <= len(BLOB)
        server.manner = "good"
        finish(download)
    assert part.read_bytes() == BLOB


@pytest.mark.parametrize(
    ("manner", "error", "reason"),
    [
        ("truncated", BlobRefused, Reason.TRUNCATED),
        ("longer", BlobRefused, Reason.TOO_LARGE),
        ("wrong range", SourceUnreachable, Reason.SERVER_UNREACHABLE),
        ("portal", SourceUnreachable, Reason.SERVER_UNREACHABLE),
    ],
)
def test_a_bad_answer_to_a_resume_is_refused(
    tmp_path: Path, manner: str, error: type[DrupeletError], reason: Reason
) -> None:
    part = tmp_path / "a.part"
    part.write_bytes(BLOB[:200_000])
    with rude_server(BLOB, manner) as server, a_download(HttpSource(server.address), part) as download:
        with pytest.raises(error) as caught:
            finish(download)
        assert caught.value.reason is reason  # type: ignore[attr-defined]


def test_a_cut_connection_is_resumed_where_it_was_cut(tmp_path: Path) -> None:
    part = tmp_path / "a.part"
    with rude_server(BLOB, "cut") as server, a_download(HttpSource(server.address), part) as download:
        server.cut_after = 150_000
        with pytest.raises(SourceUnreachable) as caught:
            finish(download)
        assert caught.value.reason is Reason.SERVER_UNREACHABLE
        server.manner = "good"
        finish(download)
        assert server.ranges[-1] == f"bytes={2 * SYNC}-"
    assert part.read_bytes() == BLOB


def test_a_silent_server_stalls(tmp_path: Path) -> None:
    pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=5, read=0.1), retries=False)
    with (
        rude_server(BLOB, "silent") as server,
        a_download(HttpSource(server.address, pool), tmp_path / "a.part") as download,
    ):
        with pytest.raises(SourceUnreachable) as caught:
            download.step(STEP)
        assert caught.value.reason is Reason.DOWNLOAD_STALLED


def test_a_server_that_drips_stalls(tmp_path: Path) -> None:
    """Never silent for long, never done: each read of few bytes takes 40 s of the test's clock."""
    ticks = iter(range(0, 1_000_000, 20))
    with rude_server(BLOB[:1000] * 2) as server:
        source = HttpSource(server.address, monotonic=lambda: float(next(ticks) * 4))
        with pytest.raises(SourceUnreachable) as caught:
            list(source.open(DIGEST, offset=0, size=2000))
        assert caught.value.reason is Reason.DOWNLOAD_STALLED


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with rude_server(BLOB) as server:
        address = server.address
    with a_download(HttpSource(address), tmp_path / "a.part") as download:
        with pytest.raises(SourceUnreachable, match="cannot be reached") as caught:
            download.step(STEP)
        assert " at 0x" not in caught.value.line()


def test_an_empty_blob(tmp_path: Path) -> None:
    empty = Digest.parse("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    with rude_server(b"") as server:
        download = a_download(HttpSource(server.address), tmp_path / "a.part", digest=empty, size=0)
        assert download.step(STEP) == Progress(0, 0, True)


class TwoFaced:
    """A source that yields more than it should."""

    def open(self, digest: Digest, *, offset: int, size: int) -> Iterator[bytes]:
        yield BLOB[offset:]
        yield b"more"


def test_any_source_that_yields_too_much_is_refused(tmp_path: Path) -> None:
    part = tmp_path / "a.part"
    with a_download(TwoFaced(), part) as download, pytest.raises(BlobRefused) as caught:
        finish(download)
    assert caught.value.reason is Reason.TOO_LARGE
    assert not part.exists()


def test_a_full_disk_in_the_middle_is_said_and_survived(tmp_path: Path) -> None:
    """The kernel refuses at 150,000 bytes, as a full disk does; with room again the download goes on."""
    import signal

    part = tmp_path / "a.part"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with rude_server(BLOB) as server, a_download(HttpSource(server.address), part) as download:
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, hard))
        try:
            with pytest.raises(DiskFull) as caught:
                finish(download)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, old)
        assert caught.value.reason is Reason.DISK_FULL
        assert BLOB.startswith(part.read_bytes())
        finish(download)
    assert part.read_bytes() == BLOB


class ReadOnly(PosixDisk):
    """A disk that was remounted read-only (a test that runs as root cannot take its own permission away)."""

    def part(self, path: Path) -> None:  # type: ignore[override]
        raise ReadOnlyDisk("cannot open part file: Read-only file system", where=str(path), fix="remount it writable")


def test_a_read_only_disk_is_said(tmp_path: Path, depot: FilesDepot) -> None:
    download = Download(depot, ReadOnly(), part=tmp_path / "a.part", digest=DIGEST, size=len(BLOB))
    with pytest.raises(ReadOnlyDisk, match="remount") as caught:
        download.step(STEP)
    assert caught.value.reason is Reason.DISK_ERROR


def test_a_folder_is_a_source_too(tmp_path: Path, depot: FilesDepot) -> None:
    part = tmp_path / "a.part"
    part.write_bytes(BLOB[:200_000])
    with a_download(depot, part) as download:
        finish(download)
    assert part.read_bytes() == BLOB


def test_a_part_that_shrinks_while_it_is_read(tmp_path: Path, depot: FilesDepot) -> None:
    part = tmp_path / "a.part"
    part.write_bytes(BLOB[:200_000])
    with a_download(depot, part) as download:
        download.step(1000)
        part.write_bytes(b"")
        with pytest.raises(NotFound, match="shorter"):
            download.step(STEP)
        finish(download)
    assert part.read_bytes() == BLOB

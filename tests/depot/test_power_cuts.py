"""A power cut leaves what was synced and anything after it. It must cost little, and never the whole download."""

from __future__ import annotations

import shutil
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drupelet.depot import Download, FilesDepot
from drupelet.durable import PartFile, PosixDisk
from drupelet.durable.posix import PosixPartFile
from tests.depot.conftest import BLOB, DIGEST

SYNC = 32 * 1024


class Watched(PosixPartFile):
    """Knows how much of it a power cut would leave for certain."""

    synced = 0

    def sync(self) -> None:
        super().sync()
        Watched.synced = self.size

    def truncate(self, size: int) -> None:
        super().truncate(size)
        Watched.synced = min(Watched.synced, size)


class CutDisk(PosixDisk):
    """A disk whose part files are `Watched`."""

    def part(self, path: Path) -> PartFile:  # type: ignore[override]
        return Watched(path, folder_mode=0o700)


def cut_power(part: Path, *, kept: float, garbage: bytes) -> None:
    """Leave what was synced, and of the rest a share, overwritten by garbage in places."""
    data = part.read_bytes()
    left = Watched.synced + int((len(data) - Watched.synced) * kept)
    tail = bytearray(data[Watched.synced : left])
    tail[: len(garbage)] = garbage[: len(tail)]
    part.write_bytes(data[: Watched.synced] + bytes(tail))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(
        st.tuples(
            st.lists(st.integers(1, 90_000), min_size=1, max_size=4),
            st.floats(0, 1),
            st.binary(max_size=64),
        ),
        max_size=4,
    )
)
def test_no_power_cut_spoils_a_download(
    depot: FilesDepot, tmp_path: Path, cuts: list[tuple[list[int], float, bytes]]
) -> None:
    folder = tmp_path / "cut"
    part = folder / "a.part"
    Watched.synced = 0

    def download() -> Download:
        return Download(depot, CutDisk(), part=part, digest=DIGEST, size=len(BLOB), sync_bytes=SYNC)

    for steps, kept, garbage in cuts:
        with download() as running:
            for size in steps:
                running.step(size)
        before = Watched.synced
        cut_power(part, kept=kept, garbage=garbage)
        with download() as running:
            running.step(1)
            assert part.stat().st_size >= before - SYNC
    with download() as running:
        while not running.step(50_000).finished:
            pass
    assert part.read_bytes() == BLOB
    shutil.rmtree(folder)

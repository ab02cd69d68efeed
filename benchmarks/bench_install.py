"""Bringing a blob onto a device against the least it could cost, and one refresh of trust.

    python -m benchmarks.bench_install                  256 MB, a few seconds
    python -m benchmarks.bench_install --mb 1024        the figure that is reported

`install` downloads over loopback HTTP with resume, hashes while it streams, syncs as it goes and publishes. Its least
cost is `sha256sum` and `cp` of the same file and a `sync` of the copy: what is not on the disk is not installed. The
time without that `sync` is shown beside it. Server and client share this machine's cores, which a device's do not. All
are run in turn, and the medians compared.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from drupelet.core.names import Digest
from drupelet.depot import Download, FilesDepot, HttpSource, Source, blob_path
from drupelet.durable import PosixDisk

ROOT = Path(__file__).resolve().parents[1]
TARGET_RATIO = 1.5
COPY = "sha256sum + cp"
LEAST = "sha256sum + cp + sync"
STEP_BYTES = 16 << 20
FLASH_TARGET = 1.1
REFRESH_TARGET_S = 0.3
REFRESH_TARGET_MIB = 60.0


def timed(action: Callable[[], object]) -> float:
    """Return the seconds `action` takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def sum_and_copy(source: Path, target: Path) -> None:
    """Hash and copy; the copy may be in memory only."""
    subprocess.run(["sha256sum", str(source)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cp", str(source), str(target)], check=True)


def sync(target: Path) -> None:
    """Have the copy on the disk."""
    subprocess.run(["sync", str(target)], check=True)


def install(source: Source, folder: Path, digest: Digest, size: int) -> None:
    """Do what the agent does."""
    disk = PosixDisk()
    with Download(source, disk, part=folder / "a.part", digest=digest, size=size) as download:
        while not download.step(STEP_BYTES).finished:
            pass
    disk.publish(folder / "a.part", folder / digest.hex)


def bytes_to_disk() -> int:
    """Return the bytes this process has had written to block devices; the file system's own journal is not in it."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["write_bytes"]) - int(lines["cancelled_write_bytes"])


def make_file(path: Path, size: int) -> None:
    """Write `size` random bytes."""
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for number in range(size >> 20):
            file.write(number.to_bytes(8, "big") + block[8:])
        file.flush()
        os.fsync(file.fileno())


def bench_install(folder: Path, *, size: int, rounds: int) -> bool:
    """Print the comparison and return whether the target is met."""
    source = folder / "model"
    make_file(source, size)
    depot = FilesDepot(PosixDisk(), folder / "depot")
    digest, _ = depot.put(source)
    source.unlink()
    blob = folder / "depot" / blob_path(digest)
    command = [sys.executable, "-m", "drupelet.cli.main", "depot", "serve", str(folder / "depot"), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            address = server.stderr.readline().split()[-1]
            sources: dict[str, Source] = {"install over HTTP": HttpSource(address), "install from a folder": depot}
            written = 0
            times: dict[str, list[float]] = {COPY: [], LEAST: [], **{name: [] for name in sources}}
            for _ in range(rounds):
                copied = timed(lambda: sum_and_copy(blob, folder / "copy"))
                times[COPY].append(copied)
                times[LEAST].append(copied + timed(lambda: sync(folder / "copy")))
                (folder / "copy").unlink()
                for name, where in sources.items():
                    before = bytes_to_disk()
                    times[name].append(timed(functools.partial(install, where, folder / "dev", digest, size)))
                    written = max(written, bytes_to_disk() - before)
                    shutil.rmtree(folder / "dev")
        finally:
            server.terminate()
    least = statistics.median(times[LEAST])
    print(f"{size >> 20} MiB, median of {rounds}")
    good = True
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        ratio = middle / least
        judged = "" if name in (COPY, LEAST) else f"target at most {TARGET_RATIO:.1f}x"
        good = good and ratio <= TARGET_RATIO
        print(f"  {name:24} {middle:7.2f} s {size / middle / 1e6:7.0f} MB/s {ratio:6.2f}x  {judged}")
    wear = written / size
    print(f"  flash written per model byte {wear:9.3f}           target at most {FLASH_TARGET:.1f}")
    return good and wear <= FLASH_TARGET


REFRESH = """
import resource, sys, time
from pathlib import Path
began = time.perf_counter()
from tests.fakes.trust_world import TrustWorld
from drupelet.trust import Verifier
from drupelet.depot import HttpFetch
imports = time.perf_counter() - began
world = TrustWorld(Path(sys.argv[1]))
order = world.command(world.release("1.1"), serial=1)
device = world.device()
marks = []
for act in (device.refresh_director, lambda: device.vouch(order), device.refresh_director):
    began = time.perf_counter()
    act()
    marks.append(time.perf_counter() - began)
rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(imports, *marks, rss)
"""


def bench_refresh(folder: Path) -> bool:
    """Print how long a device's refreshes take in a process of their own, and what they weigh."""
    done = subprocess.run(
        [sys.executable, "-c", REFRESH, str(folder / "trust")], check=True, capture_output=True, text=True, cwd=ROOT
    )
    imports, director, images, idle, rss = (float(text) for text in done.stdout.split())
    print("one refresh, without a network's time")
    print(f"  imports                  {imports * 1e3:7.0f} ms, once")
    print(f"  director, new order      {director * 1e3:7.1f} ms, target {REFRESH_TARGET_S * 1e3:.0f} ms for both")
    print(f"  images and manifest      {images * 1e3:7.1f} ms")
    print(f"  director, nothing new    {idle * 1e3:7.2f} ms")
    print(f"  process                  {rss:7.1f} MiB, target {REFRESH_TARGET_MIB:.0f} MiB")
    return director + images <= REFRESH_TARGET_S and rss <= REFRESH_TARGET_MIB


def main(arguments: list[str] | None = None) -> int:
    """Run both and return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=256, help="size of the blob in MiB")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        installed = bench_install(Path(scratch), size=given.mb << 20, rounds=given.rounds)
        refreshed = bench_refresh(Path(scratch))
    return 0 if installed and refreshed else 1


if __name__ == "__main__":
    sys.exit(main())

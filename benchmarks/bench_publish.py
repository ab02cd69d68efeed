"""Publishing against what people do by hand: `forge publish` of 2 GB beside `sha256sum` and `cp` of the same file.

    python benchmarks/bench_publish.py [bytes]

Publishing reads once: it hashes while it copies, makes the copy durable (fsync of file and folder, which `cp` does not
do) and signs. The second publish sends nothing. Tools and publisher take turns on the same disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.fakes.released import real_keys  # noqa: E402
from tests.fakes.trust_world import a_manifest  # noqa: E402

from drupelet.depot import FilesDepot  # noqa: E402
from drupelet.durable import PosixDisk  # noqa: E402
from drupelet.forge.publish import publish  # noqa: E402
from drupelet.trust import ImageRepository, KeyRing  # noqa: E402
from drupelet.wire.codec import encode_canonical  # noqa: E402

BYTES = 2_000_000_000
RATIO_MAX = 1.2
ROUNDS = 3
BLOCK = 1 << 20


def write_package(folder: Path, size: int) -> None:
    """Write a package of one variant of `size` bytes that no compression or sparse file makes smaller."""
    folder.mkdir()
    hashing = hashlib.sha256()
    with (folder / "q4_0.gguf").open("wb") as file:
        for start in range(0, size, BLOCK):
            block = os.urandom(min(BLOCK, size - start))
            hashing.update(block)
            file.write(block)
        os.fsync(file.fileno())
    plain = a_manifest("1.0")
    variant = msgspec.structs.replace(plain.variants[0], digest=f"sha256:{hashing.hexdigest()}", size_bytes=size)
    (folder / "manifest.json").write_bytes(encode_canonical(msgspec.structs.replace(plain, variants=(variant,))))


def publish_once(package: Path, depot: Path, keys: KeyRing) -> None:
    """What `drupelet forge publish` does."""
    disk = PosixDisk(folder_mode=0o755)
    images = ImageRepository(disk, depot, keys, lambda: datetime.now(UTC))
    if not depot.exists():
        images.create()
    publish(package, disk=disk, depot=FilesDepot(disk, depot), repository=images, keys=keys)


def seconds(act: Callable[[], object]) -> float:
    """Return how long something takes."""
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def main() -> int:
    """Measure, print targets beside results; 1 if one is missed."""
    size = int(sys.argv[1]) if len(sys.argv) > 1 else BYTES
    by_hand: list[float] = []
    ours: list[float] = []
    with tempfile.TemporaryDirectory(prefix="drupelet-bench-") as scratch:
        folder = Path(scratch)
        keys = real_keys(folder / "keys")
        write_package(folder / "package", size)
        weights = folder / "package" / "q4_0.gguf"
        for _ in range(ROUNDS):
            hashed = seconds(lambda: subprocess.run(["sha256sum", weights], stdout=subprocess.DEVNULL, check=True))
            copied = seconds(lambda: subprocess.run(["cp", weights, folder / "copy"], check=True))
            (folder / "copy").unlink()
            by_hand.append(hashed + copied)
            shutil.rmtree(folder / "depot", ignore_errors=True)
            ours.append(seconds(lambda: publish_once(folder / "package", folder / "depot", keys)))
            print(f"sha256sum {hashed:6.2f} s   cp {copied:6.2f} s   forge publish {ours[-1]:6.2f} s", flush=True)
        again = seconds(lambda: publish_once(folder / "package", folder / "depot", keys))
    ratio = statistics.median(mine / theirs for mine, theirs in zip(ours, by_hand, strict=True))
    met = ratio <= RATIO_MAX
    print(f"{'publishing':32} {size / 1e9:.1f} GB in {statistics.median(ours):.2f} s; again {again:.2f} s")
    print(f"{'against sha256sum + cp':32} {ratio:.2f}x   target at most {RATIO_MAX}x   {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

"""Packing and publishing 2 GB: against `sha256sum` and `cp` of the same files, in one run.

    python benchmarks/bench_forge_publish.py

Publishing hashes every file again and makes it durable before the signature makes it reachable, so the copy it is
compared with is synced too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from drupelet.core.names import Digest, ReleaseId, Version, family  # noqa: E402
from drupelet.depot.files import FilesDepot  # noqa: E402
from drupelet.durable import PosixDisk  # noqa: E402
from drupelet.durable.port import hash_file  # noqa: E402
from drupelet.forge.pack import MANIFEST_FILE, REPORT_FILE, build_manifest  # noqa: E402
from drupelet.forge.publish import publish  # noqa: E402
from drupelet.forge.recipe import parse_recipe  # noqa: E402
from drupelet.forge.report import Report, VariantReport  # noqa: E402
from drupelet.forge.shape import ModelShape  # noqa: E402
from drupelet.trust.keys import KeyRing  # noqa: E402
from drupelet.trust.passphrase import VARIABLE  # noqa: E402
from drupelet.trust.publisher import ImageRepository  # noqa: E402
from drupelet.wire.codec import encode_canonical  # noqa: E402

RATIO_MAX = 1.2
BYTES = 2_000_000_000
ROUNDS = 2
PASSPHRASE = "correct horse battery staple"  # noqa: S105
SHAPE = ModelShape(layers=2, hidden=64, heads=4, kv_heads=2, key_width=16, value_width=16, context=256, vocab=352)
RECIPE = """
format = "drupelet.recipe/1"
family = "kiosk"
model = "kiosk"
context_tokens = 256
[[variants]]
name = "q8_0"
quantization = "q8_0"
[[canonical_prompts]]
id = "one"
prompt = "When do you open?"
expect = [{ kind = "contains", value = "nine" }]
[evaluation]
texts = ["a"]
"""


def main() -> None:
    """Measure and print."""
    print(f"  load {os.getloadavg()[0]:.1f}")
    ours, theirs = [], []
    with tempfile.TemporaryDirectory(prefix="dfb-publish-") as name:
        folder = Path(name)
        _write(folder / "package" / "q8_0.gguf")
        for number in range(ROUNDS):
            theirs.append(_by_hand(folder, number))
            ours.append(_publish(folder, number))
    ratio = min(ours) / min(theirs)
    print(f"    sha256sum and cp: {min(theirs):.1f} s; pack and publish: {min(ours):.1f} s (the best of {ROUNDS})")
    print(
        f"  {'packing and publishing 2 GB against sha256sum and cp':<66} {ratio:6.2f} x  target <= {RATIO_MAX:g} "
        f"{'MISSED' if ratio > RATIO_MAX else ''}"
    )
    sys.exit(ratio > RATIO_MAX)


def _write(path: Path) -> None:
    path.parent.mkdir()
    piece = os.urandom(1 << 24)
    with path.open("wb") as file:
        for left in range(BYTES, 0, -len(piece)):
            file.write(piece[:left])
        os.fsync(file.fileno())


def _by_hand(folder: Path, number: int) -> float:
    source, copy = folder / "package" / "q8_0.gguf", folder / f"copy-{number}"
    begun = time.monotonic()
    subprocess.run(["sha256sum", source], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run(["cp", source, copy], check=True)
    subprocess.run(["sync", copy], check=True)
    took = time.monotonic() - begun
    copy.unlink()
    return took


def _publish(folder: Path, number: int) -> float:
    """Pack and publish into a fresh depot; return the seconds; what comes before is not in it."""
    disk, package, keys = PosixDisk(folder_mode=0o755), folder / "package", folder / f"keys-{number}"
    depot = folder / f"depot-{number}"
    command = [sys.executable, "-m", "drupelet.cli.main", "keys", "init", str(keys), "--family", "kiosk"]
    subprocess.run(
        command,
        check=True,
        env={**os.environ, VARIABLE: PASSPHRASE},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    ring = KeyRing(disk, keys, passphrase=lambda: PASSPHRASE)
    repository = ImageRepository(disk, depot, ring, lambda: datetime.now(UTC))
    repository.create()
    digest, size = hash_file(disk, package / "q8_0.gguf")
    begun = time.monotonic()
    _pack(digest, size, package, disk)
    publish(package, disk=disk, depot=FilesDepot(disk, depot), repository=repository)
    took = time.monotonic() - begun
    shutil.rmtree(depot)
    return took


def _pack(digest: Digest, size: int, package: Path, disk: PosixDisk) -> None:
    """Write report and manifest as if the one variant had been measured."""
    text = Digest.of_hex("ab" * 32).text
    measured = VariantReport(
        name="q8_0",
        quantization="q8_0",
        digest=digest.text,
        size_bytes=size,
        convert_ms=1,
        load_ms=1,
        ttft_ms=1.0,
        answer_ms=1.0,
        tokens_per_second=1.0,
        memory_bytes=size,
    )
    report = Report(reference=text, checkpoint=text, sequences=1, passed=True, variants=(measured,))
    recipe = parse_recipe(RECIPE.encode())
    manifest = build_manifest(
        ReleaseId(family("kiosk"), Version.parse("1.0")),
        recipe,
        report,
        report_digest=Digest.of_hex(hashlib.sha256(encode_canonical(report)).hexdigest()),
        recipe_digest=digest,
        shape=SHAPE,
        created_at_ms=1_790_000_000_000,
        override="",
    )
    disk.replace(package / REPORT_FILE, encode_canonical(report))
    disk.replace(package / MANIFEST_FILE, encode_canonical(manifest))


if __name__ == "__main__":
    main()

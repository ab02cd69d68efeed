"""A signed release as a Mender artifact: what a device needs to verify it offline, and the variants it may run.

The list of files is not made by hand: a device's own verification runs here over the depot's folder, and what it asked
for is what goes in. Mender's own tool (`mender-artifact`, in Debian) writes the archive and signs it, if given a key.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from drupelet.agent.bundle import BASE, blob_name, file_name
from drupelet.core.errors import BadInput, NotFound, Refused
from drupelet.core.names import Digest, ReleaseId
from drupelet.depot.errors import NoBlob
from drupelet.depot.files import FilesDepot
from drupelet.durable import Disk
from drupelet.trust.images import Images
from drupelet.wire.codec import TooLarge
from drupelet.wire.manifest import ReleaseManifest

MODULE = "drupelet"
"""The update module's name on the device, which is the artifact's payload type."""
TOOL = "mender-artifact"
DEVICE_TYPES = ("raspberrypi4", "raspberrypi5")


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What goes into the artifact: names there -> files here."""

    manifest: ReleaseManifest
    files: dict[str, Path]

    @property
    def artifact_name(self) -> str:
        """What Mender shows and compares: the release, with a dash for its slash."""
        return f"{self.manifest.family}-{self.manifest.version}"


class RecordingFetch:
    """Implements trust's `Fetch` over a depot's folder and remembers which files were asked for."""

    def __init__(self, disk: Disk, depot: Path) -> None:
        self._disk, self._depot = disk, depot
        self.asked: dict[str, Path] = {}

    def get(self, url: str, *, bytes_max: int, token: str = "") -> bytes:
        """Return a file of the depot."""
        del token
        name = url.removeprefix(f"{BASE}/")
        path = self._depot / name
        if self._disk.size(path) > bytes_max:
            raise TooLarge(f"{name} has more than {bytes_max} bytes", where=str(self._depot))
        data = self._disk.read(path, bytes_max=bytes_max)
        self.asked[name] = path
        return data


def collect(
    release: ReleaseId, *, depot: Path, root: bytes, variants: Sequence[str], disk: Disk, now: datetime
) -> Contents:
    """Return what the artifact of a release is made of; no `variants` means all.

    Raises what verification raises, `NoBlob` if the depot lacks a variant, `BadInput` for one that does not exist.
    """
    fetch = RecordingFetch(disk, depot)
    with tempfile.TemporaryDirectory(prefix="drupelet-") as scratch:
        images = Images(disk, Path(scratch), root=root, depot_url=BASE, fetch=fetch, now=lambda: now)
        manifest = images.release(release).manifest
    chosen = [manifest.variant(name) for name in variants] if variants else list(manifest.variants)
    files = {file_name(name): path for name, path in fetch.asked.items()}
    # Devices with an older root than the one given here follow the chain of roots.
    for name in disk.names(depot / "metadata"):
        if name.endswith(".root.json"):
            files[file_name(f"metadata/{name}")] = depot / "metadata" / name
    blobs = FilesDepot(disk, depot)
    for variant in chosen:
        digest = Digest.parse(variant.digest)
        if not blobs.has(digest):
            raise NoBlob(f"{variant.name} ({digest}) is not in this depot", where=str(depot))
        blobs.check(digest)
        files[blob_name(digest)] = blobs.path(digest)
    return Contents(manifest=manifest, files=files)


def write(contents: Contents, out: Path, *, device_types: Sequence[str], key: Path | None = None) -> None:
    """Write the artifact with Mender's own tool; `key` is a private key that it understands.

    Raises `NotFound` where the tool is missing, `Refused` with its words where it fails.
    """
    if not device_types:
        raise BadInput("no device type is named", fix=f"for example --device-type {DEVICE_TYPES[-1]}")
    release = f"{contents.manifest.family}/{contents.manifest.version}"
    with tempfile.TemporaryDirectory(prefix="drupelet-", dir=out.parent) as scratch:
        part = Path(scratch) / out.name
        command = [TOOL, "write", "module-image", "--type", MODULE, "--artifact-name", contents.artifact_name]
        command += ["--software-name", contents.manifest.family, "--software-version", contents.manifest.version]
        command += ["--provides", f"drupelet.release:{release}", "--output-path", str(part)]
        # The variants are dense already: packing them again would cost minutes and save nothing.
        command += ["--compression", "none"]
        for device_type in device_types:
            command += ["--device-type", device_type]
        if key is not None:
            command += ["--key", str(key)]
        for name, path in sorted(contents.files.items()):
            link = Path(scratch) / name
            link.symlink_to(path.absolute())
            command += ["--file", str(link)]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise NotFound(f"there is no {TOOL} here", fix=f"install it: apt-get install {TOOL}") from error
        if done.returncode != 0:
            said = " ".join((done.stderr + done.stdout).split())[-300:]
            raise Refused(f"{TOOL} says: {said}", where=str(out))
        part.replace(out)

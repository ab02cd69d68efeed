"""From a package to a release in a depot: blobs first, then the signature that makes them reachable.

Every file is hashed again as it is copied and must be what the manifest says: between packing and publishing lies a
disk, and perhaps a person. Publishing the same package twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from drupelet.core.errors import NotFound
from drupelet.core.names import Digest
from drupelet.depot.errors import NoBlob
from drupelet.depot.files import FilesDepot
from drupelet.durable.port import Disk
from drupelet.forge.attest.beside import beside
from drupelet.forge.errors import EvaluationRefused, NoRuntime, PackageBad
from drupelet.forge.pack import MANIFEST_FILE, REPORT_FILE
from drupelet.trust.keys import KeyRing
from drupelet.trust.publisher import ImageRepository
from drupelet.trust.roles import TargetInfo
from drupelet.wire.codec import decode
from drupelet.wire.manifest import ATTACHMENT_FILES, ReleaseManifest
from drupelet.wire.runtime import RuntimeManifest, unserved_by_all


def read_package(folder: Path, *, disk: Disk) -> ReleaseManifest:
    """Return the manifest of the package in `folder`. Raises `NotFound`, `BadInput`, and `EvaluationRefused` if the
    evaluation did not pass and nobody took the responsibility.
    """
    path = folder / MANIFEST_FILE
    data = disk.read(path, bytes_max=ReleaseManifest.BYTES_MAX)
    manifest = decode(ReleaseManifest, data, where=str(path))
    if not manifest.evaluation.passed and not manifest.evaluation.overridden.strip():
        raise EvaluationRefused(manifest.evaluation.findings or ("it did not pass",), where=str(path))
    return manifest


def files_of(manifest: ReleaseManifest, folder: Path) -> dict[str, Path]:
    """Return the files of a package beside its manifest, by the digest that the manifest gives them."""
    files = {variant.digest: folder / f"{variant.name}.{variant.file_format}" for variant in manifest.variants}
    if manifest.evaluation.report is not None:
        files[manifest.evaluation.report] = folder / REPORT_FILE
    return files | {one.digest: folder / ATTACHMENT_FILES[one.kind] for one in manifest.attachments}


def publish(
    folder: Path,
    *,
    disk: Disk,
    depot: FilesDepot,
    repository: ImageRepository,
    keys: KeyRing,
    runtimes: Sequence[RuntimeManifest] = (),
) -> TargetInfo:
    """Put the package's files into `depot` and sign its manifest into `repository`; return the signed target.

    Beside the manifest are signed its provenance and its model signature, see `attest/beside.py`.

    Raises `PackageBad` if a file is not what the manifest says, `NoRuntime` if none of the signed `runtimes` serves the
    release (where there are none, devices are left to say it), and what the depot and the repository raise.
    """
    manifest = read_package(folder, disk=disk)
    if (why := unserved_by_all(manifest, runtimes)) is not None:
        raise NoRuntime(
            f"no signed runtime serves {manifest.release.path}: {why.detail}",
            where=str(folder),
            fix="publish a newer runtime first: drupelet forge runtime publish",
        )
    named = {Digest.parse(text): path for text, path in files_of(manifest, folder).items()}

    def ready() -> None:
        for digest in named:
            if not depot.has(digest):
                raise NoBlob(f"{digest} was collected while it was published", where=str(folder), fix="publish again")

    for digest, path in named.items():
        _put(digest, path, disk=disk, depot=depot)
    return repository.add_release(manifest, beside=lambda: beside(manifest, folder, disk=disk, keys=keys), ready=ready)


def _put(digest: Digest, path: Path, *, disk: Disk, depot: FilesDepot) -> None:
    if not disk.exists(path):
        raise NotFound("the manifest names this file and it is not there", where=str(path), fix="build it again")
    found, _ = depot.put(path, expected=digest)
    if found != digest:
        # What was put lies under its own digest, where nothing points: harmless, and not the release.
        raise PackageBad(
            f"its digest is {found} where the manifest says {digest}", where=str(path), fix="build it again"
        )

"""Is a package what its manifest says: the manifest by its schema, and every file by size and digest."""

from __future__ import annotations

from pathlib import Path

from drupelet.ci.lint import Finding, Level, lint_file
from drupelet.core.names import Digest
from drupelet.durable import Disk, hash_file
from drupelet.forge.pack import MANIFEST_FILE
from drupelet.forge.publish import files_of
from drupelet.wire.codec import decode
from drupelet.wire.manifest import ReleaseManifest
from drupelet.wire.places import Path as Way
from drupelet.wire.places import Place, json_places, place_of


def lint_package(folder: Path, *, disk: Disk) -> list[Finding]:
    """Return everything that is wrong with the package in `folder`. Every file is read once, whole."""
    path = folder / MANIFEST_FILE
    found = lint_file(path, named=True) or []
    if any(finding.level is Level.ERROR for finding in found):
        return found
    data = disk.read(path, bytes_max=ReleaseManifest.BYTES_MAX)
    manifest = decode(ReleaseManifest, data, where=str(path))
    places = json_places(data.decode())
    ways: dict[str, Way] = {one.digest: ("variants", index, "digest") for index, one in enumerate(manifest.variants)}
    sizes = {one.digest: one.size_bytes for one in manifest.variants}
    sizes |= {one.digest: one.size_bytes for one in manifest.attachments}
    for digest, file in files_of(manifest, folder).items():
        said = _file(file, Digest.parse(digest), sizes.get(digest), disk=disk)
        if said:
            line, column = place_of(places, ways.get(digest, ("evaluation",))) or Place(1, 1)
            found.append(Finding(file=str(path), line=line, column=column, kind="manifest", what=said))
    if not manifest.evaluation.passed and not manifest.evaluation.overridden:
        line, column = place_of(places, ("evaluation", "passed")) or Place(1, 1)
        what = "the evaluation did not pass and nobody took the responsibility: it will not be published"
        found.append(Finding(file=str(path), line=line, column=column, kind="manifest", what=what))
    return found


def _file(path: Path, wanted: Digest, size: int | None, *, disk: Disk) -> str:
    """Return what is wrong with one file of a package, if anything is."""
    if not disk.exists(path):
        return f"{path.name} is not in the package"
    digest, found = hash_file(disk, path)
    if size is not None and found != size:
        return f"{path.name} has {found} bytes where the manifest says {size}"
    return "" if digest == wanted else f"{path.name} is {digest}, not what the manifest says"

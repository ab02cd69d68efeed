"""A release that came as a handful of files: how a device takes it from another update system (Mender).

The files are a depot with its folders folded into the names, because such systems carry flat lists of files:

    metadata__1.root.json  metadata__timestamp.json ...  targets__kiosk__1.2__<sha256>.manifest.json  blob__<sha256>

Who made the list is believed in nothing. The image repository's signatures decide, against the root that the device
was given, exactly as they do for a release from our own fleet; only the choice *which* signed release to take is the
other system's, as it is the director's elsewhere. `BundleTrust`, `BundleDepot` and `BundleFetch` are the agent's own
ports over such a folder, so the update machine that installs, tries and reverts is the same one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from drupelet.agent.slots import Layout
from drupelet.core.errors import BadInput, NotFound
from drupelet.core.names import Digest, ReleaseId
from drupelet.core.states import Mode, Reason
from drupelet.depot.download import Download
from drupelet.depot.errors import BlobRefused, NoBlob
from drupelet.depot.ports import Source
from drupelet.durable import Disk
from drupelet.trust.errors import NotTrusted
from drupelet.trust.images import Images
from drupelet.wire.codec import TooLarge
from drupelet.wire.manifest import ReleaseManifest, manifest_path, release_of_path
from drupelet.wire.orders import Order

BASE = "bundle:"
"""Stands for the depot's address; whatever is fetched below it is looked up in the folder."""
FOLD = "__"
FILES_MAX = 128
"""A depot of sixteen families and a hundred variants takes fewer."""
READ_BYTES = 1 << 20
_MANIFEST = re.compile(r"targets__(?P<family>[^/]+?)__(?P<version>[^/]+?)__[0-9a-f]{64}\.manifest\.json\Z")


def file_name(depot_path: str) -> str:
    """Return the name under which the file at `depot_path`, such as `metadata/timestamp.json`, lies in a bundle."""
    return depot_path.replace("/", FOLD)


def blob_name(digest: Digest) -> str:
    """Return the name of a blob's file."""
    return f"blob{FOLD}{digest.hex}"


class Bundle:
    """The files in one folder. Raises `BadInput` where the folder is no bundle of exactly one release."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self.disk, self.folder = disk, folder
        names = disk.names(folder)
        if len(names) > FILES_MAX:
            raise BadInput(f"{len(names)} files where a release has at most {FILES_MAX}", where=str(folder))
        found = [match for name in names if (match := _MANIFEST.match(name))]
        if len(found) != 1:
            what = f"{len(found)} release manifests where there must be one"
            raise BadInput(what, where=str(folder), fix="make the artifact with: drupelet forge mender")
        self.release = release_of_path(f"{found[0]['family']}/{found[0]['version']}/manifest.json")
        self._names = frozenset(names)

    def has(self, digest: Digest) -> bool:
        """Whether a blob came along."""
        return blob_name(digest) in self._names

    def path(self, name: str) -> Path:
        """Return a file's path, or raise `NotFound`; `name` is one component, whoever made it up."""
        if name not in self._names or "/" in name:
            raise NotFound(f"{name[:200]} is not in the bundle", where=str(self.folder))
        return self.folder / name

    # The three ports

    def get(self, url: str, *, bytes_max: int, token: str = "") -> bytes:
        """Return a small file; implements trust's `Fetch`."""
        del token
        path = self.path(file_name(url.removeprefix(f"{BASE}/")))
        if self.disk.size(path) > bytes_max:
            raise TooLarge(f"{path.name} has more than {bytes_max} bytes", where=str(self.folder))
        return self.disk.read(path, bytes_max=bytes_max)

    def open(self, digest: Digest, *, offset: int, size: int) -> Iterator[bytes]:
        """Yield a blob's bytes; implements the depot's `Source`."""
        try:
            path = self.path(blob_name(digest))
        except NotFound as error:
            raise NoBlob(f"{digest} is not in the bundle", where=str(self.folder)) from error
        there = self.disk.size(path)
        if there != size:
            reason = Reason.TOO_LARGE if there > size else Reason.TRUNCATED
            raise BlobRefused(f"{digest} has {there} bytes where {size} were signed", reason=reason, where=str(path))
        while data := self.disk.read_at(path, offset, READ_BYTES):
            yield data
            offset += len(data)


class BundleDepot:
    """Implements the agent's `Depot`: a copy that resumes, from the bundle into the part file."""

    def __init__(self, source: Source, disk: Disk, layout: Layout) -> None:
        self._source, self._disk, self._layout = source, disk, layout

    def fetching(self, digest: Digest, size_bytes: int) -> Download:
        """Begin or go on copying a blob."""
        part = self._layout.part(digest)
        return Download(self._source, self._disk, part=part, digest=digest, size=size_bytes)


class BundleTrust:
    """Implements the agent's `Trust` for orders that this device gives itself, for releases that were signed."""

    def __init__(self, images: Images, bundle: Bundle | None) -> None:
        self._images, self._bundle = images, bundle
        self._order: Order | None = None

    @property
    def order(self) -> Order | None:
        """The order in hand."""
        return self._order

    def refresh_director(self) -> Order | None:
        """There is no director: the order in hand is all there is."""
        return self._order

    def give(self, *, device: str, serial: int, probation_ms: int, reason: str) -> Order:
        """Return the order to install the bundle's release, its variants being those that came along.

        Raises `Untrusted` if the image repository does not vouch for it, `BadInput` if no variant came along.
        """
        bundle = self._bundle
        if bundle is None:
            raise BadInput("there is no bundle to install")
        vouched = self._images.release(bundle.release)
        variants = tuple(v.name for v in vouched.manifest.variants if bundle.has(Digest.parse(v.digest)))
        if not variants:
            raise BadInput(f"no variant of {bundle.release} came along", where=str(bundle.folder))
        self._order = Order(
            device=device,
            serial=serial,
            mode=Mode.INSTALL,
            release=bundle.release.path,
            manifest=vouched.target.sha256.text,
            variants=variants,
            reason=reason,
            probation_ms=probation_ms,
        )
        return self._order

    def vouch(self, order: Order) -> ReleaseManifest:
        """Return the manifest of the order in hand, if the image repository vouches for that very file."""
        target = self._images.look_up(manifest_path(ReleaseId.parse(order.release)))
        if target.sha256.text != order.manifest:
            said = f"the image repository vouches for {target.sha256} as {order.release}"
            raise NotTrusted(said, reason=Reason.UNSIGNED, where=order.device)
        return self._images.manifest(target)

    def remembered(self, digest: Digest) -> ReleaseManifest | None:
        """Return a manifest that was vouched for before."""
        return self._images.remembered(digest)

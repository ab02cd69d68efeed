"""Verifying a runtime's image on the device: the image root, the depot, and what the device holds."""

from __future__ import annotations

from datetime import UTC, datetime

from drupelet.agent.config import Config
from drupelet.agent.journal import JOURNAL_BYTES_MAX, read
from drupelet.cli.compose.agent import read_root
from drupelet.core.errors import NotFound, Refused
from drupelet.core.names import Digest, Version
from drupelet.depot.http import HttpFetch, make_pool
from drupelet.durable import PosixDisk
from drupelet.trust.images import Images
from drupelet.trust.runtimes import Runtimes
from drupelet.wire.runtime import RuntimeManifest, served


def verify_runtime(
    config: Config, version: Version, digest: Digest, *, platform: str, allow_older: bool
) -> RuntimeManifest:
    """Return the signed manifest of the runtime with this image, and make its version the floor.

    Raises `NotTrusted` and what fetching raises; `Refused` if it would not serve a release that lies in a slot here.
    """
    disk = PosixDisk()
    # A memory of its own: the agent, which may be running, holds the one beside it.
    folder = config.layout.trust / "runtime"
    images = Images(
        disk,
        folder,
        root=read_root(disk, config.trust.image_root),
        depot_url=config.depot.url,
        fetch=HttpFetch(make_pool(ca_file=config.fleet.ca_file or None, connections=1)),
        now=lambda: datetime.now(UTC),
    )
    with disk.lock(folder / ".verifying", holder="drupelet agent verify-runtime"):
        runtimes = Runtimes(images, disk=disk, folder=folder)
        manifest = runtimes.verify(version, digest, platform=platform, allow_older=allow_older)
        _refuse_what_it_does_not_serve(config, disk, manifest)
        runtimes.accept(version)
    return manifest


def _refuse_what_it_does_not_serve(config: Config, disk: PosixDisk, manifest: RuntimeManifest) -> None:
    path = config.layout.journal / "log.jsonl"
    try:
        state = read(disk.read(path, bytes_max=JOURNAL_BYTES_MAX)).state
    except NotFound:
        return  # nothing was ever installed here
    safe = state.safe_slot
    held = state.slots.get(safe) if safe is not None else None
    unserved = served(held.document, version=manifest.version, serves=manifest.serves) if held is not None else None
    if held is not None and unserved is not None:
        raise Refused(
            f"runtime {manifest.version} does not serve {held.release}, which is committed here: {unserved.detail}",
            where=config.device.id,
            fix="update the model first, or take another runtime",
        )

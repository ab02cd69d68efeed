"""What a device believes: an order of its own director, for a release the image repository vouches for too.

    fleet server                          depot (any web server)
    director: timestamp, snapshot,        images: timestamp, snapshot,
    targets of THIS device                targets -> family's targets
          |  refresh_director                  |  vouch
          v                                    v
    order + (path, length, sha256)  ==   (path, length, sha256)  ->  manifest  ->  blobs by digest

Whoever owns the fleet server holds the left column only. He can choose among signed releases; he cannot make one, and
cannot go back below what this device has accepted. Whoever owns the network holds neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from drupelet.core.errors import BadInput
from drupelet.core.names import Digest
from drupelet.core.states import Reason
from drupelet.durable import Disk
from drupelet.trust.errors import NotTrusted
from drupelet.trust.images import Images
from drupelet.trust.memory import DirectorMemory, TargetMemory, known_of, recall, remember, texts_of
from drupelet.trust.ports import Fetch
from drupelet.trust.roles import TargetInfo, device_of
from drupelet.trust.staged import LIMITS, Staged
from drupelet.wire.codec import TooLarge, decode, encode
from drupelet.wire.manifest import MANIFEST_NAME, ReleaseManifest
from drupelet.wire.orders import Order

ROOT_CHECK_EVERY_S = 3600.0
"""An idle refresh is one request, the timestamp; a newer root is asked for this often, and at every change."""


class Verifier:
    """Verifies orders and releases for one device. One instance at a time on a folder (the agent holds a lock).

    `folder` is the state folder's `trust/`. `image_root` and `director_root` are the roots the device was given when
    it was set up. `director_url` is `<fleet>/device/v1/director/<device>`, `depot_url` the depot's.
    """

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        *,
        device: str,
        image_root: bytes,
        director_root: bytes,
        director_url: str,
        depot_url: str,
        fetch: Fetch,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._disk = disk
        self._device = device
        self._director_root = director_root
        self._url = director_url.rstrip("/")
        self._fetch = fetch
        self._monotonic = monotonic
        self._path = folder / "director.json"
        self._root_checked_at: float | None = None
        self.images = Images(disk, folder, root=image_root, depot_url=depot_url, fetch=fetch, now=now)

    @property
    def order(self) -> Order | None:
        """The newest accepted order, from the disk alone."""
        memory = self._memory()
        return _order_in(memory.order, where=str(self._path)) if memory is not None and memory.order else None

    def refresh_director(self, *, token: str = "") -> Order | None:
        """Return the newest order for this device, or None if there is none; what is returned is on the disk.

        Raises `NotTrusted` with reason UNSIGNED, EXPIRED, REPLAYED, WRONG_DEVICE, DIGEST_MISMATCH, TOO_LARGE or
        BAD_METADATA, and then nothing has changed; or `RepositoryMissing`, or what the fetch port raises.
        """
        memory = self._memory()
        timestamp = self._get("timestamp.json", LIMITS.timestamp_max_length, token)
        if memory is not None and self._is_idle(memory, timestamp):
            return self.order
        known = known_of(memory)

        def get(path: str, bytes_max: int) -> bytes:
            return timestamp if path == "timestamp.json" else self._fetch_file(path, bytes_max, token)

        staged = Staged(
            bootstrap=self._director_root, known=known, get=get, reference=self.images.time(), where=self._url
        )
        with staged:
            staged.refresh()
            self._root_checked_at = self._monotonic()
            self._refuse_other_devices(staged)
            order, target = self._order_of(staged)
            accepted = self._accept(staged, memory, order, target)
        if accepted != memory:
            remember(self._disk, self._path, accepted)
        return order

    def vouch(self, order: Order) -> ReleaseManifest:
        """Return the manifest of the order's release, if the image repository vouches for the very same file.

        `order` must be the one `refresh_director` returned last. Raises as `refresh_director` does; UNSIGNED when the
        image repository does not know the release or knows another file under its name.
        """
        memory = self._memory()
        if memory is None or memory.target is None or self.order != order:
            raise NotTrusted(
                f"order {order.serial} is not the one the director gave last",
                reason=Reason.SUPERSEDED,
                where=self._device,
                fix="refresh the director first",
            )
        ordered = TargetInfo(memory.target.path, memory.target.length, Digest.parse(memory.target.sha256))
        vouched = self.images.look_up(ordered.path)
        if vouched != ordered:
            raise NotTrusted(
                f"the director orders {ordered.sha256} as {order.release}, the image repository vouches for "
                f"{vouched.sha256}",
                reason=Reason.UNSIGNED,
                where=self._device,
            )
        return self.images.manifest(vouched)

    def remembered(self, digest: Digest) -> ReleaseManifest | None:
        """Return a manifest that was vouched for before, without a network and whatever the time."""
        return self.images.remembered(digest)

    def _memory(self) -> DirectorMemory | None:
        memory = recall(self._disk, self._path, DirectorMemory)
        return memory if memory is not None and memory.device == self._device else None

    def _get(self, path: str, bytes_max: int, token: str) -> bytes:
        try:
            return self._fetch_file(path, bytes_max, token)
        except TooLarge as error:
            raise NotTrusted(
                f"{path} is larger than the {bytes_max} bytes it may have", reason=Reason.TOO_LARGE, where=self._url
            ) from error

    def _fetch_file(self, path: str, bytes_max: int, token: str) -> bytes:
        return self._fetch.get(f"{self._url}/{path}", bytes_max=bytes_max, token=token)

    def _is_idle(self, memory: DirectorMemory, timestamp: bytes) -> bool:
        """Whether nothing changed: the same timestamp, nothing expired, and the root looked at not long ago."""
        checked = self._root_checked_at
        return (
            checked is not None
            and self._monotonic() - checked < ROOT_CHECK_EVERY_S
            and known_of(memory).files.get("timestamp.json") == timestamp
            and self.images.time() < datetime.fromtimestamp(memory.expires_s, UTC)
        )

    def _refuse_other_devices(self, staged: Staged) -> None:
        for role in (staged.timestamp, staged.snapshot, staged.targets):
            signed_for = device_of(role)
            if signed_for != self._device:
                raise NotTrusted(
                    f"{role.type} metadata was signed for {(signed_for or 'no device')[:64]!r}",
                    reason=Reason.WRONG_DEVICE,
                    where=self._device,
                )

    def _order_of(self, staged: Staged) -> tuple[Order | None, TargetInfo | None]:
        targets = list(staged.targets.targets.values())
        if staged.targets.delegations is not None or len(targets) > 1:
            raise NotTrusted(
                "a director's targets hold one order and delegate nothing",
                reason=Reason.BAD_METADATA,
                where=self._device,
            )
        if not targets:
            return None, None
        target = TargetInfo.of_target(targets[0])
        order = _order_in(_json(targets[0].custom), where=self._url)
        if target is None or order.manifest != target.sha256.text or target.path != f"{order.release}/{MANIFEST_NAME}":
            raise NotTrusted(
                "the order and the file it points at do not belong together",
                reason=Reason.BAD_METADATA,
                where=self._device,
            )
        if order.device != self._device:
            raise NotTrusted(f"the order is for {order.device}", reason=Reason.WRONG_DEVICE, where=self._device)
        return order, target

    def _accept(
        self, staged: Staged, memory: DirectorMemory | None, order: Order | None, target: TargetInfo | None
    ) -> DirectorMemory:
        """Return what to remember, or raise if the order goes back.

        A new director root, signed by the offline keys, starts the count again: that is how an owner recovers from a
        stolen online key that signed a serial too high to follow.
        """
        counted = memory is not None and memory.root_version == staged.root.version
        mark = memory.serial if memory is not None and counted else 0
        serial = order.serial if order is not None else mark
        same = memory is not None and order is not None and memory.order == encode(order).decode()
        if order is not None and (serial < mark or (serial == mark and not same)):
            raise NotTrusted(
                f"order {serial} does not come after order {mark}", reason=Reason.REPLAYED, where=self._device
            )
        roots, files = texts_of(staged.verified())
        roles = (staged.root, staged.timestamp, staged.snapshot, staged.targets)
        return DirectorMemory(
            device=self._device,
            root_version=staged.root.version,
            serial=serial,
            expires_s=int(min(role.expires for role in roles).timestamp()),
            target=None if target is None else _target_memory(target),
            order="" if order is None else encode(order).decode(),
            roots=roots,
            files=files,
        )


def _target_memory(target: TargetInfo) -> TargetMemory:
    return TargetMemory(path=target.path, length=target.length, sha256=target.sha256.text)


def _json(custom: Any) -> str:
    return msgspec.json.encode(custom).decode()


def _order_in(text: str, *, where: str) -> Order:
    """Return the order in signed JSON."""
    try:
        return decode(Order, text.encode(), where=where)
    except BadInput as error:
        raise NotTrusted(
            f"signed, but not an order this version understands: {error.what}",
            reason=Reason.BAD_METADATA,
            where=where,
            fix=error.fix,
        ) from error

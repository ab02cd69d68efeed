"""From an order to a filled slot: check, fetch, verify, write."""

from __future__ import annotations

import time

from drupelet import __version__
from drupelet.agent import events as e
from drupelet.agent import preflight
from drupelet.agent.effects import Fetching
from drupelet.agent.model import DeviceState, Held
from drupelet.agent.work import FAULTS_MAX, Hashing, Means
from drupelet.core.errors import Untrusted
from drupelet.core.names import Digest
from drupelet.core.states import Reason
from drupelet.wire.manifest import ReleaseManifest
from drupelet.wire.orders import Order

CHECK_AGAIN_MS = 2_000
"""A preflight that waits is asked again this often: it reads sensors, it costs no network."""


class Check:
    """Preflight: is the release vouched for, does it fit, is now a good time."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._manifest: tuple[str, ReleaseManifest] | None = None
        self.wait_ms = 0

    def step(self, state: DeviceState) -> e.AnyEvent | None:
        """Return the preflight's answer; a wait is asked again."""
        order = state.update.order if state.update else None
        if order is None:
            return e.Refused(reason=Reason.INTERRUPTED, detail="there is no order to check")
        entry = state.is_condemned(order.release, order.manifest)
        if entry is not None:
            said = f"{order.release} is condemned: {entry.reason or 'no reason given'}"
            return e.Refused(reason=Reason.CONDEMNED, detail=said)
        try:
            manifest = self._vouched(order)
        except Untrusted as error:
            return e.Refused(reason=getattr(error, "reason", Reason.UNSIGNED), detail=error.line()[:1000])
        if manifest is None:
            self.wait_ms = CHECK_AGAIN_MS
            return e.Delayed(reason=Reason.SUPERSEDED, detail="a newer order is being looked at")
        answer = preflight.judge(order, manifest, state, self._facts(manifest))
        self.wait_ms = CHECK_AGAIN_MS if isinstance(answer, e.Delayed) else 0
        return answer

    def _vouched(self, order: Order) -> ReleaseManifest | None:
        if self._manifest is not None and self._manifest[0] == order.manifest:
            return self._manifest[1]
        trust = self._means.ports.trust
        newest = trust.order
        if newest is not None and (newest.serial, newest.manifest) == (order.serial, order.manifest):
            manifest: ReleaseManifest | None = trust.vouch(newest)
        else:
            manifest = trust.remembered(Digest.parse(order.manifest))
        if manifest is not None:
            self._manifest = (order.manifest, manifest)
        return manifest

    def _facts(self, manifest: ReleaseManifest) -> preflight.Facts:
        ports, config = self._means.ports, self._means.config
        local = time.localtime(ports.clock.wall_ms() / 1000)
        digests = [Digest.parse(variant.digest) for variant in manifest.variants]
        return preflight.Facts(
            hardware=ports.hardware,
            readings=ports.sensors.read(),
            free_bytes=ports.disk.free_bytes(config.layout.root),
            present=frozenset(d.text for d in digests if self._means.slots.has_blob(d)),
            runtime=__version__,
            driver=config.hardware.driver,
            windows=config.daily,
            minute=local.tm_hour * 60 + local.tm_min,
        )

    def close(self) -> None:
        """Nothing is held."""


class Fetch:
    """The download: a slice a step, resumed where it stopped, given up after wrong content came twice."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._fetching: Fetching | None = None
        self.done_bytes = 0
        self.wait_ms = 0

    def step(self, state: DeviceState) -> e.AnyEvent | None:
        """Fetch a slice."""
        digest, held = _target(state)
        if self._means.slots.has_blob(digest):
            return e.Downloaded()
        if self._fetching is None:
            self._fetching = self._means.ports.depot.fetching(digest, held.size_bytes)
        try:
            progress = self._fetching.step(self._means.config.limits.slice_bytes)
        except Untrusted as error:
            self.close()
            reason = getattr(error, "reason", Reason.DIGEST_MISMATCH)
            faults = (state.update.faults if state.update else 0) + 1
            if faults >= FAULTS_MAX:
                return e.Refused(reason=reason, detail=error.line()[:1000])
            return e.Delayed(reason=reason, detail=error.line()[:1000], fault=True)
        self.done_bytes = progress.done
        if not progress.finished:
            return None
        self.close()
        return e.Downloaded()

    def close(self) -> None:
        """Let go of connection and file."""
        if self._fetching is not None:
            self._fetching.close()
            self._fetching = None


class Verify:
    """Hash what is on the disk, not what came over the network, then let it into the store."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._hashing: Hashing | None = None
        self.wait_ms = 0

    def step(self, state: DeviceState) -> e.AnyEvent | None:
        """Hash a slice."""
        digest, held = _target(state)
        slots = self._means.slots
        stored = slots.has_blob(digest)
        path = slots.layout.blob(digest) if stored else slots.layout.part(digest)
        if self._hashing is None:
            if not self._means.ports.disk.exists(path):
                return e.Lost(reason=Reason.DISK_ERROR, detail="the downloaded file is gone")
            self._hashing = Hashing(self._means.ports.disk, path)
        found = self._hashing.step(self._means.config.limits.slice_bytes)
        if found is None:
            return None
        if found != digest:
            slots.drop(digest)
            said = f"the file on the disk is {found}, {held.release} {held.variant} is {digest}"
            wrong = e.Refused if (state.update.faults if state.update else 0) + 1 >= FAULTS_MAX else e.Lost
            return wrong(reason=Reason.DIGEST_MISMATCH, detail=said)
        if not stored:
            slots.keep(digest)
        return e.Verified()

    def close(self) -> None:
        """Nothing is held."""


class Write:
    """Make the slot name the verified blob."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self.wait_ms = 0

    def step(self, state: DeviceState) -> e.AnyEvent | None:
        """Link and describe."""
        digest, held = _target(state)
        slot = state.update.slot if state.update else None
        if slot is None or slot is state.safe_slot:
            return e.Refused(reason=Reason.INTERRUPTED, detail="there is no slot to write")
        if not self._means.slots.has_blob(digest):
            return e.Lost(reason=Reason.DISK_ERROR, detail="the verified file is gone")
        self._means.slots.write(slot, held)
        return e.Installed()

    def close(self) -> None:
        """Nothing is held."""


def _target(state: DeviceState) -> tuple[Digest, Held]:
    held = state.update.target if state.update else None
    if held is None:
        raise AssertionError("the machine lets nothing be fetched before it was admitted")
    return Digest.parse(held.digest), held

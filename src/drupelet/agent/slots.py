"""What lies in the state folder: the content store, the slots as hard links into it, and `serve.json`.

store/sha256/<hex>          a verified blob
parts/<hex>.part            one that is being fetched
slots/<a|b>/model.gguf      a second name of a blob
slots/<a|b>/slot.json       what the slot holds, for the day the journal is lost
serve.json                  what the gateway loads when it starts, before any agent speaks
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from drupelet.agent.model import ON_PROBATION, DeviceState, Held, Standing
from drupelet.core.errors import BadInput, NotFound
from drupelet.core.names import Digest, Slot
from drupelet.core.states import UpdateState
from drupelet.durable import Disk
from drupelet.wire.codec import decode_as
from drupelet.wire.control import SERVE_BYTES_MAX, Load, Serve

SIDECAR_BYTES_MAX = 1024 * 1024
"""A manifest is 256 KiB at most."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything lies below one device's state folder."""

    root: Path

    def blob(self, digest: Digest) -> Path:
        """A verified blob."""
        return self.store / digest.hex

    def part(self, digest: Digest) -> Path:
        """A blob that is being fetched."""
        return self.parts / f"{digest.hex}.part"

    def model(self, slot: Slot) -> Path:
        """The file a slot's child loads."""
        return self.root / "slots" / slot.value / "model.gguf"

    def sidecar(self, slot: Slot) -> Path:
        """What the slot says it holds."""
        return self.root / "slots" / slot.value / "slot.json"

    @property
    def store(self) -> Path:
        """The content store."""
        return self.root / "store" / "sha256"

    @property
    def parts(self) -> Path:
        """Blobs that are being fetched."""
        return self.root / "parts"

    @property
    def journal(self) -> Path:
        """The journal's folder."""
        return self.root / "journal"

    @property
    def serve(self) -> Path:
        """What the gateway loads when it starts."""
        return self.root / "serve.json"

    @property
    def lock(self) -> Path:
        """Held by the one agent of this folder."""
        return self.root / "agent.lock"

    @property
    def key(self) -> Path:
        """The device's own private key."""
        return self.root / "device.key"

    @property
    def trust(self) -> Path:
        """Verified metadata."""
        return self.root / "trust"

    @property
    def spool(self) -> Path:
        """Telemetry on its way."""
        return self.root / "spool"

    @property
    def throttling(self) -> Path:
        """How often the board was held back, counted across restarts."""
        return self.root / "throttling.json"

    @property
    def requests(self) -> Path:
        """Where an operator's commands reach a running agent."""
        return self.root / "requests"


class Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    """`slot.json`."""

    format: Literal["drupelet.slot/1"] = "drupelet.slot/1"
    slot: Slot
    held: Held


def load_of(slot: Slot, held: Held, layout: Layout) -> Load:
    """Return what the gateway is asked in order to run what a slot holds."""
    manifest = held.document
    return Load(
        slot=slot,
        path=str(layout.model(slot)),
        digest=held.digest,
        release=held.release,
        manifest=held.manifest,
        variant=held.variant,
        model=manifest.model,
        context_tokens=manifest.context_tokens,
        memory_bytes_max=manifest.budgets.memory_bytes_max or 0,
        load_ms_max=manifest.budgets.load_ms_max or 120_000,
    )


def preference(state: DeviceState) -> tuple[Slot, ...]:
    """Return the slots to serve from, the preferred first.

    The first is the safe slot, or where the machine is going. The other one is a last resort: it must have passed a
    trial, and not be condemned or known bad.
    """
    update = state.update
    first = state.safe_slot
    if update is not None and state.state is UpdateState.COMMITTING:
        first = update.slot
    if update is not None and state.state is UpdateState.REVERTING and update.back_to is not None:
        first = update.back_to
    if first is None and update is not None and state.state in ON_PROBATION:
        first = update.slot
    if first is None or first not in state.slots:
        return ()
    other = state.slots.get(first.other)
    usable = (
        other is not None
        and other.standing in (Standing.GOOD, Standing.TRIED)
        and state.is_condemned(other.release, other.manifest) is None
    )
    return (first, first.other) if usable else (first,)


def serve_of(state: DeviceState, layout: Layout) -> Serve:
    """Return what `serve.json` must say in this state."""
    return Serve(loads=tuple(load_of(slot, state.slots[slot], layout) for slot in preference(state)))


class Slots:
    """The files of the slots and the store. Every method may be repeated after a crash in its middle."""

    def __init__(self, disk: Disk, layout: Layout) -> None:
        self._disk = disk
        self.layout = layout
        self._serving: bytes | None = None

    def has_blob(self, digest: Digest) -> bool:
        """Whether a blob of this name lies in the store (its bytes are hashed elsewhere)."""
        return self._disk.exists(self.layout.blob(digest))

    def keep(self, digest: Digest) -> None:
        """Move a verified part file into the store."""
        self._disk.publish(self.layout.part(digest), self.layout.blob(digest))

    def drop(self, digest: Digest) -> None:
        """Remove a blob and its part file."""
        self._disk.remove(self.layout.blob(digest))
        self._disk.remove(self.layout.part(digest))

    def write(self, slot: Slot, held: Held) -> None:
        """Make a slot hold a release of the store. The sidecar goes first and comes last: it never lies."""
        self._disk.remove(self.layout.sidecar(slot))
        self._disk.link(self.layout.blob(Digest.parse(held.digest)), self.layout.model(slot))
        self.describe(slot, held)

    def describe(self, slot: Slot, held: Held) -> None:
        """Write what a slot holds beside it, unless it says so already."""
        data = msgspec.json.encode(Sidecar(slot=slot, held=held))
        if self._read(self.layout.sidecar(slot)) != data:
            self._disk.replace(self.layout.sidecar(slot), data)

    def publish(self, state: DeviceState) -> None:
        """Make `serve.json` say what this state wants, if it does not."""
        data = msgspec.json.encode(serve_of(state, self.layout))
        if self._serving is None:
            self._serving = self._read(self.layout.serve)
        if self._serving != data:
            self._disk.replace(self.layout.serve, data, mode=0o644)
            self._serving = data

    def collect(self, state: DeviceState) -> None:
        """Remove parts and blobs that no slot and no update needs."""
        kept = {Digest.parse(held.digest).hex for held in state.slots.values()}
        if state.in_flight and state.update is not None and state.update.target is not None:
            kept.add(Digest.parse(state.update.target.digest).hex)
        for name in self._disk.names(self.layout.store):
            if name not in kept:
                self._disk.remove(self.layout.store / name)
        for name in self._disk.names(self.layout.parts):
            if name.removesuffix(".part") not in kept:
                self._disk.remove(self.layout.parts / name)

    def rebuild(self, salvaged: DeviceState) -> DeviceState:
        """Return a state from what the slots say of themselves, for a journal that was lost or damaged.

        What `serve.json` prefers serves on; a slot without a whole sidecar holds nothing.
        """
        slots = {slot: held for slot in Slot if (held := self._sidecar(slot)) is not None}
        good = [slot for slot in self._served_first() if slot in slots]
        good += [slot for slot, held in slots.items() if held.standing is Standing.GOOD and slot not in good]
        first = good[0] if good else None
        committed = first if first is not None and slots[first].standing is Standing.GOOD else None
        return msgspec.structs.replace(salvaged, slots=slots, committed=committed, serving=first)

    def _served_first(self) -> tuple[Slot, ...]:
        data = self._read(self.layout.serve, bytes_max=SERVE_BYTES_MAX)
        if data is None:
            return ()
        try:
            return tuple(load.slot for load in decode_as(Serve, data, where=str(self.layout.serve)).loads)
        except BadInput:
            return ()

    def _sidecar(self, slot: Slot) -> Held | None:
        data = self._read(self.layout.sidecar(slot))
        if data is None or not self._disk.exists(self.layout.model(slot)):
            return None
        try:
            said = decode_as(Sidecar, data, where=str(self.layout.sidecar(slot)))
        except BadInput:
            return None
        return said.held if said.slot is slot else None

    def _read(self, path: Path, *, bytes_max: int = SIDECAR_BYTES_MAX) -> bytes | None:
        try:
            return self._disk.read(path, bytes_max=bytes_max)
        except (NotFound, BadInput):
            return None

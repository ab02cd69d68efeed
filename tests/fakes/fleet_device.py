"""A device as the fleet sees one: it polls, obeys the orders it is given, and measures what it is told to measure.

It speaks the wire's messages and nothing else, so it runs over HTTP or straight into the intake.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from drupelet.core.names import Slot
from drupelet.core.states import Mode, Reason, UpdateState
from drupelet.telemetry.sketch import bin_of
from drupelet.wire.device_api import (
    DeviceEvent,
    DeviceStatus,
    EnrolRequest,
    Hardware,
    PollReply,
    PollRequest,
    SlotStatus,
    TokenRequest,
    challenge_bytes,
    enrolment_bytes,
)
from drupelet.wire.orders import Order
from drupelet.wire.telemetry import BlockLabel, RequestStats, Sketch, Window

DIGEST = "sha256:" + "cd" * 32
NOW_MS = 1_790_000_000_000


@dataclass
class FakeDevice:
    """One device. `slow` multiplies the new release's latency; `fails` makes every trial fail."""

    name: str
    clock: Callable[[], int]
    board: str = "pi5-8gb"
    labels: dict[str, str] = field(default_factory=dict)
    slow: float = 1.0
    fails: bool = False
    file_formats: tuple[str, ...] = ("gguf",)
    requests_per_block: int = 20
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    slots: dict[Slot, tuple[str, str]] = field(default_factory=dict)
    committed: Slot | None = None
    state: UpdateState = UpdateState.IDLE
    reason: Reason = Reason.NONE
    about: str = ""
    serial: int = 0
    events: list[DeviceEvent] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    window_seq: int = 0
    pairs: int = 0

    @property
    def public_key(self) -> str:
        return self.key.public_key().public_bytes_raw().hex()

    def enrol_request(self) -> EnrolRequest:
        signature = self.key.sign(enrolment_bytes(self.name, self.public_key)).hex()
        return EnrolRequest(
            device=self.name, public_key=self.public_key, hardware=self.hardware(), labels=self.labels,
            signature=signature,
        )  # fmt: skip

    def token_request(self, challenge: str) -> TokenRequest:
        signature = self.key.sign(challenge_bytes(self.name, challenge)).hex()
        return TokenRequest(device=self.name, challenge=challenge, signature=signature)

    def hardware(self) -> Hardware:
        return Hardware(
            board=self.board, architecture="aarch64", memory_bytes=8 * 2**30, cores=4, simulated=True,
            file_formats=self.file_formats,
        )  # fmt: skip

    @property
    def release(self) -> str:
        """The committed release."""
        return self.slots[self.committed][0] if self.committed else ""

    @property
    def has(self) -> set[str]:
        """Releases in any slot."""
        return {held for held, _ in self.slots.values()}

    def poll(self) -> PollRequest:
        """A heartbeat with everything that is not acknowledged yet."""
        return PollRequest(
            device=self.name, boot="boot-1", agent_version="0.1.0", hardware=self.hardware(), status=self.status(),
            events=tuple(self.events), windows=tuple(self.windows),
        )  # fmt: skip

    def status(self) -> DeviceStatus:
        return DeviceStatus(
            state=self.state, reason=self.reason, release=self.about, order_serial=self.serial,
            slots=tuple(
                SlotStatus(slot=slot, release=held, manifest=manifest, variant="q8_0", digest=DIGEST)
                for slot, (held, manifest) in self.slots.items()
            ),
            serving=self.committed, committed=self.committed, pairs_done=self.pairs, gateway="serving",
            clock_ms=self.clock(),
        )  # fmt: skip

    def acked(self, reply: PollReply) -> None:
        """Forget what the fleet has."""
        self.events = [event for event in self.events if event.seq > reply.events_taken]
        self.windows = [window for window in self.windows if window.seq > reply.windows_taken]

    def obey(self, order: Order | None) -> None:
        """Do at once what an order says; a serial that was seen before says nothing new."""
        if order is None or order.serial <= self.serial:
            return
        before = self.state
        self.serial, self.about, self.reason = order.serial, order.release, Reason.NONE
        free = self.committed.other if self.committed else Slot.A
        match order.mode:
            case Mode.COMMIT:
                self.committed = next(s for s, (held, _) in self.slots.items() if held == order.release)
                self.state = UpdateState.IDLE
            case Mode.REVERT:
                self.committed = next(s for s, (held, _) in self.slots.items() if held == order.release)
                self.state, self.reason = UpdateState.IDLE, Reason.ORDERED_BACK
            case _ if order.release == self.release:
                self.state = UpdateState.IDLE
            case _ if self.fails:
                self.state, self.reason = UpdateState.FAILED, Reason.CANONICAL_FAILED
            case Mode.INSTALL:
                self.slots[free] = (order.release, order.manifest)
                self.committed, self.state = free, UpdateState.IDLE
            case Mode.CANARY:
                self.slots[free] = (order.release, order.manifest)
                if self.state is not UpdateState.PROBATION:
                    self.state = UpdateState.PROBATION
        self._event(before)

    def _event(self, before: UpdateState) -> None:
        last = self.events[-1].seq if self.events else getattr(self, "_event_seq", 0)
        self._event_seq = last + 1
        self.events.append(
            DeviceEvent(
                seq=self._event_seq, at_ms=self.clock(), event="obeyed", before=before, after=self.state,
                reason=self.reason, release=self.about, order_serial=self.serial,
            )
        )  # fmt: skip

    def measure(self, *, first: str, pairs: int = 1) -> None:
        """Serve pairs of blocks, if on probation."""
        if self.state is not UpdateState.PROBATION:
            return
        for _ in range(pairs):
            for arm in (first, "old" if first == "new" else "new"):
                release = self.about if arm == "new" else self.release
                self.window(
                    release=release, block=BlockLabel(serial=self.serial, pair=self.pairs, arm=arm, first=first)
                )  # type: ignore[arg-type]
            self.pairs += 1

    def window(self, *, release: str = "", block: BlockLabel | None = None, at_ms: int | None = None) -> Window:
        """Add a window of requests around 100 ms, slower by `slow` for a new arm."""
        factor = self.slow if block is not None and block.arm == "new" else 1.0
        self.window_seq += 1
        now = self.clock() if at_ms is None else at_ms
        spread = [0.09 + 0.02 * ((self.window_seq * 7 + i * 13) % 17) / 17 for i in range(self.requests_per_block)]
        sketch = sketch_of([value * factor for value in spread])
        stats = RequestStats(bucket="0-63", ok=len(spread), duration=sketch, ttft=sketch, per_token=sketch)
        made = Window(
            seq=self.window_seq, boot="boot-1", started_at_ms=now - 3000, ended_at_ms=now, elapsed_ms=3000,
            release=release, manifest=DIGEST, variant="q8_0", slot=Slot.A, block=block, requests=(stats,),
        )  # fmt: skip
        self.windows.append(made)
        return made


def sketch_of(values: list[float]) -> Sketch:
    """The sketch of some durations in seconds."""
    bins: dict[int, int] = {}
    for value in values:
        bins[bin_of(value)] = bins.get(bin_of(value), 0) + 1
    return Sketch(bins=tuple(sorted(bins.items())), sum=sum(values))

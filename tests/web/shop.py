"""A shop's fleet with a past: a good release, a broken one, a slow one, one under way, and devices in every state."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from drupelet.core.states import Reason, RolloutState, UpdateState
from drupelet.fleet.store.engine import Store
from drupelet.trust.director import Director
from drupelet.wire.device_api import DeviceEvent, DeviceStatus
from drupelet.wire.manifest import CanonicalPrompt, Evaluation, Expectation, MemoryAt, Quality, StageAdvice, Variant
from drupelet.wire.telemetry import BlockLabel, Window
from tests.fakes.fleet_device import FakeDevice
from tests.fleet.world import World

S = RolloutState
SHOP = ("counter-1", "counter-2", "window-3", "entrance-4", "cafe-5")
EVIL = "<script>alert(1)</script>"
REPORT_PAGE = """<!doctype html><html lang="en"><head><title>Evaluation</title></head><body><main><h1>Passed</h1></main>
<script>
let cookie = "nothing";
try { cookie = document.cookie || "empty"; } catch (error) { cookie = error.name; }
const said = (api) => { document.title = `${cookie} ${api}`; };
fetch("/api/v1/releases").then(() => said("reached"), () => said("blocked"));
</script></body></html>"""
"""A report whose script tries what a script of ours could do, and says how far it came."""
OVERRIDE = "the fair opens at nine, ship it"


@dataclass
class WarmDevice(FakeDevice):
    """A device that also measures itself. `says` is the detail of its status."""

    warmth: float = 52.0
    throttled: bool = False
    says: str = ""

    def status(self) -> DeviceStatus:
        plain = super().status()
        return msgspec.structs.replace(
            plain, temperature_celsius=self.warmth + len(self.windows) % 3, throttled={"undervoltage": self.throttled},
            detail=self.says, free_bytes=21_000_000_000,
        )  # fmt: skip

    def window(self, *, release: str = "", block: BlockLabel | None = None, at_ms: int | None = None) -> Window:
        plain = super().window(release=release, block=block, at_ms=at_ms)
        (stats,) = plain.requests
        stats = msgspec.structs.replace(stats, completion_tokens=stats.ok * 24, decode_seconds=stats.ok * 0.06)
        full = msgspec.structs.replace(
            plain, requests=(stats,), memory_bytes=61_000_000 + 40_000 * (plain.seq % 9),
            temperature_celsius=self.warmth + 3.0 * ((plain.seq * 5) % 7) / 7,
        )  # fmt: skip
        self.windows[-1] = full
        return full


class Shop(World):
    """The fleet, with its story told."""

    def __init__(self, store: Store, director: Director) -> None:
        super().__init__(store, director)
        self.tokens = {
            name: self.fleet.tokens.create(name, scopes, by="test")
            for name, scopes in (("reader", _scopes("read")), ("operator", _scopes("read", "operate")))
        }
        self._tell()

    def enrol(self, *names: str, board: str = "pi5-8gb", approve: bool = True, **labels: str) -> None:
        """Enrol devices that measure themselves."""
        for number, name in enumerate(names):
            device = WarmDevice(name, clock=lambda: self.now, board=board, labels=labels, warmth=50.0 + 2 * number)
            self.devices[name] = device
            self.fleet.enrolment.enrol(device.enrol_request(), address="127.0.0.1")
            if approve:
                self.fleet.devices.decide(name, approve=True, by="ada")
        if approve:
            self.poll(*names)

    def device(self, name: str) -> WarmDevice:
        found = self.devices[name]
        assert isinstance(found, WarmDevice)
        return found

    def _tell(self) -> None:
        self.enrol(*SHOP[:4], site="lab")
        self.enrol(SHOP[4], board="pi4-4gb", site="cafe")
        self.until(self.direct(self._release("1.1", "First release for the counters.")), S.COMPLETED)
        report = self.images.attach(REPORT_PAGE.encode())
        self.until(self.start(self._release("1.2", "More ways to ask.", attachments=(report,))), S.COMPLETED, turns=120)
        self._broken()
        self._slow()
        self._under_way()
        self._others()

    def _release(self, version: str, summary: str, **changes: object) -> object:
        shapes = (("q8_0", 2_210_000, 0.00016, 0.986), ("q4_0", 1_240_000, 0.0089, 0.897), ("f16", 4_130_000, 0.0, 1.0))
        variants = tuple(
            Variant(
                name=name, digest="sha256:" + f"{number + 3:x}" * 64, size_bytes=size, quantization=name.upper(),
                memory=(MemoryAt(context_tokens=512, memory_bytes=size + 40_000_000),),
                quality=Quality(kl_mean=kl, kl_p99=kl * 9, kl_max=kl * 40, top1_agreement=top, tokens=4096),
            )
            for number, (name, size, kl, top) in enumerate(shapes)
        )  # fmt: skip
        prompts = (
            ("hours", "When do you open on Saturday?", "nine"),
            ("returns", "Can I bring back a jacket I bought last week?", "receipt"),
        )
        given: dict[str, object] = {
            "evaluation": Evaluation(passed=True, findings=("q8_0 keeps 98.6% of the first choices of f16",)),
            "stages": (StageAdvice(devices="1"), StageAdvice(devices="50%"), StageAdvice(devices="100%")),
        }
        return self.release(
            version, summary=summary, variants=variants,
            canonical_prompts=tuple(
                CanonicalPrompt(id=key, prompt=text, expect=(Expectation(kind="contains", value=value),))
                for key, text, value in prompts
            ),
            **(given | changes),
        )  # fmt: skip

    def _broken(self) -> None:
        verdict = Evaluation(passed=False, overridden=OVERRIDE, findings=("hours: the answer does not contain nine",))
        release = self._release("1.3", "Retrained over the weekend.", evaluation=verdict)
        for name in SHOP:
            self.devices[name].fails = True
        self.until(self.start(release), S.HALTED)  # type: ignore[arg-type]
        for name in SHOP:
            device = self.device(name)
            device.fails, device.state, device.reason = False, UpdateState.IDLE, Reason.NONE

    def _slow(self) -> None:
        for name in SHOP:
            self.devices[name].slow = 2.3
        self.until(self.start(self._release("1.4", "Two layers more.")), S.ROLLED_BACK)  # type: ignore[arg-type]
        for name in SHOP:
            self.devices[name].slow = 1.0

    def _under_way(self) -> None:
        release = self._release("1.5", "Knows the winter catalogue.")
        self.under_way = self.start(release, stages=("2", "4", "5"))  # type: ignore[arg-type]
        for _ in range(6):
            self.turn()

    def _others(self) -> None:
        self.enrol("attic-6", site="attic")
        self.now += 600_000
        self.poll(*SHOP)
        self.enrol("street-7", board=f"pi5 {EVIL}", approve=False)
        refused = self.device(SHOP[3])
        refused.throttled = True
        seq = getattr(refused, "_event_seq", 0) + 1
        refused._event_seq = seq  # type: ignore[attr-defined]  # the fake numbers its events there
        refused.events.append(
            DeviceEvent(
                seq=seq, at_ms=self.now, event="refused", before=UpdateState.IDLE, after=UpdateState.IDLE,
                reason=Reason.CONDEMNED, detail=f"the order names kiosk 1.4, which is condemned {EVIL}",
                release="kiosk/1.4",
            )
        )  # fmt: skip
        self.poll(*SHOP)
        self.reconciler.look()


def _scopes(*words: str) -> tuple[object, ...]:
    from drupelet.fleet.credentials import Scope

    return tuple(Scope(word) for word in words)

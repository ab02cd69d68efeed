"""A fleet's keys, depot and director in a folder, and a network that an attacker may own.

`FakeNetwork` implements trust's `Fetch` over a depot folder and a dict of director files; `overlay` is the attacker's:
what lies there is answered instead. `TrustWorld` holds the owner's side and a clock that only the test moves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from drupelet.core.errors import NotFound, Unavailable
from drupelet.core.states import Mode
from drupelet.durable import PosixDisk
from drupelet.trust import Director, DirectorMetadata, ImageRepository, KeyRing, TargetInfo, Verifier
from drupelet.wire.codec import TooLarge
from drupelet.wire.manifest import (
    CanonicalPrompt,
    Evaluation,
    Expectation,
    MemoryAt,
    Provenance,
    ReleaseManifest,
    Variant,
)
from drupelet.wire.orders import Condemned, Order

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
PASSPHRASE = "correct horse battery"
NOTHING = "sha256:" + "0" * 64


def a_manifest(version: str, *, summary: str = "", family: str = "kiosk") -> ReleaseManifest:
    """Return a small manifest."""
    return ReleaseManifest(
        family=family,
        version=version,
        model="kiosk",
        summary=summary,
        created_at_ms=0,
        context_tokens=512,
        variants=(
            Variant(
                name="q4_0",
                digest=NOTHING,
                size_bytes=3,
                quantization="Q4_0",
                memory=(MemoryAt(context_tokens=512, memory_bytes=1),),
            ),
        ),
        canonical_prompts=(CanonicalPrompt(id="hi", prompt="hi", expect=(Expectation(kind="contains", value="x"),)),),
        evaluation=Evaluation(passed=True),
        provenance=Provenance(checkpoint=NOTHING, recipe=NOTHING, forge_version="1", converter="test"),
    )


@dataclass
class FakeNetwork:
    """Answers `depot/...` from a folder and `director/<device>/...` from a dict, after the attacker had his say."""

    depot: Path
    director: dict[str, bytes] = field(default_factory=dict)
    overlay: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    down: bool = False

    def get(self, url: str, *, bytes_max: int, token: str = "") -> bytes:
        self.asked.append(url)
        if self.down:
            raise Unavailable("no network", where=url)
        data = self.overlay.get(url, self.director.get(url))
        if data is None:
            path = self.depot.parent / url
            if not path.is_file():
                raise NotFound("404", where=url)
            data = path.read_bytes()
        if len(data) > bytes_max:
            raise TooLarge(f"more than {bytes_max} bytes", where=url)
        return data


def make_keys(folder: Path) -> KeyRing:
    """Make a key ring for the families `kiosk` and `sign`."""
    return KeyRing.create(PosixDisk(), folder, families=["kiosk", "sign"], passphrase=lambda: PASSPHRASE, now=NOON)


class TrustWorld:
    """An owner with keys and a depot, a fleet that signs orders, and devices. `keys` may be shared by many worlds."""

    def __init__(self, folder: Path, keys: KeyRing | None = None) -> None:
        self.folder = folder
        self.disk = PosixDisk()
        self.clock = NOON
        self.keys = keys or make_keys(folder / "keys")
        self.network = FakeNetwork(folder / "depot")
        self.images = ImageRepository(self.disk, folder / "depot", self.keys, self.now)
        self.images.create()
        self.director = Director(roots=[self.keys.director_root], signer=self.keys.signer("director-online"))
        self.versions: dict[str, int] = {}

    def now(self) -> datetime:
        return self.clock

    def release(self, version: str, *, summary: str = "") -> TargetInfo:
        """Sign and publish a release."""
        return self.images.add_release(a_manifest(version, summary=summary))

    def order(
        self, target: TargetInfo, *, serial: int, device: str = "a", condemned: tuple[Condemned, ...] = ()
    ) -> Order:
        """Return an order for what `target` names."""
        return Order(
            device=device,
            serial=serial,
            mode=Mode.INSTALL,
            release=target.path.rpartition("/")[0],
            manifest=target.sha256.text,
            variants=("q4_0",),
            condemned=condemned,
        )

    def sign(
        self,
        order: Order | None,
        target: TargetInfo | None,
        *,
        device: str = "a",
        version: int | None = None,
        lifetime: timedelta = timedelta(days=7),
    ) -> DirectorMetadata:
        """Sign for a device with the next version."""
        self.versions[device] = version or self.versions.get(device, 0) + 1
        return self.director.sign(
            device=device,
            order=order,
            target=target,
            version=self.versions[device],
            now=self.clock,
            expires=self.clock + lifetime,
        )

    def serve(self, metadata: DirectorMetadata, *, to: str = "") -> None:
        """Answer a device's director requests with this metadata."""
        files = {**self.director.roots, **metadata.files}
        self.network.director |= {f"director/{to or metadata.device}/{name}": data for name, data in files.items()}

    def command(self, target: TargetInfo, *, serial: int, device: str = "a") -> Order:
        """Sign and serve an order."""
        order = self.order(target, serial=serial, device=device)
        self.serve(self.sign(order, target, device=device))
        return order

    def device(self, name: str = "a") -> Verifier:
        """Return a device's verifier; another one for the same name is the device after a restart."""
        return Verifier(
            self.disk,
            self.folder / "devices" / name,
            device=name,
            image_root=self.keys.image_root,
            director_root=self.keys.director_root,
            director_url=f"director/{name}",
            depot_url="depot",
            fetch=self.network,
            now=self.now,
            monotonic=lambda: self.clock.timestamp(),
        )

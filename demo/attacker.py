"""Act five: an attacker who owns the network and the fleet server, down to its signing key.

On the network he alters what the depot sends. With the fleet server's key he signs orders of his own. What he never has
is a key of the image repository, because none of them is on that server.
"""

from __future__ import annotations

import hashlib
import json
import os
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from demo.follow import device_page, start_rollout
from demo.network import Asked, Reply, Rule, instead
from demo.story import Story
from demo.world import World
from drupelet.core.names import Digest
from drupelet.core.states import Mode
from drupelet.durable import PosixDisk
from drupelet.trust.director import Director
from drupelet.trust.keys import KeyRing, read_signer
from drupelet.trust.publisher import ImageRepository
from drupelet.trust.roles import TargetInfo
from drupelet.wire.codec import decode, encode
from drupelet.wire.manifest import ReleaseManifest
from drupelet.wire.orders import Order

FAR_AHEAD = 1_000_000
"""A version and serial above anything the real director has signed."""
MISCHIEF = "kiosk/1.5"


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack on one device, and the reason the device must give."""

    device: str
    name: str
    reasons: frozenset[str]


def in_blobs(change: Callable[[Reply], Reply]) -> Rule:
    """Alter blobs and leave metadata alone."""
    return lambda asked, reply: change(reply) if "blobs/" in asked.path else reply


def flipped(reply: Reply) -> Reply:
    """One bit of the blob's first piece is another one."""

    async def body(whole: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        first = True
        async for chunk in whole:
            yield bytes([chunk[0] ^ 1]) + chunk[1:] if first else chunk
            first = False

    reply.body = body(reply.body)
    return reply


def truncated(reply: Reply) -> Reply:
    """Half of the blob, said to be all of it."""

    async def body(whole: AsyncIterator[bytes], bytes_max: int) -> AsyncIterator[bytes]:
        async for chunk in whole:
            yield chunk[:bytes_max]
            bytes_max -= len(chunk)
            if bytes_max <= 0:
                return

    reply.length = (reply.length or 0) // 2
    reply.body = body(reply.body, reply.length)
    return reply


def endless(reply: Reply) -> Reply:
    """The blob, and then more, without end."""

    async def body(whole: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in whole:
            yield chunk
        while True:
            yield os.urandom(64 * 1024)

    reply.body, reply.length = body(reply.body), None
    return reply


def metadata(files: dict[str, bytes]) -> Rule:
    """Serve these files in place of the repository's own of the same name."""

    def rule(asked: Asked, reply: Reply) -> Reply:
        name = asked.path.rpartition("/")[2]
        return instead(files[name]) if name in files and "blobs/" not in asked.path else reply

    return rule


class Attacker:
    """Plays the attacks and waits until each is refused."""

    def __init__(self, world: World, story: Story, *, old_metadata: dict[str, bytes]) -> None:
        self.world, self.story = world, story
        self._old = old_metadata
        self._director = Director(
            roots=[(world.keys / "director-root.json").read_bytes()],
            signer=read_signer(world.folder / "fleet/director-online.pem", passphrase=world.passphrase),
        )

    def own_the_network(self) -> int:
        """Alter blobs, replay metadata and sign with a wrong key while a good release is installed.

        Return how many attacks were refused.
        """
        attacks = (
            Attack("kiosk-1", "a flipped byte in a blob", frozenset({"digest_mismatch"})),
            Attack("kiosk-2", "a truncated blob", frozenset({"truncated"})),
            Attack("kiosk-3", "an endless blob", frozenset({"too_large"})),
            Attack("kiosk-4", "an old snapshot replayed", frozenset({"replayed"})),
            Attack("kiosk-5", "a manifest signed by a wrong key", frozenset({"unsigned"})),
        )
        rules: tuple[Rule, ...] = (
            in_blobs(flipped),
            in_blobs(truncated),
            in_blobs(endless),
            metadata(self._old),
            metadata(self._forged_repository()),
        )
        for attack, rule in zip(attacks, rules, strict=True):
            self.world.network.rules[(attack.device, "depot")] = rule
        number = start_rollout(
            self.world, MISCHIEF, stages="100%", policy=Path(__file__).parent / "attacked.toml", seed="act five"
        )
        self._refused(attacks)
        self.world.run("rollout", "abort", str(number), "--reason", "the network is owned")
        self.world.network.rules.clear()
        return len(attacks)

    def own_the_fleet_server(self) -> int:
        """Sign orders with the server's own key; return how many attacks were refused."""
        attacks = (
            Attack("kiosk-1", "an order for a release nobody signed", frozenset({"unsigned"})),
            Attack("kiosk-2", "an order for the condemned kiosk 1.4", frozenset({"condemned"})),
            Attack("kiosk-3", "the orders of kiosk-4", frozenset({"wrong_device"})),
        )
        signed = (
            self._orders("kiosk-1", *self._unsigned_release()),
            self._orders("kiosk-2", *self._published("1.4")),
            self._orders("kiosk-4", *self._published("1.2")),
        )
        for attack, files in zip(attacks, signed, strict=True):
            self.world.network.rules[(attack.device, "fleet")] = metadata(files)
        self._refused(attacks)
        self.world.network.rules.clear()
        return len(attacks)

    def _refused(self, attacks: tuple[Attack, ...]) -> None:
        seen: dict[str, str] = {}

        def look() -> bool:
            for attack in attacks:
                events = device_page(self.world, attack.device)["events"]
                for event in events:
                    if event["reason"] in attack.reasons:
                        seen[attack.name] = f"{event['reason']}: {event['detail'][:160]}"
                        break
            say(f"{len(seen)} of {len(attacks)} refused")
            return len(seen) == len(attacks)

        with self.story.going_on("the devices look at it") as say:
            self.world.wait_for(look, what=f"{len(attacks)} refusals (seen: {seen})", timeout_s=60)
        log = json.dumps(self.world.ask_fleet("audit?limit=500")["items"])
        for attack in attacks:
            said = seen.get(attack.name, "")
            self.story.check(f"{attack.device} refused {attack.name}", bool(said), saw=said)
            with urllib.request.urlopen(f"{self.world.page}/devices/{attack.device}", timeout=10) as page:  # noqa: S310
                shown = page.read().decode()
            reason = said.partition(":")[0]
            on_page = reason in shown or reason.replace("_", " ") in shown
            self.story.check("its page and the audit log say so", on_page and reason in log)

    def _forged_repository(self) -> dict[str, bytes]:
        """A whole image repository with the right names, signed by keys of his own."""
        disk, folder = PosixDisk(), self.world.folder / "forged"
        now = datetime.now(UTC)
        KeyRing.create(disk, folder / "keys", families=["kiosk"], passphrase=lambda: "a passphrase of his own", now=now)
        ring = KeyRing(disk, folder / "keys", passphrase=lambda: "a passphrase of his own")
        repository = ImageRepository(disk, folder / "depot", ring, lambda: datetime.now(UTC))
        repository.create()
        repository.add_release(self._manifest(MISCHIEF.partition("/")[2]))
        return {p.name: p.read_bytes() for p in (folder / "depot/metadata").glob("*.json") if "root" not in p.name}

    def _manifest(self, version: str) -> ReleaseManifest:
        return decode(ReleaseManifest, (self.world.folder / "packages" / version / "manifest.json").read_bytes())

    def _published(self, version: str) -> tuple[str, TargetInfo]:
        found = next((self.world.depot_folder / "targets/kiosk" / version).glob("*.manifest.json"))
        data = found.read_bytes()
        digest = Digest.of_hex(hashlib.sha256(data).hexdigest())
        return f"kiosk/{version}", TargetInfo(f"kiosk/{version}/manifest.json", len(data), digest)

    def _unsigned_release(self) -> tuple[str, TargetInfo]:
        made = encode(msgspec.structs.replace(self._manifest("1.2"), version="6.6"))
        digest = Digest.of_hex(hashlib.sha256(made).hexdigest())
        return "kiosk/6.6", TargetInfo("kiosk/6.6/manifest.json", len(made), digest)

    def _orders(self, device: str, release: str, target: TargetInfo) -> dict[str, bytes]:
        order = Order(
            device=device,
            serial=FAR_AHEAD,
            mode=Mode.INSTALL,
            release=release,
            manifest=target.sha256.text,
            variants=("q8_0",),
        )
        now = datetime.now(UTC)
        signed = self._director.sign(
            device=device, order=order, target=target, version=FAR_AHEAD, now=now, expires=now + timedelta(days=7)
        )
        return signed.files

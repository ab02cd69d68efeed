"""Devices that live at a real fleet server's address: `FakeDevice` with the device API's calls around it, in a thread.

They enrol, prove their keys, poll, read their director's files and obey. They install nothing and verify nothing: what
they measure is made up, and `slow` makes it bad. So a rollout gets a real verdict within seconds and without a model.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import urllib3

from drupelet.core.names import Slot
from drupelet.wire.codec import decode_as
from drupelet.wire.device_api import PollReply
from drupelet.wire.orders import Order
from tests.fakes.fleet_device import FakeDevice
from tests.waiting import until

EVERY_S = 0.05
COINS = ("new", "old", "old", "new", "old")


class HttpDevice:
    """One device and its connection."""

    def __init__(self, url: str, name: str, **fields: Any) -> None:
        self.fake = FakeDevice(name, clock=lambda: time.time_ns() // 1_000_000, **fields)
        self._url = f"{url}/device/v1"
        self._pool = urllib3.PoolManager(retries=False, timeout=10)
        self._token = ""
        self._draws = 0

    def enrol(self) -> str:
        """Ask to be let in; return the answer's state."""
        return str(self._post("enrol", self.fake.enrol_request())["state"])

    def prove(self) -> bool:
        """Fetch a token; whether there is one now."""
        challenge = self._post("challenge", {"format": "drupelet.challenge/1", "device": self.fake.name})
        self._token = str(self._post("token", self.fake.token_request(challenge["challenge"])).get("token", ""))
        return bool(self._token)

    def turn(self) -> None:
        """Obey the standing order, measure a pair where one is on probation, and poll."""
        self.fake.obey(self._order())
        self._draws += 1
        self.fake.measure(first=COINS[self._draws % len(COINS)])
        answer = self._post("poll", self.fake.poll())
        if "windows_taken" in answer:
            self.fake.acked(msgspec.convert(answer, PollReply))

    def _order(self) -> Order | None:
        timestamp = self._file("timestamp.json")
        if timestamp is None:
            return None
        version = timestamp["signed"]["meta"]["snapshot.json"]["version"]
        targets = self._file(f"{version}.targets.json") or {"signed": {"targets": {}}}
        for target in targets["signed"]["targets"].values():
            return decode_as(Order, msgspec.json.encode(target["custom"]))
        return None

    def _file(self, name: str) -> Any:
        path = f"{self._url}/director/{self.fake.name}/{name}"
        reply = self._pool.request("GET", path, headers={"Authorization": f"Bearer {self._token}"})
        return json.loads(reply.data) if reply.status == 200 else None

    def _post(self, call: str, body: object) -> dict[str, Any]:
        head = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        reply = self._pool.request("POST", f"{self._url}/{call}", body=msgspec.json.encode(body), headers=head)
        return dict(json.loads(reply.data))


@contextmanager
def alive(devices: list[HttpDevice]) -> Iterator[None]:
    """Let devices live in a thread; a server that is away for a moment is asked again, as by real ones."""
    ending = threading.Event()
    failed: list[BaseException] = []

    def live() -> None:
        try:
            while not ending.wait(EVERY_S):
                for device in devices:
                    try:
                        device.turn()
                    except urllib3.exceptions.HTTPError:
                        continue
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=live, name="devices")
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
    assert not failed


def enrolled(url: str, names: list[str], *, approve: Any, holding: str = "", digest: str = "") -> list[HttpDevice]:
    """Return devices that enrolled and were approved by `approve(names)`; `holding` is what they have committed."""
    devices = [HttpDevice(url, name, labels={"site": "lab"}) for name in names]
    for device in devices:
        device.enrol()
    approve(names)
    for device in devices:
        until(device.prove, timeout_s=10, what=f"the token of {device.fake.name}")
        if holding:
            device.fake.slots[Slot.A] = (holding, digest)
            device.fake.committed = Slot.A
        device.turn()
    return devices

"""Heartbeats with 5 KB of telemetry per core: the fleet server against bare Starlette + msgspec in one run.

    python benchmarks/bench_heartbeat.py

Both decode and check the same bodies over HTTP on loopback, under uvicorn. The bare one answers at once; the fleet
checks a token, stores status and windows, and answers when the transaction is on the disk (SQLite, WAL, full sync).
Speed is heartbeats per second of the server process's own processor time, so that the load generator does not count.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import msgspec  # noqa: E402
import psutil  # noqa: E402
import uvicorn  # noqa: E402
from starlette.applications import Starlette  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import Response  # noqa: E402
from starlette.routing import Route  # noqa: E402
from starlette.types import ASGIApp  # noqa: E402
from tests.fakes.fleet_device import FakeDevice  # noqa: E402
from tests.fakes.fleet_images import FakeImages  # noqa: E402

from drupelet.durable import PosixDisk  # noqa: E402
from drupelet.fleet.app import Fleet, build  # noqa: E402
from drupelet.fleet.store.engine import migrate, open_store  # noqa: E402
from drupelet.trust.director import Director  # noqa: E402
from drupelet.trust.keys import KeyRing  # noqa: E402
from drupelet.wire.device_api import PollReply, PollRequest  # noqa: E402

RATIO_MIN = 0.5
DEVICES = 64
POLLS = 60
"""Heartbeats of each device in a run; the first tenth warms up."""
BODY_BYTES = 5_000
SECRET = b"s" * 32
ROUNDS = 5


def clock_ms() -> int:
    return time.time_ns() // 1_000_000


def devices() -> list[FakeDevice]:
    return [FakeDevice(f"bench-{number:03d}", clock=clock_ms) for number in range(DEVICES)]


def bare(_folder: Path) -> ASGIApp:
    """What a server at least does: decode, check, answer."""
    decoder, encoder = msgspec.json.Decoder(PollRequest), msgspec.json.Encoder()

    async def poll(request: Request) -> Response:
        message = decoder.decode(await request.body())
        seq = message.windows[-1].seq if message.windows else 0
        reply = PollReply(poll_after_ms=30_000, events_taken=0, windows_taken=seq)
        return Response(encoder.encode(reply), media_type="application/json")

    return Starlette(routes=[Route("/device/v1/poll", poll, methods=["POST"])])


def fleet(folder: Path) -> ASGIApp:
    """The server whole, with its devices enrolled and approved."""
    keys = KeyRing.create(
        PosixDisk(), folder / "keys", families=["kiosk"], passphrase=lambda: "a long bench passphrase",
        now=datetime.now(UTC), root_keys=1, threshold=1,
    )  # fmt: skip
    store = open_store(f"sqlite:///{folder / 'fleet.db'}")
    migrate(store)
    director = Director(roots=[keys.director_root], signer=keys.signer("director-online"))
    made = Fleet(store, director=director, images=FakeImages(), secret=SECRET, clock=clock_ms)
    for device in devices():
        made.enrolment.enrol(device.enrol_request(), address="bench")
        made.devices.decide(device.name, approve=True, by="bench")
    return build(made)


def serve(make: Callable[[Path], ASGIApp], folder: Path, ready: Connection) -> None:
    """Run a server in this process until it is ended."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(DEVICES * 2)
    app = make(folder)
    ready.send(listening.getsockname()[1])
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="auto", backlog=DEVICES * 2)
    uvicorn.Server(config).run(sockets=[listening])


def requests() -> list[list[bytes]]:
    """Each device's heartbeats as bytes on the wire, about 5 KB each, every one with a new window."""
    from drupelet.fleet.credentials import Badges

    badges = Badges(SECRET)
    every = []
    for device in devices():
        token = badges.token(device.name, now_ms=clock_ms())
        mine = []
        for _ in range(POLLS):
            device.windows = []
            while not device.windows or len(msgspec.json.encode(device.poll())) < BODY_BYTES:
                device.window(release="kiosk/1.1")
            body = msgspec.json.encode(device.poll())
            head = (
                f"POST /device/v1/poll HTTP/1.1\r\nHost: fleet\r\nAuthorization: Bearer {token}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            mine.append(head.encode() + body)
        every.append(mine)
    return every


async def drive(port: int, every: list[list[bytes]], *, part: slice) -> int:
    """Send each device's heartbeats one after another, all devices at once, and return how many were answered."""

    async def one(mine: list[bytes]) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for data in mine[part]:
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise AssertionError(head.decode() + (await reader.read(1000)).decode())
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
        writer.close()
        return len(mine[part])

    return sum(await asyncio.gather(*(one(mine) for mine in every)))


def measure(make: Callable[[Path], ASGIApp], every: list[list[bytes]]) -> tuple[float, float]:
    """Return heartbeats per second of processor time, and per second of wall time."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    with tempfile.TemporaryDirectory(prefix="drupelet-bench-") as folder:
        process = context.Process(target=serve, args=(make, Path(folder), theirs), daemon=True)
        process.start()
        try:
            port = ours.recv()
            seen = psutil.Process(process.pid)
            asyncio.run(drive(port, every, part=slice(0, POLLS // 10)))
            before, begun = seen.cpu_times(), time.monotonic()
            done = asyncio.run(drive(port, every, part=slice(POLLS // 10, None)))
            after, wall = seen.cpu_times(), time.monotonic() - begun
        finally:
            process.terminate()
            process.join()
    cpu = after.user + after.system - before.user - before.system
    return done / cpu, done / wall


def main() -> None:
    """Print each round and the median ratio."""
    every = requests()
    size = sum(len(data) for mine in every for data in mine) / (DEVICES * POLLS)
    print(f"{DEVICES} devices, {POLLS} heartbeats each, {size:,.0f} bytes with headers, {os.cpu_count()} cores")
    ratios = []
    for number in range(ROUNDS):
        plain, ours = measure(bare, every), measure(fleet, every)
        ratios.append(ours[0] / plain[0])
        print(
            f"round {number + 1}: bare {plain[0]:,.0f} a core-second ({plain[1]:,.0f}/s), fleet {ours[0]:,.0f} "
            f"({ours[1]:,.0f}/s), ratio {ratios[-1]:.2f}"
        )
    ratio = sorted(ratios)[len(ratios) // 2]
    print(f"median ratio {ratio:.2f}, target at least {RATIO_MIN}")
    sys.exit(0 if ratio >= RATIO_MIN else 1)


if __name__ == "__main__":
    main()

"""What the gateway costs against its own bare child, in one run: `python benchmarks/bench_gateway.py`.

One real gateway process with real llama.cpp children on random weights. The same child is asked directly over its Unix
socket and through the gateway over TCP, turn by turn, so that whatever else the machine does meets both alike. Prints
each result beside its target; exits 1 if one is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from drupelet.core.names import Slot
from drupelet.gateway.control_client import ControlClient
from drupelet.wire.codec import encode
from drupelet.wire.control import AskStatus, Load, Loaded, Route, Serve

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script, the tests' helpers are beside us
# isort: split
from tests.fakes.tiny_gguf import TinyShape, write_tiny_gguf
from tests.waiting import until

SHAPES = {
    "kiosk": TinyShape(embedding=256, feed_forward=512, layers=3, heads=4, kv_heads=4),
    "larger": TinyShape(embedding=512, feed_forward=1536, layers=4, heads=8, kv_heads=8),
}
"""About 2M parameters as the demo's model, and about 14M: both far faster than a model worth having on a Pi."""
ADDED_TTFT_P50_MS_MAX = 3.0
ADDED_TTFT_P99_MS_MAX = 15.0
SPEED_RATIO_MIN = 0.95
SWITCH_GAP_RATIO_MAX = 2.0
"""Against the longest gap of the same load without a switch: what the machine does to a stream by itself."""
IDLE_RSS_MIB_MAX = 60.0
_EOS = "2"


@dataclass(frozen=True, slots=True)
class Timed:
    """One streamed answer as its client saw it."""

    ttft_ms: float
    tokens: int
    per_s: float
    gap_ms: float


@dataclass(frozen=True, slots=True)
class Results:
    """What one model size showed."""

    added_p50_ms: float
    added_p99_ms: float
    ratio: float
    bare_per_s: float
    gap_ms: float
    calm_gap_ms: float
    cpu_us_per_token: float
    failures: int
    answered: int
    rss_mib: float
    idle_cpu: float

    @property
    def gap_ratio(self) -> float:
        """The longest gap in switches against that without."""
        return self.gap_ms / self.calm_gap_ms


def load(path: Path, slot: Slot, version: str) -> Load:
    """Return a load of a file of ours."""
    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    return Load(
        slot=slot,
        path=str(path),
        digest=digest,
        release=f"kiosk/{version}",
        manifest=digest,
        variant="f16",
        model="kiosk",
        context_tokens=512,
    )


@contextlib.contextmanager
def gateway(folder: Path, *, parallel: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield a running gateway and its base URL."""
    config = folder / "gateway.toml"
    config.write_text(
        f'state_folder = "{folder}"\nruntime_folder = "{folder}/run"\n[listen]\nport = 0\n'
        f"[child]\nthreads = 1\nparallel = {parallel}\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "drupelet.cli.main", "gateway", "run", "-c", str(config)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    if process.stderr is None:
        raise TypeError("no pipe")
    try:
        line = process.stderr.readline()
        yield process, line.partition("listening on ")[2].partition(",")[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=10)
        process.stderr.close()


async def ask(session: aiohttp.ClientSession, base: str, number: int, *, tokens: int) -> Timed:
    """Ask one question of its own, so that no cache helps, and time the stream."""
    body = {
        "messages": [{"role": "user", "content": f"{number:06d} when do you open?"}],
        "max_tokens": tokens,
        "stream": True,
        "logit_bias": {_EOS: -100},
    }
    begun = time.perf_counter()
    first = last = 0.0
    gap = 0.0
    pieces = 0
    async with session.post(f"{base}/v1/chat/completions", json=body) as answer:
        if answer.status != 200:
            raise RuntimeError(f"status {answer.status}: {await answer.text()}")
        async for chunk in answer.content.iter_any():
            now = time.perf_counter()
            first, gap = first or now, max(gap, now - last if last else 0.0)
            last = now
            pieces += chunk.count(b'"content":"')
            if b'"error"' in chunk:
                raise RuntimeError("an error event")
    seconds = max(last - first, 1e-9)
    return Timed((first - begun) * 1000, pieces, (pieces - 1) / seconds, gap * 1000)


@contextlib.asynccontextmanager
async def sessions(socket: Path) -> AsyncIterator[tuple[aiohttp.ClientSession, aiohttp.ClientSession]]:
    """Yield a session with the bare child and one for the gateway."""
    bare = aiohttp.ClientSession(connector=aiohttp.UnixConnector(path=str(socket), force_close=True))
    async with bare, aiohttp.ClientSession() as through:
        yield bare, through


async def against_bare(base: str, socket: Path, *, rounds: int, tokens: int) -> tuple[list[Timed], list[Timed]]:
    """Ask both in turn."""
    bare: list[Timed] = []
    through: list[Timed] = []
    async with sessions(socket) as (direct, proxied):
        for number in range(rounds + 5):
            pair = [(bare, direct, "http://engine"), (through, proxied, base)]
            for results, session, where in pair if number % 2 else pair[::-1]:
                timed = await ask(session, where, number, tokens=tokens)
                if number >= 5:
                    results.append(timed)
    return bare, through


async def under_switches(
    base: str, socket: Path, control: ControlClient, *, clients: int, seconds: float, flips: bool
) -> tuple[list[Timed], int]:
    """Stream from several clients while the route flips; return what they saw and how many failed."""
    seen: list[Timed] = []
    failures = 0
    deadline = time.perf_counter() + seconds

    async def client(session: aiohttp.ClientSession, own: int) -> None:
        nonlocal failures
        number = own * 1000
        while time.perf_counter() < deadline:
            number += 1
            try:
                seen.append(await ask(session, base, number, tokens=60))
            except (RuntimeError, aiohttp.ClientError):
                failures += 1

    async def flip() -> None:
        slot = Slot.A
        while flips and time.perf_counter() < deadline:
            slot = slot.other
            await asyncio.to_thread(control.ask, Route(slot=slot))
            await asyncio.sleep(0.25)

    async with sessions(socket) as (_, session):
        await asyncio.gather(flip(), *(client(session, own) for own in range(clients)))
    return seen, failures


def rss_mib(pid: int) -> float:
    """Return a process's resident MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def cpu_s(pid: int) -> float:
    """Return a process's CPU seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(shape: TinyShape, *, rounds: int, tokens: int, seconds: float) -> Results:
    """Run everything for one model size."""
    with tempfile.TemporaryDirectory(prefix="dgw") as name:
        folder = Path(name)
        loads = [
            load(write_tiny_gguf(folder / f"{slot.value}.gguf", seed=seed, shape=shape), slot, f"1.{seed}")
            for seed, slot in enumerate(Slot, start=1)
        ]
        (folder / "serve.json").write_bytes(encode(Serve(loads=(loads[0],))))
        with gateway(folder, parallel=4) as (process, base), ControlClient(folder / "control.sock") as control:
            until(lambda: getattr(control.ask(AskStatus()), "ready", False), timeout_s=30, what="the gateway")
            used = cpu_s(process.pid)
            time.sleep(3.0)  # idle on purpose: this is the measurement
            idle_cpu, rss = (cpu_s(process.pid) - used) / 3.0, rss_mib(process.pid)
            socket = next((folder / "run").glob("e*.sock"))
            short_bare, short_through = asyncio.run(against_bare(base, socket, rounds=rounds * 4, tokens=4))
            used = cpu_s(process.pid)
            bare, through = asyncio.run(against_bare(base, socket, rounds=rounds, tokens=tokens))
            spent = (cpu_s(process.pid) - used) / sum(timed.tokens for timed in through)
            if not isinstance(control.ask(loads[1]), Loaded):
                raise RuntimeError("slot b was not loaded")
            run = {"clients": 4, "seconds": seconds}
            calm, _ = asyncio.run(under_switches(base, socket, control, **run, flips=False))  # type: ignore[arg-type]
            seen, failures = asyncio.run(under_switches(base, socket, control, **run, flips=True))  # type: ignore[arg-type]
    first, first_bare = ([timed.ttft_ms for timed in seen_] for seen_ in (short_through, short_bare))
    return Results(
        added_p50_ms=statistics.median(first) - statistics.median(first_bare),
        added_p99_ms=statistics.quantiles(first, n=100)[98] - statistics.quantiles(first_bare, n=100)[98],
        ratio=statistics.median(t.per_s for t in through) / statistics.median(t.per_s for t in bare),
        bare_per_s=statistics.median(t.per_s for t in bare),
        gap_ms=max(t.gap_ms for t in seen),
        calm_gap_ms=max(t.gap_ms for t in calm),
        cpu_us_per_token=spent * 1e6,
        failures=failures,
        answered=len(seen),
        rss_mib=rss,
        idle_cpu=idle_cpu,
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    logging.disable(logging.INFO)
    missed = False
    for name, shape in SHAPES.items():
        r = measure(shape, rounds=chosen.rounds, tokens=chosen.tokens, seconds=chosen.seconds)
        rows = [
            ("added time to first token, p50", r.added_p50_ms, "ms", "<=", ADDED_TTFT_P50_MS_MAX),
            ("added time to first token, p99", r.added_p99_ms, "ms", "<=", ADDED_TTFT_P99_MS_MAX),
            (f"tokens/s against the bare child ({r.bare_per_s:.0f}/s)", r.ratio, "", ">=", SPEED_RATIO_MIN),
            (f"longest gap in switches, {r.gap_ms:.0f} ms, against calm", r.gap_ratio, "x", "<=", SWITCH_GAP_RATIO_MAX),
            (f"requests failed in switches, of {r.answered}", r.failures, "", "<=", 0),
            (f"resident when idle (CPU {r.idle_cpu:.2%})", r.rss_mib, "MiB", "<=", IDLE_RSS_MIB_MAX),
        ]
        if chosen.json:
            print(json.dumps({"model": name, **{field: getattr(r, field) for field in Results.__slots__}}))
            continue
        print(f"model: {name}; the gateway's own CPU {r.cpu_us_per_token:.0f} us a token")
        for what, value, unit, sign, target in rows:
            met = value <= target if sign == "<=" else value >= target
            missed = missed or not met
            print(f"  {what:<48} {value:9.3f} {unit:<4} target {sign} {target:g} {'' if met else 'MISSED'}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()

"""Wires the gateway process: the real disk, llama.cpp children, signals, the log."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from drupelet.durable import PosixDisk
from drupelet.engine import levels
from drupelet.engine.child import Child
from drupelet.engine.spec import ChildSpec
from drupelet.gateway.config import Config
from drupelet.gateway.effects import Launch, RunningChild
from drupelet.gateway.run import Listening, run
from drupelet.telemetry.collectors import DeviceCollector, Machine
from drupelet.telemetry.metrics import GatewayMetrics
from drupelet.telemetry.sensors import PiSensors

_log = logging.getLogger("drupelet.gateway")


def launcher(runtime_folder: Path, *, server: Path | None = None) -> Launch:
    """Return what starts llama.cpp children whose sockets lie in `runtime_folder`: `server`, or else the library."""

    async def launch(spec: ChildSpec) -> RunningChild:
        return await Child.start(dataclasses.replace(spec, server=server), runtime_folder=runtime_folder)

    return launch


def chosen_server(config: Config) -> Path | None:
    """Return the `llama-server` that the settings or the environment name, for this CPU; None for the library.

    Raises `NoServer` or `BadInput` if one is named that cannot be run: before anything listens.
    """
    named = config.child.llama_server or os.environ.get(levels.VARIABLE, "")
    if not named:
        return None
    server, why = levels.find(Path(named))
    _log.info("children are %s (%s)", server, why)
    return server


def run_gateway(config: Config, *, on_listening: Callable[[Listening], None]) -> None:
    """Run until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")

    server = chosen_server(config)
    sensors = PiSensors(sys_root=Path(config.sensors.sys_root), vcgencmd=config.sensors.vcgencmd)

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await run(
            config,
            disk=PosixDisk(),
            launch=launcher(Path(config.runtime_folder), server=server),
            metrics=GatewayMetrics([DeviceCollector(Machine(sensors, os.getpid()), clock=time.monotonic)]),
            stop=stop,
            on_listening=on_listening,
        )

    asyncio.run(main())

"""Wires one call of the Mender update module: the agent's own machine over a bundle instead of fleet and depot."""

from __future__ import annotations

import os
import random
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from drupelet.agent import module, requests
from drupelet.agent.bundle import BASE, Bundle, BundleDepot, BundleTrust
from drupelet.agent.config import Config
from drupelet.agent.control import SocketGateway
from drupelet.agent.effects import Ports
from drupelet.agent.errors import AgentSilent, NoOtherSlot
from drupelet.agent.hardware import read_hardware
from drupelet.agent.module import Call, Outcome
from drupelet.agent.run import Agent
from drupelet.cli.compose.agent import BoardSensors, RealClock, SystemCoins, boot_id, read_root
from drupelet.core.errors import BadInput, Conflict, NotAllowed, NotFound, Refused
from drupelet.core.names import Digest
from drupelet.depot.errors import NoBlob
from drupelet.durable import Disk, PosixDisk
from drupelet.telemetry.sensors import PiSensors
from drupelet.telemetry.spool import Spool
from drupelet.trust.images import Images

STEP_S_MAX = 0.2
SAID = "Mender"


def run_call(call: Call, files: Path, config: Config, *, timeout_s: float) -> Outcome:
    """Do what Mender asks and return how it ended, successfully.

    Raises `Refused` with the machine's reason, `AgentSilent` after `timeout_s`, `Conflict` if an agent runs here.
    """
    if config.updates.ordered_by != "mender":
        what = "this device takes its updates from its fleet, not from Mender"
        raise Conflict(what, where="updates.ordered_by", fix='set it to "mender" and stop drupelet-agent')
    files = _for_the_owner(files, config, copy=call is Call.INSTALL)
    disk = PosixDisk()
    with disk.lock(config.layout.lock, holder=f"Mender's {call.value}, pid {os.getpid()}"):
        bundle = Bundle(disk, files) if call is Call.INSTALL else None
        ports, trust = _ports(config, disk, bundle)
        agent = Agent(ports, config, boot=boot_id())
        agent.start()
        try:
            outcome = _ACTS[call](agent, trust, config, timeout_s)
        finally:
            agent.close()
    if not outcome.succeeded:
        raise Refused(outcome.why, where=call.value)
    if call is Call.INSTALL and files.parent == config.layout.root:
        shutil.rmtree(files, ignore_errors=True)
    return outcome


def _ports(config: Config, disk: Disk, bundle: Bundle | None) -> tuple[Ports, BundleTrust]:
    clock = RealClock()
    images = Images(
        disk,
        config.layout.trust,
        root=read_root(disk, config.trust.image_root),
        depot_url=BASE,
        fetch=bundle or _NoBundle(),
        now=lambda: datetime.now(UTC),
    )
    trust = BundleTrust(images, bundle)
    sensors = PiSensors(sys_root=Path(config.sensors.sys_root), vcgencmd=config.sensors.vcgencmd)
    ports = Ports(
        disk=disk,
        clock=clock,
        coins=SystemCoins(),
        jitter=random.SystemRandom().random,
        link=None,
        trust=trust,
        gateway=SocketGateway(config.control),
        depot=BundleDepot(bundle or _NoBundle(), disk, config.layout),
        sensors=BoardSensors(sensors, clock),
        spool=Spool(disk, config.layout.spool, bytes_max=config.limits.spool_bytes_max),
        hardware=read_hardware(config.hardware),
    )
    return ports, trust


class _NoBundle:
    """Implements `Fetch` and `Source` for the calls after the installation, which fetch nothing."""

    def get(self, url: str, *, bytes_max: int, token: str = "") -> bytes:
        del bytes_max, token
        raise NotFound("nothing is fetched after the installation", where=url)

    def open(self, digest: Digest, *, offset: int, size: int) -> Iterator[bytes]:
        del offset, size
        raise NoBlob("nothing is fetched after the installation", where=str(digest))


def _install(agent: Agent, trust: BundleTrust, config: Config, timeout_s: float) -> Outcome:
    order = trust.give(
        device=config.device.id,
        serial=agent.state.serial + 1,
        probation_ms=module.PROBATION_MS,
        reason=f"{SAID} ordered it",
    )
    agent.obey(order)
    return _until(agent, lambda: module.installed(agent.state, order), timeout_s)


def _commit(agent: Agent, trust: BundleTrust, config: Config, timeout_s: float) -> Outcome:
    del trust
    order = module.commit_order(agent.state, device=config.device.id)
    if order is None:
        return module.nothing_to_commit(agent.state)
    agent.obey(order)
    return _until(agent, lambda: module.committed(agent.state, order), timeout_s)


def _rollback(agent: Agent, trust: BundleTrust, config: Config, timeout_s: float) -> Outcome:
    del trust
    if module.rolled_back(agent.state).ended:
        return module.rolled_back(agent.state)
    event = requests.event_for(agent.state, requests.LocalRequest(verb="rollback", said=f"{SAID} rolled back"))
    if isinstance(event, requests.LocalAnswer):
        raise NoOtherSlot(event.detail, where=config.device.id, fix="install another artifact")
    agent.happen(event)
    return _until(agent, lambda: module.rolled_back(agent.state), timeout_s)


_ACTS: dict[Call, Callable[[Agent, BundleTrust, Config, float], Outcome]] = {
    Call.INSTALL: _install,
    Call.COMMIT: _commit,
    Call.ROLLBACK: _rollback,
}


def _until(agent: Agent, look: Callable[[], Outcome], timeout_s: float) -> Outcome:
    deadline = time.monotonic() + timeout_s
    while True:
        outcome = look()
        if outcome.ended:
            return outcome
        if time.monotonic() > deadline:
            said = agent.state.detail or agent.state.state.value
            raise AgentSilent(f"not done after {timeout_s:.0f} s: {said}", fix="is the gateway running?")
        time.sleep(min(agent.tick() / 1000, STEP_S_MAX))


def _for_the_owner(files: Path, config: Config, *, copy: bool) -> Path:
    """Become the owner of the state folder, who is not root; return where the files lie for that user.

    Mender runs as root and keeps its payload where nobody else may look, while everything below the state folder
    belongs to the gateway's user. Links where the file systems allow it, so that flash is written once.
    """
    root = config.layout.root
    try:
        seen = root.stat()
    except FileNotFoundError as error:
        raise NotFound("there is no state folder", where=str(root), fix="run: drupelet agent init") from error
    if copy and not (files / "files").is_dir():
        raise BadInput("this is no folder of Mender's update-module protocol", where=str(files))
    source = files / "files"
    if os.geteuid() != 0 or seen.st_uid == 0:
        return source
    incoming = root / "incoming"
    if copy:
        shutil.rmtree(incoming, ignore_errors=True)
        incoming.mkdir(mode=0o700)
        for path in sorted(source.iterdir()):
            _give(path, incoming / path.name, seen.st_uid, seen.st_gid)
        os.chown(incoming, seen.st_uid, seen.st_gid)
    os.setgroups([])
    os.setresgid(seen.st_gid, seen.st_gid, seen.st_gid)
    os.setresuid(seen.st_uid, seen.st_uid, seen.st_uid)
    return incoming


def _give(path: Path, to: Path, user: int, group: int) -> None:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise NotAllowed("not a regular file", where=str(path))
    try:
        os.link(path, to)
    except OSError:
        shutil.copyfile(path, to)
    os.chown(to, user, group)
    to.chmod(0o600)

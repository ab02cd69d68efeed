"""`drupelet agent`: the device's update agent."""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from drupelet.agent import config as settings
from drupelet.agent import requests
from drupelet.agent.config import Config
from drupelet.agent.errors import AgentSilent, NoOtherSlot, NoStateFolder
from drupelet.agent.model import RESTING, DeviceState
from drupelet.cli.output import Format, Output, print_json, say, show
from drupelet.core.errors import BadInput, Conflict, NotFound, Refused
from drupelet.core.names import Digest, Version
from drupelet.core.states import Reason, UpdateState

app = typer.Typer()

ConfigPath = Annotated[Path, typer.Option("-c", "--config", help="The agent's configuration file.")]
Said = Annotated[str, typer.Option("--reason", help="Why, for the history.")]
ANSWER_S_MAX = 15.0
"""How long a running agent may take to see a request: it looks every second, and between slices of work."""
OFFLINE_S_MAX = 180.0


@app.command()
def run(config: ConfigPath = settings.DEFAULT_PATH) -> None:
    """Keep this device's models as ordered, until SIGTERM.

    Example: drupelet agent run --config /etc/drupelet/agent.toml
    """
    wanted = settings.read(config)
    if wanted.updates.ordered_by != "fleet":
        what = f"this device's updates are ordered by {wanted.updates.ordered_by}, so no agent may run"
        raise Conflict(what, where=str(config), fix='set updates.ordered_by = "fleet"')
    from drupelet.cli.compose.agent import check_folder, run_agent

    check_folder(wanted)
    run_agent(wanted, on_start=lambda state: say(f"agent: {wanted.device.id} is {state.state.value}"))


@app.command()
def init(
    device: Annotated[str, typer.Argument(help="The device's id, unique in the fleet.")],
    fleet: Annotated[str, typer.Option("--fleet", help="The fleet server's address.")],
    depot: Annotated[str, typer.Option("--depot", help="The depot's address.")],
    config: ConfigPath = settings.DEFAULT_PATH,
    state_folder: Annotated[str, typer.Option("--state-folder", help="Where models and journal lie.")] = "",
    image_root: Annotated[str, typer.Option("--image-root", help="The image repository's root of trust.")] = "",
    director_root: Annotated[str, typer.Option("--director-root", help="The director's root of trust.")] = "",
    label: Annotated[list[str] | None, typer.Option("--label", help="key=value, may be repeated.")] = None,
) -> None:
    """Write a configuration and make this device's own key, which never leaves it.

    Example: drupelet agent init kiosk-07 --fleet https://fleet.lab:8443 --depot https://depot.lab --label site=lab
    """
    from drupelet.agent.fleet_link import DeviceKey
    from drupelet.durable import PosixDisk

    if config.exists():
        raise Conflict("there is a configuration already", where=str(config), fix="edit it, or remove it first")
    lines = ["[device]", f"id = {_toml(device)}"]
    lines += [f"state_folder = {_toml(state_folder)}"] if state_folder else []
    labels = dict(_label(text) for text in label or ())
    lines += (
        ["", "[device.labels]", *(f"{_toml(key)} = {_toml(value)}" for key, value in labels.items())] if labels else []
    )
    lines += ["", "[fleet]", f"url = {_toml(fleet)}", "", "[depot]", f"url = {_toml(depot)}"]
    roots = {"image_root": image_root, "director_root": director_root}
    if any(roots.values()):
        lines += ["", "[trust]", *(f"{key} = {_toml(value)}" for key, value in roots.items() if value)]
    text = ("\n".join(lines) + "\n").encode()
    wanted = settings.parse(text, where=str(config))
    disk = PosixDisk()
    if disk.exists(wanted.layout.key):
        say(f"the key at {wanted.layout.key} is kept")
        key = DeviceKey.read(disk, wanted.layout.key)
    else:
        key = DeviceKey.make(disk, wanted.layout.key)
    disk.replace(config, text, mode=0o644)
    say(f"wrote {config}; start the agent, then approve the device: drupelet device approve {device}")
    print(key.public_hex)


@app.command()
def install(
    executable: Annotated[str, typer.Option("--executable", help="The drupelet program the units start.")] = "",
    write: Annotated[bool, typer.Option("--write/--show", help="Write the files, or only show them.")] = False,
    start: Annotated[bool, typer.Option("--start", help="Also enable and start the services.")] = False,
) -> None:
    """Show or write the systemd units of agent and gateway.

    Example: sudo drupelet agent install --write --start
    """
    from drupelet.cli.units import EXECUTABLE, Role, after, units
    from drupelet.durable import PosixDisk

    files = units(Role.DEVICE, executable=executable or EXECUTABLE)
    if not write:
        for file in files:
            print(f"# {file.path}\n{file.text}")
        return
    disk = PosixDisk()
    for file in files:
        disk.replace(file.path, file.text.encode(), mode=0o644)
        say(f"wrote {file.path}")
    for command in after(Role.DEVICE):
        if not start:
            say(f"then run: {' '.join(command)}")
        elif subprocess.run(command, check=False).returncode != 0:
            raise Refused("failed", where=" ".join(command), fix="see: systemctl status, journalctl -xe")


@app.command()
def status(config: ConfigPath = settings.DEFAULT_PATH, output: Output = Format.TABLE) -> None:
    """Show what the agent does, what the slots hold and what serves; works while the agent runs and when it does not.

    Example: drupelet agent status -o json
    """
    wanted = settings.read(config)
    from drupelet.agent.report import Seen, StatusFile, device_status
    from drupelet.wire.codec import decode

    try:
        data = wanted.status_file.read_bytes()[: StatusFile.BYTES_MAX]
        file = decode(StatusFile, data, where=str(wanted.status_file))
    except (FileNotFoundError, BadInput):
        state = _state(wanted)
        file = StatusFile(
            device=wanted.device.id, pid=0, boot="", written_at_ms=0, version="", status=device_status(state, Seen())
        )
    running = _alive(file.pid)
    if output is Format.JSON:
        print_json({"running": running, "file": file})
        return
    said = file.status
    rows = [
        ("device", file.device),
        ("agent", f"running, pid {file.pid}" if running else "not running"),
        ("state", said.state.value),
        ("reason", f"{said.reason.value}: {said.detail}" if said.reason is not Reason.NONE else said.detail or "-"),
        ("release", said.release or "-"),
        ("progress", f"{said.progress_bytes} of {said.total_bytes} bytes" if said.total_bytes else "-"),
        ("order", said.order_serial or "-"),
        ("fleet", file.fleet or "-"),
        ("gateway", said.gateway),
        ("held", "yes" if said.held else "no"),
    ]
    for slot in said.slots:
        marks = [word for word, at in (("committed", said.committed), ("serving", said.serving)) if at is slot.slot]
        rows.append((f"slot {slot.slot.value}", f"{slot.release} {slot.variant} {' '.join(marks)}".strip()))
    show(file, output=output, columns=("what", "is"), rows=rows)


@app.command()
def history(
    config: ConfigPath = settings.DEFAULT_PATH,
    last: Annotated[int, typer.Option("--last", min=1, max=200, help="How many events.")] = 30,
    output: Output = Format.TABLE,
) -> None:
    """Show the newest events of the journal, oldest first.

    Example: drupelet agent history --last 10
    """
    events = _state(settings.read(config)).recent[-last:]
    rows = (
        (
            event.seq,
            _when(event.at_ms),
            event.event,
            event.after.value,
            event.release or "-",
            f"{event.reason.value}: {event.detail}" if event.reason is not Reason.NONE else event.detail,
        )
        for event in events
    )
    show(list(events), output=output, columns=("seq", "when", "event", "state", "release", "why"), rows=rows)


@app.command()
def why(config: ConfigPath = settings.DEFAULT_PATH, output: Output = Format.TABLE) -> None:
    """Say in a sentence why this device is not further than it is, and what it waits for.

    Example: drupelet agent why
    """
    state = _state(settings.read(config))
    answer = {"state": state.state.value, "reason": state.reason.value, "detail": state.detail, "says": _why(state)}
    if output is Format.JSON:
        print_json(answer)
    else:
        print(answer["says"])


@app.command()
def rollback(config: ConfigPath = settings.DEFAULT_PATH, reason: Said = "", yes: bool = False) -> None:
    """Go back to the release in the other slot, or drop the update under way. Needs no server and no download.

    Example: drupelet agent rollback --reason "answers in the wrong language" --yes
    """
    wanted = settings.read(config)
    from drupelet.agent.orders import rollback as decided

    state = _state(wanted)
    event = decided(state, said=reason)
    if event is None or event.to is None:
        raise NoOtherSlot(
            "no_other_slot: the other slot holds no release that was good and is not condemned",
            where=wanted.device.id,
            fix="order a release from the fleet instead",
        )
    to = state.slots[event.to].release
    if not yes:
        typer.confirm(f"Serve {to} from slot {event.to.value}?", abort=True)
    _do(wanted, requests.LocalRequest(verb="rollback", said=reason))
    say(f"going back to {to}")


@app.command()
def hold(
    config: ConfigPath = settings.DEFAULT_PATH,
    reason: Said = "",
    off: Annotated[bool, typer.Option("--off", help="Lift the hold.")] = False,
) -> None:
    """Begin no update on this device until the hold is lifted. What is under way goes on; reverts are obeyed.

    Example: drupelet agent hold --reason "demo for the board at noon"
    """
    _do(settings.read(config), requests.LocalRequest(verb="release" if off else "hold", said=reason))
    say("the hold is lifted" if off else "updates are held")


@app.command(name="verify-runtime")
def verify_runtime(
    version: Annotated[str, typer.Argument(help="The runtime's version, such as 0.1.0.")],
    digest: Annotated[str, typer.Argument(help="The image's digest: of its index, or of this platform's manifest.")],
    config: ConfigPath = settings.DEFAULT_PATH,
    platform: Annotated[
        str, typer.Option("--platform", help="The image's platform.", show_default="this machine's")
    ] = "",
    allow_older: Annotated[
        bool, typer.Option("--allow-older", help="Accept a version below the highest verified here.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Ask whether an image is a runtime that the image repository vouches for, before it is used. Exit code 7 if not.

    Example: drupelet agent verify-runtime 0.1.0 sha256:2f1c... && podman run registry.lab/drupelet@sha256:2f1c...
    """
    import platform as machine

    from drupelet.cli.compose.runtime import verify_runtime as verify

    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(machine.machine(), machine.machine())
    asked = Digest.parse(digest)
    manifest = verify(
        settings.read(config),
        Version.parse(version),
        asked,
        platform=platform or f"linux/{arch}",
        allow_older=allow_older,
    )
    value = {"runtime": manifest.version, "digest": asked.text, "index": manifest.index, "vouched": True}
    show(value, output=output, columns=("runtime", "image", "vouched"), rows=[(manifest.version, asked.text, "yes")])


def _do(config: Config, request: requests.LocalRequest) -> None:
    """Hand a request to the running agent, or do it here if none runs."""
    from drupelet.durable import Locked, PosixDisk

    disk, folder, key = PosixDisk(), config.layout.requests, uuid.uuid4().hex
    requests.ask(disk, folder, key, request)
    try:
        with suppress(Locked):
            from drupelet.cli.compose.agent import holder, run_until_rest

            with disk.lock(config.layout.lock, holder=holder()):
                if request.verb == "rollback":
                    run_until_rest(config, disk, timeout_s=OFFLINE_S_MAX)
                else:
                    say("no agent runs; it is done when one starts")
                    return
        deadline = time.monotonic() + ANSWER_S_MAX
        while (answer := requests.answered(disk, folder, key)) is None:
            if time.monotonic() > deadline:
                raise AgentSilent("the agent did not answer", fix="see: drupelet agent status")
            time.sleep(0.1)
    except BaseException:
        requests.withdraw(disk, folder, key)
        raise
    if not answer.accepted:
        kind = NoOtherSlot if answer.reason is Reason.NO_OTHER_SLOT else Refused
        raise kind(f"{answer.reason.value}: {answer.detail}", where=config.device.id)


def _state(config: Config) -> DeviceState:
    """Return what the journal says, without touching it."""
    from drupelet.agent.journal import JOURNAL_BYTES_MAX, read
    from drupelet.durable import PosixDisk

    path = config.layout.journal / "log.jsonl"
    try:
        return read(PosixDisk().read(path, bytes_max=JOURNAL_BYTES_MAX)).state
    except NotFound as error:
        raise NoStateFolder("no agent has ever run here", where=str(path), fix="drupelet agent run") from error


def _why(state: DeviceState) -> str:
    release = state.update.order.release if state.update is not None and state.update.order is not None else ""
    words = {
        UpdateState.IDLE: "Nothing is under way",
        UpdateState.PREFLIGHT: f"{release} waits to begin",
        UpdateState.DOWNLOADING: f"{release} is being downloaded",
        UpdateState.VERIFYING: f"{release} is being verified",
        UpdateState.INSTALLING: f"{release} is being written to its slot",
        UpdateState.TRIAL: f"{release} is on trial beside what serves",
        UpdateState.SWITCHING: f"{release} is about to serve",
        UpdateState.PROBATION: f"{release} is on probation and waits for a verdict",
        UpdateState.COMMITTING: f"{release} is being committed",
        UpdateState.REVERTING: "The device is going back to the release before",
        UpdateState.FAILED: f"{release or 'The update'} did not stay; the device waits for a newer order",
    }[state.state]
    because = f": {state.detail} ({state.reason.value})" if state.reason is not Reason.NONE else ""
    held = " An operator on the device holds updates." if state.held and state.state in RESTING else ""
    return f"{words}{because}.{held}"


def _alive(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _when(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000))


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise BadInput(f"label {text[:80]!r} is not key=value", where="--label", fix="for example --label site=lab")
    return key, value


def _toml(text: str) -> str:
    """Return a TOML basic string; JSON's escapes are among TOML's."""
    import json

    return json.dumps(text)


@app.command()
def mender(
    state: Annotated[
        str, typer.Argument(help="The state of Mender's update-module protocol, such as ArtifactInstall.")
    ],
    folder: Annotated[Path, typer.Argument(help="The folder that Mender gives the module.")] = Path(),
    config: ConfigPath = settings.DEFAULT_PATH,
    timeout_s: Annotated[float, typer.Option("--timeout-s", min=1, help="How long a state may take.")] = 3600.0,
) -> None:
    """Do what Mender asks of its update module `drupelet`: install, commit or roll back a signed release.

    Example: drupelet agent mender ArtifactInstall /var/lib/mender/modules/v3/payloads/0000/tree
    """
    from drupelet.agent.module import ANSWERS, Call

    if state in ANSWERS:
        print(ANSWERS[state])
    if state not in {call.value for call in Call}:
        return  # the protocol grows: what is unknown is answered with nothing
    from drupelet.cli.compose.module import run_call

    say(run_call(Call(state), folder, settings.read(config), timeout_s=timeout_s).why)


@app.command("mender-module")
def mender_module(
    executable: Annotated[str, typer.Option("--executable", help="The drupelet program the module starts.")] = "",
    write: Annotated[bool, typer.Option("--write/--show", help="Write the file, or only show it.")] = False,
) -> None:
    """Show or write Mender's update module, for devices whose updates Mender orders.

    Example: sudo drupelet agent mender-module --write
    """
    from drupelet.cli.units import EXECUTABLE
    from drupelet.cli.units import mender_module as made
    from drupelet.durable import PosixDisk

    file = made(executable=executable or EXECUTABLE)
    if not write:
        print(file.text, end="")
        return
    PosixDisk().replace(file.path, file.text.encode(), mode=0o755)
    say(f'wrote {file.path}; set updates.ordered_by = "mender" in the agent\'s configuration')

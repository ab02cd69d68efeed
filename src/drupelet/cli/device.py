"""`drupelet device`: the fleet's devices."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from drupelet.cli.api import NO_SERVER, Api, Reason, Server, Token, ago, part
from drupelet.cli.output import Format, Output, say, show
from drupelet.core.errors import BadInput

app = typer.Typer()

Names = Annotated[list[str], typer.Argument(help="Device ids.")]
Name = Annotated[str, typer.Argument(help="The device's id.")]
COLUMNS = ("device", "state", "release", "update", "seen", "labels", "attention")


@app.command("list")
def list_devices(
    selector: Annotated[str, typer.Option("-l", "--selector", help="Labels, as in 'site=lab,!legacy'.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1_000_000)] = 1000,
    server: Server = NO_SERVER,
    token: Token = "",
    output: Output = Format.TABLE,
) -> None:
    """List devices with what they run and what they need.

    Example: drupelet device list --selector 'site=lab,board in (pi5-8gb)'
    """
    found = Api(server, token).pages("/devices", key="after", limit=limit, selector=selector)
    show(found, output=output, columns=COLUMNS, rows=[_row(device) for device in found])


def _row(device: dict[str, Any]) -> tuple[object, ...]:
    enrolment = device["enrolment"]
    state = enrolment if enrolment != "approved" else "online" if device["online"] else "offline"
    reason = device["reason"]
    update = device["state"] + (f" ({reason})" if reason != "none" else "")
    labels = ",".join(f"{key}={value}" for key, value in sorted(device["labels"].items()))
    seen = ago(device["seen_at"], now_ms=int(time.time() * 1000))
    name = device["id"] + (" (simulated)" if device["simulated"] else "")
    return name, state, device["release"], update, seen, labels, device["attention"]


@app.command("show")
def show_one(name: Name, server: Server = NO_SERVER, token: Token = "", output: Output = Format.TABLE) -> None:
    """Show all about one device.

    Example: drupelet device show lab-1 -o json
    """
    page = Api(server, token).get(f"/devices/{part(name)}")
    device = page["device"]
    rows = [
        ("answer", page["why"]["answer"]),
        ("state", device["state"]),
        ("release", device["release"]),
        ("board", device["board"]),
        ("agent", page["agent_version"]),
        ("public key", page["public_key"]),
        *((f"slot {slot['slot']}", slot["release"]) for slot in page["slots"]),
        *(
            (event["event"], f"{event['before']} -> {event['after']} {event['detail']}")
            for event in page["events"][:10]
        ),
    ]
    show(page, output=output, columns=("what", "is"), rows=rows)


@app.command()
def why(name: Name, server: Server = NO_SERVER, token: Token = "", output: Output = Format.TABLE) -> None:
    """Say why a device is not updated.

    Example: drupelet device why lab-3
    """
    said = Api(server, token).get(f"/devices/{part(name)}/why")
    if output is Format.JSON:
        show(said, output=output, columns=(), rows=())
        return
    print(said["answer"])
    for line in said["because"]:
        print(f"  {line}")


@app.command()
def approve(names: Names, reason: Reason = "", server: Server = NO_SERVER, token: Token = "") -> None:
    """Let devices in that wait for approval.

    Example: drupelet device approve lab-1 lab-2
    """
    _each(names, "approve", reason, Api(server, token))


@app.command()
def reject(names: Names, reason: Reason = "", server: Server = NO_SERVER, token: Token = "") -> None:
    """Refuse devices: they get no token and no orders.

    Example: drupelet device reject stranger --reason 'not one of ours'
    """
    _each(names, "reject", reason, Api(server, token))


def _each(names: list[str], verb: str, reason: str, api: Api) -> None:
    for name in names:
        api.post(f"/devices/{part(name)}/{verb}", {"reason": reason})
        say(f"{name}: {verb}{'d' if verb.endswith('e') else 'ed'}")


@app.command()
def label(
    name: Name,
    labels: Annotated[list[str], typer.Argument(help="key=value to set, key- to remove.")],
    server: Server = NO_SERVER,
    token: Token = "",
    output: Output = Format.TABLE,
) -> None:
    """Set and remove a device's labels.

    Example: drupelet device label lab-1 site=lab legacy-
    """
    changes: dict[str, str | None] = {}
    for text in labels:
        key, equals, value = text.partition("=")
        if equals:
            changes[key] = value
        elif key.endswith("-"):
            changes[key[:-1]] = None
        else:
            raise BadInput(f"{text!r} is neither key=value nor key-", fix="for example site=lab or legacy-")
    after = Api(server, token).patch(f"/devices/{part(name)}/labels", {"labels": changes})["device"]["labels"]
    show(after, output=output, columns=("label", "value"), rows=sorted(after.items()))


@app.command()
def remove(name: Name, reason: Reason = "", server: Server = NO_SERVER, token: Token = "") -> None:
    """Forget a device: no token, no orders, counted nowhere. It may enrol again.

    Example: drupelet device remove lab-9 --reason 'sent back'
    """
    Api(server, token).delete(f"/devices/{part(name)}", reason=reason)
    say(f"{name}: removed")

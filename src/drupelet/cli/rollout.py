"""`drupelet rollout`: staged rollouts."""

from __future__ import annotations

import json
import time
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from drupelet.cli.api import NO_SERVER, Api, Reason, Server, Token, ago
from drupelet.cli.output import Format, Output, plain, print_json, say, show
from drupelet.cli.verdict import Patience, await_verdict, findings, newest_of, progress
from drupelet.cli.via import Asked, Via, roll_out
from drupelet.core.errors import BadInput, Refused
from drupelet.core.errors import NotFound as CoreNotFound
from drupelet.core.names import ReleaseId

app = typer.Typer()

Number = Annotated[int, typer.Argument(help="The rollout's number.", min=1)]
COLUMNS = ("rollout", "release", "state", "stage", "devices", "since", "reason")
POLICY_BYTES_MAX = 64 * 1024
Timeout = Annotated[
    float, typer.Option("--timeout", help="Seconds after which waiting ends with exit code 6.", min=0, max=90 * 86_400)
]
A_DAY_S = 86_400.0


@app.command()
def start(
    context: typer.Context,
    release: Annotated[str, typer.Argument(help="Family and version, such as kiosk/1.2.")] = "",
    to: Annotated[str, typer.Option("--to", "-l", help="Selector; empty means every device.")] = "",
    stages: Annotated[str, typer.Option("--stages", help="Exposure caps, as in 1,25%,100%; else the release's.")] = "",
    policy: Annotated[Path | None, typer.Option("--policy", help="A policy file, TOML or JSON.")] = None,
    direct: Annotated[bool, typer.Option("--direct", help="No canaries and no gate: a first installation.")] = False,
    seed: Annotated[str, typer.Option("--seed", help="Seed of the draw; else the server draws one.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Then wait for the verdict, as `rollout wait` does.")] = False,
    timeout: Timeout = A_DAY_S,
    via: Annotated[Via, typer.Option("--via", help="Whose devices they are.")] = Via.DRUPELET,
    deployment: Annotated[
        Path | None, typer.Option("--deployment", help="A deployment manifest (JSON) that says what, whom and how far.")
    ] = None,
    artifact: Annotated[
        Path | None, typer.Option("--artifact", help="A file to give to the other system first.")
    ] = None,
    previous: Annotated[
        str, typer.Option("--previous", help="What the other system gives back to devices if this is taken back.")
    ] = "",
    name: Annotated[str, typer.Option("--name", help="The rollout's name in the other system; else the release.")] = "",
    soak: Annotated[
        float, typer.Option("--soak", help="Least seconds from one stage to the next.", min=0, max=30 * A_DAY_S)
    ] = 0,
    once: Annotated[bool, typer.Option("--once", help="Do what is due now and end; for a timer.")] = False,
    abort: Annotated[bool, typer.Option("--abort", help="Take the other system's rollout of this name back.")] = False,
    server: Server = NO_SERVER,
    token: Token = "",
    output: Output = Format.TABLE,
) -> None:
    """Start a staged rollout; with `--via` through Mender, balena or hawkBit, stage by stage, until it ends.

    Example: drupelet rollout start kiosk/1.2 --to 'site=lab' --stages 1,3,5
    """
    if via is not Via.DRUPELET or deployment is not None:
        asked = Asked(
            via=via, release=release, to=to, stages=stages, name=name, seed=seed, deployment=deployment,
            artifact=artifact, previous=previous, soak_s=soak, once=once, abort=abort, reason="", timeout_s=timeout,
            server=server, token=token,
        )  # fmt: skip
        roll_out(context, asked, output=output)
        return
    if not release:
        raise BadInput("no release is named", fix="for example: drupelet rollout start kiosk/1.2")
    document = _policy(policy) if policy is not None else {}
    if direct:
        document["design"] = "none"
    body: dict[str, object] = {"release": release, "selector": to, "policy": document, "seed": seed}
    if stages:
        body["stages"] = [stage.strip() for stage in stages.split(",")]
    api = Api(server, token)
    page = api.post("/rollouts", body)
    if wait:
        _await(api, int(page["rollout"]["id"]), timeout_s=timeout, output=output)
    else:
        show(page, output=output, columns=COLUMNS, rows=[_row(page["rollout"])])


def _policy(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CoreNotFound(f"cannot read it: {error.strerror}", where=str(path)) from error
    if len(data) > POLICY_BYTES_MAX:
        raise BadInput(f"{len(data)} bytes where at most {POLICY_BYTES_MAX} are allowed", where=str(path))
    try:
        found = json.loads(data) if path.suffix == ".json" else tomllib.loads(data.decode())
    except ValueError as error:
        raise BadInput(f"neither TOML nor JSON: {error}", where=str(path)) from error
    if not isinstance(found, dict):
        raise BadInput("a policy is a table of fields", where=str(path))
    return found


def _row(view: dict[str, Any]) -> tuple[object, ...]:
    stage = f"{view['stage'] + 1} of {len(view['stages'])}"
    devices = ", ".join(f"{count} {word}" for word, count in sorted(view["counts"].items()))
    since = ago(view["changed_at"], now_ms=int(time.time() * 1000))
    return view["id"], view["release"], view["state"], stage, devices, since, view["reason"]


@app.command("list")
def list_rollouts(
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000)] = 50,
    server: Server = NO_SERVER,
    token: Token = "",
    output: Output = Format.TABLE,
) -> None:
    """List rollouts, the newest first.

    Example: drupelet rollout list -o json
    """
    found = Api(server, token).pages("/rollouts", key="before", limit=limit)
    show(found, output=output, columns=COLUMNS, rows=[_row(view) for view in found])


@app.command("show")
def show_one(number: Number, server: Server = NO_SERVER, token: Token = "", output: Output = Format.TABLE) -> None:
    """Show a rollout: its devices, the verdict and what it rests on.

    Example: drupelet rollout show 3
    """
    page = Api(server, token).get(f"/rollouts/{number}")
    if output is Format.JSON:
        print_json(page)
        return
    view = page["rollout"]
    show(page, output=output, columns=COLUMNS, rows=[_row(view)])
    if view["waits_for"]:
        print(f"waits for: {view['waits_for']}")
    if view["verdict"]:
        print(view["verdict"]["reason"])
        for finding in view["verdict"]["findings"]:
            print(f"  {finding['says']}")
    rows = [(m["device"], m["standing"], m["pairs"], m["stratum"], m["failure"]) for m in page["members"]]
    show(page, output=output, columns=("device", "standing", "pairs", "stratum", "failure"), rows=rows)


@app.command()
def watch(
    number: Number,
    server: Server = NO_SERVER,
    token: Token = "",
    output: Output = Format.TABLE,
) -> None:
    """Follow a rollout's every change as it happens until it ends; exits with 8 unless it completes.

    Example: drupelet rollout watch 3
    """
    api = Api(server, token)
    said = ""
    for change in api.changes():
        if change and not change.startswith(("hello", "rollout", "everything")):
            continue
        view = api.get(f"/rollouts/{number}")["rollout"]
        line = json.dumps(view, sort_keys=True) if output is Format.JSON else plain(progress(view))
        if line != said:
            print(line, flush=True)
            said = line
        if view["ended"]:
            if view["state"] != "completed":
                raise Refused(f"it ended {view['state']}: {view['reason']}", where=f"rollout {number}")
            return


@app.command()
def wait(
    rollout: Annotated[str, typer.Argument(help="The rollout's number, or a release: its newest rollout.")],
    timeout: Timeout = A_DAY_S,
    server: Server = NO_SERVER,
    token: Token = "",
    output: Output = Format.TABLE,
) -> None:
    """Wait for a rollout's verdict: exit code 0 once it has completed, 8 with the verdict's words if it was taken back.

    A line is printed whenever something changes. Time out is exit code 6; the rollout goes on. A server that restarts
    is waited for.

    Example: drupelet rollout wait kiosk/1.2 --timeout 7200
    """
    api = Api(server, token)
    number = (
        int(rollout) if rollout.isdecimal() and rollout.isascii() else newest_of(api, ReleaseId.parse(rollout).path)
    )
    _await(api, number, timeout_s=timeout, output=output)


def _await(api: Api, number: int, *, timeout_s: float, output: Format) -> None:
    def tell(view: dict[str, Any]) -> None:
        if output is Format.JSON:
            print(json.dumps(view, sort_keys=True), flush=True)
            return
        line = f"the server does not answer now ({view['outage']}); asking again" if view["outage"] else progress(view)
        print(plain(f"rollout {number}: {line}"), flush=True)
        if view["ended"]:
            print(*(plain(f"  {said}") for said in findings(view)), sep="\n", flush=True)

    try:
        await_verdict(
            api, number, patience=Patience(timeout_s=timeout_s, clock=time.monotonic, sleep=time.sleep), tell=tell
        )
    except KeyboardInterrupt:
        say(f"rollout {number} goes on without being watched; take it back with: drupelet rollout abort {number}")
        raise


def _command(verb: str, number: int, reason: str, api: Api) -> None:
    view = api.post(f"/rollouts/{number}/{verb}", {"reason": reason})["rollout"]
    say(f"rollout {number}: {verb} is asked for; it was {view['state']}")


@app.command()
def pause(number: Number, reason: Reason = "", server: Server = NO_SERVER, token: Token = "") -> None:
    """Expose nobody else until resumed; those that have it keep it and go on being judged.

    Example: drupelet rollout pause 3 --reason 'lunch'
    """
    _command("pause", number, reason, Api(server, token))


@app.command()
def resume(number: Number, reason: Reason = "", server: Server = NO_SERVER, token: Token = "") -> None:
    """Go on after a pause.

    Example: drupelet rollout resume 3
    """
    _command("resume", number, reason, Api(server, token))


@app.command()
def abort(number: Number, reason: Reason = "", server: Server = NO_SERVER, token: Token = "") -> None:
    """Take the release back from every device that has it, without condemning it.

    Example: drupelet rollout abort 3 --reason 'wrong devices'
    """
    _command("abort", number, reason, Api(server, token))


@app.command()
def rollback(number: Number, reason: Reason = "", server: Server = NO_SERVER, token: Token = "") -> None:
    """Take the release back from every device that has it, and condemn it; works after completion too.

    Example: drupelet rollout rollback 3 --reason 'customers complain'
    """
    _command("rollback", number, reason, Api(server, token))

"""`drupelet keys ceremony` and `record`: the first keys of a fleet, made together, and the record of it."""

from __future__ import annotations

import getpass
import os
import platform
import secrets
import sys
import tempfile
from contextlib import nullcontext
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from tuf.api.metadata import Metadata, Root

from drupelet import __version__
from drupelet.cli.output import Format, Output, print_json, say
from drupelet.cli.passphrase import pin
from drupelet.core.errors import BadInput
from drupelet.durable import PosixDisk
from drupelet.trust.ceremony.plan import load_plan, plan_text, rehearsed
from drupelet.trust.ceremony.record import Record, as_markdown, read_envelope, verified
from drupelet.trust.ceremony.run import Ceremony
from drupelet.trust.errors import WrongPassphrase
from drupelet.trust.images import parse_root

INTERFACES = Path("/sys/class/net")


def ceremony(
    plan: Annotated[Path, typer.Argument(help="The plan, a TOML file; --interactive writes it.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the key ring and the record.")] = None,
    interactive: Annotated[bool, typer.Option("--interactive", help="Ask for a plan and write it first.")] = False,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Everything, with throw-away keys in a temporary folder.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --rehearse: answer every question with yes.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Walk people through making the keys of a fleet, each on its holder's medium, and write a signed record.

    Interrupted, the same command goes on where it stopped. Rehearse it first, with everybody.

    Example: drupelet keys ceremony ceremony.toml --rehearse
    """
    if yes and not rehearse:
        raise BadInput("--yes answers for people who are not asked", fix="it goes with --rehearse only")
    if out is None and not rehearse:
        raise BadInput("where to?", fix="give --out, a folder for the key ring and the record")
    if interactive:
        _ask_for_plan(plan)
    known, digest = load_plan(plan)
    disk = PosixDisk()
    scratch = tempfile.TemporaryDirectory(prefix="drupelet-rehearsal-") if rehearse else nullcontext("")
    with scratch as folder:
        temporary = Path(folder)
        people = _Rehearsing(yes=yes) if rehearse else _Terminal()
        record = Ceremony(
            plan=rehearsed(known, temporary) if rehearse else known,
            plan_digest=digest,
            disk=disk,
            out=temporary / "keys" if rehearse or out is None else out.absolute(),
            people=people,
            now=lambda: datetime.now(UTC),
            networks=networks_up,
            tools=_tools(),
            environment=os.environ,
            rehearsal=rehearse,
        ).run()
        if rehearse and out is not None:
            disk.replace(out.absolute() / "rehearsal.md", as_markdown(record).encode(), mode=0o644)
    if output is Format.JSON:
        print_json(record)
    _conclude(record, out)


def _conclude(record: Record, out: Path | None) -> None:
    if record.rehearsal:
        say(f"\nRehearsed: {len(record.steps)} steps, {len(record.keys)} keys, thrown away.")
        return
    say(f"\nDone. The key ring is {out}; print and sign {out}/ceremony/record.md.")
    say(
        f"Anybody verifies the record with: drupelet keys record {out}/ceremony/record.dsse.json --root image-root.json"
    )


def record_shown(
    record: Annotated[Path, typer.Argument(help="The ceremony's record.dsse.json.", show_default=False)],
    root: Annotated[Path, typer.Option("--root", help="The image-root.json or director-root.json it made.")],
    output: Output = Format.TABLE,
) -> None:
    """Verify a ceremony's record by the root it made, and show it. Exit code 7 if too few of its keys signed it.

    Example: drupelet keys record keys/ceremony/record.dsse.json --root keys/image-root.json
    """
    disk = PosixDisk()
    data = disk.read(root.absolute(), bytes_max=1 << 20)
    parse_root(data, where=str(root))
    trusted = Metadata[Root].from_bytes(data).signed
    role = trusted.roles["root"]
    envelope = read_envelope(disk.read(record.absolute(), bytes_max=1 << 22), where=str(record))
    keys = [trusted.keys[keyid] for keyid in role.keyids]
    found, signed = verified(envelope, keys, threshold=role.threshold, where=str(record))
    if output is Format.JSON:
        print_json(found)
    else:
        print(as_markdown(found))
    say(f"Signed by {len(signed)} of the root's {len(role.keyids)} keys.")


def networks_up() -> tuple[str, ...]:
    """Return the network interfaces that are up, but for the loopback."""
    if not INTERFACES.is_dir():
        return ()
    found = []
    for interface in sorted(INTERFACES.iterdir()):
        state = interface / "operstate"
        if interface.name != "lo" and state.is_file() and state.read_text().strip() == "up":
            found.append(interface.name)
    return tuple(found)


class _Terminal:
    """Implements `People` at a terminal."""

    def say(self, text: str) -> None:
        say(text)

    def confirm(self, question: str) -> bool:
        return typer.confirm(question, err=True)

    def passphrase(self, holder: str, *, new: bool) -> str:
        secret = getpass.getpass(f"{holder}, {'a new' if new else 'your'} passphrase: ")
        if new and getpass.getpass("The same again: ") != secret:
            raise WrongPassphrase("the two passphrases differ", fix="run the same command again")
        return secret

    def pin(self, token: str) -> str:
        return pin(token)


class _Rehearsing(_Terminal):
    """People who rehearse: they answer, and are not asked for secrets."""

    def __init__(self, *, yes: bool) -> None:
        self._yes = yes
        self._secret = secrets.token_hex(16)

    def confirm(self, question: str) -> bool:
        if self._yes:
            say(f"{question} yes (rehearsal)")
            return True
        return super().confirm(question)

    def passphrase(self, holder: str, *, new: bool) -> str:  # noqa: ARG002 (one for all that is thrown away)
        return self._secret


def _ask_for_plan(path: Path) -> None:
    """Write a plan from answers, unless one is there."""
    if path.exists():
        raise BadInput("a plan lies here", where=str(path), fix="leave --interactive away to go by it")
    if not sys.stdin.isatty():
        raise BadInput("nobody is here to answer", fix="write a plan, see docs/keys.md")
    title = typer.prompt("What is it for", default="Keys of our fleet", err=True)
    families = _words(typer.prompt("Families of models, such as kiosk", err=True))
    holders = _words(typer.prompt("Who holds root keys (names with commas between)", err=True), separator=",")
    media = {name: str(typer.prompt(f"Folder where {name}'s medium is mounted", err=True)) for name in holders}
    threshold = typer.prompt("How many of them must sign", default=len(holders) // 2 + 1, type=int, err=True)
    operator = typer.prompt("Who keeps the other keys", err=True)
    text = plan_text(title=title, families=families, holders=media, threshold=threshold, operator=operator)
    PosixDisk().replace(path.absolute(), text.encode(), mode=0o644)


def _words(text: str, *, separator: str | None = None) -> list[str]:
    return [word.strip() for word in text.split(separator) if word.strip()]


def _tools() -> dict[str, str]:
    found = {name: version(name) for name in ("cryptography", "securesystemslib", "tuf")}
    return {"drupelet": __version__, "python": platform.python_version(), **found}

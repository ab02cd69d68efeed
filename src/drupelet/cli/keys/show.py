"""`drupelet keys show`: which key signs what, and where its private half is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from drupelet.cli.output import Format, Output, show
from drupelet.durable import PosixDisk
from drupelet.trust.keys import KeyRing, KeyState
from drupelet.trust.ring import ONLINE, roles_of

Folder = Annotated[Path, typer.Argument(help="The key ring's folder.", show_default=False)]
COLUMNS = ("key", "signs", "needs", "kind", "key id", "private key")
KEYID_SHOWN = 12
KINDS = {
    "ecdsa-sha2-nistp256": "p-256",
    "ecdsa-sha2-nistp384": "p-384",
    "ecdsa-sha2-nistp521": "p-521",
    "rsassa-pss-sha256": "rsa",
}
SAYS = {KeyState.HERE: "here", KeyState.AWAY: "not here", KeyState.UNSAFE: "exposed"}


def show_keys(folder: Folder, output: Output = Format.TABLE) -> None:
    """Show which key signs what, and which private keys lie here. Needs no passphrase.

    Example: drupelet keys show keys -o json
    """
    print_ring(KeyRing(PosixDisk(), folder.absolute(), passphrase=lambda: "", environment=os.environ), output)


def print_ring(ring: KeyRing, output: Format) -> None:
    """Print a ring's keys."""
    states = {key.name: ring.state(key.name) for key in ring.info.keys}
    value: dict[str, Any] = msgspec.to_builtins(ring.info)
    rows = []
    for key, info in zip(value["keys"], ring.info.keys, strict=True):
        key["private_key"] = states[info.name].value
        roles = [f"{info.repository}/{role}" for role in info.roles]
        needs = {f"{ring.info.threshold(role)} of {len(ring.info.of(role))}" for role in roles}
        signs = ONLINE if info.roles == roles_of(*ONLINE.split("/")) else ", ".join(roles)
        kind = KINDS.get(info.scheme, info.scheme)
        place = SAYS.get(states[info.name], info.place)
        rows.append((info.name, signs or "revoked", ", ".join(needs), kind, info.keyid[:KEYID_SHOWN], place))
    show(value, output=output, columns=COLUMNS, rows=rows)

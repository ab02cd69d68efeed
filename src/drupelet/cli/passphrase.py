"""How commands that sign come by a passphrase: a private file, the environment, or the person at the terminal."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from drupelet.durable import PosixDisk
from drupelet.trust.errors import WrongPassphrase
from drupelet.trust.keys import KeyRing
from drupelet.trust.passphrase import VARIABLE, passphrase_from
from drupelet.trust.signers.port import no_pin

PIN_VARIABLE = "DRUPELET_PIN"

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help=f"File (mode 0600) with the keys' passphrase; else {VARIABLE}, else you are asked.",
        show_default=False,
    ),
]


def open_ring(folder: Path, passphrase_file: Path | None) -> KeyRing:
    """Open a key ring whose keys may be files, tokens or key services. Asks for secrets when a key is opened."""
    return KeyRing(
        PosixDisk(),
        folder.absolute(),
        passphrase=passphrase(passphrase_file),
        pin=pin,
        environment=os.environ,
    )


def pin(token: str) -> str:
    """Return a token's PIN: from the environment, or from the person at the terminal."""
    if PIN_VARIABLE in os.environ:
        return os.environ[PIN_VARIABLE]
    if sys.stdin.isatty():
        return getpass.getpass(f"PIN of the token {token}: ")
    return no_pin(token)


def passphrase(file: Path | None, *, twice: bool = False) -> Callable[[], str]:
    """Return a function that yields the passphrase when a key is opened; `twice` where a new one is chosen."""

    def ask() -> str:
        secret = getpass.getpass("Passphrase of the keys: ")
        if twice and getpass.getpass("The same again: ") != secret:
            raise WrongPassphrase("the two passphrases differ", fix="try again")
        return secret

    return passphrase_from(file=file, environment=os.environ, ask=ask if sys.stdin.isatty() else None)

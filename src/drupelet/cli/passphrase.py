"""How commands that sign come by a passphrase: a private file, the environment, or the person at the terminal."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from drupelet.trust.errors import WrongPassphrase
from drupelet.trust.passphrase import VARIABLE, passphrase_from

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help=f"File (mode 0600) with the keys' passphrase; else {VARIABLE}, else you are asked.",
        show_default=False,
    ),
]


def passphrase(file: Path | None, *, twice: bool = False) -> Callable[[], str]:
    """Return a function that yields the passphrase when a key is opened; `twice` where a new one is chosen."""

    def ask() -> str:
        secret = getpass.getpass("Passphrase of the keys: ")
        if twice and getpass.getpass("The same again: ") != secret:
            raise WrongPassphrase("the two passphrases differ", fix="try again")
        return secret

    return passphrase_from(file=file, environment=os.environ, ask=ask if sys.stdin.isatty() else None)

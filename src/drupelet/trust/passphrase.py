"""Where a passphrase comes from: the environment, a private file, or the person at the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from drupelet.trust.errors import WrongPassphrase
from drupelet.trust.signers.file import read_secret

VARIABLE = "DRUPELET_PASSPHRASE"


def passphrase_from(
    *, file: Path | None, environment: Mapping[str, str], ask: Callable[[], str] | None
) -> Callable[[], str]:
    """Return a function that yields the passphrase when it is needed: `file` before `VARIABLE` before `ask`.

    `ask` is None where nobody sits at a terminal; then a missing passphrase raises `WrongPassphrase`. The file must be
    readable by its owner only; one end of line after the passphrase does not count.
    """

    def passphrase() -> str:
        if file is not None:
            return read_secret(file).removesuffix("\n").removesuffix("\r")
        if VARIABLE in environment:
            return environment[VARIABLE]
        if ask is not None:
            return ask()
        raise WrongPassphrase("a passphrase is needed", fix=f"set {VARIABLE} or give --passphrase-file")

    return passphrase

"""The root of every error a person may see.

A room derives one family from `DrupeletError`; the command line prints `line()` and exits with `exit_code`.

    DrupeletError (1)
    |- BadInput (2)        what came from outside is malformed or out of bounds
    |- NotAllowed (3)      a token, a key or a policy forbids it
    |- NotFound (4)        no such release, device, rollout, file
    |- Conflict (5)        the thing exists, is held by another process, or is in another state
    |- Unavailable (6)     a server, a disk or a child cannot serve now; trying again later may work
    |- Untrusted (7)       a signature, a digest or a version says no; trying again will not help
    `- Refused (8)         a check judged the content and said no (an evaluation, a trial, the gate)
"""

from __future__ import annotations

from typing import ClassVar


class DrupeletError(Exception):
    """Something that stops an action, said so that a person can act: what happened, where, what to do."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.fix = fix

    def line(self) -> str:
        """Return the error as one line: `where: what; fix`."""
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.fix:
            text = f"{text}; {self.fix}"
        return " ".join(text.split())

    def __str__(self) -> str:
        return self.line()


class BadInput(DrupeletError):
    """Malformed or out of bounds."""

    exit_code = 2


class NotAllowed(DrupeletError):
    """A token, key or policy forbids it."""

    exit_code = 3


class NotFound(DrupeletError):
    """There is no such thing."""

    exit_code = 4


class Conflict(DrupeletError):
    """It exists already, is held by somebody else, or is in a state that does not allow this."""

    exit_code = 5


class Unavailable(DrupeletError):
    """Cannot be served now; later may work."""

    exit_code = 6


class Untrusted(DrupeletError):
    """A signature, digest or version says no. Trying again will not help."""

    exit_code = 7


class Refused(DrupeletError):
    """A check looked at the content and said no."""

    exit_code = 8

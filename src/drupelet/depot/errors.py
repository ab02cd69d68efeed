"""What can go wrong between a depot and a file on a disk.

Untrusted (core)
`- BlobRefused         other bytes than were signed: wrong digest, too many, too few
Unavailable (core)
`- SourceUnreachable   no answer, half an answer, or an answer by something that is not a depot
NotFound (core)
|- NoBlob              this depot does not hold it
`- NoStore             there is no such bucket, repository or folder
NotAllowed (core)
|- TokenRefused        the server wants another token
`- StoreRefused        no credentials, expired ones, or not enough rights
Conflict (core)
|- Taken               other bytes lie under this name, and names never change what they name
|- ChangedMeanwhile    somebody else wrote it since it was read
`- InUse               somebody else writes to this depot, or died while doing so
BadInput (core)
`- BadAddress          not an address a depot can have
"""

from __future__ import annotations

from drupelet.core.errors import BadInput, Conflict, NotAllowed, NotFound, Unavailable, Untrusted
from drupelet.core.states import Reason


class BlobRefused(Untrusted):
    """Other bytes than were signed."""

    def __init__(self, what: str, *, reason: Reason, where: str = "", fix: str = "") -> None:
        super().__init__(what, where=where, fix=fix)
        self.reason = reason


class SourceUnreachable(Unavailable):
    """No answer, half an answer, or an answer by something that is not a depot."""

    def __init__(
        self, what: str, *, reason: Reason = Reason.SERVER_UNREACHABLE, where: str = "", fix: str = ""
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.reason = reason


class NoBlob(NotFound):
    """This depot does not hold it."""

    reason = Reason.SERVER_UNREACHABLE


class TokenRefused(NotAllowed):
    """The server wants another token (401): an expired one is replaced, and the request repeated."""


class BadAddress(BadInput):
    """Not an address a depot can have."""


class NoStore(NotFound):
    """There is no such bucket, repository or folder."""


class StoreRefused(NotAllowed):
    """No credentials, expired ones, or not enough rights."""

    reason = Reason.SERVER_UNREACHABLE


class Taken(Conflict):
    """Other bytes lie under this name, and names never change what they name."""


class ChangedMeanwhile(Conflict):
    """Somebody else wrote it since it was read."""


class InUse(Conflict):
    """Somebody else writes to this depot, or died while doing so."""

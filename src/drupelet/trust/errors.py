"""What can go wrong between bytes and trust.

Untrusted (core)
`- NotTrusted          metadata, an order or a manifest is not what the right keys signed; `.reason` says how
Unavailable (core)
|- RepositoryMissing   the repository answers, and lacks a file every repository has
|- SignerUnavailable   a token is not plugged in, or a key service does not answer
`- StagingFailed       the temporary folder for metadata cannot be written
NotAllowed (core)
|- KeyFileUnsafe       others may read the key file
|- WrongPassphrase     the passphrase does not open the key
|- WrongPin            the token does not take the PIN
`- SignaturesMissing   fewer keys have signed than the role's threshold asks for; `.missing` says whose are missing
BadInput (core)
|- BadKeyFile          not an encrypted private key, or not the key the ring or the root names
`- WeakPassphrase      too short to protect a key file that is copied
NotFound (core)
`- NoKey               this key ring does not hold the key
Conflict (core)
|- AlreadyThere        keys, a repository or a release of that name exist
|- OtherPending        another change waits for signatures
|- RoleExpired         the root or the targets have expired: nobody would take what is signed below them
`- ClockUnlikely       the signer's clock contradicts what it signed before
"""

from __future__ import annotations

from collections.abc import Sequence

from drupelet.core.errors import BadInput, Conflict, NotAllowed, NotFound, Unavailable, Untrusted
from drupelet.core.states import Reason


class NotTrusted(Untrusted):
    """Metadata, an order or a manifest is not what the right keys signed for this device."""

    def __init__(self, what: str, *, reason: Reason, where: str = "", fix: str = "") -> None:
        super().__init__(what, where=where, fix=fix)
        self.reason = reason


class RepositoryMissing(Unavailable):
    """The repository answers, and lacks a file every repository has."""

    reason = Reason.SERVER_UNREACHABLE


class SignerUnavailable(Unavailable):
    """A token is not plugged in, a key service does not answer, or its library is not installed."""


class StagingFailed(Unavailable):
    """The temporary folder for metadata cannot be written."""

    reason = Reason.DISK_ERROR


class KeyFileUnsafe(NotAllowed):
    """Others may read the key file."""


class WrongPassphrase(NotAllowed):
    """The passphrase does not open the key."""


class WrongPin(NotAllowed):
    """The token does not take the PIN."""


class SignaturesMissing(NotAllowed):
    """Fewer keys have signed than the threshold asks for. What was signed so far is kept, and nothing is published."""

    def __init__(self, what: str, *, missing: Sequence[str], where: str = "", fix: str = "") -> None:
        super().__init__(what, where=where, fix=fix)
        self.missing = tuple(missing)


class BadKeyFile(BadInput):
    """Not an encrypted private key, or not the key the ring or the root names."""


class WeakPassphrase(BadInput):
    """Too short to protect a key file that is copied."""


class NoKey(NotFound):
    """This key ring does not hold the key."""


class AlreadyThere(Conflict):
    """Keys, a repository or a release of that name exist."""


class OtherPending(Conflict):
    """Another change of the same role waits for signatures."""


class RoleExpired(Conflict):
    """The root or the targets have expired: nobody would take what is signed below them."""


class ClockUnlikely(Conflict):
    """The signer's clock contradicts what it signed before."""

"""What the key services of clouds have in common: securesystemslib signs, ambient credentials log in, errors get words.

A key service needs its own library on the machine that signs, and on no other. Its errors come in many classes; they
are told apart by the HTTP-like code they carry, so that no library has to be there to say what another one said.
"""

from __future__ import annotations

from typing import Any

from securesystemslib.exceptions import UnsupportedAlgorithmError, UnsupportedLibraryError
from securesystemslib.signer import Signer, SSlibKey

from drupelet.core.errors import BadInput, DrupeletError, NotAllowed
from drupelet.trust.errors import NoKey, SignerUnavailable
from drupelet.trust.ring import KeyInfo
from drupelet.trust.signers.port import Around, CheckedSigner, KeyState

_DENIED = ("accessdenied", "unauthorized", "permissiondenied", "forbidden", "invalidpath", "unrecognizedclient")
_MISSING = ("notfound", "resourcenotfound")
_SAID_MAX = 300


class CloudKms:
    """Implements `SignerKind` over one of securesystemslib's signers for key services."""

    def __init__(self, signer: type[Any], *, install: str, credentials: str) -> None:
        self._signer = signer
        self._install = install
        self._credentials = credentials
        self.scheme: str = signer.SCHEME

    def state(self, key: KeyInfo, around: Around) -> KeyState:
        """Return ELSEWHERE: a service answers when it is asked to sign."""
        return KeyState.ELSEWHERE

    def public(self, place: str, around: Around) -> SSlibKey:
        """Ask the service for the public half."""
        try:
            return self.look(place.partition(":")[2])
        except DrupeletError:
            raise
        except Exception as error:
            raise self.in_our_words(error, place) from error

    def look(self, name: str) -> SSlibKey:
        """Return the public half of the key the service calls `name`; its library's errors come through."""
        found: SSlibKey = self._signer.import_(name)[1]
        return found

    def open(self, key: KeyInfo, around: Around) -> Signer:
        """Return what signs through the service."""
        try:
            inner = self._signer.from_priv_key_uri(key.place, key.key)
        except Exception as error:
            raise self.in_our_words(error, key.place) from error
        return CheckedSigner(inner, key, in_our_words=self.in_our_words)

    def in_our_words(self, error: Exception, place: str) -> DrupeletError:
        """Return what the service's error means."""
        said = " ".join(str(error).split())[:_SAID_MAX] or type(error).__name__
        if isinstance(error, UnsupportedLibraryError):
            return SignerUnavailable(
                f"keys at {self.scheme}: need a library that is not installed", where=place, fix=self._install
            )
        if isinstance(error, UnsupportedAlgorithmError | ValueError | TypeError):
            return BadInput(f"not a key that signs here: {said}", where=place, fix="check the key's address and kind")
        code = _code_of(error)
        if any(word in code for word in _DENIED):
            return NotAllowed(f"the key service refuses: {said}", where=place, fix="check who may sign with this key")
        if any(word in code for word in _MISSING):
            return NoKey(f"the key service has no such key: {said}", where=place, fix="check the key's address")
        return SignerUnavailable(f"the key service cannot be used: {said}", where=place, fix=self._credentials)


def _code_of(error: Exception) -> str:
    """Return the error's code and class, in lower-case letters only."""
    response = getattr(error, "response", None)
    code = response.get("Error", {}).get("Code", "") if isinstance(response, dict) else ""
    return "".join(c for c in f"{code}{type(error).__name__}".lower() if c.isalpha())

"""Keys on tokens: a YubiKey, a smart card, an HSM, or SoftHSM, by PKCS#11 and securesystemslib's signer.

Addresses are those of RFC 7512: `pkcs11:token=release-1;id=%02?module-path=/usr/lib/softhsm/libsofthsm2.so`. `token` is
the label, `id` the key's CKA_ID. ECDSA on P-256 or P-384. The PIN is never in the address: it is asked for, comes from
`DRUPELET_PIN`, or from the private file that `pin-source=file:/...` names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from securesystemslib.exceptions import UnsupportedLibraryError
from securesystemslib.signer import HSMSigner, Signer, SSlibKey

from drupelet.core.errors import BadInput, DrupeletError
from drupelet.trust.errors import NoKey, SignerUnavailable, WrongPin
from drupelet.trust.ring import KeyInfo
from drupelet.trust.signers.file import read_secret
from drupelet.trust.signers.port import Around, CheckedSigner, KeyState

MODULE_VARIABLE = "DRUPELET_PKCS11_MODULE"
INSTALL = "install the extra 'hsm': pip install '.[hsm]' in a clone of Drupelet"


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """A `pkcs11:` address, parsed."""

    token: str
    id: int
    module: str
    pin_file: Path | None


def parse_place(place: str, *, module: str = "") -> TokenPlace:
    """Parse an address; `module` is used where it names none. Raises `BadInput`."""
    path, _, query = place.removeprefix("pkcs11:").partition("?")
    fields = dict(part.partition("=")[::2] for part in path.split(";") if part)
    asked = dict(part.partition("=")[::2] for part in query.split("&") if part)
    if "pin-value" in asked or "pin-value" in fields:
        raise BadInput("a PIN has no place in an address", fix="set DRUPELET_PIN, or use pin-source=file:/...")
    number = unquote_to_bytes(fields.get("id", ""))
    token = unquote(fields.get("token", ""))
    if not token or not 1 <= len(number) <= 16:
        raise BadInput(
            f"{place[:80]!r} names no key of a token", fix="for example pkcs11:token=release-1;id=%02?module-path=..."
        )
    source = unquote(asked.get("pin-source", "")).removeprefix("file:")
    return TokenPlace(
        token=token,
        id=int.from_bytes(number, "big"),
        module=module or unquote(asked.get("module-path", "")),
        pin_file=Path(source) if source else None,
    )


class Tokens:
    """Implements `SignerKind` over PKCS#11."""

    scheme = "pkcs11"

    def state(self, key: KeyInfo, around: Around) -> KeyState:
        """Return ELSEWHERE: a token answers when it is asked to sign."""
        return KeyState.ELSEWHERE

    def public(self, place: str, around: Around) -> SSlibKey:
        """Return the public half; the PIN is asked for where the token hides it."""
        parsed = self._parsed(place, around)
        try:
            found = _with_module(parsed).import_(parsed.id, parsed.token, lambda _what: _pin(parsed, around))[1]
        except (ValueError, RuntimeError, OSError, UnsupportedLibraryError) as error:
            said = in_our_words(error, place)
            raise said if said is not None else SignerUnavailable(str(error), where=place) from error
        return found

    def open(self, key: KeyInfo, around: Around) -> Signer:
        """Return what signs on the token; the token is looked for when it signs."""
        parsed = self._parsed(key.place, around)
        try:
            inner = _with_module(parsed)(parsed.id, key.key, lambda _what: _pin(parsed, around), parsed.token)
        except (ValueError, UnsupportedLibraryError) as error:
            said = in_our_words(error, key.place)
            raise said if said is not None else SignerUnavailable(str(error), where=key.place) from error
        return CheckedSigner(inner, key, in_our_words=in_our_words)

    def _parsed(self, place: str, around: Around) -> TokenPlace:
        parsed = parse_place(place, module=around.environment.get(MODULE_VARIABLE, ""))
        if not parsed.module:
            raise BadInput(
                "the token's driver is not named",
                where=place,
                fix=f"set {MODULE_VARIABLE}, for example to /usr/lib/softhsm/libsofthsm2.so",
            )
        return parsed


def _with_module(place: TokenPlace) -> type[HSMSigner]:
    """Return securesystemslib's signer, looking for tokens through the driver that the address names.

    Its own way of naming one is an environment variable for the whole process.
    """

    class _OnToken(HSMSigner):
        @staticmethod
        def _find_token(token_label: str | None = None) -> Any:
            import pkcs11

            try:
                driver = pkcs11.lib(place.module)
                return driver.get_token(token_label=token_label, token_flags=pkcs11.TokenFlag.TOKEN_INITIALIZED)
            except pkcs11.exceptions.NoSuchToken as error:
                raise ValueError(f"no token is called {token_label!r}") from error
            except pkcs11.exceptions.MultipleTokensReturned as error:
                raise ValueError(f"several tokens are called {token_label!r}") from error

    return _OnToken


def _pin(place: TokenPlace, around: Around) -> str:
    if place.pin_file is not None:
        return read_secret(place.pin_file).strip()
    return around.pin(place.token)


_PIN_ERRORS = ("PinIncorrect", "PinInvalid", "PinLenRange", "PinExpired", "UserPinNotInitialized")
_Words = Callable[[str], DrupeletError]


def in_our_words(error: Exception, place: str) -> DrupeletError | None:
    """Return what a token's error means, or None if it is none of a token's."""
    kind = type(error).__name__
    if isinstance(error, UnsupportedLibraryError):
        return SignerUnavailable("reading tokens needs python-pkcs11, which is not installed", where=place, fix=INSTALL)
    if kind == "PinLocked":
        return WrongPin("the token is locked after too many wrong PINs", where=place, fix="unlock it with its SO PIN")
    if kind in _PIN_ERRORS:
        return WrongPin("the token does not take this PIN", where=place, fix="check DRUPELET_PIN or its pin-source")
    if "token" in str(error) and "called" in str(error):
        return SignerUnavailable(str(error), where=place, fix="plug it in, and check the label")
    if "could not find" in str(error) or "found multiple" in str(error) or "No keys found" in str(error):
        return NoKey("the token holds no such ECDSA key", where=place, fix="check the id in the address")
    if "not a supported EC curve" in str(error) or "unsupported scheme" in str(error):
        return BadInput("only ECDSA keys on P-256 or P-384 sign here", where=place)
    if type(error).__module__.startswith("pkcs11") or isinstance(error, RuntimeError | OSError):
        said = str(error) or kind
        return SignerUnavailable(f"the token cannot be used: {said}", where=place, fix="check its driver and the token")
    return None

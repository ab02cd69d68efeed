"""What every place for private keys offers, and the signer that believes none of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, SecretsHandler, Signature, Signer, SSlibKey

from drupelet.core.errors import BadInput, DrupeletError
from drupelet.trust.errors import BadKeyFile, WrongPin
from drupelet.trust.ring import KeyInfo


class KeyState(Enum):
    """Where a private key is, as far as can be told without opening it."""

    HERE = "here"
    AWAY = "away"
    UNSAFE = "unsafe"
    ELSEWHERE = "elsewhere"
    """On a token or in a key service: known when it is asked to sign."""


def no_pin(_token: str) -> str:
    """Refuse: nobody is there to type a PIN."""
    raise WrongPin("a PIN is needed", fix="set DRUPELET_PIN, or name a pin-source in the key's address")


@dataclass(frozen=True, slots=True)
class Around:
    """What a kind may use: the folder of key files, the environment, and whom to ask for secrets."""

    folder: Path
    passphrase: Callable[[], str]
    pin: Callable[[str], str] = no_pin
    """Takes the token's label, returns its PIN."""
    environment: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Around({str(self.folder)!r})"


class SignerKind(Protocol):
    """A kind of place. Errors are this room's; what a library raises does not come through."""

    @property
    def scheme(self) -> str:
        """What its addresses begin with."""
        ...

    def state(self, key: KeyInfo, around: Around) -> KeyState:
        """Return where the private half is, without a secret."""
        ...

    def public(self, place: str, around: Around) -> SSlibKey:
        """Return the public half of the key at `place`. Raises `NoKey`, `WrongPin`, `SignerUnavailable`, `BadInput`."""
        ...

    def open(self, key: KeyInfo, around: Around) -> Signer:
        """Return what signs with the key. It may raise only when it is asked to sign; see `public`."""
        ...


class CheckedSigner(Signer):
    """Signs with `inner`, says its errors in our words, and checks every signature with the ring's public half.

    A token or a key service answers with whatever key lies under an address today. The ring knows which it was.
    """

    def __init__(
        self, inner: Signer, key: KeyInfo, *, in_our_words: Callable[[Exception, str], DrupeletError | None]
    ) -> None:
        self._inner = inner
        self._key = key
        self._in_our_words = in_our_words

    def __repr__(self) -> str:
        return f"CheckedSigner({self._key.name} at {self._key.place})"

    @property
    def public_key(self) -> Key:
        """The ring's public half."""
        return self._key.key

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> Signer:
        """Refuse: a checked signer is made from a ring, never from an address alone."""
        raise BadInput("open keys through a key ring", where=priv_key_uri)

    def sign(self, payload: bytes) -> Signature:
        """Return the signature, checked. Raises this room's errors."""
        with_key = self._key.key
        try:
            signature = self._inner.sign(payload)
        except DrupeletError:
            raise
        except Exception as error:
            said = self._in_our_words(error, self._key.place)
            if said is None:
                raise
            raise said from error
        signature = Signature(with_key.keyid, signature.signature)
        try:
            with_key.verify_signature(signature, payload)
        except UnverifiedSignatureError as error:
            raise BadKeyFile(
                f"this is not the key that the key ring calls {self._key.name}",
                where=self._key.place,
                fix="another key lies at this address now: rotate the key, or mend its place in keyring.json",
            ) from error
        return signature

"""What trust asks of the network: one bounded answer to one address."""

from __future__ import annotations

from typing import Protocol


class Fetch(Protocol):
    """Fetches small files. The bytes are believed in nothing: verification is what this room is for."""

    def get(self, url: str, *, bytes_max: int, token: str = "") -> bytes:
        """Return the body at `url`, sending `token` as bearer token if there is one.

        Raises core's `NotFound` (HTTP 403 and 404), `NotAllowed` (401: the token), `Unavailable` (no or no usable
        answer) or the wire's `TooLarge` (more than `bytes_max` bytes, said or sent).
        """
        ...

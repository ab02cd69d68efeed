"""Identifiers, parsed once at the door and trusted afterwards.

Every name that may become part of a path, a URL or a metric label is restricted here, so that no later code needs
to escape it: lower-case letters, digits, `-`, `_`, `.`; starting with a letter or digit; never `..`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import total_ordering
from typing import NewType

from drupelet.core.errors import BadInput

NAME_LENGTH_MAX = 64
"""Characters in a device id, family, variant or label; 64 fits a DNS label and a Kubernetes label value."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*\Z")
_VERSION = re.compile(r"(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})(?:\.(0|[1-9][0-9]{0,8}))?\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")

DeviceId = NewType("DeviceId", str)
Family = NewType("Family", str)
"""A line of releases of one model, such as `kiosk`; signing keys are delegated by family."""
VariantName = NewType("VariantName", str)
"""One quantisation of a release, such as `q4_0`."""


def name(text: str, *, what: str = "name") -> str:
    """Return `text` if it is a safe name, or raise `BadInput` saying which rule it breaks."""
    if not text or len(text) > NAME_LENGTH_MAX:
        raise BadInput(f"{what} has {len(text)} characters", fix=f"use 1 to {NAME_LENGTH_MAX}")
    if not _NAME.match(text) or ".." in text:
        raise BadInput(
            f"{what} {text!r} is not a safe name",
            fix="use lower-case letters, digits, '-', '_' and single '.', starting with a letter or digit",
        )
    return text


def device_id(text: str) -> DeviceId:
    """Parse a device id."""
    return DeviceId(name(text, what="device id"))


def family(text: str) -> Family:
    """Parse a model family."""
    return Family(name(text, what="family"))


def variant_name(text: str) -> VariantName:
    """Parse a variant name."""
    return VariantName(name(text, what="variant"))


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A release's version: two or three numbers, compared as numbers (`1.10` is after `1.9`)."""

    major: int
    minor: int
    patch: int = 0

    @classmethod
    def parse(cls, text: str) -> Version:
        """Parse `1.2` or `1.2.3`; leading zeros, signs and suffixes are refused."""
        match = _VERSION.match(text) if len(text) <= NAME_LENGTH_MAX else None
        if match is None:
            raise BadInput(f"version {text[:80]!r} is not of the form 1.2 or 1.2.3")
        return cls(*(int(part) for part in match.groups(default="0")))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}" if self.patch else f"{self.major}.{self.minor}"

    def __lt__(self, other: Version) -> bool:
        return (self.major, self.minor, self.patch) < (other.major, other.minor, other.patch)


@dataclass(frozen=True, slots=True, order=True)
class ReleaseId:
    """A release: family and version, written `kiosk 1.2`, or `kiosk/1.2` where a path is wanted."""

    family: Family
    version: Version

    @classmethod
    def parse(cls, text: str) -> ReleaseId:
        """Parse `kiosk/1.2`, `kiosk 1.2` or `kiosk@1.2`."""
        parts = re.split(r"[/ @]", text.strip()) if len(text) <= 2 * NAME_LENGTH_MAX else []
        if len(parts) != 2:
            raise BadInput(f"release {text[:80]!r} is not of the form family/version", fix="for example kiosk/1.2")
        return cls(family(parts[0]), Version.parse(parts[1]))

    @property
    def path(self) -> str:
        """`kiosk/1.2`: its name in URLs and in the image repository."""
        return f"{self.family}/{self.version}"

    def __str__(self) -> str:
        return f"{self.family} {self.version}"


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """The SHA-256 of some bytes, and so their name: `sha256:` and 64 lower-case hex digits."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Parse the written form."""
        if not _DIGEST.match(text):
            raise BadInput(f"digest {text[:80]!r} is not sha256:<64 hex digits>")
        return cls(text)

    @classmethod
    def of_hex(cls, hexdigits: str) -> Digest:
        """Make one from `hashlib`'s hex digits."""
        return cls.parse(f"sha256:{hexdigits}")

    @property
    def hex(self) -> str:
        """The 64 hex digits: the file's name in a content store."""
        return self.text[7:]

    def __str__(self) -> str:
        return self.text


class Slot(Enum):
    """One of the two places on a device that hold a whole release each."""

    A = "a"
    B = "b"

    @property
    def other(self) -> Slot:
        """The slot this one is not."""
        return Slot.B if self is Slot.A else Slot.A

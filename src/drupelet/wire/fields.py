"""Field types with their bounds. All sizes are bytes, all times milliseconds, all counts >= 0."""

from __future__ import annotations

from typing import Annotated, get_args

import msgspec
from msgspec import Meta

NameText = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*$")]
VersionText = Annotated[str, Meta(max_length=32, pattern=r"^(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8})){1,2}$")]
ReleaseText = Annotated[
    str,
    Meta(
        max_length=97,
        pattern=r"^[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)*/(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8})){1,2}$",
    ),
]
DigestText = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}$")]
Sentence = Annotated[str, Meta(max_length=1000)]
Label = Annotated[str, Meta(max_length=63, pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$")]
LabelKey = Annotated[str, Meta(max_length=63, pattern=r"^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$")]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Bytes = Annotated[int, Meta(ge=0, le=2**53)]
Milliseconds = Annotated[int, Meta(ge=0, le=2**53)]
EpochMs = Annotated[int, Meta(ge=0, le=2**53)]
"""Unix time in milliseconds, as the sender's clock has it: a device's may be wrong."""
NonNegative = Annotated[float, Meta(ge=0)]
Celsius = Annotated[float, Meta(ge=-60, le=200)]
BootId = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9-]+$")]
UrlText = Annotated[str, Meta(pattern=r"^https?://[^\s]+$", max_length=2048)]
OptionalUrl = Annotated[str, Meta(pattern=r"^(https?://[^\s]+)?$", max_length=2048)]
"""An address, or nothing."""

_RULES = (
    (NameText, "use lower-case letters, digits, '-', '_' and single '.', starting with a letter or digit"),
    (UrlText, "use an address such as https://fleet.lab:8443"),
    (OptionalUrl, "use an address such as https://fleet.lab:8443"),
    (Label, "use letters, digits, '-', '_' and '.', starting and ending with a letter or digit"),
    (LabelKey, "use letters, digits, '-', '_', '.' and '/', starting and ending with a letter or digit"),
)


def in_words(error: msgspec.ValidationError) -> str:
    """Return what a setting must be as `device.id: use lower-case letters, ...`, with no pattern in it."""
    said, _, at = str(error).partition(" - at `")
    for kind, rule in _RULES:
        if f"matching regex {get_args(kind)[1].pattern!r}" in said:
            said = rule
    place = at.removeprefix("key` in `").rstrip("`").removeprefix("$").removeprefix(".")
    return f"{place}: {said}" if place else said

"""What the management API is asked: bodies, bounded and checked. Unknown fields are refused: a typo is no default."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from drupelet.fleet.credentials import Scope
from drupelet.fleet.tokens import LIFETIME_MS
from drupelet.wire.fields import Label, LabelKey, NameText, Sentence


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a request says."""


class Because(Body, frozen=True, kw_only=True):
    """A reason in words, for the audit log."""

    reason: Sentence = ""


class LabelsBody(Body, frozen=True, kw_only=True):
    """Labels to set; null removes one."""

    labels: Annotated[dict[LabelKey, Label | None], Meta(max_length=32)]


class ReleaseBody(Body, frozen=True, kw_only=True):
    """A release by name: `kiosk/1.2`."""

    release: Annotated[str, Meta(max_length=200)]


class RolloutBody(Body, frozen=True, kw_only=True):
    """A rollout to start. Empty stages: those the release recommends; empty seed: drawn by the server."""

    release: Annotated[str, Meta(max_length=200)]
    selector: Annotated[str, Meta(max_length=1000)] = ""
    stages: Annotated[tuple[Annotated[str, Meta(max_length=16)], ...], Meta(max_length=16)] = ()
    policy: dict[str, Any] = msgspec.field(default_factory=dict)
    """docs/formats/policy.md; what is left out has its default."""
    seed: Annotated[str, Meta(max_length=64)] = ""


class TokenBody(Body, frozen=True, kw_only=True):
    """A token to make."""

    name: NameText
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1, max_length=4)]
    lifetime_ms: Annotated[int, Meta(ge=1_000)] = LIFETIME_MS


class Secret(msgspec.Struct, frozen=True, kw_only=True):
    """A new token: shown this once."""

    name: str
    token: str


class Rolled(msgspec.Struct, frozen=True, kw_only=True):
    """The rollouts that go back because their release was condemned."""

    release: str
    rolled_back: tuple[int, ...]

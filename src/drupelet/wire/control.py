"""The gateway's control socket: the agent asks, the gateway, which owns every inference child, answers.

A Unix socket with mode 0600; one JSON object a line each way, one answer to one question, in order. The agent never
starts or signals a child itself.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from drupelet.core.names import Slot
from drupelet.core.states import ExitReason, Reason
from drupelet.wire.fields import (
    Bytes,
    Count,
    DigestText,
    Milliseconds,
    NameText,
    NonNegative,
    ReleaseText,
    Sentence,
)
from drupelet.wire.manifest import CanonicalPrompt
from drupelet.wire.telemetry import BlockLabel, Window

LINE_BYTES_MAX = 8 * 1024 * 1024
"""A trial with 64 canonical prompts is 0.6 MB at most; a report of 1000 windows is the largest line."""

PathText = Annotated[str, Meta(min_length=1, max_length=4096)]


class Asked(msgspec.Struct, frozen=True, kw_only=True, tag_field="verb", omit_defaults=True):
    """A question to the gateway."""


class Load(Asked, frozen=True, kw_only=True, omit_defaults=True, tag="load"):
    """Hash the file, start a child on it in this slot, wait until it answers. Loading what is loaded does nothing."""

    slot: Slot
    path: PathText
    digest: DigestText
    release: ReleaseText
    manifest: DigestText
    variant: NameText
    model: Annotated[str, Meta(max_length=128)]
    context_tokens: Annotated[int, Meta(ge=16, le=2**20)]
    memory_bytes_max: Bytes = 0
    load_ms_max: Milliseconds = 120_000


class Trial(Asked, frozen=True, kw_only=True, omit_defaults=True, tag="trial"):
    """Ask a loaded slot's child the prompts at temperature 0, beside the traffic, and report what came."""

    slot: Slot
    prompts: Annotated[tuple[CanonicalPrompt, ...], Meta(min_length=1, max_length=64)]
    answer_ms_max: Milliseconds = 60_000


class Route(Asked, frozen=True, kw_only=True, omit_defaults=True, tag="route"):
    """Send new conversations to this slot; those under way end where they began. `block` labels the measurements."""

    slot: Slot
    block: BlockLabel | None = None
    discard_ms: Milliseconds = 0
    """Requests that arrive this soon after the change are answered and measured, but not as part of the block."""


class Drain(Asked, frozen=True, kw_only=True, omit_defaults=True, tag="drain"):
    """Wait until no request is running on the slot, at most `timeout_ms`."""

    slot: Slot
    timeout_ms: Milliseconds = 30_000


class Unload(Asked, frozen=True, kw_only=True, omit_defaults=True, tag="unload"):
    """Stop the slot's child. Refused while new conversations are routed to it."""

    slot: Slot


class AskStatus(Asked, frozen=True, kw_only=True, omit_defaults=True, tag="status"):
    """Report the children and the queue."""


class TakeWindows(Asked, frozen=True, kw_only=True, omit_defaults=True, tag="windows"):
    """Return finished windows after `after` (the gateway's own sequence), oldest first, and forget up to it."""

    after: Count
    limit: Annotated[int, Meta(ge=1, le=1000)] = 200
    cut: bool = False
    """End the window that is being filled now, so that it is among the answer."""


Question: TypeAlias = Load | Trial | Route | Drain | Unload | AskStatus | TakeWindows


class Answered(msgspec.Struct, frozen=True, kw_only=True, tag_field="answer", omit_defaults=True):
    """An answer of the gateway."""


class Done(Answered, frozen=True, kw_only=True, omit_defaults=True, tag="done"):
    """It is so."""


class Loaded(Answered, frozen=True, kw_only=True, omit_defaults=True, tag="loaded"):
    """The child answers. Sizes in bytes."""

    load_ms: Milliseconds
    memory_bytes: Bytes


class PromptResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One canonical prompt's answer. It is compared on the device; a failure's detail quotes its beginning."""

    id: NameText
    text: Annotated[str, Meta(max_length=32_000)]
    tokens: Count
    ttft_ms: NonNegative
    answer_ms: NonNegative
    tokens_per_second: NonNegative
    error: Sentence = ""


class TrialReport(Answered, frozen=True, kw_only=True, omit_defaults=True, tag="trial"):
    """All answers of a trial, in the order of the prompts."""

    results: Annotated[tuple[PromptResult, ...], Meta(max_length=64)]
    memory_bytes: Bytes


class ChildStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One slot's child."""

    slot: Slot
    state: Literal["loading", "ready", "draining", "dead"]
    release: ReleaseText
    digest: DigestText
    running: Count
    memory_bytes: Bytes
    exits: dict[ExitReason, Count] = {}
    """Exits since the gateway started, by reason."""


class GatewayStatus(Answered, frozen=True, kw_only=True, omit_defaults=True, tag="status"):
    """The children and the queue. `ready` means a request would be answered."""

    ready: bool
    serving: Slot | None
    children: Annotated[tuple[ChildStatus, ...], Meta(max_length=2)]
    running: Count
    waiting: Count
    requests: Count
    errors: Count
    boot: Annotated[str, Meta(max_length=64)]
    """Changes when the gateway restarts; its window sequence then starts again at 1."""


class Windows(Answered, frozen=True, kw_only=True, omit_defaults=True, tag="windows"):
    """Finished windows with the gateway's own sequence numbers in `seq`."""

    boot: Annotated[str, Meta(max_length=64)]
    windows: Annotated[tuple[Window, ...], Meta(max_length=1000)]


class CannotDo(Answered, frozen=True, kw_only=True, omit_defaults=True, tag="cannot"):
    """Why not."""

    reason: Reason
    detail: Sentence


Answer: TypeAlias = Done | Loaded | TrialReport | GatewayStatus | Windows | CannotDo


class Serve(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`serve.json`: what the gateway loads when it starts, before any agent speaks. Written by the agent, durably.

    `loads` is in order of preference: the committed slot first, then the other one if it holds a verified release.
    """

    format: Literal["drupelet.serve/1"] = "drupelet.serve/1"
    loads: Annotated[tuple[Load, ...], Meta(max_length=2)]


SERVE_BYTES_MAX = 64 * 1024

"""The OpenAI shapes: what a request may say, what the child is told of it, and what an error looks like. Pure.

The fields of `ChatRequest` are the allow-list: what is not named here never reaches the child, whose own API can do far
more than answer (grammars, LoRA changes, raw token ids). Unknown fields are ignored, as OpenAI's server does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from drupelet.gateway.errors import BadRequest
from drupelet.gateway.router import Conversation, conversation
from drupelet.wire.codec import Malformed, decode_as

MESSAGES_MAX = 1_000
DEPTH_MAX = 32
"""Levels of nesting in a body; the deepest honest one (a JSON schema of a tool) has about ten."""
RETRY_AFTER_S = 2
"""What a turned-away client is asked to wait: about one short answer."""

Number = float | int
Tokens = Annotated[int, Meta(ge=1, le=2**31 - 1)]


class Turn(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message."""

    role: Annotated[str, Meta(min_length=1, max_length=32)]
    content: str | list[dict[str, Any]] | None = None
    name: str | UnsetType = UNSET
    tool_calls: list[dict[str, Any]] | UnsetType = UNSET
    tool_call_id: str | UnsetType = UNSET


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A chat completion as clients ask for it."""

    messages: Annotated[list[Turn], Meta(min_length=1, max_length=MESSAGES_MAX)]
    model: str | None = None
    stream: bool | None = None
    user: str | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    n: int | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**20)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Meta(ge=0, le=10)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    seed: Annotated[int, Meta(ge=-(2**31), le=2**32 - 1)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=16)] | None = None
    logit_bias: dict[str, Number] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None


_GATEWAY_ONLY = {"model", "user", "n"}
"""The child serves one model, one answer a request, and need not know the user."""
_SHAPE = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
"""A whole string, or one bracket outside strings."""
_PASSED_ON = tuple(name for name in ChatRequest.__struct_fields__ if name not in _GATEWAY_ONLY)


def parse(body: bytes) -> ChatRequest:
    """Return the request, or raise `BadRequest` with what is wrong. Size is the caller's to bound."""
    _refuse_deep(body)
    try:
        request = decode_as(ChatRequest, body)
    except Malformed as error:
        what = error.what.replace("a valid ChatRequest", "a valid chat request")
        raise BadRequest(what, code="invalid_json" if what.startswith("not JSON") else "invalid_request") from error
    if request.n not in (None, 1):
        raise BadRequest(f"n is {request.n}; this server gives one answer a request", param="n")
    return request


def child_body(request: ChatRequest) -> bytes:
    """Return what the child is asked: the fields of the allow-list that the client set."""
    asked = {name: value for name in _PASSED_ON if (value := getattr(request, name)) is not None}
    try:
        return msgspec.json.encode(asked)
    except RecursionError as error:
        raise BadRequest("nested too deeply") from error


def conversation_of(request: ChatRequest, *, header: str, secret: bytes) -> Conversation:
    """Return whose conversation this is; see `router`."""
    opening: list[bytes] = []
    answered = False
    asked = False
    for turn in request.messages:
        if turn.role == "assistant":
            answered = True
        elif turn.role == "user":
            if not asked:
                opening.append(_text(turn))
            asked = True
        elif not asked:
            opening.append(_text(turn))
    return conversation(secret=secret, header=header, user=request.user or "", opening=opening, answered=answered)


def prompt_tokens_guess(request: ChatRequest) -> int:
    """Return about how many tokens the prompt has, for a request that no child has counted: four bytes each."""
    return sum(len(_text(turn)) for turn in request.messages) // 4


def error_body(message: str, *, kind: str, code: str, param: str = "") -> bytes:
    """Return OpenAI's error object."""
    return msgspec.json.encode(
        {"error": {"message": message, "type": kind, "param": param or None, "code": code or None}}
    )


def error_event(message: str, *, code: str) -> bytes:
    """Return an error as the last server-sent event of a stream that cannot go on; no `[DONE]` follows it."""
    return b"data: " + error_body(message, kind="server_error", code=code) + b"\n\n"


def models_body(names: Mapping[str, int]) -> bytes:
    """Return the answer of `/v1/models`: name -> Unix time in seconds since when it is served."""
    models = [{"id": name, "object": "model", "created": at, "owned_by": "drupelet"} for name, at in names.items()]
    return msgspec.json.encode({"object": "list", "data": models})


def child_refusal(status: int, data: bytes) -> BadRequest | None:
    """Return the client's error in a child's answer of `status` 4xx, None if the fault is not the client's."""
    if not 400 <= status < 500:
        return None
    try:
        said = msgspec.json.decode(data)["error"]
        message, kind = str(said["message"])[:1000], str(said.get("type", ""))
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError):
        message, kind = "the model server refused the request", ""
    if kind == "exceed_context_size_error":
        return BadRequest(message, code="context_length_exceeded", param="messages")
    return BadRequest(message)


def _text(turn: Turn) -> bytes:
    if isinstance(turn.content, str):
        return turn.content.encode("utf-8", "surrogatepass")
    return msgspec.json.encode(turn.content)


def _refuse_deep(body: bytes) -> None:
    """Refuse deep nesting without recursion, so that neither this process nor the child ever meets it."""
    if body.count(b"[") + body.count(b"{") <= DEPTH_MAX:
        return
    depth = 0
    for found in _SHAPE.finditer(body):
        token = found[0]
        if token in b"[{":
            depth += 1
            if depth > DEPTH_MAX:
                raise BadRequest(f"nested deeper than {DEPTH_MAX} levels")
        elif token in b"]}":
            depth -= 1

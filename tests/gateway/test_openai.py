"""Requests, the allow-list, errors: the pure half of the HTTP side. What a whole request does is in test_http."""

from __future__ import annotations

import json
from typing import Any

import pytest

from drupelet.gateway import openai
from drupelet.gateway.errors import BadRequest


def body(*turns: tuple[str, Any], **fields: Any) -> bytes:
    return json.dumps({"messages": [{"role": role, "content": text} for role, text in turns], **fields}).encode()


def key(data: bytes, header: str = "") -> tuple[bytes, bool]:
    found = openai.conversation_of(openai.parse(data), header=header, secret=b"s")
    return found.key, found.begins


def test_the_child_is_asked_what_was_allowed_and_set() -> None:
    parsed = openai.parse(body(("user", "hi"), max_tokens=5, seed=0, stream=True, model="m", user="u", best_of=3))
    assert json.loads(openai.child_body(parsed)) == {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 5,
        "seed": 0,
        "stream": True,
    }


def test_deep_but_honest_requests_pass_and_brackets_in_text_do_not_count() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(8):
        schema = {"type": "object", "properties": {"x": schema}}
    openai.parse(body(("user", '[[{{"' * 500 + "\\"), response_format=schema))
    with pytest.raises(BadRequest, match="nested deeper"):
        openai.parse(body(("user", "x"), tools=[json.loads("[" * 40 + "]" * 40)]))


def test_surrogates_and_parts_pass_without_a_fault() -> None:
    parts = body(("user", [{"type": "text", "text": "a"}]), ("user", "\U0001f600"))
    assert b"ud83d" in parts
    assert openai.child_body(openai.parse(parts))
    with pytest.raises(BadRequest):
        openai.parse(b'{"messages":[{"role":"user","content":"\\ud800"}]}')


def test_a_history_is_one_conversation_and_a_first_question_begins_one() -> None:
    first = key(body(("system", "s"), ("user", "q")))
    later = key(body(("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "more")))
    assert first == (later[0], True)
    assert later[1] is False
    assert key(body(("system", "other"), ("user", "q")))[0] != first[0]
    assert key(body(("user", "q"), ("system", "late")))[0] == key(body(("user", "q")))[0]
    assert key(body(("user", "q")), header="c") == key(body(("user", "z")), header="c")


@pytest.mark.parametrize(
    ("status", "data", "code"),
    [
        (400, b'{"error":{"message":"m","type":"exceed_context_size_error"}}', "context_length_exceeded"),
        (400, b'{"error":{"message":"m","type":"invalid_request_error"}}', "invalid_request"),
        (404, b"<html>", "invalid_request"),
        (400, b'{"error":"text"}', "invalid_request"),
        (500, b'{"error":{"message":"m"}}', None),
    ],
)
def test_whose_fault_a_refusal_of_the_child_is(status: int, data: bytes, code: str | None) -> None:
    found = openai.child_refusal(status, data)
    assert (found.code if found else None) == code

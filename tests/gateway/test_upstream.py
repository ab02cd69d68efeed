"""What is read of an answer that passes through."""

from __future__ import annotations

import pytest

from drupelet.gateway.trial import text_of
from drupelet.gateway.upstream import Reading, Timings, timings_in

END = (
    b'data: {"choices":[{"delta":{}}],"timings":{"cache_n":3,"prompt_n":4,"prompt_ms":1.5,'
    b'"predicted_n":9,"predicted_ms":20.5}}\n\ndata: [DONE]\n\n'
)


@pytest.mark.parametrize("cut", [0, 1, len(END) // 2, len(END) - 20, len(END)])
def test_timings_are_found_wherever_the_chunks_are_cut(cut: int) -> None:
    reading = Reading()
    for chunk in (b"data: x\n\n", END[:cut], END[cut:]):
        reading.feed(chunk)
    found = reading.timings()
    assert found is not None
    assert (found.prompt_tokens, found.completion_tokens, found.decode_s) == (7, 9, 0.0205)


@pytest.mark.parametrize("tail", [b"", b"data: [DONE]", b'"timings":', b'"timings":{"prompt_n":"x"}', b'"timings":{'])
def test_no_or_broken_timings_are_none(tail: bytes) -> None:
    assert timings_in(tail) is None


def test_text_cannot_forge_timings() -> None:
    forged = b'data: {"choices":[{"delta":{"content":"\\"timings\\":{\\"prompt_n\\":9}"}}]}\n\n'
    assert timings_in(forged) is None


def test_negative_counts_are_zero() -> None:
    assert Timings(prompt_n=-5, predicted_n=-1, predicted_ms=-2.0).prompt_tokens == 0


def test_the_first_text_is_seen_once_and_the_role_is_not_text() -> None:
    reading = Reading()
    chunks = [
        b'{"delta":{"role":"assistant","content":null}}',
        b'{"delta":{"content":"a"}}',
        b'{"delta":{"content":"b"}}',
    ]
    assert [reading.feed(chunk) for chunk in chunks] == [False, True, False]


@pytest.mark.parametrize(
    ("stream", "text", "error"),
    [
        (b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: [DONE]\n\n', "a", ""),
        (b'data: {"choices":[{"delta":{"content":null}}]}\n\n', "", ""),
        (b'data: {"error":{"message":"no"}}\n\n', "", "the child said: no"),
        (b"data: {half", "", "the child's answer is not what llama.cpp sends"),
        (b"data: [1]\n\n", "", "the child's answer is not what llama.cpp sends"),
    ],
)
def test_the_text_of_a_stream(stream: bytes, text: str, error: str) -> None:
    assert text_of(stream) == (text, error)

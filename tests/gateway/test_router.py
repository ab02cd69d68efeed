"""Where conversations live."""

from __future__ import annotations

import pytest

from drupelet.core.names import Slot
from drupelet.gateway.router import Conversation, Router, conversation

BOTH = frozenset(Slot)


def of(
    *, header: str = "", user: str = "", opening: tuple[bytes, ...] = (b"hi",), answered: bool = True
) -> Conversation:
    return conversation(secret=b"s", header=header, user=user, opening=opening, answered=answered)


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (of(), of(), True),
        (of(), of(opening=(b"yo",)), False),
        (of(user="u"), of(), False),
        (of(opening=(b"ab", b"c")), of(opening=(b"a", b"bc")), False),
        (of(header="c"), of(header="c", opening=(b"other",)), True),
        (of(header="c"), of(user="c"), False),
        (of(header="\udcff"), of(header="\udcfe"), False),
    ],
)
def test_what_is_one_conversation(one: Conversation, two: Conversation, same: bool) -> None:
    assert (one.key == two.key) is same


def test_keys_depend_on_the_secret_and_hold_no_text() -> None:
    other = conversation(secret=b"t", header="", user="", opening=(b"hi",), answered=True)
    assert other.key != of().key
    assert len(of(opening=(b"x" * 5000,)).key) == 16


def test_a_question_asked_again_follows_the_route_and_a_conversation_does_not() -> None:
    router = Router()
    router.bind(of(answered=False), Slot.A, now_ms=0)
    assert router.choose(of(answered=False), routed=Slot.B, usable=BOTH, now_ms=1) is Slot.B
    assert router.choose(of(answered=True), routed=Slot.B, usable=BOTH, now_ms=1) is Slot.A
    router.bind(of(header="c"), Slot.A, now_ms=0)
    assert router.choose(of(header="c", answered=False), routed=Slot.B, usable=BOTH, now_ms=1) is Slot.A


def test_a_conversation_moves_when_its_home_is_gone_closed_or_long_silent() -> None:
    router = Router(idle_ms_max=100)
    router.bind(of(), Slot.A, now_ms=0)
    assert router.choose(of(), routed=Slot.B, usable=frozenset({Slot.B}), now_ms=1) is Slot.B
    assert router.choose(of(), routed=Slot.B, usable=BOTH, now_ms=101) is Slot.B
    router.close(Slot.A)
    assert router.choose(of(), routed=Slot.B, usable=BOTH, now_ms=1) is Slot.B
    assert router.choose(of(), routed=Slot.A, usable=BOTH, now_ms=1) is Slot.A
    router.reopen(Slot.A)
    assert router.choose(of(), routed=Slot.B, usable=BOTH, now_ms=1) is Slot.A


def test_without_the_routed_slot_another_usable_one_answers_or_nobody() -> None:
    router = Router()
    assert router.choose(of(), routed=Slot.B, usable=frozenset({Slot.A}), now_ms=0) is Slot.A
    assert router.choose(of(), routed=Slot.B, usable=frozenset(), now_ms=0) is None


def test_the_table_is_bounded_and_forgets_the_least_recent() -> None:
    router = Router(conversations_max=2)
    for number, name in enumerate(("a", "b", "a", "c")):
        router.bind(of(header=name), Slot.A, now_ms=number)
    assert len(router) == 2
    assert router.choose(of(header="b"), routed=Slot.B, usable=BOTH, now_ms=9) is Slot.B
    assert router.choose(of(header="a"), routed=Slot.B, usable=BOTH, now_ms=9) is Slot.A

"""Who is served, who waits, who is turned away."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from drupelet.core.names import Slot
from drupelet.gateway.admission import Admission, Ticket
from drupelet.gateway.router import Conversation


def ticket(name: bytes = b"a") -> Ticket:
    return Ticket(Conversation(name, begins=False))


def by_name(asked: Conversation) -> Slot:
    return Slot.A if asked.key == b"a" else Slot.B


def test_places_then_the_line_then_no_more() -> None:
    admission = Admission(queue_max=1, parallel=1)
    first, second, third = (ticket() for _ in range(3))
    admission.join(first)
    assert admission.pump(by_name) == [first]
    admission.join(second)
    assert admission.pump(by_name) == []
    assert not admission.overfull()
    admission.join(third)
    assert admission.overfull()
    admission.leave(third)
    admission.leave(first)
    assert admission.pump(by_name) == [second]
    assert (admission.running(), admission.waiting) == (1, 0)


def test_a_queue_of_none_still_serves_who_need_not_wait() -> None:
    admission = Admission(queue_max=0, parallel=1)
    admission.join(ticket())
    assert admission.pump(by_name)
    assert not admission.overfull()


def test_a_busy_slot_does_not_hold_up_the_other_and_a_retry_goes_first() -> None:
    admission = Admission(parallel=1)
    tickets = [ticket(b"a"), ticket(b"a"), ticket(b"b")]
    for one in tickets:
        admission.join(one)
    assert admission.pump(by_name) == [tickets[0], tickets[2]]
    retry = ticket(b"a")
    admission.join(retry, in_front=True)
    admission.leave(tickets[0])
    assert admission.pump(by_name) == [retry]


def test_nobody_is_served_where_nothing_serves() -> None:
    admission = Admission()
    admission.join(ticket())
    assert admission.pump(lambda _asked: None) == []
    assert admission.waiting == 1


@given(st.lists(st.tuples(st.sampled_from(["join", "leave", "again"]), st.integers(0, 20)), max_size=80))
def test_places_are_never_oversold_nor_lost(steps: list[tuple[str, int]]) -> None:
    admission = Admission(queue_max=5, parallel=2)
    held: list[Ticket] = []
    for what, number in steps:
        if what == "join":
            held.append(ticket(b"a" if number % 2 else b"b"))
            admission.join(held[-1])
        elif held:
            gone = held[number % len(held)]
            admission.leave(gone)
            if what == "leave":
                held.remove(gone)
                admission.leave(gone)
            else:
                admission.join(gone, in_front=True)
        admission.pump(by_name)
        for slot in Slot:
            assert admission.running(slot) == sum(one.slot is slot for one in held) <= 2
        assert admission.waiting == sum(one.slot is None for one in held)

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drupelet.core.names import Slot
from drupelet.core.states import ExitReason
from drupelet.telemetry.windows import RequestHandle, Serving, WindowRecorder
from drupelet.wire.codec import decode, encode
from drupelet.wire.telemetry import BlockLabel, Window, WindowBatch

OLD = Serving(Slot.A, "kiosk/1.1", "sha256:" + "0" * 64, "q8_0")
NEW = Serving(Slot.B, "kiosk/1.2", "sha256:" + "1" * 64, "q4_0")
EPOCH_MS = 1_790_000_000_000


def block(pair: int, arm: str) -> BlockLabel:
    return BlockLabel(serial=7, pair=pair, arm=arm, first="new")  # type: ignore[arg-type]


def told(recorder: WindowRecorder) -> tuple[Window, ...]:
    """The finished windows that say more than "idle"."""
    return tuple(w for w in recorder.take(0, 100) if w.block or w.requests or w.exits)


@pytest.fixture
def recorder() -> WindowRecorder:
    made = WindowRecorder(boot="b-1", now=100.0, epoch_ms=EPOCH_MS, window_s_max=60.0, request_s_max=30.0)
    made.route(OLD, now=100.0)
    return made


def answer(handle: RequestHandle, at: float, *, ok: bool = True, prompt: int = 10) -> None:
    handle.first_token(handle.arrived_s + 0.1)
    handle.ended(at, ok=ok, prompt_tokens=prompt, completion_tokens=11)


def counts(windows: tuple[Window, ...]) -> list[tuple[str, str, int, int]]:
    """(release, block's arm, answered, failed) of each window."""
    return [
        (
            window.release,
            window.block.arm if window.block else "",
            sum(stats.ok for stats in window.requests),
            sum(stats.errors for stats in window.requests),
        )
        for window in windows
    ]


def test_a_plain_window_tells_what_was_served(recorder: WindowRecorder) -> None:
    answer(recorder.arrived(101.0), 102.1)
    recorder.arrived(103.0).ended(104.0, ok=False, prompt_tokens=300)
    recorder.memory(OLD, 4096, now=104.0)
    recorder.memory(OLD, 1024, now=104.5)
    recorder.exited(OLD, ExitReason.HUNG, now=105.0)
    recorder.cut(110.0)
    (window,) = recorder.take(0, 10)
    assert (window.seq, window.started_at_ms, window.elapsed_ms) == (1, EPOCH_MS, 10_000)
    assert (window.slot, window.manifest, window.variant) == (OLD.slot, OLD.manifest, OLD.variant)
    assert (window.memory_bytes, window.exits) == (4096, {ExitReason.HUNG: 1})
    small, large = window.requests
    assert (small.bucket, small.ok, small.errors, small.prompt_tokens, small.completion_tokens) == (
        "0-63",
        1,
        0,
        10,
        11,
    )
    assert (small.duration.sum, small.ttft.sum, small.per_token.sum) == pytest.approx((1.1, 0.1, 0.1))
    assert small.decode_seconds == pytest.approx(1.0)
    assert (large.bucket, large.ok, large.errors, large.duration.count) == ("256-1023", 0, 1, 0)
    batch = WindowBatch(windows=(window,))
    assert decode(WindowBatch, encode(batch)) == batch


def test_a_request_counts_for_the_block_in_which_it_arrived_however_late_it_ends(recorder: WindowRecorder) -> None:
    recorder.route(NEW, now=110.0, block=block(0, "new"))
    slow, quick = recorder.arrived(111.0), recorder.arrived(112.0)
    answer(quick, 113.0)
    recorder.route(OLD, now=120.0, block=block(0, "old"))
    answer(recorder.arrived(121.0), 122.0)
    recorder.cut(123.0)
    assert counts(told(recorder)) == []
    answer(slow, 135.0)
    (new,) = told(recorder)
    assert counts((new,)) == [("kiosk/1.2", "new", 2, 0)]
    assert (new.started_at_ms, new.elapsed_ms) == (EPOCH_MS + 10_000, 10_000)


def test_warm_up_is_measured_but_is_no_evidence(recorder: WindowRecorder) -> None:
    recorder.route(NEW, now=110.0, block=block(0, "new"), discard_ms=5_000)
    answer(recorder.arrived(114.9), 115.5)
    answer(recorder.arrived(115.0), 116.0)
    recorder.route(OLD, now=120.0)
    recorder.cut(121.0)
    assert sorted(counts(told(recorder))) == [("kiosk/1.2", "", 1, 0), ("kiosk/1.2", "new", 1, 0)]


def test_a_conversation_that_stays_on_the_other_slot_is_no_evidence(recorder: WindowRecorder) -> None:
    recorder.route(NEW, now=110.0, block=block(0, "new"))
    sticky, moved = recorder.arrived(111.0, serving=OLD), recorder.arrived(111.0)
    assert (sticky.block, moved.block) == (None, block(0, "new"))
    moved.dispatched(OLD)
    recorder.route(OLD, now=120.0)
    # Neither holds the block up.
    assert counts(told(recorder)) == [("kiosk/1.2", "new", 0, 0)]
    answer(sticky, 121.0)
    answer(moved, 121.0)
    recorder.cut(122.0)
    assert counts(told(recorder)) == [("kiosk/1.2", "new", 0, 0), ("kiosk/1.1", "", 2, 0)]


def test_a_request_that_never_ends_counts_as_failed_after_the_timeout(recorder: WindowRecorder) -> None:
    recorder.route(NEW, now=110.0, block=block(0, "new"))
    lost = recorder.arrived(119.0)
    recorder.route(OLD, now=120.0)
    recorder.tick(149.9)
    assert told(recorder) == ()
    recorder.tick(150.0)
    assert counts(told(recorder)) == [("kiosk/1.2", "new", 0, 1)]
    answer(lost, 151.0)
    recorder.cut(152.0)
    assert counts(told(recorder)) == [("kiosk/1.2", "new", 0, 1)]


def test_a_client_that_hangs_up_is_neither_answered_nor_failed(recorder: WindowRecorder) -> None:
    gone = recorder.arrived(101.0)
    gone.abandoned(103.0)
    gone.ended(104.0, ok=False)
    recorder.cut(105.0)
    (stats,) = told(recorder)[0].requests
    assert (stats.ok, stats.errors, stats.abandoned, stats.duration.count) == (0, 0, 1, 0)


def test_a_refused_request_counts_against_what_is_routed(recorder: WindowRecorder) -> None:
    recorder.route(NEW, now=110.0, block=block(0, "new"))
    recorder.arrived(111.0).ended(111.0, ok=False)
    recorder.exited(NEW, ExitReason.SIGNALLED, now=112.0)
    recorder.stop(now=113.0)
    (window,) = told(recorder)
    assert (counts((window,)), window.exits) == ([("kiosk/1.2", "new", 0, 1)], {ExitReason.SIGNALLED: 1})


def test_the_same_route_twice_does_not_break_the_block(recorder: WindowRecorder) -> None:
    recorder.route(NEW, now=110.0, block=block(0, "new"), discard_ms=1_000)
    answer(recorder.arrived(112.0), 113.0)
    recorder.route(NEW, now=114.0, block=block(0, "new"), discard_ms=1_000)
    answer(recorder.arrived(114.5), 115.0)
    recorder.route(OLD, now=120.0)
    assert counts(told(recorder)) == [("kiosk/1.2", "new", 2, 0)]


def test_an_empty_block_is_told_and_its_length_is_never_negative(recorder: WindowRecorder) -> None:
    recorder.route(NEW, now=110.0, block=block(0, "new"), discard_ms=60_000)
    recorder.route(OLD, now=111.0)
    (window,) = told(recorder)
    assert (window.block, window.elapsed_ms, window.requests) == (block(0, "new"), 0, ())


def test_a_cut_leaves_the_block_whole(recorder: WindowRecorder) -> None:
    recorder.cut(109.0)
    recorder.route(NEW, now=110.0, block=block(0, "new"))
    for second in range(111, 116):
        answer(recorder.arrived(second), second + 0.5)
        recorder.cut(second + 0.6)
    recorder.route(OLD, now=120.0)
    blocks = [window for window in told(recorder) if window.block]
    assert counts(tuple(blocks)) == [("kiosk/1.2", "new", 5, 0)]


def test_windows_are_forgotten_only_once_they_are_taken(recorder: WindowRecorder) -> None:
    for second in (110.0, 120.0, 130.0):
        recorder.cut(second)
    assert [window.seq for window in recorder.take(0, 2)] == [1, 2]
    assert [window.seq for window in recorder.take(1, 10)] == [2, 3]
    assert [window.seq for window in recorder.take(2, 10, bytes_max=1)] == [3]
    assert recorder.take(3, 10) == ()


def test_an_agent_that_never_asks_costs_a_bounded_memory() -> None:
    recorder = WindowRecorder(boot="b-1", now=0.0, epoch_ms=0, windows_held_max=3)
    recorder.route(OLD, now=0.0)
    for second in range(1, 6):
        recorder.cut(float(second))
    assert ([window.seq for window in recorder.take(0, 10)], recorder.dropped) == ([3, 4, 5], 2)


def test_plain_windows_end_by_themselves_and_idle_slots_say_nothing(recorder: WindowRecorder) -> None:
    recorder.route(NEW, now=105.0)
    answer(recorder.arrived(106.0), 107.0)
    recorder.tick(159.9)
    assert told(recorder) == ()
    recorder.tick(166.0)
    assert counts(told(recorder)) == [("kiosk/1.2", "", 1, 0)]


def test_the_wall_clock_may_be_learned_late(recorder: WindowRecorder) -> None:
    recorder.anchor(now=105.0, epoch_ms=EPOCH_MS + 3_600_000)
    recorder.cut(106.0)
    (window,) = recorder.take(0, 1)
    assert (window.ended_at_ms - EPOCH_MS, window.elapsed_ms) == (3_601_000, 6_000)


def test_a_request_while_nothing_is_routed_is_nobodys() -> None:
    recorder = WindowRecorder(boot="b-1", now=0.0, epoch_ms=0)
    recorder.arrived(1.0).ended(1.0, ok=False)
    recorder.cut(2.0)
    assert recorder.take(0, 10) == ()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("route"), st.sampled_from([OLD, NEW]), st.booleans(), st.integers(0, 3_000)),
        st.tuples(st.just("arrive"), st.sampled_from([None, OLD, NEW])),
        st.tuples(st.just("move"), st.integers(0, 30), st.sampled_from([OLD, NEW])),
        st.tuples(st.just("end"), st.integers(0, 30), st.sampled_from(["ok", "error", "gone"])),
        st.tuples(st.just("cut")),
        st.tuples(st.just("tick")),
    ),
    max_size=60,
)


@given(steps)
def test_every_request_is_counted_exactly_once_and_no_block_twice(actions: list[tuple[Any, ...]]) -> None:
    recorder = WindowRecorder(boot="b-1", now=0.0, epoch_ms=0, window_s_max=5.0, request_s_max=8.0)
    recorder.route(OLD, now=0.0)
    handles: list[RequestHandle] = []
    pair, now = 0, 0.0
    for action in actions:
        now += 0.7
        match action:
            case ("route", serving, drawn, discard_ms):
                pair += 1
                label = block(pair, "new") if drawn else None
                recorder.route(serving, now=now, block=label, discard_ms=discard_ms)
            case ("arrive", serving):
                handles.append(recorder.arrived(now, serving=serving))
            case ("move", at, serving) if at < len(handles):
                handles[at].dispatched(serving)
            case ("end", at, "gone") if at < len(handles):
                handles[at].abandoned(now)
            case ("end", at, how) if at < len(handles):
                handles[at].ended(now, ok=how == "ok")
            case ("cut",):
                recorder.cut(now)
            case ("tick",):
                recorder.tick(now)
    for handle in handles:
        handle.ended(now, ok=False)
    recorder.stop(now=now)
    recorder.cut(now + 1)
    windows = recorder.take(0, 10_000)
    assert sum(s.ok + s.errors + s.abandoned for w in windows for s in w.requests) == len(handles)
    assert [w.seq for w in windows] == list(range(1, len(windows) + 1))
    pairs = [w.block.pair for w in windows if w.block]
    assert len(pairs) == len(set(pairs))
    assert recorder.dropped == 0

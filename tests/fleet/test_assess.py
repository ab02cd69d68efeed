"""Pairs out of windows: closed once, never mixed, never from a device that contradicts itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from drupelet.fleet.assess import Arrived, ClosedPair, close, decode_pair, encode_pair, stats
from drupelet.gate import Arm
from drupelet.wire.telemetry import BlockLabel, Window
from tests.fakes.fleet_device import NOW_MS, FakeDevice


def window(arm: str, *, pair: int = 0, serial: int = 3, first: str = "new", release: str = "") -> Window:
    device = FakeDevice("lab-1", clock=lambda: NOW_MS)
    block = BlockLabel(serial=serial, pair=pair, arm=arm, first=first)  # type: ignore[arg-type]
    return device.window(release=release or ("kiosk/1.2" if arm == "new" else "kiosk/1.1"), block=block)


def closed(*windows: Window, **changes: Any) -> tuple[ClosedPair, ...]:
    given: dict[str, Any] = {
        "release": "kiosk/1.2", "next_index": {}, "closed": frozenset(), "hardware": {"lab-1": "pi5"},
        "not_before_s": 0.0, "now_s": 100.0,
    } | changes  # fmt: skip
    return close([Arrived("lab-1", w) for w in windows], **given)


def test_two_blocks_make_a_pair() -> None:
    (found,) = closed(window("old"), window("new"))
    assert (found.pair.first, found.pair.index, found.pair.hardware) == (Arm.NEW, 0, "pi5")
    assert (found.pair.new.requests, found.pair.old.requests, found.pair.complete_at_s) == (20, 20, 100.0)


@pytest.mark.parametrize(
    "windows",
    [
        (window("new"),),
        (window("new"), window("old", pair=1)),
        (window("new"), window("old", serial=4)),
        (window("new"), window("old", first="old")),
        (window("new"), window("old", release="kiosk/1.2")),
        (window("new", release="kiosk/1.1"), window("old")),
        (msgspec.structs.replace(window("new"), block=None), window("old")),
    ],
    ids=["one block", "two pairs", "two orders", "two coins", "old is new", "new is old", "no label"],
)
def test_these_make_no_pair(windows: tuple[Window, ...]) -> None:
    assert closed(*windows) == ()


def test_a_closed_pair_is_not_closed_again_and_indexes_go_on() -> None:
    windows = [window(arm, pair=pair) for pair in (0, 1) for arm in ("new", "old")]
    (found,) = closed(*windows, closed=frozenset({("lab-1", 3, 0)}), next_index={"lab-1": 1})
    assert (found.number, found.pair.index) == (1, 1)


def test_a_pair_is_never_earlier_than_one_that_was_judged() -> None:
    (found,) = closed(window("new"), window("old"), not_before_s=500.0)
    assert found.pair.complete_at_s == 500.0


def test_stored_pairs_come_back_the_same() -> None:
    (found,) = closed(window("new"), window("old"))
    record = decode_pair(encode_pair(found.pair))
    assert replace(found.pair, new=record.new, old=record.old) == found.pair


def test_windows_of_one_block_are_merged() -> None:
    assert stats([window("new"), window("new")]).requests == 40

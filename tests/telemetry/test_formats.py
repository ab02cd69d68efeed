from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from drupelet.telemetry.sensors import Throttle
from drupelet.telemetry.sketch import quantile
from drupelet.telemetry.spool import RESERVE, SEGMENTS, SKIP
from drupelet.telemetry.throttle import ThrottleHistory
from drupelet.telemetry.windows import WINDOWS_HELD_MAX
from drupelet.wire.codec import decode, encode
from drupelet.wire.telemetry import RequestStats, Sketch, Window, WindowBatch

PAGE = (Path(__file__).parents[2] / "docs" / "formats" / "telemetry.md").read_text()


def blocks() -> list[bytes]:
    return [text.encode() for text in re.findall(r"^```json\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)]


@pytest.fixture(scope="module")
def example() -> bytes:
    return blocks()[0]


def test_the_documented_batch_is_one_and_shows_every_field(example: bytes) -> None:
    batch = decode(WindowBatch, example)
    assert json.loads(encode(batch)) == json.loads(example)
    shown, stats = json.loads(example)["windows"][0], json.loads(example)["windows"][0]["requests"][0]
    assert set(shown) == set(Window.__struct_fields__)
    assert set(stats) == set(RequestStats.__struct_fields__)
    assert set(stats["duration"]) == set(Sketch.__struct_fields__) - {"zeros"}


def test_the_documented_sketches_agree_with_their_counts_and_sums(example: bytes) -> None:
    (stats,) = decode(WindowBatch, example).windows[0].requests
    for sketch in (stats.duration, stats.ttft, stats.per_token):
        assert sketch.count == stats.ok
        low, high = quantile(sketch, 0.0), quantile(sketch, 1.0)
        assert low is not None
        assert high is not None
        assert 0.99 * low <= sketch.sum / sketch.count <= 1.01 * high


def test_the_documented_history_is_one() -> None:
    history = decode(ThrottleHistory, blocks()[1])
    assert history.now == (Throttle.UNDERVOLTAGE,)
    assert history.events == {"throttled": 1, "undervoltage": 3}


def test_the_page_quotes_the_bounds_in_the_code() -> None:
    assert f"{SKIP:,}" in PAGE
    assert f"{WINDOWS_HELD_MAX:,}" in PAGE
    assert (SEGMENTS, RESERVE) == (8, 256)

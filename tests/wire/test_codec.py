"""Bad input at the door: one clear error each, whatever the message."""

from __future__ import annotations

import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drupelet.core.errors import BadInput
from drupelet.wire.codec import Malformed, TooLarge, UnknownFormat, decode, encode, encode_canonical, inflate
from drupelet.wire.manifest import ReleaseManifest, manifest_path, release_of_path
from drupelet.wire.orders import Order
from tests.wire import examples

DEEP = b"[" * 200_000


@pytest.mark.parametrize("message", [examples.manifest(), examples.order()], ids=["manifest", "order"])
def test_messages_round_trip(message: ReleaseManifest | Order) -> None:
    assert decode(type(message), encode(message)) == message
    assert decode(type(message), encode_canonical(message)) == message


def test_canonical_bytes_do_not_depend_on_field_order() -> None:
    message = examples.order()
    shuffled = dict(reversed(list(msgspec.to_builtins(message).items())))
    assert encode_canonical(msgspec.convert(shuffled, Order)) == encode_canonical(message)


@pytest.mark.parametrize(
    ("data", "kind", "says"),
    [
        (b"", Malformed, "not JSON"),
        (b"{", Malformed, "not JSON"),
        (encode(examples.order())[:-5], Malformed, "not JSON"),
        (b'{"format":"drupelet.order/1","device":"\xff"}', Malformed, "UTF-8|JSON"),
        (DEEP, Malformed, "."),
        (b'{"format":"drupelet.order/1","x":' + DEEP, Malformed, "deep"),
        (b'{"format":"drupelet.order/2"}', UnknownFormat, "drupelet.order/1"),
        (b'{"format":"drupelet.order/1"}', Malformed, "missing required field"),
        (b" " * (Order.BYTES_MAX + 1), TooLarge, "at most"),
        (b"[]", Malformed, "object"),
    ],
)
def test_bad_messages_are_refused(data: bytes, kind: type[BadInput], says: str) -> None:
    with pytest.raises(kind, match=says):
        decode(Order, data, where="here")


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "../etc"},
        {"device": "a/b"},
        {"serial": 0},
        {"mode": "dance"},
        {"release": "kiosk/../../x"},
        {"manifest": "sha256:zz"},
        {"variants": []},
        {"crossover": None},
        {"crossover": {"block_ms": 1000, "discard_ms": 1000}},
    ],
    ids=str,
)
def test_orders_out_of_bounds_are_refused(changes: dict[str, object]) -> None:
    data = msgspec.json.encode(msgspec.to_builtins(examples.order()) | changes)
    with pytest.raises(Malformed):
        decode(Order, data)


@pytest.mark.parametrize("field", ["variants", "canonical_prompts"])
def test_a_manifest_names_things_once(field: str) -> None:
    message = msgspec.to_builtins(examples.manifest())
    message[field] = message[field] * 2
    with pytest.raises(Malformed, match=r"one (name|id)"):
        decode(ReleaseManifest, msgspec.json.encode(message))


def test_a_newer_peer_may_say_more() -> None:
    data = msgspec.json.encode(msgspec.to_builtins(examples.order()) | {"later": {"a": [1]}})
    assert decode(Order, data) == examples.order()


@given(st.binary(max_size=400))
def test_any_bytes_give_a_message_or_bad_input(data: bytes) -> None:
    with pytest.raises(BadInput):
        decode(Order, data)


def test_inflate_is_bounded_and_whole() -> None:
    assert inflate(zlib.compress(b"x" * 1000), bytes_max=1000) == b"x" * 1000
    with pytest.raises(TooLarge):
        inflate(zlib.compress(b"\0" * 10_000_000), bytes_max=1000)
    with pytest.raises(Malformed, match="cut short"):
        inflate(zlib.compress(b"hello" * 99)[:-3], bytes_max=1000)
    with pytest.raises(Malformed, match="not zlib"):
        inflate(b"hello", bytes_max=1000)


def test_manifest_paths() -> None:
    assert release_of_path(manifest_path(examples.manifest().release)) == examples.manifest().release
    with pytest.raises(BadInput):
        release_of_path("../1.2/manifest.json")


def test_memory_is_that_of_the_next_longer_context() -> None:
    variant = examples.manifest().variants[0]
    assert variant.memory_bytes(100) == 60_000_000

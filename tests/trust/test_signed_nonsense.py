"""A thief with the director's online key signs whatever he likes: refused in words, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from securesystemslib.formats import encode_canonical

from drupelet.core.errors import DrupeletError
from drupelet.core.states import Reason
from drupelet.trust import NotTrusted, Verifier
from drupelet.trust.roles import make_snapshot, make_timestamp, meta_of, sign
from tests.fakes.trust_world import NOON, TrustWorld

PATH = "kiosk/1.1/manifest.json"
Change = Callable[[dict[str, Any]], object]


def forged(world: TrustWorld, change: Change) -> Verifier:
    """Serve device `a` director metadata whose targets were changed before they were signed."""
    target = world.release("1.1")
    metadata = world.sign(world.order(target, serial=1), target)
    signer = world.keys.signer("director-online")
    signed = json.loads(metadata.files["1.targets.json"])["signed"]
    change(signed)
    signature = signer.sign(encode_canonical(signed).encode()).to_dict()
    targets = json.dumps({"signatures": [signature], "signed": signed}).encode()
    meta = {"targets.json": meta_of(targets, version=1)}
    snapshot = sign(make_snapshot(meta, version=1, now=NOON, expires=metadata.expires, device="a"), [signer])
    timestamp = make_timestamp(meta_of(snapshot, version=1), version=1, now=NOON, expires=metadata.expires, device="a")
    metadata.files.update(
        {"1.targets.json": targets, "1.snapshot.json": snapshot, "timestamp.json": sign(timestamp, [signer])}
    )
    world.serve(metadata)
    return world.device()


def order_of(signed: dict[str, Any]) -> dict[str, Any]:
    return signed["targets"][PATH]["custom"]  # type: ignore[no-any-return]


def test_unchanged_it_is_accepted(world: TrustWorld) -> None:
    assert forged(world, lambda signed: None).refresh_director() is not None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s["targets"][PATH].pop("custom"), Reason.BAD_METADATA),
        (lambda s: s["targets"][PATH].update(custom=[1, "x", None]), Reason.BAD_METADATA),
        (lambda s: s["targets"][PATH].update(hashes={"sha512": "0" * 128}), Reason.BAD_METADATA),
        (lambda s: s["targets"][PATH].update(hashes={"sha256": "../../etc"}), Reason.BAD_METADATA),
        (lambda s: s["targets"][PATH].update(length=-1), Reason.BAD_METADATA),
        (lambda s: s["targets"].update({"../../etc/passwd": s["targets"].pop(PATH)}), Reason.BAD_METADATA),
        (lambda s: s["targets"].update({"kiosk/2.0/manifest.json": s["targets"][PATH]}), Reason.BAD_METADATA),
        (lambda s: s.update(targets=[]), Reason.BAD_METADATA),
        (lambda s: s.update(expires="never"), Reason.BAD_METADATA),
        (lambda s: s.update(version=2**70), Reason.REPLAYED),
        (lambda s: s.update(_type="root"), Reason.BAD_METADATA),
        (lambda s: s.update(drupelet="a"), Reason.WRONG_DEVICE),
        (lambda s: s.update(drupelet={"device": ["a"]}), Reason.WRONG_DEVICE),
        (lambda s: s.update(delegations={"keys": {}, "roles": []}), Reason.BAD_METADATA),
        (lambda s: order_of(s).update(format="drupelet.order/9"), Reason.BAD_METADATA),
        (lambda s: order_of(s).update(device="b"), Reason.WRONG_DEVICE),
        (lambda s: order_of(s).update(serial=0), Reason.BAD_METADATA),
        (lambda s: order_of(s).update(mode="destroy"), Reason.BAD_METADATA),
        (lambda s: order_of(s).update(release="a" * 90 + "/1.1"), Reason.BAD_METADATA),
        (lambda s: order_of(s).update(release="kiosk/1.2"), Reason.BAD_METADATA),
        (lambda s: order_of(s).update(manifest="sha256:" + "0" * 64), Reason.BAD_METADATA),
        (lambda s: order_of(s).update(condemned=[{}] * 2000), Reason.BAD_METADATA),
        (lambda s: order_of(s).update(reason="x" * 600_000), Reason.BAD_METADATA),
    ],
)
def test_signed_nonsense_is_refused(world: TrustWorld, change: Change, reason: Reason) -> None:
    device = forged(world, change)
    with pytest.raises(NotTrusted) as caught:
        device.refresh_director()
    assert caught.value.reason is reason
    assert device.order is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PLACES = [("targets",), ("targets", PATH), ("targets", PATH, "custom"), ("drupelet",), ("expires",), ("version",)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), value=JSON)
def test_any_signed_nonsense_raises_an_error_of_ours_or_none(
    world: TrustWorld, place: tuple[str, ...], value: object
) -> None:
    def change(signed: dict[str, Any]) -> None:
        here = signed
        for key in place[:-1]:
            here = here[key]
        here[place[-1]] = value

    world.versions.clear()
    try:
        device = forged(world, change)
    except UnicodeEncodeError:
        return  # cannot be signed
    with suppress(DrupeletError):
        device.refresh_director()
    for path in (world.folder / "devices").rglob("director.json"):
        path.unlink()

"""Why is this device not updated: the most telling answer first, in one short sentence."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from drupelet.core.names import Slot
from drupelet.core.states import Mode, Reason, UpdateState
from drupelet.fleet.why import Case, spoken, why
from drupelet.wire.device_api import DeviceStatus, SlotStatus
from drupelet.wire.orders import Order
from tests.wire import examples

IDLE = DeviceStatus(
    state=UpdateState.IDLE,
    order_serial=3,
    committed=Slot.A,
    slots=(
        SlotStatus(slot=Slot.A, release="kiosk/1.2", manifest=examples.DIGEST, variant="q8_0", digest=examples.DIGEST),
    ),
)
CALM = Case(
    device="lab-1",
    enrolment="approved",
    status=IDLE,
    silent_s=1.0,
    online=True,
    order=examples.order(mode=Mode.INSTALL),
    order_signed=True,
)


def status(**changes: object) -> DeviceStatus:
    return msgspec.structs.replace(IDLE, **changes)


def order(**changes: object) -> Order:
    return examples.order(**changes)


@pytest.mark.parametrize(
    ("case", "answer"),
    [
        (CALM, "It is up to date: kiosk/1.2, as ordered."),
        (replace(CALM, enrolment="pending"), "It is pending: an operator must approve it."),
        (replace(CALM, status=None), "It is approved but has never polled"),
        (replace(CALM, online=False, silent_s=7200.0), "It has not been heard of for 2 hours."),
        (replace(CALM, order=None), "Nothing was ever ordered"),
        (replace(CALM, order=order(serial=4)), "It has not accepted order 4 yet (it obeys 3)"),
        (replace(CALM, order=order(serial=4), order_signed=False), "Order 4 is about to be signed."),
        (replace(CALM, waits_in_draw=True, rollout="rollout 3"), "It waits for its stage in rollout 3."),
        (
            replace(CALM, status=status(state=UpdateState.PREFLIGHT, reason=Reason.TOO_HOT, detail="81 C")),
            "The update waits: it is too hot (too_hot: 81 C).",
        ),
        (
            replace(CALM, status=status(state=UpdateState.PROBATION, pairs_done=4), order=order()),
            "kiosk/1.2 is on probation: it serves both releases in turn (4 pairs so far).",
        ),
        (
            replace(CALM, failure="digest_mismatch: sha256:00 and much more"),
            "Its last update failed: digest mismatch.",
        ),
        (
            replace(
                CALM,
                status=status(state=UpdateState.FAILED, reason=Reason.UNSIGNED, release="kiosk/6.6", detail="nobody"),
                failure="digest_mismatch: an older story",
            ),
            "Its update to kiosk/6.6 failed: unsigned.",
        ),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_the_answer_is_the_most_telling_one(case: Case, answer: str) -> None:
    assert why(case)[0].startswith(answer)


def test_the_details_stand_beside_the_answer() -> None:
    failed = status(state=UpdateState.FAILED, reason=Reason.UNSIGNED, detail="nobody vouches for it")
    because = why(replace(CALM, status=failed, failure="truncated: half a blob"))[1]
    assert "unsigned: nobody vouches for it" in because
    assert "the rollout notes: truncated: half a blob" in because


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "5 seconds"), (180, "3 minutes"), (7200, "2 hours"), (300_000, "3 days")]
)
def test_durations_are_said_in_the_unit_a_person_would_use(seconds: float, words: str) -> None:
    assert spoken(seconds) == words

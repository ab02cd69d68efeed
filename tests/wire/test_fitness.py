"""What can never run on a device is refused by fleet and agent alike; unknown is not bad unless asked for by name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from drupelet.agent import events as e
from drupelet.agent import preflight
from drupelet.agent.effects import Readings
from drupelet.core.states import Reason
from drupelet.wire.device_api import Hardware
from drupelet.wire.fitness import unfit
from drupelet.wire.manifest import Lock, Variant
from tests.agent.states import order, resting
from tests.wire import examples

PI = Hardware(board="pi5-8gb", architecture="aarch64", memory_bytes=8_000_000_000, cores=4)
HAT = msgspec.structs.replace(PI, npu="Hailo-10H", firmware="5.1.0", file_formats=("gguf", "hef"))
PLAIN = examples.manifest().variants[0]
HEF = msgspec.structs.replace(
    PLAIN,
    file_format="hef",
    npu_required=True,
    lock=Lock(
        compiler="hailo-dfc 5.1.0",
        accelerators=("hailo10h",),
        driver="hailo 5.1.0",
        driver_series=True,
        firmware_min="5.0",
    ),
)


def judge(variant: Variant, hardware: Hardware, driver: str = "") -> Any:
    manifest = examples.manifest(variants=(variant,))
    facts = preflight.Facts(hardware=hardware, readings=Readings(), free_bytes=10**10, runtime="0.1.0", driver=driver)
    return preflight.judge(order(), manifest, resting(), facts)


@pytest.mark.parametrize(
    ("variant", "hardware", "driver", "reason"),
    [
        (msgspec.structs.replace(PLAIN, file_format="onnx"), PI, "", Reason.FORMAT_NOT_RUN),
        (PLAIN, msgspec.structs.replace(PI, file_formats=()), "", Reason.FORMAT_NOT_RUN),
        (msgspec.structs.replace(PLAIN, npu_required=True), PI, "", Reason.NO_NPU),
        (msgspec.structs.replace(PLAIN, lock=Lock(accelerators=("hailo10h",))), PI, "", Reason.NO_NPU),
        (HEF, PI, "hailo 5.1.0", Reason.FORMAT_NOT_RUN),
        (HEF, msgspec.structs.replace(HAT, npu="Hailo-8L"), "hailo 5.1.0", Reason.NO_NPU),
        (HEF, msgspec.structs.replace(HAT, firmware="4.9"), "hailo 5.1.0", Reason.FIRMWARE_TOO_OLD),
        (HEF, msgspec.structs.replace(HAT, firmware=""), "hailo 5.1.0", Reason.FIRMWARE_TOO_OLD),
        (HEF, HAT, "", Reason.DRIVER_MISMATCH),
        (HEF, HAT, "hailo 5.0.9", Reason.DRIVER_MISMATCH),
        (HEF, HAT, "hailo 5.2.0", Reason.DRIVER_MISMATCH),
        (HEF, HAT, "other 5.1.0", Reason.DRIVER_MISMATCH),
    ],
)
def test_what_can_never_run_is_refused(variant: Variant, hardware: Hardware, driver: str, reason: Reason) -> None:
    answer = judge(variant, hardware, driver)
    assert isinstance(answer, e.Refused)
    assert answer.reason is reason
    assert variant.name in answer.detail
    never = unfit(variant, hardware, context_tokens=512)
    assert never is None if reason is Reason.DRIVER_MISMATCH else never is not None and never.reason is reason


@pytest.mark.parametrize(("hardware", "driver"), [(HAT, "hailo 5.1.0"), (HAT, "hailo 5.1.3")])
def test_what_is_all_there_is_taken(hardware: Hardware, driver: str) -> None:
    assert isinstance(judge(HEF, hardware, driver), e.Admitted)


def test_a_later_series_will_do_where_the_file_does_not_insist() -> None:
    lenient = msgspec.structs.replace(HEF, lock=Lock(driver="hailo 5.1.0"))
    assert isinstance(judge(lenient, HAT, "hailo 5.2.0"), e.Admitted)


def test_a_device_that_says_nothing_runs_gguf_alone() -> None:
    said = msgspec.json.decode(
        b'{"board":"pi4-4gb","architecture":"aarch64","memory_bytes":1000000000,"cores":4}', type=Hardware
    )
    assert said.file_formats == ("gguf",)
    assert unfit(PLAIN, said, context_tokens=512) is None
    # Nor does saying so change a byte of what older servers read.
    assert b"file_formats" not in msgspec.json.encode(said)

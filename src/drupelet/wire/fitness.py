"""Whether a device could ever run a variant: pure, from what the manifest and the device say of themselves.

Fleet and agent ask the same question of the same bytes: the fleet before it draws a rollout's devices, the agent again
in its preflight, because a fleet server is not to be relied on. What does not last (free memory, disk, heat) is not
asked here. Unknown is not bad, except where the variant asks for something by name: then it must be known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from drupelet.core.errors import BadInput
from drupelet.core.names import Version
from drupelet.core.states import Reason
from drupelet.wire.device_api import Hardware
from drupelet.wire.manifest import Lock, Variant


@dataclass(frozen=True, slots=True)
class Unfit:
    """Why a device can never run a variant as it is."""

    reason: Reason
    detail: str


def unfit(variant: Variant, hardware: Hardware, *, context_tokens: int) -> Unfit | None:
    """Return why a device of this hardware cannot run the variant, or None if nothing known speaks against it."""
    name = variant.name
    if variant.file_format not in hardware.file_formats:
        runs = ", ".join(hardware.file_formats) or "nothing"
        return Unfit(Reason.FORMAT_NOT_RUN, f"{name} is {variant.file_format}, and the gateway there runs {runs}")
    if variant.npu_required and not hardware.npu:
        return Unfit(Reason.NO_NPU, f"{name} needs an NPU, and there is none")
    if variant.lock is not None and (found := _lock_unfit(name, variant.lock, hardware)):
        return found
    needed = variant.memory_bytes(context_tokens)
    if needed > hardware.memory_bytes:
        said = f"{name} needs {megabytes(needed)} of memory, the device has {megabytes(hardware.memory_bytes)}"
        return Unfit(Reason.NO_MEMORY, said)
    return None


def _lock_unfit(name: str, lock: Lock, hardware: Hardware) -> Unfit | None:
    if lock.accelerators and _plain(hardware.npu) not in map(_plain, lock.accelerators):
        said = f"{name} is compiled for {' or '.join(lock.accelerators)}, this is {hardware.npu or 'without an NPU'}"
        return Unfit(Reason.NO_NPU, said)
    if lock.firmware_min and numbers(hardware.firmware) < numbers(lock.firmware_min):
        said = f"{name} needs firmware {lock.firmware_min}, this is {hardware.firmware or 'unknown'}"
        return Unfit(Reason.FIRMWARE_TOO_OLD, said)
    return None


def driver_unfit(name: str, lock: Lock, driver: str) -> Unfit | None:
    """Return why the accelerator's driver (name and version) is not the one the variant is bound to, or None."""
    if not lock.driver:
        return None
    wanted, _, least = lock.driver.partition(" ")
    mine, _, version = driver.partition(" ")
    have, need = numbers(version), numbers(least)
    if wanted == mine and have >= need and (not lock.driver_series or have[:2] == need[:2]):
        return None
    series = f" of the series {'.'.join(map(str, need[:2]))}" if lock.driver_series else ""
    said = f"{name} needs driver {lock.driver}{series}, this is {driver or 'unknown'}"
    return Unfit(Reason.DRIVER_MISMATCH, said)


def numbers(text: str) -> tuple[int, ...]:
    """Return what versions and dates compare by: `2026-10-01`, `5.1.0`. Nothing known is less than anything."""
    try:
        version = Version.parse(text)
    except BadInput:
        # Firmware versions have no one form: any other text is compared by its numbers.
        return tuple(int(number) for number in re.findall(r"\d{1,12}", text))
    return (version.major, version.minor, version.patch)


def megabytes(size: int) -> str:
    """Return a size as people read it."""
    return f"{size / 1e6:.0f} MB"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())

"""The states and reasons that cross process boundaries: what a device is doing, and why it is not doing more.

The *transitions* live with the machine that makes them (`agent/machine.py`, `fleet/machine.py`); the words live here
because the fleet, the pages and the metrics speak them too.
"""

from __future__ import annotations

from enum import Enum


class UpdateState(Enum):
    """Where a device's update machine stands."""

    IDLE = "idle"
    PREFLIGHT = "preflight"
    DOWNLOADING = "downloading"
    VERIFYING = "verifying"
    INSTALLING = "installing"
    TRIAL = "trial"
    SWITCHING = "switching"
    PROBATION = "probation"
    COMMITTING = "committing"
    REVERTING = "reverting"
    FAILED = "failed"


class Reason(Enum):
    """Why an update waits, failed or was taken back. One word for metrics; the sentence travels beside it."""

    NONE = "none"
    # preflight: waits
    HELD = "held"
    OUTSIDE_WINDOW = "outside_window"
    TOO_HOT = "too_hot"
    UNDERVOLTAGE = "undervoltage"
    # preflight: refusals
    NO_DISK = "no_disk"
    NO_MEMORY = "no_memory"
    RUNTIME_TOO_OLD = "runtime_too_old"
    RELEASE_TOO_OLD = "release_too_old"
    FIRMWARE_TOO_OLD = "firmware_too_old"
    DRIVER_MISMATCH = "driver_mismatch"
    NO_NPU = "no_npu"
    FORMAT_NOT_RUN = "format_not_run"
    NO_VARIANT = "no_variant"
    # trust
    UNSIGNED = "unsigned"
    WRONG_DEVICE = "wrong_device"
    CONDEMNED = "condemned"
    REPLAYED = "replayed"
    EXPIRED = "expired"
    DIGEST_MISMATCH = "digest_mismatch"
    TOO_LARGE = "too_large"
    TRUNCATED = "truncated"
    BAD_METADATA = "bad_metadata"
    # network and disk
    SERVER_UNREACHABLE = "server_unreachable"
    DOWNLOAD_STALLED = "download_stalled"
    DISK_FULL = "disk_full"
    DISK_ERROR = "disk_error"
    # trial and probation
    LOAD_FAILED = "load_failed"
    CANONICAL_FAILED = "canonical_failed"
    TOO_SLOW = "too_slow"
    MEMORY_EXCEEDED = "memory_exceeded"
    CHILD_DIED = "child_died"
    GATEWAY_UNREACHABLE = "gateway_unreachable"
    WATCHDOG = "watchdog"
    NO_VERDICT = "no_verdict"
    INTERRUPTED = "interrupted"
    # orders
    SUPERSEDED = "superseded"
    ORDERED_BACK = "ordered_back"
    OPERATOR = "operator"
    NO_OTHER_SLOT = "no_other_slot"
    NOT_ON_PROBATION = "not_on_probation"


class RolloutState(Enum):
    """Where a rollout stands."""

    PENDING = "pending"
    STAGING = "staging"
    JUDGING = "judging"
    PAUSED = "paused"
    COMMITTING = "committing"
    COMPLETED = "completed"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    HALTING = "halting"
    HALTED = "halted"
    ABORTING = "aborting"
    ABORTED = "aborted"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self in _ENDED


_ENDED = frozenset({RolloutState.COMPLETED, RolloutState.ROLLED_BACK, RolloutState.HALTED, RolloutState.ABORTED})


class Mode(Enum):
    """What an order asks of a device."""

    INSTALL = "install"
    """Install, pass the local probation, commit. For a first installation and for rollouts without a gate."""
    CANARY = "canary"
    """Install beside the committed release and serve both in drawn blocks until the order changes."""
    COMMIT = "commit"
    """Make the release that is on probation the committed one."""
    REVERT = "revert"
    """Serve `release` again, from the slot that still holds it; what the other slot holds is condemned or withdrawn."""


class ExitReason(Enum):
    """How an inference child ended. Every reason is exported as a metric from the start, at 0."""

    STOPPED = "stopped"
    EXITED = "exited"
    SIGNALLED = "signalled"
    OOM_KILLED = "oom_killed"
    HUNG = "hung"
    LOAD_FAILED = "load_failed"

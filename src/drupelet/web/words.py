"""States and numbers as people read them. Pure. Times are Unix milliseconds in, UTC out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from drupelet.fleet.views import DeviceView, MemberView, Overview, RolloutView
from drupelet.gate.assess import INTERVAL_ALPHA
from drupelet.gate.verdict import number

UNKNOWN = "not known"
DASH = "–"
INTERVAL = f"{1 - INTERVAL_ALPHA:.0%} interval"
"""What the gate's intervals are called: their level is the gate's."""

TONE_OF_ROLLOUT: Mapping[str, str] = {
    "pending": "busy", "staging": "busy", "judging": "busy", "committing": "good", "completed": "good",
    "paused": "warn", "aborting": "warn", "aborted": "calm", "halting": "bad", "halted": "bad",
    "rolling_back": "bad", "rolled_back": "bad",
}  # fmt: skip
"""good, busy, warn, bad or calm: the colour of a state; the word always stands beside it."""
TONE_OF_STANDING: Mapping[str, str] = {
    "waiting": "calm", "ordered": "busy", "updating": "busy", "probation": "busy", "committed": "good",
    "failed": "bad", "reverting": "warn", "taken_back": "calm",
}  # fmt: skip
TONE_OF_VERDICT: Mapping[str, str] = {"pass": "good", "hold": "busy", "pause": "warn", "rollback": "bad"}

STANDING_WORDS: Mapping[str, str] = {
    "waiting": "waits for its stage", "ordered": "ordered", "updating": "updating", "probation": "serves both in turn",
    "committed": "committed", "failed": "failed", "reverting": "going back", "taken_back": "taken back",
}  # fmt: skip

METRIC_WORDS: Mapping[str, str] = {
    "latency": "latency", "tail": "slowest tenth", "ttft": "time to first token", "token_time": "time per token",
    "errors": "errors", "silence": "silence",
}  # fmt: skip

COMMANDS: Mapping[str, tuple[str, str]] = {
    "pause": ("Pause", "Nobody else gets it until you resume. Devices that have it go on being judged."),
    "resume": ("Resume", "Go on with this stage."),
    "abort": ("Abort", "Take it back from every device that has it, without condemning the release."),
    "rollback": (
        "Roll back and condemn",
        "Take it back from every device and condemn the release: no device will ever take it again.",
    ),
}


def release_name(release: str) -> str:
    """`kiosk/1.2` as people say it."""
    return release.replace("/", " ") if release else "nothing"


def plain(word: str) -> str:
    """A word of the wire without its underscores."""
    return word.replace("_", " ")


def plural(count: int, one: str, many: str = "") -> str:
    """`1 device`, `5 devices`, `12,000 devices`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def size(count: float | None) -> str:
    """Bytes in the unit that leaves two or three digits."""
    if count is None:
        return DASH
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.{1 if count < 100 * scale else 0}f} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float | None) -> str:
    """Seconds as ms, s, minutes, hours or days."""
    if seconds is None:
        return DASH
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.{1 if seconds < 0.01 else 0}f} ms"
    if seconds < 120:
        return f"{seconds:.{2 if seconds < 10 else 0}f} s"
    for unit, scale in (("min", 60.0), ("h", 3600.0), ("days", 86400.0)):
        if seconds < 2 * scale * (60 if unit == "min" else 24) or unit == "days":
            return f"{seconds / scale:.0f} {unit}"
    return ""


def ago(at: int | None, now: int) -> str:
    """How long ago, in one unit."""
    if at is None:
        return "never"
    seconds = (now - at) / 1000
    if seconds < -5:
        return f"in {duration(-seconds)}"
    return "just now" if seconds < 5 else f"{duration(math.floor(seconds))} ago"


def iso(at: int) -> str:
    """For `datetime` attributes."""
    return _moment(at).strftime("%Y-%m-%dT%H:%M:%SZ")


def clock(at: int | None, now: int) -> str:
    """Time of day today, date and time otherwise."""
    if at is None:
        return DASH
    moment, today = _moment(at), _moment(now)
    return moment.strftime("%H:%M:%S" if moment.date() == today.date() else "%Y-%m-%d %H:%M")


def _moment(at: int) -> datetime:
    """A device may claim any time: what no calendar holds is shown as its edge."""
    return datetime.fromtimestamp(min(max(at, 0), 253_402_300_799_000) / 1000, UTC)


def evidence(value: float | None) -> str:
    """Evidence as the gate writes it."""
    return DASH if value is None else number(value)


def share(value: float | None) -> str:
    """A fraction in per cent."""
    return DASH if value is None else f"{value:.1%}"


def effect(finding: Any) -> str:
    """A finding's effect in its own unit."""
    return _in_unit(finding.metric, finding.effect)


def interval(finding: Any) -> str:
    """A finding's interval."""
    low, high = (_in_unit(finding.metric, end) for end in (finding.low, finding.high))
    if finding.low is None and finding.high is None:
        return "too early"
    if finding.low is None:
        return f"up to {high}"
    return f"from {low}" if finding.high is None else f"{low} to {high}"


def margin(finding: Any) -> str:
    """What the release must prove to stay below."""
    return "no margin" if finding.margin is None else _in_unit(finding.metric, finding.margin)


def _in_unit(metric: str, value: float | None) -> str:
    if value is None:
        return DASH
    return f"{value:.1%}" if metric in ("errors", "silence") else f"{value:.2f}×"


def headline(rollout: RolloutView) -> str:
    """The verdict on a rollout in a few words."""
    stage = f"Stage {min(rollout.stage + 1, len(rollout.stages))} of {len(rollout.stages)}"
    who = {"operator": "Paused by an operator", "gate": "Paused by the gate"}.get(rollout.paused_by, "Paused")
    back = plural(rollout.counts.get("taken_back", 0), "device")
    return {
        "pending": "About to start",
        "staging": f"{stage}: devices are installing it",
        "judging": f"{stage}: {'checking' if rollout.direct else 'gathering evidence'}",
        "paused": who,
        "committing": "Passed: committing it everywhere",
        "completed": "Completed",
        "rolling_back": "Doing harm: being taken back",
        "rolled_back": f"Rolled back from {back} and condemned",
        "halting": "Updates failed: being taken back",
        "halted": "Halted: updates failed",
        "aborting": "Aborting: being taken back",
        "aborted": "Aborted",
    }.get(rollout.state, plain(rollout.state))


def without_kind(reason: str, kind: str) -> str:
    """A verdict's sentence without the word that stands beside it as a badge."""
    return reason.removeprefix(f"{kind.upper()}: ")


def stands(member: MemberView, rollout: RolloutView) -> str:
    """Where a device stands in a rollout."""
    if rollout.ended and not member.exposed:
        return "never got it"
    return STANDING_WORDS.get(member.standing, plain(member.standing))


def fleet_sentence(overview: Overview) -> str:
    """The fleet in one sentence."""
    total, online = overview.devices_total, overview.devices_online
    if not total:
        waiting = overview.devices_pending
        return f"No device is approved yet; {plural(waiting, 'waits', 'wait')}." if waiting else "No device yet."
    heard = "all online" if online == total else f"{online:,} online"
    releases = [name for name in overview.by_release if name]
    if len(overview.by_release) == 1 and releases:
        what = f"Every one of them runs {release_name(releases[0])}." if total > 1 else f"It runs {releases[0]}."
    elif not releases:
        what = "None of them has a release yet."
    else:
        most = max(releases, key=lambda name: overview.by_release[name])
        what = f"{overview.by_release[most]:,} of them run {release_name(most)}."
    return f"{plural(total, 'device')}, {heard}. {what}"


def health(device: DeviceView) -> str:
    """ok, busy, bad, silent or new: what a device's drupelet in the picture looks like."""
    if device.enrolment != "approved":
        return "new"
    if not device.online:
        return "silent"
    if device.state == "failed" or device.gateway == "down":
        return "bad"
    if device.state not in ("idle", "unknown"):
        return "busy"
    if device.attention or device.state == "unknown":
        return "warn"
    return "ok" if device.release else "empty"


HEALTH_WORDS: Mapping[str, str] = {
    "ok": "serving", "busy": "updating", "warn": "look at it", "bad": "failed", "silent": "not heard of",
    "new": "waits for approval", "empty": "no release yet",
}  # fmt: skip

"""Who gets a release first: one seeded random order of the selected devices, of which every stage is a prefix.

The order is stratified: inside a stratum (board and site) devices are shuffled by a hash of seed and name, then the
strata are interleaved so that every prefix holds each of them in proportion, as far as whole devices allow. Stages are
therefore nested, and the same seed gives the same draw on any machine and any version of Python.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from drupelet.fleet.errors import BadStages

STAGES_MAX = 16
_STAGE = re.compile(r"([1-9][0-9]{0,6})(%?)\Z")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device that may be drawn."""

    device: str
    stratum: str


@dataclass(frozen=True, slots=True)
class Stage:
    """An exposure cap: so many devices, or so many percent of those selected."""

    text: str
    count: int
    percent: bool

    @classmethod
    def parse(cls, text: str) -> Stage:
        """Parse `3` or `25%`."""
        found = _STAGE.match(text.strip())
        if not found or (found[2] and int(found[1]) > 100):
            raise BadStages(f"stage {text[:20]!r} is not a number of devices or a percentage", fix="for example 1,25%")
        return cls(text=text.strip(), count=int(found[1]), percent=bool(found[2]))

    def cap(self, devices: int) -> int:
        """Return the most devices that may be exposed in this stage, of `devices`: rounded down, at least one."""
        if not self.percent:
            return min(self.count, devices)
        return min(devices, max(1, devices * self.count // 100))


def stages(texts: Sequence[str]) -> tuple[Stage, ...]:
    """Parse all stages of a rollout."""
    if not 1 <= len(texts) <= STAGES_MAX:
        raise BadStages(f"{len(texts)} stages given", fix=f"use 1 to {STAGES_MAX}")
    return tuple(Stage.parse(text) for text in texts)


def caps(wanted: Sequence[Stage], devices: int) -> tuple[int, ...]:
    """Return each stage's cap for so many devices, or raise `BadStages` where a stage is below an earlier one.

    Stages that add nobody in a fleet of this size are dropped: 1% and 5% of ten devices are one stage.
    """
    kept: list[int] = []
    for stage in wanted:
        cap = stage.cap(devices)
        if kept and cap < kept[-1]:
            raise BadStages(f"stage {stage.text} is {cap} devices, fewer than the one before", fix="let stages grow")
        if not kept or cap > kept[-1]:
            kept.append(cap)
    return tuple(kept)


def draw(candidates: Iterable[Candidate], *, seed: str) -> tuple[Candidate, ...]:
    """Return the candidates in the order in which they are exposed."""
    strata: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        strata.setdefault(candidate.stratum, []).append(candidate)
    keyed: list[tuple[float, float, str, Candidate]] = []
    for stratum, members in strata.items():
        members.sort(key=lambda c: (_uniform(seed, "device", c.device), c.device))
        offset = _uniform(seed, "stratum", stratum)
        for place, member in enumerate(members):
            keyed.append(((place + offset) / len(members), _uniform(seed, "tie", member.device), member.device, member))
    return tuple(candidate for *_, candidate in sorted(keyed, key=lambda item: item[:3]))


def stratum(board: str, site: str) -> str:
    """Return the name of the stratum that devices of this board and site belong to."""
    return f"{board} at {site}" if site else board


def _uniform(seed: str, use: str, name: str) -> float:
    """Return a number in [0, 1) that depends on nothing else."""
    digest = hashlib.sha256(f"{seed}\n{use}\n{name}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64

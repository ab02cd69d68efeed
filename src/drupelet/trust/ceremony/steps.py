"""What follows from a plan, in order. Pure: a plan gives the same steps on every run, so a ceremony can go on later."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from drupelet.trust.ceremony.plan import Plan


class Act(Enum):
    """What is done in a step."""

    PRESENT = "present"
    """Somebody is here."""
    MACHINE = "machine"
    """The machine is looked at: is it off every network?"""
    KEY = "key"
    """A key is made on its medium, or taken from its token, tried, and its fingerprint read aloud."""
    SIGN_ROOT = "sign-root"
    """A root key signs its repository's root."""
    ROOTS = "roots"
    """Both roots are complete; their digests are read aloud."""
    CARRY = "carry"
    """A medium gets the public half of everything: it is a key ring of its own then."""
    SIGN_RECORD = "sign-record"
    """A root key signs the record."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: what, and with which person, key or medium."""

    act: Act
    subject: str = ""

    @property
    def name(self) -> str:
        """How the journal calls it."""
        return f"{self.act.value}:{self.subject}" if self.subject else self.act.value


def steps_of(plan: Plan) -> tuple[Step, ...]:
    """Return the steps of a ceremony. A medium is in the machine for as few steps in a row as can be."""
    roots = [key.name for key in plan.keys if key.role in ("image/root", "director/root")]
    media = list(dict.fromkeys(key.medium for key in plan.keys if key.medium))
    in_hand = sorted(plan.keys, key=lambda key: media.index(key.medium) if key.medium else -1)
    by_medium = [key.name for key in in_hand]
    return (
        *(Step(Act.PRESENT, person.name) for person in plan.people),
        Step(Act.MACHINE),
        *(Step(Act.KEY, name) for name in by_medium),
        *(Step(Act.SIGN_ROOT, name) for name in by_medium if name in roots),
        Step(Act.ROOTS),
        *(Step(Act.SIGN_RECORD, name) for name in by_medium if name in roots),
        *(Step(Act.CARRY, medium) for medium in media),
    )

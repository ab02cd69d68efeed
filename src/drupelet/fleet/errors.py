"""What the fleet refuses.

BadInput
|- BadSelector       a label selector that does not parse
|- BadStages         stages that are no exposure caps, or do not grow
`- BadPolicy         a rollout policy with an unknown or impossible value
NotAllowed
|- BadToken          no token, a wrong one, an expired one
`- NoPermission      a good token without the scope that this needs
NotFound
`- NoSuch            no device, release, rollout or token of that name
Conflict
|- WrongState        the thing is in a state that does not allow this
|- KeyMismatch       a known device id was offered with another key
|- NothingToDo       a rollout for nobody
`- NoVariant         a rollout to devices that can run none of the release's variants
Unavailable
|- StoreUnavailable  the database cannot serve now
|- TooBusy           more enrolments, polls or streams than the server takes at once
`- DepotUnavailable  the depot with the release's manifest does not answer
"""

from __future__ import annotations

from drupelet.core.errors import BadInput, Conflict, NotAllowed, NotFound, Unavailable


class BadSelector(BadInput):
    """The label selector does not parse."""


class BadStages(BadInput):
    """The stages are no exposure caps, or do not grow."""


class BadPolicy(BadInput):
    """The rollout policy has an unknown or impossible value."""


class BadToken(NotAllowed):
    """No token, a wrong one, or an expired one."""


class NoPermission(NotAllowed):
    """The token is good but lacks the scope this needs."""


class NoSuch(NotFound):
    """No device, release, rollout or token of that name."""


class WrongState(Conflict):
    """It is in a state that does not allow this."""


class KeyMismatch(Conflict):
    """A known device id was offered with another key."""


class NothingToDo(Conflict):
    """The rollout would reach nobody."""


class NoVariant(Conflict):
    """Some of the devices can run none of the release's variants."""


class StoreUnavailable(Unavailable):
    """The database cannot serve now."""


class TooBusy(Unavailable):
    """More at once than the server takes."""


class DepotUnavailable(Unavailable):
    """The depot with the release's manifest does not answer."""

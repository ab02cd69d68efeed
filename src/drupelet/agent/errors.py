"""What can stop the agent, by what a person may do about it.

DrupeletError (core)
|- UnknownTransition      the machine was told something its table has no row for: a defect, never input
BadInput (core)
|- BadConfig              the configuration file is wrong
Conflict (core)
|- NoOtherSlot            there is no other release on this device to go back to
NotAllowed (core)
|- NotApproved            the fleet has not let this device in, or no longer
NotFound (core)
|- NoStateFolder          no agent has ever run on this folder
Unavailable (core)
|- PortTaken              another program listens where the metrics should be
|- FleetSilent            the fleet server gave no usable answer
|- GatewaySilent          the gateway's control socket gave no usable answer
`- AgentSilent            a running agent did not answer a request in time
"""

from __future__ import annotations

from drupelet.core.errors import BadInput, Conflict, DrupeletError, NotAllowed, NotFound, Unavailable
from drupelet.core.states import Reason


class UnknownTransition(DrupeletError):
    """The machine has no row for this event in this state; nothing was changed."""


class BadConfig(BadInput):
    """The configuration file is wrong."""


class NoOtherSlot(Conflict):
    """There is no other release on this device to go back to."""

    reason = Reason.NO_OTHER_SLOT


class NotApproved(NotAllowed):
    """The fleet has not let this device in, or no longer."""


class NoStateFolder(NotFound):
    """No agent has ever run on this folder."""


class PortTaken(Unavailable):
    """Another program listens where the metrics should be."""


class FleetSilent(Unavailable):
    """The fleet server gave no usable answer."""

    reason = Reason.SERVER_UNREACHABLE


class GatewaySilent(Unavailable):
    """The gateway's control socket gave no usable answer."""

    reason = Reason.GATEWAY_UNREACHABLE


class AgentSilent(Unavailable):
    """A running agent did not answer a request in time."""

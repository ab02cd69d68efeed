"""What can go wrong in this room.

BadInput (core)
|- BadConfig             the configuration file is not one this release understands
`- BadRequest            an HTTP request that no retry will mend; becomes an OpenAI-style 4xx
Conflict (core)
`- PortTaken             another program listens where the gateway should
Unavailable (core)
|- GatewayUnreachable    nobody answers on the control socket
|- NotServing            nothing can answer now (503)
|- QueueFull             more requests wait than may (429)
|- TookTooLong           the answer was not there in time (504)
`- ChildGone             the child went away under a request
"""

from __future__ import annotations

from drupelet.core.errors import BadInput, Conflict, Unavailable


class BadConfig(BadInput):
    """The configuration file is not one this release understands."""


class BadRequest(BadInput):
    """A request that no retry will mend. `status`, `code` and `param` are those of OpenAI's error object."""

    def __init__(self, what: str, *, status: int = 400, code: str = "invalid_request", param: str = "") -> None:
        super().__init__(what)
        self.status = status
        self.code = code
        self.param = param


class PortTaken(Conflict):
    """Another program listens where the gateway should."""


class GatewayUnreachable(Unavailable):
    """Nobody answers on the control socket."""


class NotServing(Unavailable):
    """Nothing can answer now: no release is loaded, or none came back in time."""


class QueueFull(Unavailable):
    """More requests wait than may."""


class TookTooLong(Unavailable):
    """The answer was not there in time."""


class ChildGone(Unavailable):
    """The child went away, or failed, under a request."""

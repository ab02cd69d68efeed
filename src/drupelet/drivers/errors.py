"""What can go wrong between us and another update system.

BadInput (core)
`- BadDeployment      a deployment file that is none, or asks for what cannot be done
NotAllowed (core)
`- TokenRefused       the service wants other credentials
Unavailable (core)
`- ServiceSilent      no answer, half an answer, or an answer that is not the service's; asking again may help
Refused (core)
`- ServiceRefused     the service understood and said no
"""

from __future__ import annotations

from drupelet.core.errors import BadInput, NotAllowed, Refused, Unavailable


class BadDeployment(BadInput):
    """A deployment file that is none, or asks for what cannot be done."""


class TokenRefused(NotAllowed):
    """The service wants other credentials."""


class ServiceSilent(Unavailable):
    """No answer, half an answer, or an answer that is not the service's."""


class ServiceRefused(Refused):
    """The service understood and said no."""

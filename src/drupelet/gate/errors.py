"""What the gate refuses.

BadInput
`- GateError        anything handed to the gate that it cannot judge by
   |- PolicyError   a policy that contradicts itself or exceeds its stated total of false rollbacks
   `- PairError     a measured pair that cannot have been measured (negative counts, a device against itself)
"""

from __future__ import annotations

from drupelet.core.errors import BadInput


class GateError(BadInput):
    """The gate was handed something it cannot judge by."""


class PolicyError(GateError):
    """The policy contradicts itself; nothing is judged by it."""


class PairError(GateError):
    """A pair, block or histogram is malformed."""

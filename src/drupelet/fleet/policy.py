"""A rollout policy: how long and how widely a release is on trial, and the gate's own policy inside it.

The file format is docs/formats/policy.md. `design = "none"` is a direct rollout: no canaries, no gate; every device
installs, passes its own probation and commits. It is what a first installation needs: it has nothing to compare with.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from drupelet.core.errors import BadInput
from drupelet.core.states import Mode
from drupelet.fleet.errors import BadPolicy
from drupelet.gate import GatePolicy
from drupelet.wire.codec import Message, decode_as
from drupelet.wire.fields import Milliseconds, NameText
from drupelet.wire.orders import Crossover

Share = Annotated[float, Meta(gt=0, le=1)]


class RolloutPolicy(Message, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a rollout is held to. Durations are milliseconds; the gate's own fields are seconds (docs/gate.md)."""

    FORMAT: ClassVar[str] = "drupelet.policy/1"
    BYTES_MAX: ClassVar[int] = 64 * 1024

    format: Literal["drupelet.policy/1"] = "drupelet.policy/1"
    design: Literal["crossover", "none"] = "crossover"
    crossover: Crossover = Crossover()
    probation_ms: Milliseconds = 60_000
    verdict_ms_max: Annotated[int, Meta(ge=1_000, le=90 * 86_400_000)] = 86_400_000
    stage_ms_min: Milliseconds = 0
    """A stage does not pass before it is this old, however clear the evidence."""
    trial_failures_max: Annotated[int, Meta(ge=0, le=100_000)] = 0
    """More failed trials or updates than this halt the rollout."""
    staged_share: Share = 0.95
    """Share of the exposed devices that must run the release before the stage is judged as a whole."""
    completed_share: Share = 1.0
    """Share of the exposed devices that must have committed before the rollout is complete."""
    variants: Annotated[tuple[NameText, ...], Meta(max_length=32)] = ()
    """Variants that may be taken, the preferred first; empty: those of the manifest, in its order."""
    gate: dict[str, Any] = msgspec.field(default_factory=dict)
    """The gate's policy as in docs/gate.md; what is left out has its default."""

    def __post_init__(self) -> None:
        if "design" in self.gate:
            raise ValueError("gate.design belongs at the top as design")
        self.gate_policy()

    @property
    def direct(self) -> bool:
        """Whether there is no gate."""
        return self.design == "none"

    @property
    def mode(self) -> Mode:
        """What devices are ordered to do at first."""
        return Mode.INSTALL if self.direct else Mode.CANARY

    def gate_policy(self) -> GatePolicy:
        """Return the gate's policy; raises `BadPolicy` where it contradicts itself or exceeds its total."""
        try:
            return GatePolicy.parse(self.gate)
        except BadInput as error:
            raise BadPolicy(error.what, where=error.where, fix=error.fix) from error


def policy_of(data: bytes, *, where: str = "policy") -> RolloutPolicy:
    """Decode a policy, or raise `BadPolicy` or `Malformed` saying which field is wrong."""
    if len(data) > RolloutPolicy.BYTES_MAX:
        raise BadPolicy(f"{len(data)} bytes where at most {RolloutPolicy.BYTES_MAX} are allowed", where=where)
    return decode_as(RolloutPolicy, data, where=where)


def policy_of_builtins(value: object, *, where: str = "policy") -> RolloutPolicy:
    """Convert decoded TOML or JSON into a policy."""
    return policy_of(msgspec.json.encode(value), where=where)

"""The files that can be checked: which kind a file is, and everything that is wrong with a document of that kind.

A kind is recognised by its `format`; settings files, which have none, by their names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path as FilePath
from typing import Any

import msgspec

from drupelet.core.errors import BadInput, DrupeletError
from drupelet.wire.manifest import ReleaseManifest
from drupelet.wire.places import Path
from drupelet.wire.problems import Problem, problems

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of file. `type_` is what it must be; `check` yields what is wrong with a document and its bytes."""

    name: str
    format: str = ""
    """As in the file; empty: a settings file."""
    tolerant: bool = False
    """Whoever reads it ignores unknown keys, so that one is worth a warning and no more."""
    extra: str = ""
    """The extra that has what the check needs, if it is not the forge's."""
    type_: Callable[[], Any]
    check: Callable[[Document, bytes], Iterator[Problem]]


def _recipe_type() -> Any:
    from drupelet.forge.recipe import Recipe

    return Recipe


def _recipe(document: Document, _data: bytes) -> Iterator[Problem]:
    from drupelet.forge.recipe import Recipe, contradictions

    found = list(problems(document, Recipe))
    yield from found
    if not found:
        yield from contradictions(msgspec.convert(document, Recipe))


def _policy_type() -> Any:
    from drupelet.fleet.policy import RolloutPolicy

    return RolloutPolicy


def _policy(document: Document, _data: bytes) -> Iterator[Problem]:
    gate = document.get("gate")
    if isinstance(gate, dict):
        yield from _gate(gate)
        # The gate's mistakes are told one by one: the rest is checked as if the gate had its defaults.
        document = {**document, "gate": {}}
    yield from problems(document, _policy_type())


def _gate(document: Document) -> Iterator[Problem]:
    """Yield what is wrong with a gate policy: field by field, and only then over all fields (the shares' total)."""
    from drupelet.gate.policy import GatePolicy, metric_rule

    found = []
    if "design" in document:
        found.append(Problem(path=("gate", "design"), what="gate.design belongs at the top as design"))
    for name, value in document.items():
        if name == "metrics" and isinstance(value, dict):
            for metric, rule in value.items():
                found += _tried(("gate", name, metric), partial(metric_rule, metric, rule))
        elif name not in ("design", "total_alpha"):
            found += _tried(("gate", name), partial(GatePolicy.parse, {name: value}))
    yield from found or _tried(("gate", "metrics"), partial(GatePolicy.parse, document))


def _tried(path: Path, attempt: Callable[[], object]) -> list[Problem]:
    """Return what `attempt` raises, as a problem at `path`."""
    try:
        attempt()
    except BadInput as error:
        place = f"{error.where}: " if error.where not in ("", "policy") else ""
        return [Problem(path=path, what=place + error.what, fix=error.fix)]
    return []


def _manifest(document: Document, _data: bytes) -> Iterator[Problem]:
    if document.get("format") not in (None, ReleaseManifest.FORMAT):
        yield Problem(path=("format",), what=f"{document['format']!r} where {ReleaseManifest.FORMAT!r} is understood")
    yield from problems(document, ReleaseManifest)


def _agent(document: Document, data: bytes) -> Iterator[Problem]:
    from drupelet.agent.config import Config, parse

    yield from list(problems(document, Config)) or _tried((), partial(parse, data, where=""))


def _agent_type() -> Any:
    from drupelet.agent.config import Config

    return Config


def _gateway_type() -> Any:
    from drupelet.gateway.config import Config

    return Config


def _gateway(document: Document, _data: bytes) -> Iterator[Problem]:
    yield from problems(document, _gateway_type())


def _fleet_type() -> Any:
    from drupelet.fleet.config import FleetConfig

    return FleetConfig


def _fleet(document: Document, data: bytes) -> Iterator[Problem]:
    from drupelet.fleet.config import FleetConfig, as_path, parse_config

    found = list(problems(document, FleetConfig, hook=as_path))
    yield from found or _tried((), partial(parse_config, data, where=FilePath("fleet.toml")))


def _ceremony_type() -> Any:
    from drupelet.trust.ceremony.plan import Plan

    return Plan


def _ceremony(document: Document, _data: bytes) -> Iterator[Problem]:
    from drupelet.trust.ceremony.plan import Plan, contradictions

    found = list(problems(document, Plan))
    yield from found
    if not found:
        yield from contradictions(msgspec.convert(document, Plan))


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(name="recipe", format="drupelet.recipe/1", type_=_recipe_type, check=_recipe),
        Kind(name="policy", format="drupelet.policy/1", type_=_policy_type, check=_policy),
        Kind(
            name="manifest", format="drupelet.manifest/1", tolerant=True, type_=lambda: ReleaseManifest, check=_manifest
        ),
        Kind(name="agent", type_=_agent_type, check=_agent),
        Kind(name="gateway", type_=_gateway_type, check=_gateway),
        Kind(name="fleet", extra="fleet", type_=_fleet_type, check=_fleet),
        Kind(name="ceremony", format="drupelet.ceremony/1", type_=_ceremony_type, check=_ceremony),
    )
}
SETTINGS = {"agent.toml": "agent", "gateway.toml": "gateway", "fleet.toml": "fleet"}
"""Settings files by their names in /etc/drupelet."""
NAMES = {"recipe.toml": "recipe", "policy.toml": "policy", **SETTINGS}
"""What a file is that does not say so itself."""


def kind_of(name: str, document: Document) -> Kind | None:
    """Return the kind of the file called `name` that holds `document`; None if it is none of ours."""
    said = document.get("format")
    if isinstance(said, str):
        stem = said.partition("/")[0]
        return next((kind for kind in KINDS.values() if kind.format.partition("/")[0] == stem), None)
    return KINDS.get(NAMES.get(name, ""))


def mistakes(kind: Kind, document: Document, data: bytes) -> list[Problem]:
    """Return everything that is wrong with a document. Raises where a library that the check needs is not here."""
    try:
        return list(kind.check(document, data))
    except ModuleNotFoundError as error:
        raise DrupeletError(
            f"checking a {kind.name} file needs {error.name}, which is not installed here",
            fix=f"install the extra {kind.extra or 'forge'!r}",
        ) from error

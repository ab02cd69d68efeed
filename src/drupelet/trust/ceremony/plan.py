"""`ceremony.toml`: who comes, which key is whose, on which medium. See docs/formats/ceremony.md.

A plan is checked whole before anybody is called in: every role has its keys, every key a holder who will be there, and
no two keys of one root lie on one medium or in one hand.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from drupelet.core.errors import BadInput
from drupelet.core.names import Digest
from drupelet.trust.ring import FILE, ONLINE, ROLE_KEYS_MAX, KeyInfo, KeyRingInfo, Repository, families_of, roles_of
from drupelet.trust.roles import TOP_LEVEL_ROLES
from drupelet.trust.signers import kind_of
from drupelet.wire.fields import NameText, Sentence
from drupelet.wire.manifest import Part
from drupelet.wire.places import place_of, toml_places
from drupelet.wire.problems import Problem, problems

PLAN_BYTES_MAX = 256 * 1024

PersonName = Annotated[str, Meta(min_length=1, max_length=100)]


class Person(Part, frozen=True, kw_only=True):
    """Somebody who is to be present."""

    name: PersonName
    does: Sentence = ""
    """Why: `holds a root key`, `witness`."""


class PlannedKey(Part, frozen=True, kw_only=True):
    """A key to make, or to take from a token."""

    name: NameText
    role: Annotated[str, Meta(max_length=80)]
    """`image/root`, `image/targets`, `image/snapshot`, `image/timestamp`, `image/FAMILY`, `director/root`,
    `director/online` or `model/FAMILY`."""
    holder: PersonName
    medium: Annotated[str, Meta(max_length=1024)] = ""
    """Folder of the medium that carries it away; it becomes a key ring of its own. Empty: stays with the ring."""
    place: Annotated[str, Meta(max_length=1024)] = FILE
    """`file`, or where a token or a key service has it."""
    scheme: Literal["ed25519", "ecdsa-sha2-nistp256", "rsassa-pss-sha256"] | None = None

    @property
    def repository(self) -> Repository:
        """The repository of its role."""
        head = self.role.partition("/")[0]
        return "image" if head == "image" else "director" if head == "director" else "model"

    @property
    def roles(self) -> tuple[str, ...]:
        """The TUF roles that it signs for."""
        return roles_of(self.repository, self.role.partition("/")[2])


class Plan(Part, frozen=True, kw_only=True):
    """A ceremony, before it happens."""

    format: Literal["drupelet.ceremony/1"]
    title: Annotated[str, Meta(min_length=1, max_length=200)]
    families: Annotated[tuple[NameText, ...], Meta(min_length=1, max_length=32)]
    people: Annotated[tuple[Person, ...], Meta(min_length=1, max_length=64)]
    keys: Annotated[tuple[PlannedKey, ...], Meta(min_length=1, max_length=128)]
    thresholds: Annotated[dict[str, Annotated[int, Meta(ge=1, le=ROLE_KEYS_MAX)]], Meta(max_length=64)] = {}  # noqa: RUF012 (msgspec copies it)
    root_years: Annotated[int, Meta(ge=1, le=20)] = 5

    def ring(self, keys: tuple[KeyInfo, ...]) -> KeyRingInfo:
        """Return the key ring that the plan asks for. Raises `BadInput`."""
        try:
            thresholds = {role: needed for role, needed in self.thresholds.items() if needed > 1}
            return KeyRingInfo(families=families_of(self.families), thresholds=thresholds, keys=keys)
        except ValueError as error:
            raise BadInput(str(error)) from error

    def holder(self, name: str) -> str:
        """Return who holds a key of this plan."""
        return next(key.holder for key in self.keys if key.name == name)


def load_plan(path: Path) -> tuple[Plan, Digest]:
    """Return the plan in a file and the digest of the file. Raises `BadInput` with the line."""
    try:
        with path.open("rb") as file:
            data = file.read(PLAN_BYTES_MAX + 1)
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}", where=str(path)) from error
    return parse_plan(data, where=str(path)), Digest.of_hex(hashlib.sha256(data).hexdigest())


def parse_plan(data: bytes, *, where: str = "plan") -> Plan:
    """Return the plan in `data`. Raises `BadInput` with the line of the first mistake."""
    if len(data) > PLAN_BYTES_MAX:
        raise BadInput(f"larger than the {PLAN_BYTES_MAX} bytes allowed", where=where)
    try:
        text = data.decode()
        fields = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise BadInput(f"not UTF-8 at byte {error.start}", where=where) from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BadInput(f"not TOML: {error}", where=where) from error
    for problem in problems(fields, Plan):
        raise _bad(problem, text, where)
    plan = msgspec.convert(fields, Plan)
    for problem in contradictions(plan):
        raise _bad(problem, text, where)
    return plan


def _bad(problem: Problem, text: str, where: str) -> BadInput:
    place = place_of(toml_places(text), problem.path)
    return BadInput(problem.what, where=f"{where}:{place.line}" if place else where, fix=problem.fix)


def contradictions(plan: Plan) -> Iterator[Problem]:
    """Yield what the types cannot say."""
    try:
        families_of(plan.families)
    except BadInput as error:
        yield Problem(path=("families",), what=error.what, fix=error.fix)
        return
    present = {person.name for person in plan.people}
    needed = {f"image/{role}" for role in TOP_LEVEL_ROLES} | {"director/root", ONLINE}
    needed |= {f"image/{family}" for family in plan.families}
    known = needed | {f"model/{family}" for family in plan.families}
    names: set[str] = set()
    for index, key in enumerate(plan.keys):
        path = ("keys", index)
        if key.name in names:
            yield Problem(path=path, what=f"two keys are called {key.name!r}")
        names.add(key.name)
        if key.role not in known:
            yield Problem(
                path=(*path, "role"), what=f"no role {key.role!r}", fix=f"use one of {', '.join(sorted(known))}"
            )
        if key.holder not in present:
            there = ", ".join(sorted(present))
            yield Problem(
                path=(*path, "holder"), what=f"{key.holder!r} is not among the people", fix=f"there are {there}"
            )
        yield from _place(key, path)
    for role in sorted(needed - {key.role for key in plan.keys}):
        yield Problem(path=("keys",), what=f"nobody holds a key for {role}", fix="add one")
    yield from _apart(plan)
    yield from _thresholds(plan)


def _place(key: PlannedKey, path: tuple[str | int, ...]) -> Iterator[Problem]:
    try:
        kind_of(key.place)
    except BadInput as error:
        yield Problem(path=(*path, "place"), what=error.what, fix=error.fix)
    if key.medium and not Path(key.medium).is_absolute():
        yield Problem(path=(*path, "medium"), what=f"{key.medium!r} is not a whole path", fix="begin it with /")
    if key.place != FILE and (key.medium or key.scheme):
        yield Problem(path=path, what=f"{key.name} is on a token: it has no medium and its scheme is the token's")
    if key.role.startswith("model/") and key.scheme not in (None, "ecdsa-sha2-nistp256"):
        yield Problem(path=(*path, "scheme"), what="model signatures need ecdsa-sha2-nistp256")


def _apart(plan: Plan) -> Iterator[Problem]:
    """Yield root keys that one loss or one person would take together."""
    for repository in ("image", "director"):
        roots = [(index, key) for index, key in enumerate(plan.keys) if key.role == f"{repository}/root"]
        for number, (index, key) in enumerate(roots):
            for _, other in roots[:number]:
                if key.medium and key.medium == other.medium:
                    what = f"{key.name} and {other.name} would lie on one medium"
                    yield Problem(path=("keys", index, "medium"), what=what, fix="carry them apart")
                if key.holder == other.holder:
                    what = f"{key.holder} would hold both {key.name} and {other.name}"
                    yield Problem(path=("keys", index, "holder"), what=what, fix="give each root key to another person")


def _thresholds(plan: Plan) -> Iterator[Problem]:
    for role, threshold in plan.thresholds.items():
        count = sum(key.role == role for key in plan.keys)
        if threshold > count:
            what = f"{role} would need {threshold} signatures and has {count} keys"
            yield Problem(path=("thresholds", role), what=what, fix="add keys or ask for fewer")
        elif threshold > 1 and role in ("image/snapshot", "image/timestamp", ONLINE):
            yield Problem(path=("thresholds", role), what=f"{role} is signed by one key at a time")


def rehearsed(plan: Plan, folder: Path) -> Plan:
    """Return the plan with folders below `folder` for media, and key files there for what would be on tokens."""
    media = list(dict.fromkeys(key.medium for key in plan.keys if key.medium))
    keys = []
    for key in plan.keys:
        medium = str(folder / f"medium-{media.index(key.medium) + 1}") if key.medium else ""
        if key.place != FILE:
            medium = str(folder / f"token-{key.name}")
        scheme = key.scheme if key.place == FILE else "ecdsa-sha2-nistp256"
        keys.append(replace(key, medium=medium, place=FILE, scheme=scheme))
    return replace(plan, keys=tuple(keys))


def plan_text(*, title: str, families: Sequence[str], holders: Mapping[str, str], threshold: int, operator: str) -> str:
    """Return a plan as TOML: two root keys for every holder (name -> medium), the other keys with the ring."""
    quoted = json.dumps
    people = [*holders, *([operator] if operator not in holders else [])]
    lines = ['format = "drupelet.ceremony/1"', f"title = {quoted(title)}", f"families = {quoted(list(families))}", ""]
    lines += ["[thresholds]", f'"image/root" = {threshold}', f'"director/root" = {threshold}', ""]
    for name in people:
        does = "holds root keys" if name in holders else "keeps the key ring"
        lines += ["[[people]]", f"name = {quoted(name)}", f"does = {quoted(does)}", ""]
    for number, (name, medium) in enumerate(holders.items(), start=1):
        for repository in ("image", "director"):
            lines += _key(f"{repository}-root-{number}", f"{repository}/root", name, medium)
    for role in ("targets", "snapshot", "timestamp"):
        lines += _key(f"image-{role}", f"image/{role}", operator, "")
    for family in families:
        lines += _key(f"image-family-{family}", f"image/{family}", operator, "")
        lines += _key(f"model-{family}", f"model/{family}", operator, "")
    lines += _key("director-online", ONLINE, operator, "")
    return "\n".join(lines)


def _key(name: str, role: str, holder: str, medium: str) -> list[str]:
    quoted = json.dumps
    lines = ["[[keys]]", f"name = {quoted(name)}", f"role = {quoted(role)}", f"holder = {quoted(holder)}"]
    return [*lines, *([f"medium = {quoted(medium)}"] if medium else []), ""]

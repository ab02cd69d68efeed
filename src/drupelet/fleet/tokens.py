"""API tokens: made once, shown once, stored as a hash; each with scopes and an end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy import insert, select, update

from drupelet.core.names import name as safe_name
from drupelet.fleet.credentials import Scope, api_token_hash, new_api_token
from drupelet.fleet.errors import BadToken, NoPermission, NoSuch, WrongState
from drupelet.fleet.store.audit import record
from drupelet.fleet.store.engine import Store
from drupelet.fleet.store.schema import tokens

DAY_MS = 86_400_000
LIFETIME_MS = 90 * DAY_MS
LIFETIME_MS_MAX = 3660 * DAY_MS


@dataclass(frozen=True, slots=True)
class Bearer:
    """Who asks, and what they may."""

    name: str
    scopes: frozenset[Scope]

    def require(self, scope: Scope) -> None:
        """Return if the bearer may, or raise `NoPermission` naming the scope. Whoever may do anything may read."""
        if scope not in self.scopes and scope is not Scope.READ and Scope.ADMIN not in self.scopes:
            has = ", ".join(sorted(s.value for s in self.scopes)) or "none"
            raise NoPermission(
                f"this needs the scope {scope.value}; token {self.name!r} has {has}",
                fix=f"use a token made with: drupelet fleet token create --scope {scope.value}",
            )


class Tokens:
    """The store of API tokens."""

    def __init__(self, store: Store, *, clock: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock

    def create(self, name: str, scopes: Iterable[Scope], *, by: str, lifetime_ms: int = LIFETIME_MS) -> str:
        """Return a new token's secret: it is not kept and cannot be shown again."""
        safe_name(name, what="token name")
        given = sorted({scope.value for scope in scopes})
        if not given or not 1_000 <= lifetime_ms <= LIFETIME_MS_MAX:
            raise WrongState("a token needs a scope and a lifetime of 1 s to 10 years", where=f"token {name}")
        secret, now = new_api_token(), self._clock()
        with self._store.write() as connection:
            if connection.execute(select(tokens.c.id).where(tokens.c.name == name)).one_or_none() is not None:
                raise WrongState(f"there is a token {name!r} already", fix="choose another name")
            connection.execute(
                insert(tokens).values(
                    name=name, hash=api_token_hash(secret), scopes=" ".join(given), created_at=now, created_by=by,
                    expires_at=now + lifetime_ms,
                )
            )  # fmt: skip
            record(
                connection, at=now, actor=by, action="token.created", subject=f"token {name}",
                reason=f"scopes {', '.join(given)}",
            )  # fmt: skip
        return secret

    def revoke(self, name: str, *, by: str) -> None:
        """End a token now."""
        now = self._clock()
        with self._store.write() as connection:
            changed = connection.execute(
                update(tokens).where(tokens.c.name == name, tokens.c.revoked_at.is_(None)).values(revoked_at=now)
            )
            if changed.rowcount != 1:
                raise NoSuch(f"there is no valid token {name!r}", fix="see: drupelet fleet token list")
            record(connection, at=now, actor=by, action="token.revoked", subject=f"token {name}")

    def bearer(self, secret: str) -> Bearer:
        """Return who holds the token, or raise `BadToken`."""
        with self._store.read() as connection:
            row = connection.execute(select(tokens).where(tokens.c.hash == api_token_hash(secret))).one_or_none()
        if row is None or row.revoked_at is not None:
            raise BadToken("the token is not known", fix="make one with: drupelet fleet token create")
        if row.expires_at < self._clock():
            raise BadToken(f"token {row.name!r} has expired", fix="make another: drupelet fleet token create")
        return Bearer(row.name, frozenset(Scope(word) for word in row.scopes.split()))

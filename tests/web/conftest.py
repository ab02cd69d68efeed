"""One shop for all pages; the tests that change it make their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from drupelet.durable import PosixDisk
from drupelet.fleet.app import build
from drupelet.fleet.store.engine import migrate, open_store
from drupelet.trust.director import Director
from drupelet.trust.keys import KeyRing
from drupelet.web import pages
from tests.web.client import TestClient
from tests.web.shop import Shop


@pytest.fixture(scope="session")
def director(tmp_path_factory: pytest.TempPathFactory) -> Director:
    ring = KeyRing.create(
        PosixDisk(), tmp_path_factory.mktemp("keys") / "ring", families=["kiosk"],
        passphrase=lambda: "a long test passphrase", now=datetime(2026, 9, 1, tzinfo=UTC), root_keys=1, threshold=1,
    )  # fmt: skip
    online = next(key.name for key in ring.info.keys if key.repository == "director" and "timestamp" in key.roles)
    return Director(roots=[ring.director_root], signer=ring.signer(online))


@pytest.fixture(scope="session")
def shop(director: Director, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('shop') / 'fleet.db'}")
    migrate(store)
    yield Shop(store, director)
    store.close()


@pytest.fixture
def visit(shop: Shop) -> Callable[..., TestClient]:
    """Return a client that holds a token, or none."""

    def client(who: str = "", **options: object) -> TestClient:
        app = build(shop.fleet, mounts=[("/", pages(shop.fleet.desks(), clock=lambda: shop.now))])
        made = TestClient(app, base_url="http://fleet.test", follow_redirects=False)
        if who:
            made.cookies.set("drupelet_token", shop.tokens[who])
        return made

    return client

"""The same over real HTTP: the depot by its own server, the director beside it, and a portal in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from drupelet.core.errors import Unavailable
from drupelet.core.states import Reason
from drupelet.depot import HttpFetch
from drupelet.trust import Fetch, NotTrusted, Verifier
from tests.depot.conftest import serving
from tests.fakes.rude_server import rude_server
from tests.fakes.trust_world import FakeNetwork, TrustWorld, a_manifest


class Mixed:
    """Director addresses answered from memory, all others over HTTP."""

    def __init__(self, director: FakeNetwork, http: Fetch) -> None:
        self._director = director
        self._http = http

    def get(self, url: str, *, bytes_max: int, token: str = "") -> bytes:
        where: Fetch = self._http if url.startswith("http") else self._director
        return where.get(url, bytes_max=bytes_max, token=token)


def device_at(world: TrustWorld, depot_url: str, folder: Path) -> Verifier:
    return Verifier(
        world.disk,
        folder,
        device="a",
        image_root=world.keys.image_root,
        director_root=world.keys.director_root,
        director_url="director/a",
        depot_url=depot_url,
        fetch=Mixed(world.network, HttpFetch()),
        now=world.now,
    )


def test_a_release_is_vouched_for_over_http(world: TrustWorld, tmp_path: Path) -> None:
    order = world.command(world.release("1.1"), serial=1)
    with serving(world.network.depot) as address:
        device = device_at(world, f"{address}/", tmp_path / "device")
        device.refresh_director()
        assert device.vouch(order) == a_manifest("1.1")


@pytest.mark.parametrize("manner", ["portal", "redirect", "busy", "cut", "gone"])
def test_what_is_in_between_is_a_passing_trouble_not_an_attack(world: TrustWorld, tmp_path: Path, manner: str) -> None:
    order = world.command(world.release("1.1"), serial=1)
    with rude_server(b"{}", manner) as server:
        device = device_at(world, server.address, tmp_path / "device")
        device.refresh_director()
        with pytest.raises(Unavailable):
            device.vouch(order)


def test_endless_metadata_over_http_is_refused(world: TrustWorld, tmp_path: Path) -> None:
    order = world.command(world.release("1.1"), serial=1)
    with rude_server(b" " * 10_000, "endless chunked") as server:
        device = device_at(world, server.address, tmp_path / "device")
        device.refresh_director()
        with pytest.raises(NotTrusted) as caught:
            device.vouch(order)
    assert caught.value.reason is Reason.TOO_LARGE

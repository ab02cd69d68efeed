"""Small files over HTTP: bounded in bytes and in time."""

from __future__ import annotations

import itertools

import pytest

from drupelet.core.errors import NotFound
from drupelet.core.states import Reason
from drupelet.depot import HttpFetch, HttpSource, SourceUnreachable, TokenRefused
from drupelet.depot.errors import BadAddress
from drupelet.wire.codec import TooLarge
from tests.fakes.rude_server import rude_server

BODY = b"metadata " * 100


def test_the_body_comes_and_the_token_goes() -> None:
    with rude_server(BODY) as server:
        assert HttpFetch().get(f"{server.address}/x.json", bytes_max=len(BODY), token="abc") == BODY
        assert HttpFetch().get(f"{server.address}/x.json", bytes_max=len(BODY)) == BODY
        assert server.tokens == ["Bearer abc", ""]


@pytest.mark.parametrize("manner", ["good", "endless", "endless chunked"])
def test_no_more_than_allowed_is_taken(manner: str) -> None:
    with rude_server(BODY, manner) as server, pytest.raises(TooLarge):
        HttpFetch().get(server.address, bytes_max=len(BODY) - 1)


@pytest.mark.parametrize("manner", ["portal", "redirect", "encoded", "busy", "cut"])
def test_unusable_answers_are_passing_troubles(manner: str) -> None:
    with rude_server(BODY, manner) as server, pytest.raises(SourceUnreachable) as caught:
        HttpFetch().get(server.address, bytes_max=10_000)
    assert caught.value.exit_code == 6


def test_what_is_not_there_is_not_found() -> None:
    with rude_server(BODY, "gone") as server, pytest.raises(NotFound):
        HttpFetch().get(server.address, bytes_max=10_000)


def test_a_whole_file_has_a_deadline() -> None:
    hours = itertools.count(0, 3600)
    with rude_server(BODY) as server, pytest.raises(SourceUnreachable) as caught:
        HttpFetch(monotonic=lambda: float(next(hours))).get(server.address, bytes_max=10_000)
    assert caught.value.reason is Reason.DOWNLOAD_STALLED


@pytest.mark.parametrize(
    "address", ["", "depot.local", "ftp://depot", "http://", "file:///etc/passwd", "http://a:99999", "http://a/?x=1"]
)
def test_addresses_that_are_none(address: str) -> None:
    with pytest.raises(BadAddress):
        HttpSource(address)


def test_a_refused_token_is_told_from_other_troubles() -> None:
    with rude_server(BODY, "wants a token") as server, pytest.raises(TokenRefused):
        HttpFetch().get(server.address, bytes_max=10_000, token="old")

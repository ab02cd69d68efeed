"""A fleet server that is none, as the commands see it: one kind of error each, never a traceback."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from drupelet.cli.api import Api
from drupelet.core.errors import DrupeletError, NotAllowed, Unavailable


class Rude:
    """Answers one connection with the bytes it was given."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def says(self, answer: bytes) -> None:
        def serve() -> None:
            connection, _ = self._socket.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def rude() -> Iterator[Rude]:
    server = Rude()
    yield server
    server.close()


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (b"garbage\r\n\r\n", Unavailable, "does not answer"),
        (ok(b"<html>"), Unavailable, "not JSON"),
        (ok(b"[" * 100_000), Unavailable, "not JSON"),
        (ok(b"[]"), Unavailable, "no JSON object"),
        (ok(b"{}"), Unavailable, "has no 'items'"),
        (ok(b"{}").replace(b"Length: 2", b"Length: 200"), Unavailable, "broke off"),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", Unavailable, "leads elsewhere"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\n<ht", Unavailable, "answers 502"),
        (b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\n[]", NotAllowed, "answers 403"),
    ],
    ids=["garbage", "html", "deep", "list", "other", "cut", "redirect", "proxy", "refusal"],
)
def test_an_answer_that_is_none(rude: Rude, answer: bytes, kind: type[DrupeletError], says: str) -> None:
    rude.says(answer)
    with pytest.raises(kind, match=says):
        Api(rude.url, "token").pages("/devices", key="after")


def test_a_whole_list_is_asked_for_as_one(rude: Rude) -> None:
    rude.says(ok(b'[{"id": "kiosk/1.1"}]'))
    assert Api(rude.url, "").rows("/releases") == [{"id": "kiosk/1.1"}]


@pytest.mark.parametrize("answer", [b"{}", b"[1]", b'"releases"'])
def test_what_is_no_list_is_not_taken_for_one(rude: Rude, answer: bytes) -> None:
    rude.says(ok(answer))
    with pytest.raises(Unavailable, match="no JSON list of objects"):
        Api(rude.url, "").rows("/releases")


def test_a_server_that_is_not_there_is_said_in_words(rude: Rude) -> None:
    rude.close()
    with pytest.raises(Unavailable) as caught:
        Api(rude.url, "").get("/devices")
    assert caught.value.line() == (
        f"{rude.url}/api/v1: the fleet server does not answer: Connection refused; check --server, and that it runs"
    )


def test_the_end_of_line_of_a_tokens_file_does_not_count(rude: Rude) -> None:
    rude.says(ok(b'{"items": [], "next": ""}'))
    assert Api(rude.url, "token\n").pages("/devices", key="after") == []
